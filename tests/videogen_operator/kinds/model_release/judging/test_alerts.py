"""Which alerts take traffic back, and why the others are ignored."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from videogen_operator.kinds.model_release.judging.alerts import Answer, key_of, refusal, sentence, timed
from videogen_operator.kinds.model_release.observed import Release
from videogen_operator.plan import Inputs, Key, Plan, StatusWrite
from videogen_testing.releases import NAMESPACE, START, Objects, a_release, an_alert, name_of

NAME, DAY = name_of("1.0.0"), timedelta(days=1)
SINCE = {"trafficStartTime": START.isoformat()}
SERVES = {"rollout": {"state": "Canary", **SINCE}}


@pytest.mark.parametrize(
    ("row", "status", "spec", "alert", "answer"),
    [
        ("a new alert about a canary", SERVES, {}, an_alert(NAME, at=START), None),
        ("about a held canary", {"rollout": {"state": "Held", **SINCE}}, {}, an_alert(NAME, at=START), None),
        ("about the stable release", {"rollout": {"state": "Stable", **SINCE}}, {}, an_alert(NAME, at=START), None),
        ("that began before it took traffic", SERVES, {}, an_alert(NAME, at=START - timedelta(seconds=1)), Answer.STALE),
        ("without a time", SERVES, {}, an_alert(NAME, at=START, startsAt="soon"), Answer.STALE),
        ("that is over", SERVES, {}, an_alert(NAME, at=START, status="resolved"), Answer.RESOLVED),
        ("with onAlert false", SERVES, {"rollback": {"onAlert": False}}, an_alert(NAME, at=START), Answer.DISABLED),
        ("about a standby", {"rollout": {"state": "Standby", **SINCE}}, {}, an_alert(NAME, at=START), Answer.NOT_SERVING),
        ("about one that starts", {"rollout": {"state": "Starting"}}, {}, an_alert(NAME, at=START), Answer.NOT_SERVING),
        ("about one that was rolled back", {"rollout": {"state": "RolledBack", **SINCE}}, {}, an_alert(NAME, at=START), Answer.NOT_SERVING),
        ("from another namespace", SERVES, {}, an_alert(NAME, at=START, namespace="elsewhere"), Answer.UNKNOWN_RELEASE),
        ("of another name, by the token of all namespaces", SERVES, {}, an_alert(NAME, at=START, name="Slow"), Answer.UNKNOWN_ALERT),
        ("of another name, by the namespace's token", SERVES, {}, an_alert(NAME, at=START, name="Slow", sender=NAMESPACE), None),
        ("of the chart's, by the namespace's token", SERVES, {}, an_alert(NAME, at=START, sender=NAMESPACE), None),
        ("by another namespace's token", SERVES, {}, an_alert(NAME, at=START, sender="elsewhere"), Answer.UNKNOWN_RELEASE),
        ("that begins when a clock is a little ahead", SERVES, {}, an_alert(NAME, at=START + timedelta(seconds=9)), None),
        ("that begins in the future", SERVES, {}, an_alert(NAME, at=START + timedelta(seconds=11)), Answer.STALE),
        ("the machine's clock was put right by a day", SERVES, {}, an_alert(NAME, at=START - DAY, clockAhead=-86400.0), None),
        ("or forward", SERVES, {}, an_alert(NAME, at=START + DAY, clockAhead=86400.0), None),
        ("the machine's clock was set wrong, not Prometheus'", SERVES, {}, an_alert(NAME, at=START, clockAhead=86400.0), None),
        (
            "that began before it took traffic, by either clock",
            SERVES, {}, an_alert(NAME, at=START - timedelta(seconds=1), clockAhead=86400.0), Answer.STALE,
        ),
    ],
)  # fmt: skip
def test_refusal(
    one: Callable[..., Release], row: str, status: Mapping[str, Any], spec: dict[str, Any], alert: dict[str, Any], answer: Answer | None
) -> None:
    assert refusal(alert, one(a_release(status=status, **spec)), NAMESPACE, START) == answer, row


def test_an_alert_about_no_release() -> None:
    assert refusal(an_alert("nobody", at=START), None, NAMESPACE, START) == Answer.UNKNOWN_RELEASE


def test_the_service_of_an_alert_is_that_of_the_release_it_names() -> None:
    world = Objects(a_release())
    assert key_of(an_alert(NAME, at=START), world) == Key("ModelRelease", NAMESPACE, "standard")
    assert key_of(an_alert("nobody", at=START), world) is None
    assert key_of({"labels": {}}, world) is None


def test_the_sentence_has_no_times_and_no_values_of_labels() -> None:
    assert sentence(an_alert(NAME, at=START, name="TooSlow")) == "alert TooSlow: P95 latency is three times the limit"
    assert sentence({"labels": {}}) == "alert without name"


ARRIVED = datetime(2026, 1, 1, tzinfo=UTC)
ALERT = {"fingerprint": "f", "receivedAt": ARRIVED.isoformat(), "labels": {"release": "bad"}}


def statuses(plan: Plan) -> list[str]:
    return [write.status.get("rollback", {}).get("seconds", "-") for write in plan.statuses]


@pytest.mark.parametrize(
    ("answer", "recorded", "expected"),
    [
        ("RolledBack", "", "0.042"),
        ("RolledBack", "0.007", "0.007"),  # a repeated alert does not change what was measured
        ("Stale", "", ""),
    ],
)
def test_the_seconds_of_a_rollback_run_from_the_alert_that_caused_it(answer: str, recorded: str, expected: str) -> None:
    bad = StatusWrite({"metadata": {"name": "bad"}}, {"rollback": {"reason": "Alert", "seconds": recorded}})
    good = StatusWrite({"metadata": {"name": "good"}}, {})
    inputs = Inputs(now=ARRIVED, alerts=(ALERT,))
    plan = Plan(statuses=(bad, good), answers={"f": answer})
    assert statuses(timed(plan, inputs, ARRIVED + timedelta(milliseconds=42))) == [expected, "-"]
