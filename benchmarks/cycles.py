"""Many FineTuneCycles, of which a part is due in the same minute, and for each of these the time until its run is there."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

import aiohttp

from benchmarks.audit import AuditLog
from benchmarks.bursts import CLIENTS, Burst, Manifest, Subject, create, rest, watching
from benchmarks.processes import cpu_seconds, resident_megabytes
from videogen_api.fine_tune_cycle import LABEL_CYCLE
from videogen_api.meta import API_VERSION
from videogen_testing.runs import EVALUATE, RELEASE, RUNS, TRAIN, a_run

CYCLES = "/apis/videogen.pib.gov.in/v1alpha1/namespaces/{}/finetunecycles"
PART_DUE = 5  # one of so many is due in the minute that is measured
LEAD = timedelta(seconds=30)  # before that minute its cycles are created


async def due_together(
    session: aiohttp.ClientSession, pid: int, agents: tuple[str, ...], namespace: str, count: int, audit: AuditLog
) -> Burst:
    """Create `count` cycles, and let a part of them be due in one minute. The seconds go from its beginning to each run."""
    runs = Subject(
        pid=pid,
        agents=agents,
        parents=CYCLES.format(namespace),
        children=RUNS.format(namespace),
        manifest=lambda name: a_cycle(name, namespace, f"0 0 1 {(datetime.now(UTC).month + 5) % 12 + 1} *"),
        parent_of=lambda run: str((run["metadata"].get("labels") or {}).get(LABEL_CYCLE, "")),
    )
    names = [f"cycle-{index:04}" for index in range(count)]
    due = names[: max(1, count // PART_DUE)]
    await _create_all(session, runs.parents, (runs.manifest(name) for name in names[len(due) :]))
    await rest(audit, agents)
    async with watching(session, runs) as watch:
        minute = _first_minute(datetime.now(UTC) + LEAD)
        await _create_all(session, runs.parents, (a_cycle(name, namespace, f"{minute:%-M %-H} * * *") for name in due))
        await rest(audit, agents)
        left = (minute - datetime.now(UTC)).total_seconds()
        assert left > 1, f"the {len(due)} cycles that are due at {minute:%H:%M} were known only {-left:.0f} s later; take fewer"
        begins = time.monotonic() + left
        await asyncio.sleep(left - 0.5)
        cpu = cpu_seconds(pid)
        await watch.wait_for(due)
        entries = await rest(audit, agents)
    return Burst(
        count=len(due),
        seconds=tuple(max(0.0, watch.seen[name] - begins) for name in due),
        cpu_ms=(cpu_seconds(pid) - cpu) * 1000 / len(due),
        entries=tuple(entry for entry in entries if entry.verb not in {"list", "watch"}),
        resident_mb=resident_megabytes(pid),
    )


def a_cycle(name: str, namespace: str, schedule: str) -> Manifest:
    """A cycle of a model of its own: of cycles of one model that are due together only one starts."""
    template = {field: value for field, value in a_run(phases=[TRAIN, EVALUATE, RELEASE])["spec"].items() if field != "model"}
    spec = {
        "cadence": "Weekly",
        "schedule": schedule,
        "model": {"family": "VideoFusion", "specialization": name},
        "runTemplate": {"spec": template},
    }
    return {"apiVersion": API_VERSION, "kind": "FineTuneCycle", "metadata": {"name": name, "namespace": namespace}, "spec": spec}


def _first_minute(moment: datetime) -> datetime:
    """The first one that begins after a moment."""
    return moment.replace(second=0, microsecond=0) + timedelta(minutes=1)


async def _create_all(session: aiohttp.ClientSession, path: str, manifests: Iterable[Manifest]) -> None:
    places = asyncio.Semaphore(CLIENTS)

    async def one(manifest: Manifest) -> None:
        async with places:
            await create(session, path, manifest)

    await asyncio.gather(*map(one, manifests))
