"""One pass for any kind: observe, measure, plan, write, tell. Written once; what is decided stands in `kinds`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import replace
from datetime import datetime
from typing import Any

import aiohttp

from videogen_operator.api_server.cluster import ApiError, Cluster
from videogen_operator.api_server.leadership import NotLeadingError
from videogen_operator.api_server.recorder import Recorder
from videogen_operator.inbound.inbox import Mail
from videogen_operator.loops import Retry
from videogen_operator.metrics_query import Prometheus
from videogen_operator.plan import Failure, Inputs, Key, Kind, Manifest, Plan, Query, Ref, StatusWrite, Unavailable, World
from videogen_operator.seals import Seals
from videogen_operator.telemetry import PASS_SECONDS, PASSES, STATUS_WRITES, Passed, Written

CONFLICT_SECONDS = 0.1
VERIFY_SECONDS = 2.0  # for the question whether an alert is true; it is sent again if Prometheus takes longer
PASSING: ContextVar[Key | None] = ContextVar("PASSING", default=None)  # whose pass the current task is
log = logging.getLogger(__name__)


class NamespaceEnds(Exception):
    """A namespace is being deleted, so nothing can be made in it."""


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
        settings: Callable[[], Mapping[str, str]],
        clock: Callable[[], datetime],
    ) -> None:
        self._kinds = {kind.name: kind for kind in kinds}
        self._world, self._cluster, self._prometheus, self._mail = world, cluster, prometheus, mail
        self._recorder = recorder
        self._settings, self._clock = settings, clock
        self.seals: Callable[[], Seals] = Seals  # without keys, unless whoever has some puts them here
        self.stand_back: Callable[[Key], Awaitable[None]] = _nobody_waits

    async def pass_once(self, key: Key) -> float | None:
        """Bring one key a step closer to what is wanted."""
        PASSING.set(key)
        with PASS_SECONDS.labels(key.kind).time():
            try:
                delay = await self._pass(self._kinds[key.kind], key)
            except BaseException as error:
                PASSES.labels(key.kind, ended(error)).inc()
                raise
        PASSES.labels(key.kind, Passed.DONE).inc()
        return delay

    async def _pass(self, kind: Kind[Any], key: Key) -> float | None:
        observed = kind.observe(self._world, key)
        if observed is None:
            if kind.alerts:
                self._mail.answer(key, dict.fromkeys((alert["fingerprint"] for alert in self._mail.alerts(key)), kind.alerts.unknown))
            return None
        inputs = await self._inputs(kind, key, observed)
        plan = kind.plan(observed, inputs)
        try:
            changed, failures = await self._change(plan)
        except NamespaceEnds as end:
            log.debug("%s: %s", key, end)
            self._mail.answer(key, plan.answers)
            return None  # what is left goes with the namespace; each object that goes wakes us again
        if failures:
            plan = kind.plan(observed, replace(inputs, failures=failures))
        if plan.create and not failures:  # what others wait for comes before what is only written down about this one
            await self.stand_back(key)
        plan = kind.finish(plan, inputs, self._clock())
        alive = await self._tell(plan)
        self._mail.answer(key, plan.answers)
        if failures:
            words = "; ".join(f"{failure.kind} {failure.name}: {failure.message}" for failure in failures)
            raise Retry(words, plan.requeue_after, max(failure.retry_after for failure in failures))
        return None if not alive else 0.0 if changed else plan.requeue_after

    async def _inputs(self, kind: Kind[Any], key: Key, observed: Any) -> Inputs:
        """What the plan may know. An alert that comes in while other things are asked does not wait for their answers."""
        inputs = self._known(key)
        if not inputs.alerts:
            measurements = await self._unless_alerted(kind.queries(observed, inputs), key)
            if measurements is not None:
                return replace(inputs, now=self._clock(), measurements=measurements)
            inputs = self._known(key)
        try:
            async with asyncio.timeout(VERIFY_SECONDS):
                measurements = await self._prometheus.ask(kind.queries(observed, inputs))
        except TimeoutError:
            measurements = {}
        return replace(inputs, now=self._clock(), measurements=measurements)

    def _known(self, key: Key) -> Inputs:
        return Inputs(
            now=self._clock(),
            progress=self._mail.progress,
            alerts=self._mail.alerts(key),
            settings=self._settings(),
            seals=self.seals(),
        )

    async def _unless_alerted(self, queries: tuple[Query, ...], key: Key) -> Mapping[str, float | Unavailable] | None:
        """The answers, or None if an alert comes in before them."""
        if not queries:
            return {}
        asking = asyncio.ensure_future(self._prometheus.ask(queries))
        alerted = asyncio.ensure_future(self._mail.arrival(key))
        try:
            await asyncio.wait({asking, alerted}, return_when=asyncio.FIRST_COMPLETED)
            return asking.result() if asking.done() else None
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
                if error.is_of_an_ending_namespace:
                    raise NamespaceEnds(str(error)) from error
                failures.append(Failure(kind, name, error.code, error.message, error.retry_after or 0.0))
                if decisive:
                    break
        return changed, tuple(failures)

    async def _tell(self, plan: Plan) -> bool:
        """Write the statuses and take the notes -> whether there is anybody left to decide about; the watch tells of who is gone."""
        written = [await self._write_status(write) for write in plan.statuses]
        for note in plan.notes:
            self._recorder.take(note)
        return any(written) or not written

    async def _write_status(self, write: StatusWrite) -> bool:
        kind, name, result = write.object["kind"], write.object["metadata"]["name"], Written.FAILED
        try:
            await self._cluster.write_status(write)
            result = Written.DONE
        except (NotLeadingError, asyncio.CancelledError):  # the process ends, and another one writes it
            result = Written.GONE
            raise
        except ApiError as error:
            if error.code == 404:
                result = Written.GONE
                log.debug("%s %s is gone, and its status with it", kind, name)
                return False
            if error.code != 409:
                raise Retry(f"status of {kind} {name}: {error}", least=error.retry_after or 0.0) from error
            result = Written.CONFLICT
            await self._refresh(write.object)
            raise Retry(f"{kind} {name} has changed meanwhile", CONFLICT_SECONDS) from error
        finally:
            STATUS_WRITES.labels(kind, result).inc()
        return True

    async def _refresh(self, item: Manifest) -> None:
        metadata = item["metadata"]
        try:
            await self._cluster.get(item["kind"], metadata.get("namespace", ""), metadata["name"])
        except ApiError as error:
            log.debug("%s %s cannot be read again: %s", item["kind"], metadata["name"], error)


async def _nobody_waits(_: Key) -> None:
    """Without loops no other pass waits."""


def ended(error: BaseException) -> Passed:
    """What the error that has ended a pass is counted as."""
    if isinstance(error, Retry):
        return Passed.RETRY
    if isinstance(error, aiohttp.ClientError | TimeoutError):
        return Passed.UNANSWERED
    return Passed.STOPPED if isinstance(error, asyncio.CancelledError | NotLeadingError) else Passed.ERROR


def writes(plan: Plan, cluster: Cluster) -> Iterator[tuple[Callable[[Any], Awaitable[bool]], Manifest | Ref, bool]]:
    """The plan's writes in their order: how, what, and whether nothing may be written after a refusal."""
    yield from ((cluster.apply, manifest, True) for manifest in plan.apply)
    yield from ((cluster.create, manifest, True) for manifest in plan.create)
    yield from ((cluster.apply, manifest, False) for manifest in plan.beside)
    yield from ((cluster.delete, ref, False) for ref in plan.delete)
