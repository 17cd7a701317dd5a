"""A burst of objects created at once, and for each the time until a controller has made its child."""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from benchmarks.audit import AuditLog, Entry, writes
from benchmarks.processes import cpu_seconds, resident_megabytes
from videogen_testing.control_plane import TOKEN, ControlPlane

CREATORS = 16  # clients at the same time
ACKNOWLEDGERS = 4
QUIET_SECONDS = 2.0  # a controller that has written nothing for so long is at rest
PATIENCE_SECONDS = 600.0
Manifest = dict[str, Any]


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Burst:
    """What one burst has cost."""

    count: int
    seconds: tuple[float, ...]  # per object: reply to its creation -> its child was seen
    cpu_ms: float  # per object
    entries: tuple[Entry, ...]  # the controller's requests but lists and watches, whose number is that of the resources
    resident_mb: float

    @property
    def requests(self) -> float:
        """Requests per object."""
        return len(self.entries) / self.count


@dataclass
class Watch:
    """When each child was first seen, by its parent's name. `time.monotonic()` seconds."""

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
    connector = aiohttp.TCPConnector(ssl=tls, limit=CREATORS + ACKNOWLEDGERS + 2)
    timeout = aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(plane.url, connector=connector, headers=headers, timeout=timeout, read_bufsize=2**20) as session:
        yield session


async def burst(session: aiohttp.ClientSession, subject: Subject, names: Sequence[str], audit: AuditLog, *, at_once: bool = True) -> Burst:
    """Create all objects, from many clients or one after the other; return once the controller is at rest again."""
    audit.read()
    cpu = cpu_seconds(subject.pid)
    async with _watching(session, subject) as watch:
        created = await (_create_at_once if at_once else _create_in_turn)(session, subject, names, watch)
        await watch.wait_for(names)
    entries = await _rest(audit, subject.agents)
    return Burst(
        count=len(names),
        seconds=tuple(max(0.0, watch.seen[name] - created[name]) for name in names),
        cpu_ms=(cpu_seconds(subject.pid) - cpu) * 1000 / len(names),
        entries=tuple(entry for entry in entries if entry.verb not in {"list", "watch"}),
        resident_mb=resident_megabytes(subject.pid),
    )


async def _create_at_once(session: aiohttp.ClientSession, subject: Subject, names: Sequence[str], _watch: Watch) -> dict[str, float]:
    places = asyncio.Semaphore(CREATORS)
    created: dict[str, float] = {}

    async def one(name: str) -> None:
        async with places:
            created[name] = await _create(session, subject.parents, subject.manifest(name))

    await asyncio.gather(*map(one, names))
    return created


async def _create_in_turn(session: aiohttp.ClientSession, subject: Subject, names: Sequence[str], watch: Watch) -> dict[str, float]:
    created = {}
    for name in names:
        created[name] = await _create(session, subject.parents, subject.manifest(name))
        await watch.wait_for([name])
        await asyncio.sleep(0.3)  # what it still has to do for this one is not the next one's
    return created


async def _create(session: aiohttp.ClientSession, path: str, manifest: Mapping[str, Any]) -> float:
    async with session.post(path, json=manifest, params={"fieldManager": "benchmark"}) as answer:
        replied = time.monotonic()
        text = await answer.text()
        assert answer.status == 201, f"creating {manifest['metadata']['name']} failed: {text[:500]}"
    return replied


@asynccontextmanager
async def _watching(session: aiohttp.ClientSession, subject: Subject) -> AsyncIterator[Watch]:
    async with session.get(subject.children, params={"limit": "1"}) as answer:
        version = (await answer.json())["metadata"]["resourceVersion"]
    watch = Watch()
    async with session.get(subject.children, params={"watch": "1", "resourceVersion": version}) as stream:
        assert stream.status == 200, await stream.text()
        tasks = [asyncio.create_task(_read(stream, subject, watch))]
        if subject.acknowledgement:
            tasks += [asyncio.create_task(_acknowledge(session, subject, watch.children)) for _ in range(ACKNOWLEDGERS)]
        try:
            yield watch
            if subject.acknowledgement:
                await asyncio.wait_for(watch.children.join(), PATIENCE_SECONDS)
        finally:
            for task in tasks:
                task.cancel()


async def _read(stream: aiohttp.ClientResponse, subject: Subject, watch: Watch) -> None:
    async for line in stream.content:
        seen, event = time.monotonic(), json.loads(line)
        if event["type"] == "ADDED":
            watch.seen.setdefault(subject.parent_of(event["object"]), seen)
            watch.children.put_nowait(event["object"]["metadata"]["name"])
            watch.news.set()


async def _acknowledge(session: aiohttp.ClientSession, subject: Subject, children: asyncio.Queue[str]) -> None:
    headers, status = {"Content-Type": "application/merge-patch+json"}, json.dumps({"status": subject.acknowledgement})
    while True:
        name = await children.get()
        async with session.patch(f"{subject.children}/{name}/status", data=status, headers=headers) as answer:
            assert answer.status == 200, await answer.text()
        children.task_done()


async def _rest(audit: AuditLog, agents: tuple[str, ...]) -> list[Entry]:
    entries: list[Entry] = []
    quiet_since = time.monotonic()
    while time.monotonic() - quiet_since < QUIET_SECONDS:
        await asyncio.sleep(0.1)
        new = audit.read(*agents)
        entries += new
        if writes(new):
            quiet_since = time.monotonic()
    return entries
