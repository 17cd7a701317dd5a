"""What the operator says of itself: /metrics on one port; /healthz (restart me), /readyz (I can work or take over) and
/leaderz (I work) on another, so that nobody who asks for metrics keeps the kubelet waiting.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from aiohttp import web
from prometheus_client import REGISTRY, CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from videogen_operator.watchdog import Watchdog

RENDERING_SECONDS = 1.0
PIECE_BYTES = 64 * 1024
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Renderings:
    """Metrics as text, rendered in a thread at most once a second. Whoever asks gets the next one that begins: none is old.

    `freeze` is called on the event loop before each: what must not change while a thread reads it is put aside there.
    """

    def __init__(self, registry: CollectorRegistry = REGISTRY, freeze: Callable[[], None] = lambda: None) -> None:
        self._registry, self._freeze = registry, freeze
        self._begun = float("-inf")
        self._one_at_a_time = asyncio.Lock()
        self._next: asyncio.Task[bytes] | None = None

    async def next(self) -> bytes:
        """The next rendering, shared by all who wait for it."""
        if self._next is None:
            self._next = asyncio.create_task(self._render(), name="rendering metrics")
        return await asyncio.shield(self._next)

    async def _render(self) -> bytes:
        async with self._one_at_a_time:
            await asyncio.sleep(self._begun + RENDERING_SECONDS - time.monotonic())
            self._begun, self._next = time.monotonic(), None
            self._freeze()
            return await asyncio.to_thread(generate_latest, self._registry)


def metrics(renderings: Renderings) -> web.Application:
    """/metrics, in the text format that every Prometheus reads."""

    async def answer(request: web.Request) -> web.StreamResponse:
        """In pieces, each of which waits until the last one is read: a reader who does not read is cut off while it holds little."""
        body = memoryview(await renderings.next())
        response = web.StreamResponse(headers={"Content-Type": CONTENT_TYPE_PLAIN_0_0_4})
        response.content_length = len(body)
        await response.prepare(request)
        for start in range(0, len(body), PIECE_BYTES):
            await response.write(body[start : start + PIECE_BYTES])
        await response.write_eof()
        return response

    app = web.Application()
    app.router.add_get("/metrics", answer)
    return app


def probes(watchdog: Watchdog) -> web.Application:
    """A probe answers 503 with the reason."""
    app = web.Application()
    app.router.add_get("/healthz", _probe(watchdog.dead))
    app.router.add_get("/readyz", _probe(watchdog.unready))
    app.router.add_get("/leaderz", _probe(watchdog.idle))
    return app


def _probe(problem: Callable[[], str]) -> Handler:
    async def answer(_: web.Request) -> web.Response:
        said = problem()
        return web.Response(status=503 if said else 200, text=said or "ok")

    return answer
