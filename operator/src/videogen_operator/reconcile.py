"""One pass for any kind: observe, measure, plan, write, tell. Written once; what is decided stands in `kinds`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import replace
from datetime import datetime
from typing import Any

from videogen_operator.cluster import ApiError, Cluster
from videogen_operator.inbox import Mail
from videogen_operator.loops import Retry
from videogen_operator.metrics_query import Prometheus
from videogen_operator.plan import Failure, Inputs, Key, Kind, Manifest, Plan, Query, Ref, StatusWrite, Unavailable, World
from videogen_operator.recorder import Recorder
from videogen_operator.telemetry import PASS_SECONDS, PASSES

CONFLICT_SECONDS = 0.1
PASSING: ContextVar[Key | None] = ContextVar("PASSING", default=None)  # whose pass the current task is
log = logging.getLogger(__name__)


class Reconciler:
    """`pass_once(key)` returns the seconds until the next pass, None to wait for a change; raises loops.Retry."""

    def __init__(
        self,
        kinds: tuple[Kind[Any], ...],
        *,
        world: World,
        cluster: Cluster,
        prometheus: Prometheus,
        mail: Mail,
        recorder: Recorder,
        settings: Mapping[str, str],
        clock: Callable[[], datetime],
    ) -> None:
        self._kinds = {kind.name: kind for kind in kinds}
        self._world, self._cluster, self._prometheus, self._mail = world, cluster, prometheus, mail
        self._recorder = recorder
        self._settings, self._clock = settings, clock

    async def pass_once(self, key: Key) -> float | None:
        """Bring one key a step closer to what is wanted."""
        PASSING.set(key)
        with PASS_SECONDS.labels(key.kind).time():
            try:
                delay = await self._pass(self._kinds[key.kind], key)
            except BaseException as error:
                PASSES.labels(key.kind, type(error).__name__).inc()
                raise
        PASSES.labels(key.kind, "Done").inc()
        return delay

    async def _pass(self, kind: Kind[Any], key: Key) -> float | None:
        observed = kind.observe(self._world, key)
        if observed is None:
            self._mail.answer(key, {alert["fingerprint"]: "UnknownRelease" for alert in self._mail.alerts(key)})
            return None
        inputs = await self._inputs(kind, key, observed)
        plan = kind.plan(observed, inputs)
        changed, failures = await self._change(plan)
        if failures:
            plan = kind.plan(observed, replace(inputs, failures=failures))
        if inputs.alerts:
            plan = timed(plan, inputs.alerts, self._clock())
        await self._tell(plan)
        self._mail.answer(key, plan.answers)
        if failures:
            raise Retry("; ".join(f"{failure.kind} {failure.name}: {failure.message}" for failure in failures), plan.requeue_after)
        return 0.0 if changed else plan.requeue_after

    async def _inputs(self, kind: Kind[Any], key: Key, observed: Any) -> Inputs:
        measurements = await self._measurements(kind.queries(observed, self._clock()), key)
        return Inputs(
            now=self._clock(),
            measurements=measurements,
            progress=self._mail.progress,
            alerts=self._mail.alerts(key),
            settings=self._settings,
        )

    async def _measurements(self, queries: tuple[Query, ...], key: Key) -> Mapping[str, float | Unavailable]:
        """The answers; none if an alert waits or comes: a rollback waits for nobody, least of all for a Prometheus that is slow."""
        if not queries or self._mail.alerts(key):
            return {}
        asking = asyncio.ensure_future(self._prometheus.ask(queries))
        alerted = asyncio.ensure_future(self._mail.arrival(key))
        try:
            await asyncio.wait({asking, alerted}, return_when=asyncio.FIRST_COMPLETED)
            return asking.result() if asking.done() else {}
        finally:
            asking.cancel()
            alerted.cancel()

    async def _change(self, plan: Plan) -> tuple[bool, tuple[Failure, ...]]:
        changed, failures = False, []
        for write, what, decisive in writes(plan, self._cluster):
            kind, name = (what.kind, what.name) if isinstance(what, Ref) else (what["kind"], what["metadata"]["name"])
            try:
                changed |= await write(what)
            except ApiError as error:
                failures.append(Failure(kind, name, error.code, error.message))
                if decisive:
                    break
        return changed, tuple(failures)

    async def _tell(self, plan: Plan) -> None:
        for write in plan.statuses:
            await self._write_status(write)
        for note in plan.notes:
            self._recorder.take(note)

    async def _write_status(self, write: StatusWrite) -> None:
        metadata = write.object["metadata"]
        try:
            await self._cluster.write_status(write)
        except ApiError as error:
            if error.code not in {404, 409}:
                raise Retry(f"status of {write.object['kind']} {metadata['name']}: {error}") from error
            await self._refresh(write.object)
            raise Retry(f"{write.object['kind']} {metadata['name']} has changed meanwhile", CONFLICT_SECONDS) from error

    async def _refresh(self, item: Manifest) -> None:
        metadata = item["metadata"]
        try:
            await self._cluster.get(item["kind"], metadata.get("namespace", ""), metadata["name"])
        except ApiError as error:
            log.debug("%s %s cannot be read again: %s", item["kind"], metadata["name"], error)


def writes(plan: Plan, cluster: Cluster) -> Iterator[tuple[Callable[[Any], Awaitable[bool]], Manifest | Ref, bool]]:
    """The plan's writes in their order: how, what, and whether nothing may be written after a refusal."""
    yield from ((cluster.apply, manifest, True) for manifest in plan.apply)
    yield from ((cluster.create, manifest, True) for manifest in plan.create)
    yield from ((cluster.apply, manifest, False) for manifest in plan.beside)
    yield from ((cluster.delete, ref, False) for ref in plan.delete)


def timed(plan: Plan, alerts: tuple[Manifest, ...], now: datetime) -> Plan:
    """The plan with `rollback.seconds` filled in: from the alert's arrival to now, when the route has just been changed."""
    arrived = {
        alert["labels"].get("release"): datetime.fromisoformat(alert["receivedAt"])
        for alert in alerts
        if plan.answers.get(alert["fingerprint"]) == "RolledBack"
    }
    return replace(plan, statuses=tuple(_timed(write, arrived.get(write.object["metadata"]["name"]), now) for write in plan.statuses))


def _timed(write: StatusWrite, arrived: datetime | None, now: datetime) -> StatusWrite:
    record = write.status.get("rollback")
    if arrived is None or not record or record.get("seconds"):
        return write
    seconds = f"{(now - arrived).total_seconds():.3f}"
    return replace(write, status={**write.status, "rollback": {**record, "seconds": seconds}})
