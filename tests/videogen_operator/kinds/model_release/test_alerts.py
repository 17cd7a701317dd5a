"""Which alerts take traffic back, and why the others are ignored."""

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

import pytest

from videogen_operator.kinds.model_release.alerts import Answer, key_of, refusal, sentence
from videogen_operator.kinds.model_release.observed import Release
from videogen_operator.plan import Key
from videogen_testing.releases import NAMESPACE, START, Objects, a_release, an_alert, name_of

NAME = name_of("1.0.0")
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
    ],
)
def test_refusal(
    one: Callable[..., Release], row: str, status: Mapping[str, Any], spec: dict[str, Any], alert: dict[str, Any], answer: Answer | None
) -> None:
    assert refusal(alert, one(a_release(status=status, **spec)), NAMESPACE) == answer, row


def test_an_alert_about_no_release() -> None:
    assert refusal(an_alert("nobody", at=START), None, NAMESPACE) == Answer.UNKNOWN_RELEASE


def test_the_service_of_an_alert_is_that_of_the_release_it_names() -> None:
    world = Objects(a_release())
    assert key_of(an_alert(NAME, at=START), world) == Key("ModelRelease", NAMESPACE, "standard")
    assert key_of(an_alert("nobody", at=START), world) is None
    assert key_of({"labels": {}}, world) is None


def test_the_sentence_has_no_times_and_no_values_of_labels() -> None:
    assert sentence(an_alert(NAME, at=START)) == "alert TooSlow: P95 latency is three times the limit"
    assert sentence({"labels": {}}) == "alert without name"
