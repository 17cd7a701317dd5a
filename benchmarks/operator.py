"""`python -m benchmarks.operator`: what a TrainingRun costs the operator, against a real API server.

Starts etcd, kube-apiserver, the controller manager and the real operator; creates 1, 100 and 1,000 TrainingRuns, waits for
the PyTorchJobs of their preflights, lets those pass, and waits for the PyTorchJobs of the first phases; then restarts the
operator, which must find that nothing is to be done; and lets 100 of 500 FineTuneCycles be due in one minute. The same numbers
of PyTorchJobs for Kubeflow's training-operator are the peer. docs/benchmarks.md says what each figure means.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from benchmarks.audit import AuditLog, summary, writes
from benchmarks.bursts import Burst, Pods, Subject, burst, client
from benchmarks.cycles import due_together
from benchmarks.figures import Figure, circumstances, percentile, table
from benchmarks.peer import peer
from benchmarks.processes import cpu_seconds, resident_megabytes
from videogen_api.meta import LABEL_RUN
from videogen_testing.control_plane import Api, ControlPlane, control_plane, end, eventually, process
from videogen_testing.operator_process import OperatorProcess
from videogen_testing.runs import EVALUATE, JOBS, RELEASE, RUNS, TRAIN, a_claim, a_run, ended, passed, pods_of
from videogen_testing.upstream_crds import gateway_definitions, install, own_definitions, pytorch_job_definition

NAMESPACE = "benchmark"
AGENTS = ("Python/", "kopf/")  # aiohttp's and kopf's user agents
WARM_UP_SECONDS = 3.0  # readiness does not wait for the watches, and a first creation would measure their start
SINGLES = 20  # a burst of one is repeated, for its percentiles
P99_AIMS = {1: 0.3, 100: 2.0, 1000: 15.0}
CYCLES, DUE_AIM = 500, 2.0  # seconds from the scheduled time
AT_REST_SECONDS = 20.0  # longer than any timer of a run that waits for its pods
# What training-operator says at once about every job; without it a run says after 30 s that nobody looks at its job.
CREATED = {"type": "Created", "status": "True", "reason": "PyTorchJobCreated", "message": "PyTorchJob is created."}


@dataclass(frozen=True, slots=True)
class Restart:
    """A restart with nothing to do."""

    runs: int
    seconds: float  # process start -> everything listed and the loop of every run has had its pass
    writes: tuple[str, ...]
    cpu_seconds: float  # the same in CPU time, which does not depend on who else uses the machine
    resident_mb: float  # at most
    rest_ms: float  # CPU per second afterwards


class Operator:
    """The real operator as a process, serving all namespaces."""

    def __init__(self, plane: ControlPlane, profile: Path | None) -> None:
        self._process = OperatorProcess(plane, NAMESPACE, plane.folder, ExitStack(), VIDEOGEN_NAMESPACES="")
        self._profile = profile

    @contextmanager
    def running(self) -> Iterator[int]:
        """Start it, yield its process ID once it is ready, stop it by SIGTERM."""
        program = ["benchmarks.profiled", str(self._profile)] if self._profile else ["videogen_operator"]
        self._profile = None  # of the bursts alone: a restart would overwrite it
        command = [sys.executable, "-m", *program]
        with process(command, self._process.log, self._process.environment) as child:
            eventually(lambda: self._process.probe("leaderz") == 200, 60, every=0.1)
            yield child.pid
            code = end(child, signal.SIGTERM)
            assert code == 0, f"the operator ended with {code}: {self._process.log.read_text(encoding='utf-8')[-2000:]}"

    def writes(self) -> float:
        """Writes to the API server so far by its own count, the Lease's apart."""
        return self._process.requests("POST", "PUT", "PATCH", "DELETE")

    def passes(self) -> float:
        """Finished passes of TrainingRuns so far; 0 while some wait for theirs."""
        values = dict(line.rsplit(" ", 1) for line in self._process.metrics().splitlines() if not line.startswith("#"))
        if any(float(value) > 0 for name, value in values.items() if name.startswith("videogen_reconcile_queue_depth{")):
            return 0.0
        return float(values.get('videogen_reconcile_total{kind="TrainingRun",result="Done"}', 0.0))


def main(arguments: list[str]) -> int:
    """0 when everything happened, at whatever speed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.operator", description=__doc__)
    parser.add_argument("--runs", type=int, nargs="+", default=[1, 100, 1000], help="sizes of the bursts")
    parser.add_argument("--cycles", type=int, default=CYCLES, help="FineTuneCycles, of which a fifth is due together; 0: none")
    parser.add_argument("--without-peer", action="store_true", help="leave Kubeflow's training-operator out")
    parser.add_argument("--profile", type=Path, help="write a cProfile of the operator there; its times are then too long")
    options = parser.parse_args(arguments)
    print(circumstances(), flush=True)
    with tempfile.TemporaryDirectory(prefix="videogen-benchmark-") as name:
        folder = Path(name)
        audit = AuditLog(folder)
        with control_plane(folder, *audit.flags) as plane:
            _prepare(plane.api)
            try:
                figures, problems = asyncio.run(_measure(plane, audit, options))
            except (AssertionError, TimeoutError) as error:
                figures, problems = [], [str(error)]
    print("\n" + table(figures))
    for problem in problems:
        print(f"benchmark: {problem}", file=sys.stderr)
    return 1 if problems else 0


def _prepare(api: Api) -> None:
    install(api, [*own_definitions(), pytorch_job_definition(), *gateway_definitions()])
    api.create("/api/v1/namespaces", {"metadata": {"name": NAMESPACE}})
    api.create(f"/api/v1/namespaces/{NAMESPACE}/persistentvolumeclaims", a_claim())


async def _measure(plane: ControlPlane, audit: AuditLog, options: argparse.Namespace) -> tuple[list[Figure], list[str]]:
    operator, problems = Operator(plane, options.profile), []
    async with client(plane) as session:
        with operator.running() as pid:
            await asyncio.sleep(WARM_UP_SECONDS)
            bursts = {size: await _burst(session, _subject(pid), size, audit, "TrainingRuns") for size in options.runs}
            audited = sum(len(writes(list(one.entries))) for children in bursts.values() for one in children)
            counted = operator.writes()
        if audited != counted:
            problems.append(f"the audit log has {audited} writes of the operator, and its own metric says {counted:.0f}")
        runs = len(plane.api.items(RUNS.format(NAMESPACE)))
        restart = await _restart(operator, audit, runs)
        due = await _cycles(session, operator, audit, options.cycles) if options.cycles else None
        peers = {}
        if not options.without_peer:
            job = next(job for job in plane.api.items(JOBS.format(NAMESPACE)) if job["metadata"]["name"].endswith("-train-1"))
            with peer(plane, job) as subject:
                await asyncio.sleep(WARM_UP_SECONDS)
                peers = {size: await _burst(session, subject, size, audit, "PyTorchJobs (peer)") for size in options.runs}
    return [*_figures(bursts, peers), *_restart_figures(restart), *_cycle_figures(due, options.cycles)], problems


def _subject(pid: int) -> Subject:
    return Subject(
        pid=pid,
        agents=AGENTS,
        parents=RUNS.format(NAMESPACE),
        children=JOBS.format(NAMESPACE),
        manifest=lambda name: a_run(name, NAMESPACE, phases=[TRAIN, EVALUATE, RELEASE]),
        parent_of=lambda job: str(job["metadata"]["labels"][LABEL_RUN]),
        acknowledgement={"conditions": [CREATED]},
        pods=Pods(f"/api/v1/namespaces/{NAMESPACE}/pods", pods_of, ended(0, passed())),
    )


async def _burst(session: aiohttp.ClientSession, subject: Subject, size: int, audit: AuditLog, what: str) -> list[Burst]:
    names = [f"of-{size}-{index:04}" for index in range(size if size > 1 else SINGLES)]
    measured = await burst(session, subject, names, audit, at_once=size > 1)
    for place, one in enumerate(measured, 1):
        worst = percentile(one.seconds, 0.99)
        print(f"{size} {what}, child {place}: p99 {worst:.2f} s, {one.cpu_ms:.1f} ms CPU each; {summary(list(one.entries))}", flush=True)
    return measured


async def _cycles(session: aiohttp.ClientSession, operator: Operator, audit: AuditLog, count: int) -> Burst:
    with operator.running() as pid:
        await asyncio.sleep(WARM_UP_SECONDS)
        due = await due_together(session, pid, AGENTS, NAMESPACE, count, audit)
    print(f"{due.count} of {count} FineTuneCycles due: {summary(list(due.entries))}", flush=True)
    return due


async def _restart(operator: Operator, audit: AuditLog, runs: int) -> Restart:
    audit.read()
    started = time.monotonic()
    with operator.running() as pid:
        while operator.passes() < runs:
            assert time.monotonic() - started < 300, f"not every one of {runs} runs had its pass 300 s after a restart"
            await asyncio.sleep(0.2)
        seconds = time.monotonic() - started
        cpu, since = cpu_seconds(pid), time.monotonic()
        await asyncio.sleep(AT_REST_SECONDS)
        rest = (cpu_seconds(pid) - cpu) * 1000 / (time.monotonic() - since)
        found = writes(audit.read(*AGENTS))
        print(f"restart with {runs} runs: {seconds:.1f} s, wrote {summary(found)}", flush=True)
        return Restart(runs, seconds, tuple(entry.resource for entry in found), cpu, resident_megabytes(pid, peak=True), rest)


def _figures(bursts: dict[int, list[Burst]], peers: dict[int, list[Burst]]) -> Iterator[Figure]:
    for size, ours in bursts.items():
        (theirs,) = peers.get(size, [None])
        for what, one in zip(("created → preflight's job", "preflight passed → first phase's job"), ours, strict=True):
            for share, aim in ((0.5, None), (0.99, P99_AIMS.get(size))):
                name = f"{size} at once: {what}, p{share * 100:.0f}"
                yield Figure(name, percentile(one.seconds, share), "s", aim, percentile(theirs.seconds, share) if theirs else None)
            yield Figure(f"{size} at once: {what}, CPU each", one.cpu_ms, "ms", 15, theirs.cpu_ms if theirs else None)
    for size, ours in bursts.items():
        (theirs,) = peers.get(size, [None])
        requests = sum(one.requests for one in ours)
        yield Figure(f"{size} at once: API requests each, for both jobs", requests, "", 12, theirs.requests if theirs else None)
        memory = ours[-1].resident_mb
        yield Figure(f"{size} at once: resident memory after", memory, "MB", 100, theirs.resident_mb if theirs else None)


def _restart_figures(restart: Restart) -> Iterator[Figure]:
    name = f"restart with {restart.runs} settled runs"
    yield Figure(f"{name}: until converged", restart.seconds, "s", 8)
    yield Figure(f"{name}: CPU time until converged", restart.cpu_seconds, "s")
    yield Figure(f"{name}: writes", len(restart.writes), "", 0)
    yield Figure(f"{name}: resident memory, peak", restart.resident_mb, "MB", 100)
    yield Figure(f"{name}: CPU per second at rest", restart.rest_ms, "ms")


def _cycle_figures(due: Burst | None, count: int) -> Iterator[Figure]:
    if due is None:
        return
    name = f"{due.count} of {count} cycles due in one minute: scheduled time → run"
    yield Figure(f"{name}, p50", percentile(due.seconds, 0.5), "s")
    yield Figure(f"{name}, p99", percentile(due.seconds, 0.99), "s", DUE_AIM)
    yield Figure(f"{name} and its preflight's job, CPU each", due.cpu_ms, "ms")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
