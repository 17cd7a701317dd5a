"""Whoever may write a rule, or has one namespace's token, posts alerts about a release that is well, or is not theirs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import aiohttp
import kopf
import pytest
import yaml

from videogen_operator.api_server.cluster import Cluster
from videogen_operator.api_server.world import ObjectWorld
from videogen_operator.inbound.inbox import AlertTokens, Inbox, Mail
from videogen_operator.inbound.listening import serve
from videogen_operator.inbound.tokens import PodTokens
from videogen_operator.kinds import KINDS
from videogen_operator.kinds.model_release.judging.alerts import VERIFIED
from videogen_operator.plan import Key
from videogen_operator.resources import MODEL_RELEASES
from videogen_testing.patience import HANGS
from videogen_testing.releases import NAMESPACE, SERVICE, a_release, an_alert, name_of
from videogen_testing.service_simulation import Simulation

OLD, NEW = "1.0.0", "1.1.0"
RULES = Path(__file__).parents[2] / "charts/videogen/files/rules.yaml"
LATENCY = {"name": "latency", "metric": "LatencyP95Seconds", "maximum": "10", "windowSeconds": 20}
ROLLOUT = {"steps": [{"weightPercent": 50, "minimumRequests": 10**6}], "checks": [LATENCY], "checkIntervalSeconds": 3600}


def canary() -> Simulation:
    simulation = Simulation(a_release(OLD, rollout=ROLLOUT))
    simulation.until(OLD, "Stable")
    simulation.put(a_release(NEW, at=simulation.now, rollout=ROLLOUT))
    simulation.until(NEW, "Canary")
    simulation.tick(3)
    return simulation


def posted(simulation: Simulation, **alert: Any) -> str:
    """The answer to an alert about the canary."""
    simulation.alerts.append(an_alert(name_of(NEW), **{"at": simulation.now} | alert))
    simulation.settle()
    return simulation.answers[simulation.alerts[-1]["fingerprint"]]


@pytest.mark.parametrize("name", VERIFIED)
def test_a_known_alert_about_a_release_that_is_well_is_not_believed(name: str) -> None:
    simulation = canary()
    assert posted(simulation, name=name) == "NotConfirmed"
    assert (simulation.state(NEW), simulation.weights()) == ("Canary", {OLD: 50, NEW: 50})


def test_a_known_alert_is_believed_when_prometheus_says_the_same_although_no_round_of_checks_is_due() -> None:
    simulation = canary()
    simulation.latency[NEW] = 60.0
    simulation.run_users()
    assert posted(simulation) == "RolledBack"
    assert simulation.weights()[OLD] == 100


def test_without_prometheus_nothing_is_decided_and_the_alert_must_be_sent_again() -> None:
    simulation = canary()
    simulation.latency[NEW] = 60.0
    simulation.run_users()
    simulation.prometheus = False
    assert posted(simulation) == "Unverified"
    assert simulation.state(NEW) == "Canary"
    simulation.prometheus = True
    simulation.settle()  # Alertmanager has sent it again
    assert simulation.state(NEW) == "RolledBack"


def test_any_other_alert_needs_the_namespaces_token_and_bars_nothing() -> None:
    simulation = canary()
    assert posted(simulation, name="AnyRuleOfAnybody") == "UnknownAlert"
    assert posted(simulation, name="AnyRuleOfAnybody", sender="elsewhere") == "UnknownRelease"
    assert simulation.state(NEW) == "Canary"
    assert posted(simulation, name="OurOwn", sender=NAMESPACE) == "RolledBack"
    record = simulation.status(NEW)["rollback"]
    assert (record["quarantined"], record["signals"]) == (False, ["Alert"])


def test_an_alert_of_the_future_is_not_newer_than_everything() -> None:
    simulation = canary()
    assert posted(simulation, name="OurOwn", sender=NAMESPACE, at=simulation.now + timedelta(days=3650)) == "Stale"
    assert simulation.state(NEW) == "Canary"


def test_the_known_alerts_are_those_of_the_charts_rules() -> None:
    groups = {group["name"]: group for group in yaml.safe_load(RULES.read_text())["groups"]}
    rules = groups["videogen-rollback"]["rules"]
    assert {rule["alert"] for rule in rules} == set(VERIFIED)
    assert all(VERIFIED[rule["alert"]].value in rule["expr"] for rule in rules)


# The tokens, over HTTP ------------------------------------------------------------------------------------------------


@asynccontextmanager
async def inbox(mail: Mail, folder: Path) -> AsyncIterator[str]:
    """The real inbox, with the token of all namespaces, and one of films and one of other; yields its address."""
    (folder / "token").write_text("general\n")
    namespaces = folder / "namespaces"
    (namespaces / "..data").mkdir(parents=True)  # as the kubelet mounts a Secret
    (namespaces / NAMESPACE).write_text("of-films")
    (namespaces / "other").write_text("of-other\n")
    (namespaces / "empty").write_text("\n")
    world = ObjectWorld([MODEL_RELEASES])
    world.store(a_release(NEW))
    tokens = PodTokens(Cluster(lambda: kopf.ConnectionInfo(server="http://127.0.0.1:1"), (), world), "audience", lambda: 0.0)
    service = Inbox(KINDS, mail, world, tokens, AlertTokens((folder / "token",), namespaces), lambda _, __: None)
    runner = await serve(service.application(), "127.0.0.1", 0)
    yield f"http://127.0.0.1:{runner.addresses[0][1]}/v1/alerts"
    await runner.cleanup()


async def post(url: str, token: str, namespace: str = NAMESPACE, status: str = "firing") -> tuple[int, Any]:
    labels = {"alertname": "Own", "namespace": namespace, "release": name_of(NEW)}
    alert = {"status": status, "labels": labels, "annotations": {}, "startsAt": "2026-11-02T09:00:00Z", "fingerprint": "f"}
    headers, body = {"Authorization": f"Bearer {token}"}, {"version": "4", "alerts": [alert]}
    async with aiohttp.ClientSession() as session, session.post(url, json=body, headers=headers) as answer:
        return answer.status, await answer.json()


async def waiting(mail: Mail) -> list[str]:
    """Who sent the alerts that wait for a decision; returns once there is one."""
    key = Key("ModelRelease", NAMESPACE, SERVICE)
    async with asyncio.timeout(HANGS):
        while not mail.alerts(key):
            await mail.arrival(key)
    return [alert["sender"] for alert in mail.alerts(key)]


async def test_a_namespaces_token_speaks_of_its_own_releases_alone(tmp_path: Path) -> None:
    mail = Mail()
    async with inbox(mail, tmp_path) as url:
        assert (await post(url, "of-other"))[1]["results"] == ["UnknownRelease"]
        assert (await post(url, "of-other", namespace="other"))[1]["results"] == ["UnknownRelease"]
        for token in ("of", "of-filmss", "", "..data"):
            assert (await post(url, token))[0] == 401
        going = asyncio.create_task(post(url, "of-films"))
        assert await waiting(mail) == [NAMESPACE], "the namespace is that of the token"
        assert (await post(url, "of-other", status="resolved"))[0] == 200
        assert await waiting(mail) == [NAMESPACE], "nobody else withdraws it"
        assert (await post(url, "of-films", status="resolved"))[0] == 200
        assert (await going)[1]["results"] == ["Resolved"]


async def test_an_answer_that_prometheus_did_not_give_is_503_and_says_what_to_do(tmp_path: Path) -> None:
    mail, key = Mail(), Key("ModelRelease", NAMESPACE, SERVICE)
    async with inbox(mail, tmp_path) as url:
        for answer, status, said in (
            ("Unverified", 503, "Prometheus could not be asked"),
            ("UnknownAlert", 200, "token of the release's namespace"),
        ):
            going = asyncio.create_task(post(url, "general"))
            assert await waiting(mail) == [""]
            mail.answer(key, {alert["fingerprint"]: answer for alert in mail.alerts(key)})
            code, body = await going
            assert (code, body["results"], said in body["advice"][answer]) == (status, [answer], True)


def test_who_has_no_token_makes_nobody_read_a_thousand_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (namespaces := tmp_path / "namespaces").mkdir()
    for number in range(1_000):
        (namespaces / f"namespace-{number}").write_text(f"token-{number}")
    reads, read, now = list[str](), Path.read_text, [0.0]
    monkeypatch.setattr(Path, "read_text", lambda path, **options: reads.append(path.name) or read(path, **options))
    tokens = AlertTokens((), namespaces, lambda: now[0])
    assert tokens.sender("") is None
    assert reads == []
    assert [tokens.sender(f"guess-{number}") for number in range(100)] == [None] * 100
    assert tokens.sender("token-7") == "namespace-7"
    assert len(reads) == 1_000
    (namespaces / "namespace-7").write_text("exchanged")
    now[0] += 1.0
    assert (tokens.sender("token-7"), tokens.sender("exchanged")) == (None, "namespace-7")
