"""What is measured of the operator while the cluster is full: at rest, under reports, and when a release changes."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import aiohttp

from benchmarks.audit import AuditLog, Entry, writes
from benchmarks.load import scene
from benchmarks.load.filling import RELEASES, Trainer
from benchmarks.load.scene import OF_A_SERVICE, Size
from benchmarks.processes import cpu_seconds, resident_megabytes
from videogen_testing.control_plane import ControlPlane, end, eventually, process
from videogen_testing.operator_process import OperatorProcess
from videogen_testing.other_controllers import Client, View
from videogen_testing.webhook import an_alert

NAMESPACE = "benchmark"
AGENTS = ("Python/", "kopf/")  # aiohttp's and kopf's user agents
QUIET_SECONDS = 8.0  # without a write
REST_SECONDS = 30.0
LOAD_SECONDS = 60.0
SCRAPE_SECONDS = 15.0
EVENT_SECONDS = 0.1  # between two changes of releases
PATIENCE_SECONDS = 600.0


class Operator:
    """The real operator as a process, serving all namespaces."""

    def __init__(self, plane: ControlPlane) -> None:
        tokens = plane.folder / "tokens-of-namespaces"  # any alert is taken with its namespace's own
        tokens.mkdir()
        for number in range(scene.NAMESPACES):
            (tokens / scene.namespace_of(number)).write_text(_token(scene.namespace_of(number)), encoding="ascii")
        changes = {"VIDEOGEN_NAMESPACES": "", "VIDEOGEN_ALERT_NAMESPACE_TOKENS": str(tokens)}
        self._process = OperatorProcess(plane, NAMESPACE, plane.folder, ExitStack(), **changes)
        self.inbox_port, self.log = self._process.inbox_port, self._process.log

    @contextmanager
    def running(self, profile: Path | None = None) -> Iterator[int]:
        """Start it, yield its process ID once it is ready, stop it by SIGTERM."""
        program = ["benchmarks.profiled", str(profile)] if profile else ["videogen_operator"]
        with process([sys.executable, "-m", *program], self.log, self._process.environment) as child:
            eventually(lambda: self._process.probe("leaderz") == 200 or child.poll() is not None, PATIENCE_SECONDS, every=0.1)
            assert child.poll() is None, f"the operator has ended: {self.log.read_text(encoding='utf-8')[-2000:]}"
            yield child.pid
            code = end(child, signal.SIGTERM, PATIENCE_SECONDS)
            assert code == 0, f"the operator ended with {code}: {self.log.read_text(encoding='utf-8')[-2000:]}"

    def passes(self) -> Counter[str]:
        """Finished passes by kind; none while keys wait for theirs."""
        values = dict(line.rsplit(" ", 1) for line in self.metrics().splitlines() if not line.startswith("#"))
        if any(float(value) > 0 for name, value in values.items() if name.startswith("videogen_reconcile_queue_depth{")):
            return Counter()
        kinds = ("TrainingRun", "ModelRelease", "FineTuneCycle")
        return Counter({kind: int(float(values.get(f'videogen_reconcile_total{{kind="{kind}",result="Done"}}', 0))) for kind in kinds})

    def metrics(self) -> str:
        """As Prometheus gets them."""
        return self._process.metrics()


def _token(namespace: str) -> str:
    return f"secret-of-{namespace}"


@dataclass
class Seen:
    """What the benchmark has measured."""

    restart_seconds: float = 0.0
    restart_cpu: float = 0.0
    restart_writes: list[Entry] = field(default_factory=list)
    rest_cores: float = 0.0
    release_ms: float = 0.0
    reports: int = 0
    refused: int = 0
    statuses: int = 0  # written under load
    reviews: int = 0
    cores: float = 0.0
    progress_ms: float = 0.0
    routes: list[float] = field(default_factory=list)  # seconds from the webhook to the route
    resident_mb: float = 0.0
    peak_mb: float = 0.0


@dataclass(frozen=True, slots=True)
class Cpu:
    """CPU time of a process from a moment on."""

    pid: int
    used: float
    since: float

    @classmethod
    def of(cls, pid: int) -> Cpu:
        """From now on."""
        return cls(pid, cpu_seconds(pid), time.monotonic())

    @property
    def seconds(self) -> float:
        """Wall time so far."""
        return time.monotonic() - self.since

    @property
    def spent(self) -> float:
        """CPU seconds so far."""
        return cpu_seconds(self.pid) - self.used


async def quiet(audit: AuditLog) -> list[Entry]:
    """Wait until the operator has written nothing for a while. Returns what it wrote before."""
    found: list[Entry] = []
    since = begun = time.monotonic()
    while time.monotonic() - since < QUIET_SECONDS:
        assert time.monotonic() - begun < PATIENCE_SECONDS, "the operator writes without end"
        await asyncio.sleep(0.5)
        new = writes(audit.read(*AGENTS))
        found += new
        since = time.monotonic() if new else since
    return found


async def converged(operator: Operator, size: Size) -> None:
    """Wait until the loop of everything has had its pass."""
    wanted = Counter({"TrainingRun": size.runs, "ModelRelease": size.services, "FineTuneCycle": size.cycles})
    begun = time.monotonic()
    while not wanted <= await asyncio.to_thread(operator.passes):
        assert time.monotonic() - begun < PATIENCE_SECONDS, "not everything had its pass"
        await asyncio.sleep(0.5)


async def at_rest(pid: int, seen: Seen) -> None:
    """What it costs that all of it is there."""
    cpu = Cpu.of(pid)
    await asyncio.sleep(REST_SECONDS)
    seen.rest_cores = cpu.spent / cpu.seconds


async def release_events(api: Client, pid: int, size: Size, seen: Seen) -> None:
    """Each release gets a label, which is news to everything that concerns it."""
    cpu, count = Cpu.of(pid), size.services * OF_A_SERVICE
    for number in range(count):
        service, place = number % size.services, number // size.services
        path = f"{RELEASES.format(scene.namespace_of(service))}/{scene.release_name(service, place)}"
        await asyncio.gather(api.merge(path, {"metadata": {"labels": {"benchmark": "1"}}}), asyncio.sleep(EVENT_SECONDS))
    await asyncio.sleep(2.0)
    seen.release_ms = 1000 * (cpu.spent - seen.rest_cores * cpu.seconds) / count


@asynccontextmanager
async def reporting(operator: Operator, trainers: list[Trainer], folder: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """All trainers report, and each one's token is known."""
    file = folder / "tokens"
    file.write_text("\n".join(one.token for one in trainers), encoding="ascii")
    command = [sys.executable, "-m", "benchmarks.load.trainers", str(operator.inbox_port), str(file)]
    pipe = asyncio.subprocess.PIPE
    reporters = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe)
    try:
        before, begun = Counter[str](), time.monotonic()
        while True:
            await asyncio.sleep(10.0)
            now = await told(reporters)
            new, before = now - before, now
            if new["200"] == new.total() >= len(trainers):
                print(f"all trainers are known {time.monotonic() - begun:.0f} s after their start: {dict(now)}", flush=True)
                break
            assert time.monotonic() - begun < PATIENCE_SECONDS, f"reports are refused: {new}"
        yield reporters
    finally:
        assert reporters.stdin
        reporters.stdin.close()
        await reporters.wait()


async def told(reporters: asyncio.subprocess.Process) -> Counter[str]:
    """How many reports had which answer so far."""
    assert reporters.stdin
    assert reporters.stdout
    reporters.stdin.write(b"count\n")
    await reporters.stdin.drain()
    return Counter(json.loads(await reporters.stdout.readline()))


async def under_reports(operator: Operator, pid: int, reporters: asyncio.subprocess.Process, audit: AuditLog, seen: Seen) -> None:
    """A minute of reports, with a scrape of the metrics as often as Prometheus asks."""
    audit.read()
    before, cpu = await told(reporters), Cpu.of(pid)
    while cpu.seconds < LOAD_SECONDS:
        await asyncio.gather(asyncio.to_thread(operator.metrics), asyncio.sleep(SCRAPE_SECONDS))
    spent, seconds, new = cpu.spent, cpu.seconds, await told(reporters) - before
    entries = writes(audit.read(*AGENTS))
    seen.reports, seen.refused, seen.cores = new["200"], new.total() - new["200"], spent / seconds
    seen.statuses = sum(entry.resource == "trainingruns/status" for entry in entries)
    seen.reviews = sum(entry.resource == "tokenreviews" for entry in entries)
    seen.progress_ms = 1000 * (spent - seen.rest_cores * seconds) / max(1, seen.reports)
    others = Counter(entry.resource for entry in entries)
    print(f"in {seconds:.0f} s of reports: {dict(new)}; written: {dict(others)}", flush=True)


async def roll_backs(operator: Operator, views: dict[str, View], count: int, seen: Seen) -> None:
    """Webhooks name canaries, one after the other, while all trainers report."""
    async with aiohttp.ClientSession() as session:
        for service in range(count):
            view, name = views[scene.namespace_of(service)], scene.release_name(service, OF_A_SERVICE - 1)
            body = {"version": "4", "alerts": [an_alert(name, view.namespace, datetime.now(UTC))]}
            begun = time.monotonic()
            async with asyncio.TaskGroup() as both:  # a webhook that is refused ends the wait for the route
                both.create_task(_send(session, operator.inbox_port, view.namespace, body))
                await view.until(lambda: _weight(view, service, name) == 0, PATIENCE_SECONDS, f"{name} is rolled back")  # noqa: B023
                seen.routes.append(time.monotonic() - begun)
            await asyncio.sleep(0.3)


async def _send(session: aiohttp.ClientSession, port: int, namespace: str, body: object) -> None:
    headers = {"Authorization": f"Bearer {_token(namespace)}"}
    async with session.post(f"http://127.0.0.1:{port}/v1/alerts", json=body, headers=headers) as answer:
        text = await answer.text()
    assert answer.status == 200, text
    assert "RolledBack" in text, text


def _weight(view: View, service: int, release: str) -> int:
    """Percent of the traffic of the release's service."""
    rules = view.get("HTTPRoute", scene.service_name(service)).get("spec", {}).get("rules") or [{}]
    weights: dict[str, int] = {one["name"]: one["weight"] for one in rules[-1].get("backendRefs", [])}
    return round(100 * weights.get(release.replace(".", "-"), 0) / max(1, sum(weights.values())))


def memory(pid: int, seen: Seen) -> None:
    """Now, and at most so far."""
    seen.resident_mb, seen.peak_mb = resident_megabytes(pid), resident_megabytes(pid, peak=True)
