"""Alerts wait for a decision only as long as they are true and somebody repeats them."""

import asyncio
import io
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import kopf
import pytest
from prometheus_client import REGISTRY

from videogen_operator.api_server.cluster import Cluster
from videogen_operator.api_server.world import ObjectWorld
from videogen_operator.inbound.inbox import WAITING_SECONDS, WEBHOOK_BYTES, AlertTokens, Inbox, Mail
from videogen_operator.inbound.listening import serve
from videogen_operator.inbound.tokens import PodTokens
from videogen_operator.kinds import KINDS
from videogen_operator.plan import Key
from videogen_operator.resources import MODEL_RELEASES
from videogen_operator.steady_clock import wall

KEY = Key("ModelRelease", "models", "standard")
RELEASE = {
    "apiVersion": "videogen.pib.gov.in/v1alpha1",
    "kind": "ModelRelease",
    "metadata": {"name": "bad", "namespace": "models", "uid": "u"},
    "spec": {"service": "standard"},
}


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def alert(status: str = "firing", fingerprint: str = "f") -> dict[str, Any]:
    labels = {"alertname": "Slow", "namespace": "models", "release": "bad"}
    return {"status": status, "labels": labels, "annotations": {}, "startsAt": "2026-11-01T00:00:00Z", "fingerprint": fingerprint}


async def test_an_alert_that_nobody_decides_about_and_nobody_repeats_is_forgotten() -> None:
    clock = Clock()
    mail = Mail(clock)
    mail.expect(KEY, alert())
    clock.now = WAITING_SECONDS - 1
    assert [one["fingerprint"] for one in mail.alerts(KEY)] == ["f"]
    clock.now = WAITING_SECONDS + 1
    assert mail.alerts(KEY) == (), "it would roll back something long after"
    mail.forget()
    first = mail.expect(KEY, alert())
    assert mail.alerts(KEY) != (), "Alertmanager repeats it as long as it fires"
    assert not first.done()


async def test_a_repeated_alert_waits_on_and_has_one_answer() -> None:
    clock = Clock()
    mail = Mail(clock)
    first = mail.expect(KEY, alert())
    clock.now = WAITING_SECONDS - 1
    assert mail.expect(KEY, alert()) is first
    clock.now = WAITING_SECONDS + 1
    mail.forget()
    assert len(mail.alerts(KEY)) == 1
    mail.answer(KEY, {"f": "RolledBack"})
    assert await first == "RolledBack"
    assert mail.alerts(KEY) == ()


@asynccontextmanager
async def inbox(mail: Mail, folder: Path, woken: asyncio.Event, clock: Callable[[], datetime] = wall) -> AsyncIterator[str]:
    """The real inbox, whose alerts nobody decides about; yields the address for alerts."""
    (folder / "token").write_text("secret\n")
    world = ObjectWorld([MODEL_RELEASES])
    world.store(RELEASE)
    nowhere = Cluster(lambda: kopf.ConnectionInfo(server="http://127.0.0.1:1"), (), world)
    tokens = PodTokens(nowhere, "audience", lambda: 0.0)
    alert_tokens = AlertTokens((folder / "token",))
    taker = Inbox(KINDS, mail, world, tokens, alert_tokens, lambda _, __: woken.set(), clock)
    runner = await serve(taker.application(), "127.0.0.1", 0)
    yield f"http://127.0.0.1:{runner.addresses[0][1]}/v1/alerts"
    await runner.cleanup()


async def post(url: str, *alerts: object, version: str = "4", more: str = "") -> tuple[int, Any]:
    body = io.BytesIO(json.dumps({"version": version, "alerts": alerts, "message": more}).encode())
    async with aiohttp.ClientSession() as session, session.post(url, data=body, headers={"Authorization": "Bearer secret"}) as answer:
        return answer.status, await answer.json()


def counted(result: str) -> float:
    return REGISTRY.get_sample_value("videogen_alerts_total", {"result": result}) or 0.0


async def test_an_alert_that_is_resolved_before_the_decision_is_dropped(tmp_path: Path) -> None:
    mail, woken = Mail(), asyncio.Event()
    async with inbox(mail, tmp_path, woken) as url:
        firing = asyncio.create_task(post(url, alert(), alert(fingerprint="another")))
        await woken.wait()
        assert len(mail.alerts(KEY)) == 2
        assert await post(url, alert("resolved")) == (200, {"results": []})
        assert [one["fingerprint"] for one in mail.alerts(KEY)] == ["another"]
        mail.answer(KEY, {"another": "NotServing"})
        assert await firing == (200, {"results": ["Resolved", "NotServing"]})


async def test_alertmanager_repeats_what_was_not_decided(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("videogen_operator.inbound.inbox.DECISION_SECONDS", 0.1)
    async with inbox(Mail(), tmp_path, asyncio.Event()) as url:
        assert (await post(url, alert()))[0] == 503


async def test_an_alert_says_when_it_came_by_the_clock_of_the_plans_and_how_far_that_is_from_the_machines(tmp_path: Path) -> None:
    mail, woken, plans = Mail(), asyncio.Event(), datetime(2026, 1, 1, tzinfo=UTC)
    async with inbox(mail, tmp_path, woken, lambda: plans) as url:
        firing = asyncio.create_task(post(url, alert()))
        await woken.wait()
        (one,) = mail.alerts(KEY)
        mail.answer(KEY, {"f": "NotServing"})
        await firing
    assert one["receivedAt"] == plans.isoformat()
    assert abs(one["clockAhead"] - (wall() - plans).total_seconds()) < 60


GRAFANA = {  # what Grafana adds to an alert
    "endsAt": "0001-01-01T00:00:00Z",
    "generatorURL": "https://grafana.example.org/alerting/1afz29v7z/edit",
    "values": {"A": 44.2, "B": None},
    "silenceURL": "",
    "dashboardURL": "",
    "panelURL": "",
    "orgId": 1,
}


async def test_an_alert_of_grafana_is_decided_as_one_of_alertmanager_is(tmp_path: Path) -> None:
    mail, woken = Mail(), asyncio.Event()
    async with inbox(mail, tmp_path, woken) as url:
        firing = asyncio.create_task(post(url, alert() | GRAFANA, version="1"))
        await woken.wait()
        (one,) = mail.alerts(KEY)
        assert one["labels"] == alert()["labels"]
        mail.answer(KEY, {"f": "RolledBack"})
        assert await firing == (200, {"results": ["RolledBack"]})


async def test_a_malformed_alert_is_named_and_counted_and_those_beside_it_are_decided(tmp_path: Path) -> None:
    mail, woken, before = Mail(), asyncio.Event(), counted("Malformed")
    async with inbox(mail, tmp_path, woken) as url:
        firing = asyncio.create_task(post(url, alert() | {"labels": {"release": 7}}, alert(), "firing"))
        await woken.wait()
        mail.answer(KEY, {"f": "NotServing"})
        code, answer = await firing
    assert (code, answer["results"]) == (200, ["NotServing"])
    first, second = answer["malformed"]
    assert first == "alerts.0.labels.release: Input should be a valid string, found 7"
    assert second.startswith("alerts.2: ")
    assert counted("Malformed") == before + 2


async def test_a_webhook_of_malformed_alerts_alone_is_refused(tmp_path: Path) -> None:
    before = counted("Malformed")
    async with inbox(Mail(), tmp_path, asyncio.Event()) as url:
        code, answer = await post(url, {"status": "firing", "labels": {}})
    assert (code, answer["message"]) == (400, "alerts.0.startsAt: Field required, found {'status': 'firing', 'labels': {}}")
    assert counted("Malformed") == before + 1


async def test_a_webhook_that_is_too_large_is_refused_and_counted(tmp_path: Path) -> None:
    before = counted("TooLarge")
    async with inbox(Mail(), tmp_path, asyncio.Event()) as url:
        code, answer = await post(url, more="x" * WEBHOOK_BYTES)
    assert (code, answer["result"]) == (413, "TooLarge")
    assert counted("TooLarge") == before + 1
