import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest
from aiohttp import web

from videogen_operator import metrics_query
from videogen_operator.metrics_query import Prometheus
from videogen_operator.plan import Query, Unavailable


def vector(*values: str) -> str:
    return json.dumps({"status": "success", "data": {"resultType": "vector", "result": [{"metric": {}, "value": [0, v]} for v in values]}})


ANSWERS = {
    "one number": (200, vector("0.25"), 0.25),
    "a scalar": (200, json.dumps({"data": {"resultType": "scalar", "result": [0, "3"]}}), 3.0),
    "no data": (200, vector(), "no data"),
    "NaN": (200, vector("NaN"), "nan"),
    "infinity": (200, vector("+Inf"), "inf"),
    "two series": (200, vector("1", "2"), "2 series"),
    "a wrong query": (400, '{"status":"error","error":"parse error"}', "parse error"),
    "a broken server": (500, "oops", "answered 500"),
    "no JSON": (200, "<html>", "cannot be read"),
    "other JSON": (200, "[]", "unknown form"),
}


@asynccontextmanager
async def serving(status: int, body: str, delay: float = 0.0) -> AsyncIterator[str]:
    async def answer(_: web.Request) -> web.Response:
        await asyncio.sleep(delay)
        return web.Response(status=status, text=body, content_type="application/json")

    app = web.Application()
    app.router.add_post("/api/v1/query", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


@pytest.mark.parametrize("status, body, wanted", ANSWERS.values(), ids=ANSWERS.keys())
async def test_only_one_finite_number_is_a_measurement(status: int, body: str, wanted: float | str) -> None:
    async with serving(status, body) as url:
        found = (await Prometheus(url).ask([Query("q", "up")]))["q"]
    if isinstance(wanted, float):
        assert found == wanted
    else:
        assert isinstance(found, Unavailable)
        assert wanted in found.reason


async def test_a_server_that_is_away_slow_or_not_configured_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics_query, "TIMEOUT", aiohttp.ClientTimeout(total=0.1))
    async with serving(200, vector("1"), delay=1) as url:
        slow = (await Prometheus(url).ask([Query("q", "up")]))["q"]
    away = (await Prometheus("http://127.0.0.1:1").ask([Query("q", "up")]))["q"]
    absent = (await Prometheus("").ask([Query("q", "up")]))["q"]
    assert all(isinstance(answer, Unavailable) for answer in (slow, away, absent))
    assert await Prometheus("").ask([]) == {}
