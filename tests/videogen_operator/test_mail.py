"""Alerts wait for a decision only as long as they are true and somebody repeats them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import kopf
import pytest

from videogen_operator.cluster import Cluster
from videogen_operator.endpoints import serve
from videogen_operator.inbox import WAITING_SECONDS, Inbox, Mail
from videogen_operator.plan import Key
from videogen_operator.resources import MODEL_RELEASES
from videogen_operator.tokens import PodTokens
from videogen_operator.world import ObjectWorld

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
async def inbox(mail: Mail, folder: Path, woken: asyncio.Event) -> AsyncIterator[str]:
    """The real inbox, whose alerts nobody decides about; yields the address for alerts."""
    (folder / "token").write_text("secret\n")
    world = ObjectWorld([MODEL_RELEASES])
    world.store(RELEASE)
    nowhere = Cluster(lambda: kopf.ConnectionInfo(server="http://127.0.0.1:1"), (), world)
    tokens = PodTokens(nowhere, "audience", lambda: 0.0)
    runner = await serve(Inbox(mail, world, tokens, (folder / "token",), lambda _, __: woken.set()).application(), "127.0.0.1", 0)
    yield f"http://127.0.0.1:{runner.addresses[0][1]}/v1/alerts"
    await runner.cleanup()


async def post(url: str, *alerts: dict[str, Any]) -> tuple[int, Any]:
    body = {"version": "4", "alerts": alerts}
    async with aiohttp.ClientSession() as session, session.post(url, json=body, headers={"Authorization": "Bearer secret"}) as answer:
        return answer.status, await answer.json()


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
    monkeypatch.setattr("videogen_operator.inbox.DECISION_SECONDS", 0.1)
    async with inbox(Mail(), tmp_path, asyncio.Event()) as url:
        assert (await post(url, alert()))[0] == 503
