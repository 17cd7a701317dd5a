"""The operator's own HTTP port: /metrics, /healthz (restart me) and /readyz (send me nothing)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiohttp import web
from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.exposition import choose_encoder

from videogen_operator.watchdog import Watchdog

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def application(watchdog: Watchdog, registry: CollectorRegistry = REGISTRY) -> web.Application:
    """Routes; a probe answers 503 with the reason."""
    app = web.Application()
    app.router.add_get("/healthz", _probe(watchdog.dead))
    app.router.add_get("/readyz", _probe(watchdog.unready))
    app.router.add_get("/metrics", _metrics(registry))
    return app


def _probe(problem: Callable[[], str]) -> Handler:
    async def answer(_: web.Request) -> web.Response:
        said = problem()
        return web.Response(status=503 if said else 200, text=said or "ok")

    return answer


def _metrics(registry: CollectorRegistry) -> Handler:
    async def answer(request: web.Request) -> web.Response:
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        return web.Response(body=encode(registry), headers={"Content-Type": content_type})

    return answer


async def serve(app: web.Application, host: str, port: int) -> web.AppRunner:
    """Start serving; the runner's `cleanup` ends it."""
    runner = web.AppRunner(app, access_log=None, handle_signals=False)
    await runner.setup()
    await web.TCPSite(runner, host, port).start()
    return runner
