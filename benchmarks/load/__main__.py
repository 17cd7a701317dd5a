"""`python -m benchmarks.load`: what an event costs the operator in a cluster that is full, against a real API server.

Puts runs, releases, cycles, nodes and pods there, in the states in which the operator leaves them; lets the real operator roll two
releases out in each service; restarts it, which must find that nothing is to be done; changes each release; lets the trainers of the
live runs report for a minute; and rolls canaries back meanwhile. docs/benchmarks.md says what each figure means.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path

from benchmarks.audit import AuditLog, summary
from benchmarks.figures import Figure, circumstances, percentile, table
from benchmarks.load import filling, measuring, scene
from benchmarks.load.measuring import NAMESPACE, Operator, Seen
from benchmarks.load.scene import NAMESPACES, Size
from benchmarks.processes import cpu_seconds
from videogen_testing.control_plane import ControlPlane, control_plane
from videogen_testing.crash_story import GATEWAY, GATEWAYS
from videogen_testing.other_controllers import Client, Refused, View
from videogen_testing.upstream_crds import gateway_definitions, install, own_definitions, pytorch_job_definition

ROLL_BACKS = 20


def main(arguments: list[str]) -> int:
    """0 when everything happened, at whatever speed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.load", description=__doc__)
    parser.add_argument("--scale", type=float, default=1.0, help="how much of everything there is, of the whole")
    parser.add_argument("--profile", type=Path, help="write a cProfile of the operator there; its times are then too long")
    options = parser.parse_args(arguments)
    size = Size.scaled(options.scale)
    print(f"{circumstances()}\n{size}", flush=True)
    with tempfile.TemporaryDirectory(prefix="videogen-benchmark-") as name:
        folder = Path(name)
        audit = AuditLog(folder)
        with control_plane(folder, *audit.flags) as plane:
            install(plane.api, [*own_definitions(), pytorch_job_definition(), *gateway_definitions()])
            try:
                seen = asyncio.run(_measure(plane, audit, size, options.profile))
            except (AssertionError, TimeoutError, Refused) as error:
                print(f"benchmark: {error}", file=sys.stderr)
                return 1
    print("\n" + table(_figures(seen, size)))
    return 0


async def _measure(plane: ControlPlane, audit: AuditLog, size: Size, profile: Path | None) -> Seen:
    plane.api.create("/api/v1/namespaces", {"metadata": {"name": NAMESPACE}})
    plane.api.create(GATEWAYS.format(NAMESPACE), GATEWAY)
    operator, seen, began = Operator(plane), Seen(), time.monotonic()
    async with filling.client(plane) as api, AsyncExitStack() as stack:
        trainers = await filling.prepare(api, size)
        _tell(began, f"{size.runs} runs, {size.cycles} cycles and the superseded releases stand")
        views = {scene.namespace_of(number): View(api, scene.namespace_of(number)) for number in range(NAMESPACES)}
        for view in views.values():
            await stack.enter_async_context(view.watching())
        await stack.enter_async_context(filling.playing(api, views.values()))
        with operator.running():
            await filling.roll_out(api, views, size)
            found = await measuring.quiet(audit)
        _tell(began, f"the operator has rolled out 2 releases in each of {size.services} services; it wrote {summary(found)}")
        await _measure_operator(api, operator, views, trainers, audit, size, seen, profile)
        _tell(began, "measured")
    return seen


async def _measure_operator(
    api: Client,
    operator: Operator,
    views: dict[str, View],
    trainers: list[filling.Trainer],
    audit: AuditLog,
    size: Size,
    seen: Seen,
    profile: Path | None,
) -> None:
    audit.read()
    started = time.monotonic()
    with operator.running(profile) as pid:
        await measuring.converged(operator, size)
        seen.restart_seconds, seen.restart_cpu = time.monotonic() - started, cpu_seconds(pid)
        seen.restart_writes = await measuring.quiet(audit)
        _tell(started, f"restarted; wrote {summary(seen.restart_writes)}")
        await measuring.at_rest(pid, seen)
        _tell(started, f"at rest {seen.rest_cores:.3f} cores")
        await measuring.release_events(api, pid, size, seen)
        _tell(started, f"{seen.release_ms:.2f} ms CPU for each release that changed")
        async with measuring.reporting(operator, trainers, operator.log.parent) as reporters:
            await measuring.under_reports(operator, pid, reporters, audit, seen)
            await measuring.roll_backs(operator, views, min(ROLL_BACKS, size.services), seen)
        measuring.memory(pid, seen)


def _tell(since: float, words: str) -> None:
    print(f"{time.monotonic() - since:6.1f} s  {words}", flush=True)


def _figures(seen: Seen, size: Size) -> Iterator[Figure]:
    yield Figure(f"{size.live} live runs report every 5 s: CPU cores over a minute", seen.cores, "", 0.6)
    yield Figure("the same at rest, without reports", seen.rest_cores, "")
    yield Figure(f"CPU for each of {seen.reports} progress events", seen.progress_ms, "ms", 1)
    yield Figure("CPU for each event of a release", seen.release_ms, "ms", 3)
    yield Figure("reports that were refused", seen.refused, "", 0)
    yield Figure("statuses written, of all reports", seen.statuses / max(1, seen.reports), "", 1 / 3)
    yield Figure("tokens reviewed in that minute", seen.reviews, "")
    yield Figure("webhook → route under reports, p50", percentile(seen.routes, 0.5), "s", 0.1)
    yield Figure("webhook → route under reports, largest", max(seen.routes), "s")
    yield Figure("resident memory", seen.resident_mb, "MB")
    yield Figure("resident memory, peak", seen.peak_mb, "MB", 400)
    yield Figure("restart: until converged", seen.restart_seconds, "s", 20)
    yield Figure("restart: CPU time until converged", seen.restart_cpu, "s")
    yield Figure("restart: writes", len(seen.restart_writes), "", 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
