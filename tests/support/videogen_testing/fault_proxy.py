"""A reverse proxy between the operator and the API server, which records every write and carries out a plan of faults.

Plain HTTP to the operator, TLS to the API server; watches are streamed line by line. Writes are named by what they are
(`Point`), not by when they come: verb, resource, object, and how many times the same one was committed before. So a
plan that was made from one run's record fits another run.
"""

import asyncio
import json
import re
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Literal

import aiohttp
from aiohttp import web

from videogen_testing.control_plane import ControlPlane
from videogen_testing.tls_session import tls_session

WRITES = frozenset({"POST", "PUT", "PATCH", "DELETE"})
NOT_STATE = frozenset({"tokenreviews"})  # questions that are asked by POST
HOP_BY_HOP = frozenset({"connection", "content-length", "content-encoding", "host", "keep-alive", "transfer-encoding"})
ADDRESS = re.compile(
    r"/(?:api/[^/]+|apis/[^/]+/[^/]+)(?:/namespaces/(?P<namespace>[^/]+)(?=/))?/(?P<resource>[^/]+)(?:/(?P<name>[^/]+))?(?:/(?P<sub>[^/]+))?"
)
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|\+00:00)")
REASONS = {403: "Forbidden", 404: "NotFound", 409: "Conflict", 410: "Expired", 422: "Invalid", 429: "TooManyRequests"} | {
    500: "InternalError",
    503: "ServiceUnavailable",
    504: "Timeout",
}


@dataclass(frozen=True, slots=True, order=True)
class Point:
    """The n-th commit of one write, counted from 1. The name of an Event is what it is about, its reason and its words."""

    verb: str
    resource: str  # with subresource, such as trainingruns/status
    name: str
    nth: int = 1

    def __str__(self) -> str:
        return f"{self.verb} {self.resource} {self.name} #{self.nth}"


@dataclass(frozen=True, slots=True)
class WriteFault:
    """What happens to one write, once: before it reaches the API server, or after it was committed.

    `kill` ends the operator, `lose` closes the connection without an answer, `hold` never answers, and a number is
    the HTTP status that is answered instead of asking the API server.
    """

    point: Point
    when: Literal["before", "after"]
    action: Literal["kill", "lose", "hold"] | int

    def __str__(self) -> str:
        return f"{self.action} {self.when} {self.point}"


@dataclass(frozen=True, slots=True)
class ReadFault:
    """What happens to lists or watches of one resource while the fault is on, at most so many times."""

    resource: str
    on: Literal["list", "watch"]
    action: Literal["lose", "hold"] | int
    times: int = 10**9


@dataclass(frozen=True, slots=True)
class Write:
    """A write as it passed."""

    point: Point
    status: int  # 0: it did not reach the API server


@dataclass(eq=False, slots=True)
class _Stream:
    """One open watch."""

    resource: str
    response: web.StreamResponse
    stalled: bool = False
    ended: asyncio.Event = field(default_factory=asyncio.Event)


class FaultProxy:
    """One operator's way to the API server. The public attributes may be changed while it runs."""

    def __init__(self, plane: ControlPlane) -> None:
        self.writes: list[Write] = []
        self.faults: list[WriteFault] = []
        self.fired: list[WriteFault] = []
        self.read_faults: list[ReadFault] = []
        self.refused_reads: Counter[ReadFault] = Counter()
        self.lists: Counter[str] = Counter()  # by resource: how often a list has begun, and how often one has ended
        self.url = ""
        self.throttles = 0  # answers of 429
        self.throttled = False  # everything but leader election is answered with 429
        self.list_seconds = 0.0  # that each page of a list takes
        self.kill: Callable[[], None] = lambda: None  # ends the operator
        self._plane = plane
        self._commits: Counter[tuple[str, str, str]] = Counter()
        self._streams: set[_Stream] = set()
        self._handlers: set[asyncio.Task[Any]] = set()

    @asynccontextmanager
    async def serving(self) -> AsyncIterator["FaultProxy"]:
        """Listens on a free loopback port, `url`, for the length of the block."""
        context = ssl.create_default_context(cafile=str(self._plane.ca))
        application = web.Application(client_max_size=8 * 2**20)
        application.router.add_route("*", "/{path:.*}", self._kept_alive)
        runner = web.AppRunner(application, access_log=None, handle_signals=False, shutdown_timeout=0.2)
        async with tls_session(context, timeout=aiohttp.ClientTimeout(total=None), auto_decompress=False) as self._session:
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
            try:
                yield self
            finally:
                self.cut()
                await runner.cleanup()
                for task in self._handlers:
                    task.cancel()
                await asyncio.gather(*self._handlers, return_exceptions=True)

    def points(self) -> list[Point]:
        """Every write that was committed, in order."""
        return [write.point for write in self.writes if 200 <= write.status < 300]

    def made(self, status: int, verb: str = "") -> Counter[str]:
        """How often each object was written with this HTTP status: 201 is a creation, also by an apply."""
        chosen = (write.point for write in self.writes if write.status == status and verb in {"", write.point.verb})
        return Counter(f"{point.resource} {point.name}" for point in chosen)

    # Faults of open watches ---------------------------------------------------------------------------------------

    async def inject(self, resource: str, event: dict[str, Any]) -> int:
        """Write an event into the open watches of a resource, as if the API server had sent it. Returns their number."""
        streams = self._open(resource)
        for stream in streams:
            await stream.response.write(json.dumps(event).encode() + b"\n")
        return len(streams)

    def stall(self, resource: str) -> int:
        """The open watches of a resource stay connected and never say anything again."""
        streams = self._open(resource)
        for stream in streams:
            stream.stalled = True
        return len(streams)

    def cut(self, resource: str = "") -> int:
        """Close the open watches of a resource, or all, in the middle of the stream."""
        streams = self._open(resource)
        for stream in streams:
            stream.ended.set()
        return len(streams)

    def hears(self, resource: str) -> bool:
        """Whether a watch of the resource is open and speaks."""
        return bool(self._open(resource))

    def _open(self, resource: str) -> list[_Stream]:
        return [stream for stream in self._streams if resource in {"", stream.resource} and not stream.stalled]

    # Requests -----------------------------------------------------------------------------------------------------

    async def _kept_alive(self, request: web.Request) -> web.StreamResponse:
        """Nothing else refers to the handler of a connection that has been lost: it would be collected while it waits."""
        task = asyncio.current_task()
        assert task is not None
        self._handlers.add(task)
        task.add_done_callback(self._handlers.discard)
        return await self._handle(request)

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        found = ADDRESS.match(request.path)
        parts = found.groupdict() if found else {}
        if self.throttled and parts.get("resource") != "leases":
            self.throttles += 1
            return _status(429)
        if request.method in WRITES and parts.get("resource") not in NOT_STATE:
            return await self._write(request, parts)
        if parts.get("resource") and not parts.get("name"):
            on: Literal["list", "watch"] = "watch" if "watch" in request.query else "list"
            if (fault := self._read_fault(str(parts["resource"]), on)) is not None:
                return await self._refuse(request, fault.action)
            if on == "watch":
                return await self._watch(request, str(parts["resource"]))
            return await self._list(request, str(parts["resource"]))
        return await self._forward(request, await request.read())

    async def _list(self, request: web.Request, resource: str) -> web.StreamResponse:
        self.lists[resource] += 1
        await asyncio.sleep(self.list_seconds)
        try:
            return await self._forward(request, await request.read())
        finally:
            self.lists[resource] += 1

    def _read_fault(self, resource: str, on: str) -> ReadFault | None:
        for fault in self.read_faults:
            if (fault.resource, fault.on) == (resource, on) and self.refused_reads[fault] < fault.times:
                self.refused_reads[fault] += 1
                return fault
        return None

    async def _write(self, request: web.Request, parts: dict[str, str | None]) -> web.StreamResponse:
        body = await request.read()
        resource = str(parts["resource"]) + (f"/{parts['sub']}" if parts.get("sub") else "")
        same = (request.method, resource, parts.get("name") or _name_in(body))
        point = Point(*same, nth=self._commits[same] + 1)
        if fault := self._write_fault(point, "before"):
            self.writes.append(Write(point, 0))
            return await self._refuse(request, fault.action)
        response = await self._forward(request, body)
        self.writes.append(Write(point, response.status))
        if 200 <= response.status < 300:
            self._commits[same] += 1
            if fault := self._write_fault(point, "after"):
                return await self._refuse(request, fault.action)
        return response

    def _write_fault(self, point: Point, when: str) -> WriteFault | None:
        fault = next((one for one in self.faults if (one.point, one.when) == (point, when) and one not in self.fired), None)
        if fault is not None:
            self.fired.append(fault)
        return fault

    async def _refuse(self, request: web.Request, action: str | int) -> web.StreamResponse:
        if isinstance(action, int):
            return _status(action)
        if action == "hold":
            await asyncio.sleep(3600)
        if action == "kill":
            self.kill()
        if request.transport is not None:
            request.transport.abort()
        return web.Response()

    async def _forward(self, request: web.Request, body: bytes) -> web.Response:
        async with self._session.request(
            request.method, self._target(request), data=body or None, headers=_kept(request.headers)
        ) as answer:
            kept = _kept(answer.headers) | ({"Content-Encoding": coding} if (coding := answer.headers.get("Content-Encoding")) else {})
            return web.Response(status=answer.status, body=await answer.read(), headers=kept)

    async def _watch(self, request: web.Request, resource: str) -> web.StreamResponse:
        headers = _kept(request.headers) | {"Accept-Encoding": "identity"}
        async with self._session.get(self._target(request), headers=headers) as answer:
            if answer.status != 200:
                return web.Response(status=answer.status, body=await answer.read(), headers=_kept(answer.headers))
            stream = _Stream(resource, web.StreamResponse(headers=_kept(answer.headers)))
            with suppress(ConnectionResetError):  # the operator has ended
                await stream.response.prepare(request)
                await self._stream(answer, stream)
            if stream.ended.is_set() and request.transport is not None:
                request.transport.abort()
            return stream.response

    async def _stream(self, answer: aiohttp.ClientResponse, stream: _Stream) -> None:
        self._streams.add(stream)
        pump = asyncio.create_task(self._pump(answer, stream))
        ended = asyncio.create_task(stream.ended.wait())
        try:
            await asyncio.wait({pump, ended}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._streams.discard(stream)
            pump.cancel()
            ended.cancel()
            await asyncio.gather(pump, ended, return_exceptions=True)

    async def _pump(self, answer: aiohttp.ClientResponse, stream: _Stream) -> None:
        rest = b""
        async for chunk in answer.content.iter_any():
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                if not stream.stalled:
                    await stream.response.write(line + b"\n")
        if stream.stalled:
            await stream.ended.wait()

    def _target(self, request: web.Request) -> str:
        return self._plane.url + request.path_qs


def _kept(headers: Any) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name.lower() not in HOP_BY_HOP}


def _name_in(body: bytes) -> str:
    """Name of a new object, of a job file without its hash; of an Event what it is about, because its name is a hash.

    Both hashes have a UID in them. Times in an Event's words are another one in each story.
    """
    manifest = json.loads(body)
    if manifest.get("kind") == "Event":
        return f"{manifest['regarding']['kind']}/{manifest['regarding']['name']}: {manifest['reason']}: {TIME.sub('<time>', manifest['note'])[:60]}"
    name = str(manifest["metadata"]["name"])
    return re.sub("-[0-9a-f]{8}$", "", name) if manifest.get("kind") == "ConfigMap" else name


def status_object(code: int) -> dict[str, Any]:
    """A metav1.Status, as the API server answers it or sends it in an ERROR event."""
    said = f"injected by the test: {REASONS[code]}"
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": said} | {
        "reason": REASONS[code],
        "code": code,
    }


def _status(code: int) -> web.Response:
    headers = {"Retry-After": "1"} if code == 429 else {}
    return web.json_response(status_object(code), status=code, headers=headers)
