"""A burst of objects created at once, and for each the time until a controller has made its child, and the child after that one."""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from benchmarks.audit import AuditLog, Entry, writes
from benchmarks.processes import cpu_seconds, resident_megabytes
from videogen_testing.control_plane import TOKEN, ControlPlane
from videogen_testing.tls_session import tls_session

CLIENTS = 16  # at the same time
ACKNOWLEDGERS = 4
QUIET_SECONDS = 2.0  # a controller that has written nothing for so long is at rest
PATIENCE_SECONDS = 600.0
Manifest = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Pods:
    """The pods of a child, which no kubelet of this control plane runs."""

    path: str  # URL path of their collection
    of: Callable[[Manifest], list[Manifest]]
    well_ended: Manifest  # their last status


@dataclass(frozen=True, slots=True)
class Subject:
    """A running controller: what it is given, and what it makes of it."""

    pid: int
    agents: tuple[str, ...]  # beginnings of its user agents
    parents: str  # URL path of what the harness creates
    children: str  # URL path of what the controller makes of it
    manifest: Callable[[str], Manifest]
    parent_of: Callable[[Manifest], str]  # name of a child's parent
    acknowledgement: Manifest | None = None  # merged into each child's status, which is what the child's own controller does first
    pods: Pods | None = None  # of a first child: once they have ended well, a second child is made


@dataclass(frozen=True, slots=True, kw_only=True)
class Burst:
    """What one child for each object of a burst has cost."""

    count: int
    seconds: tuple[float, ...]  # per object: reply to what called for the child -> the child was seen
    cpu_ms: float  # per object
    entries: tuple[Entry, ...]  # the controller's requests but lists and watches, whose number is that of the resources
    resident_mb: float

    @property
    def requests(self) -> float:
        """Requests per object."""
        return len(self.entries) / self.count


@dataclass
class Watch:
    """The last child of each parent, by the parent's name, and when it was seen in `time.monotonic()` seconds."""

    made: dict[str, Manifest] = field(default_factory=dict)
    seen: dict[str, float] = field(default_factory=dict)
    children: asyncio.Queue[str] = field(default_factory=asyncio.Queue)  # names, until they are acknowledged
    news: asyncio.Event = field(default_factory=asyncio.Event)

    async def wait_for(self, names: Sequence[str]) -> None:
        """Return once all of them were seen. Raises TimeoutError that says how many are missing."""
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                while not self.seen.keys() >= set(names):
                    await self.news.wait()
                    self.news.clear()
        except TimeoutError:
            missing = sorted(set(names) - self.seen.keys())
            raise TimeoutError(f"{len(missing)} of {len(names)} have no child after {PATIENCE_SECONDS:.0f} s, {missing[0]} first") from None


@asynccontextmanager
async def client(plane: ControlPlane) -> AsyncIterator[aiohttp.ClientSession]:
    """An HTTP client of the API server, as an administrator."""
    tls = ssl.create_default_context(cafile=str(plane.ca))
    headers = {"Authorization": f"Bearer {TOKEN}", "User-Agent": "benchmark"}
    timeout = aiohttp.ClientTimeout(total=None)
    limit = CLIENTS + ACKNOWLEDGERS + 2
    async with tls_session(tls, plane.url, limit=limit, headers=headers, timeout=timeout, read_bufsize=2**20) as session:
        yield session


async def burst(
    session: aiohttp.ClientSession, subject: Subject, names: Sequence[str], audit: AuditLog, *, at_once: bool = True
) -> list[Burst]:
    """Create all objects, from many clients or one after the other; then end the pods of their first children. One result per child."""

    async def make(name: str) -> float:
        return await create(session, subject.parents, subject.manifest(name))

    async def conclude(name: str) -> float:
        assert subject.pods
        return await _conclude(session, subject.pods, watch.made[name])

    async with watching(session, subject) as watch:
        found = [await _one_child_each(make, subject, names, audit, watch, at_once)]
        if subject.pods:
            watch.seen.clear()
            found.append(await _one_child_each(conclude, subject, names, audit, watch, at_once))
    return found


async def _one_child_each(
    call: Callable[[str], Awaitable[float]], subject: Subject, names: Sequence[str], audit: AuditLog, watch: Watch, at_once: bool
) -> Burst:
    """Call for a child of each; return once the controller is at rest again."""
    audit.read()
    cpu = cpu_seconds(subject.pid)
    places = asyncio.Semaphore(CLIENTS if at_once else 1)
    called: dict[str, float] = {}

    async def one(name: str) -> None:
        async with places:
            called[name] = await call(name)
            if not at_once:
                await watch.wait_for([name])
                await asyncio.sleep(0.3)  # what it still has to do for this one is not the next one's

    await asyncio.gather(*map(one, names))
    await watch.wait_for(names)
    await asyncio.wait_for(watch.children.join(), PATIENCE_SECONDS)
    entries = await rest(audit, subject.agents)
    return Burst(
        count=len(names),
        seconds=tuple(max(0.0, watch.seen[name] - called[name]) for name in names),
        cpu_ms=(cpu_seconds(subject.pid) - cpu) * 1000 / len(names),
        entries=tuple(entry for entry in entries if entry.verb not in {"list", "watch"}),
        resident_mb=resident_megabytes(subject.pid),
    )


async def create(session: aiohttp.ClientSession, path: str, manifest: Mapping[str, Any]) -> float:
    """Create an object -> when the reply came, in `time.monotonic()` seconds."""
    async with session.post(path, json=manifest, params={"fieldManager": "benchmark"}) as answer:
        replied = time.monotonic()
        text = await answer.text()
        assert answer.status == 201, f"creating {manifest['metadata']['name']} failed: {text[:500]}"
    return replied


async def _conclude(session: aiohttp.ClientSession, pods: Pods, child: Manifest) -> float:
    """What a kubelet does: the pod of the child exists, and then it has ended well."""
    headers, status = {"Content-Type": "application/merge-patch+json"}, json.dumps({"status": pods.well_ended})
    (pod,) = pods.of(child)
    await create(session, pods.path, pod)
    async with session.patch(f"{pods.path}/{pod['metadata']['name']}/status", data=status, headers=headers) as answer:
        replied = time.monotonic()
        assert answer.status == 200, await answer.text()
    return replied


@asynccontextmanager
async def watching(session: aiohttp.ClientSession, subject: Subject) -> AsyncIterator[Watch]:
    """See the children that are made from now on."""
    async with session.get(subject.children, params={"limit": "1"}) as answer:
        version = (await answer.json())["metadata"]["resourceVersion"]
    watch = Watch()
    async with session.get(subject.children, params={"watch": "1", "resourceVersion": version}) as stream:
        assert stream.status == 200, await stream.text()
        tasks = [asyncio.create_task(_read(stream, subject, watch))]
        tasks += [asyncio.create_task(_acknowledge(session, subject, watch.children)) for _ in range(ACKNOWLEDGERS)]
        try:
            yield watch
        finally:
            for task in tasks:
                task.cancel()


async def _read(stream: aiohttp.ClientResponse, subject: Subject, watch: Watch) -> None:
    async for line in stream.content:
        seen, event = time.monotonic(), json.loads(line)
        if event["type"] == "ADDED":
            parent = subject.parent_of(event["object"])
            watch.made[parent] = event["object"]
            watch.seen.setdefault(parent, seen)
            watch.children.put_nowait(event["object"]["metadata"]["name"])
            watch.news.set()


async def _acknowledge(session: aiohttp.ClientSession, subject: Subject, children: asyncio.Queue[str]) -> None:
    headers, status = {"Content-Type": "application/merge-patch+json"}, json.dumps({"status": subject.acknowledgement})
    while True:
        name = await children.get()
        if subject.acknowledgement:
            async with session.patch(f"{subject.children}/{name}/status", data=status, headers=headers) as answer:
                assert answer.status == 200, await answer.text()
        children.task_done()


async def rest(audit: AuditLog, agents: tuple[str, ...]) -> list[Entry]:
    """The controller's requests until it has written nothing for a while."""
    entries: list[Entry] = []
    quiet_since = time.monotonic()
    while time.monotonic() - quiet_since < QUIET_SECONDS:
        await asyncio.sleep(0.1)
        new = audit.read(*agents)
        entries += new
        if writes(new):
            quiet_since = time.monotonic()
    return entries
