import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from videogen_operator import metrics_query
from videogen_operator.inbound.authority import CA_CERTIFICATE, CERTIFICATE, KEY, ensured
from videogen_operator.metrics_query import Access, Prometheus
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


Asked = list[dict[str, str]]  # the headers of each question
ONE = [Query("q", "up")]


@asynccontextmanager
async def serving(
    status: int, body: str, delay: float = 0.0, asked: Asked | None = None, tls: ssl.SSLContext | None = None, location: str = ""
) -> AsyncIterator[str]:
    async def answer(request: web.Request) -> web.Response:
        if asked is not None:
            asked.append(dict(request.headers))
        await asyncio.sleep(delay)
        headers = {"Location": location} if location else {}
        return web.Response(status=status, text=body, content_type="application/json", headers=headers)

    app = web.Application()
    app.router.add_post("/api/v1/query", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
    await site.start()
    yield f"{'https' if tls else 'http'}://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


def reason_of(answer: float | Unavailable) -> str:
    assert isinstance(answer, Unavailable)
    return answer.reason


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


async def test_each_question_carries_the_headers_and_the_token_as_it_is_now(tmp_path: Path) -> None:
    asked, token = Asked(), tmp_path / "token"
    async with serving(200, vector("1"), asked=asked) as url:
        prometheus = Prometheus(url, Access(token_file=token, headers={"X-Scope-OrgID": "video"}))
        for text in ("old\n", "new"):
            token.write_text(text)
            assert await prometheus.ask(ONE) == {"q": 1.0}
    assert [one["Authorization"] for one in asked] == ["Bearer old", "Bearer new"]
    assert [one["X-Scope-OrgID"] for one in asked] == ["video", "video"]


@pytest.mark.parametrize("content", [None, "", "two words", "\u00fc"], ids=["no file", "nothing", "two words", "no ASCII"])
async def test_nothing_is_asked_without_a_token_that_can_be_read(tmp_path: Path, content: str | None) -> None:
    asked, token = Asked(), tmp_path / "token"
    if content is not None:
        token.write_text(content, encoding="utf-8")
    async with serving(200, vector("1"), asked=asked) as url:
        answers = await Prometheus(url, Access(token_file=token)).ask(ONE)
    assert "look at the chart's prometheus.existingSecret" in reason_of(answers["q"])
    assert asked == []


async def test_a_redirect_takes_the_token_nowhere(tmp_path: Path) -> None:
    asked, token = Asked(), tmp_path / "token"
    token.write_text("secret")
    async with serving(200, vector("1"), asked=asked) as elsewhere, serving(307, "", location=f"{elsewhere}/api/v1/query") as url:
        answers = await Prometheus(url, Access(token_file=token)).ask(ONE)
    assert "answered 307" in reason_of(answers["q"])
    assert asked == []


def certified(folder: Path, authority: Path) -> ssl.SSLContext:
    """A server's certificate of an authority of its own, whose certificate is written to `authority`."""
    files = ensured({}, ["127.0.0.1"], datetime.now(UTC))
    authority.write_bytes(files[CA_CERTIFICATE])
    for name in (CERTIFICATE, KEY):
        (folder / name).write_bytes(files[name])
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(folder / CERTIFICATE, folder / KEY)
    return context


async def test_prometheus_is_verified_by_the_authority_of_the_file_as_it_is_now(tmp_path: Path) -> None:
    trusted, other = tmp_path / "ca.crt", tmp_path / "other.crt"
    context = certified(tmp_path, trusted)
    right = trusted.read_bytes()
    async with serving(200, vector("1"), tls=context) as url:
        assert "cannot be read" in reason_of((await Prometheus(url).ask(ONE))["q"]), "the system does not know it"
        prometheus = Prometheus(url, Access(ca_file=trusted))
        assert await prometheus.ask(ONE) == {"q": 1.0}
        certified(tmp_path, other)
        other.replace(trusted)
        assert "cannot be read" in reason_of((await prometheus.ask(ONE))["q"])
        trusted.write_bytes(right)
        assert await prometheus.ask(ONE) == {"q": 1.0}
        trusted.write_text("no certificate at all")
        assert "look at the chart's prometheus.existingSecret" in reason_of((await prometheus.ask(ONE))["q"])
