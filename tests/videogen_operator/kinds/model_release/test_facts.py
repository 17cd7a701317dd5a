"""What a release's step is told of the others, as a table: their states, and the one fact that follows."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from videogen_api.meta import ANNOTATION_REQUEST
from videogen_api.model_release import Reason
from videogen_operator.conditions import timestamp
from videogen_operator.kinds.model_release import objects, route
from videogen_operator.kinds.model_release.facts import begin, facts_of
from videogen_operator.kinds.model_release.judging.quarantine import Entry
from videogen_operator.kinds.model_release.observed import Observed
from videogen_operator.kinds.model_release.states import State
from videogen_operator.plan import Inputs
from videogen_testing.releases import SETTINGS, START, a_node, a_release, an_alert, digest_of, merged, name_of

A, B, C = (name_of(version) for version in ("1.0.0", "1.1.0", "1.2.0"))
NOW = START + timedelta(hours=1)


def rollout(state: str, **more: Any) -> dict[str, Any]:
    return {"status": {"rollout": {"state": state} | more}}


def since(seconds: float) -> str:
    return timestamp(NOW - timedelta(seconds=seconds))


STABLE, CANARY, STANDBY = rollout("Stable", promotedTime=since(90)), rollout("Canary"), rollout("Standby", retiredTime=since(90))
QUEUED = rollout("Queued")

# A sentence; what each version is beside its defaults, the version that is asked about; the fact's name and value.
Row = tuple[str, dict[str, dict[str, Any]], str, str, Any]
ROWS: list[Row] = [
    ("a candidate knows the stable release", {"1.0.0": STABLE, "1.1.0": CANARY}, "1.1.0", "stable", A),
    ("and a standby, which is recalled, where there is none", {"1.0.0": STANDBY, "1.1.0": CANARY}, "1.1.0", "stable", A),
    ("a standby knows the stable release alone", {"1.0.0": STANDBY, "1.1.0": CANARY}, "1.0.0", "stable", ""),
    ("a canary's traffic goes to the stable release", {"1.0.0": STABLE, "1.1.0": CANARY}, "1.1.0", "fallback", A),
    ("a stable release's to the standby", {"1.0.0": STANDBY, "1.1.0": STABLE}, "1.1.0", "fallback", A),
    ("never to one without pods", {"1.0.0": STANDBY | {"pods": 0}, "1.1.0": STABLE}, "1.1.0", "fallback", ""),
    ("what starts has none to lose", {"1.0.0": STABLE, "1.1.0": rollout("Starting")}, "1.1.0", "fallback", ""),
    (
        "of two stable releases the one that was promoted first is outranked",
        {"1.0.0": STABLE, "1.1.0": rollout("Stable", promotedTime=since(1))}, "1.0.0", "outranked", True,
    ),
    (
        "the other one is not",
        {"1.0.0": STABLE, "1.1.0": rollout("Stable", promotedTime=since(1))}, "1.1.0", "outranked", False,
    ),
    (
        "of two standbys the older one is",
        {"1.0.0": STANDBY, "1.1.0": rollout("Standby", retiredTime=since(1)), "1.2.0": STABLE}, "1.0.0", "outranked", True,
    ),
    ("a later version became stable while it waited", {"1.0.0": QUEUED, "1.1.0": STABLE}, "1.0.0", "overtaken_by", B),
    ("an older one overtakes nothing", {"1.0.0": STABLE, "1.1.0": QUEUED}, "1.1.0", "overtaken_by", ""),
    (
        "nor one of another line",
        {"1.0.0": QUEUED, "1.1.0": STABLE | {"model": {"specialization": "hindi"}}}, "1.0.0", "overtaken_by", "",
    ),
    (
        "nor does it one that a person asked for",
        {"1.0.0": rollout("Queued", retried=True), "1.1.0": STABLE}, "1.0.0", "overtaken_by", "",
    ),
    ("its turn has come", {"1.0.0": STABLE, "1.1.0": QUEUED}, "1.1.0", "may_start", True),
    ("one candidate at a time", {"1.0.0": STABLE, "1.1.0": CANARY, "1.3.0": QUEUED}, "1.3.0", "may_start", False),
    ("the lower version first", {"1.1.0": QUEUED, "1.3.0": QUEUED}, "1.3.0", "may_start", False),
    ("without room it waits", {"1.1.0": QUEUED | {"serving": {"replicas": 64}}}, "1.1.0", "may_start", False),
    (
        "or asks for nodes",
        {"1.1.0": QUEUED | {"serving": {"replicas": 64, "capacity": "RequestNodes"}}}, "1.1.0", "may_start", True,
    ),
    (
        "a larger one does not keep it from its turn",
        {"1.1.0": QUEUED | {"serving": {"replicas": 64}}, "1.3.0": QUEUED}, "1.3.0", "may_start", True,
    ),
    (
        "a standby stays for the window of the stable release",
        {"1.0.0": STANDBY, "1.1.0": STABLE | {"rollback": {"windowSeconds": 100}}}, "1.0.0", "window_end", NOW + timedelta(seconds=10),
    ),
    ("without end while that has no pods", {"1.0.0": STANDBY, "1.1.0": STABLE | {"pods": 0}}, "1.0.0", "window_end", None),
    ("a request", {"1.1.0": CANARY | {"request": "hold@1"}}, "1.1.0", "request", "hold"),
    ("one that its state does not know is none", {"1.1.0": STABLE | {"request": "hold@1"}}, "1.1.0", "request", ""),
    ("its digest was barred meanwhile", {"1.0.0": STABLE, "1.2.0": CANARY}, "1.2.0", "barred", "its digest was rolled back as old (Alert)"),
    ("that of a stable release is not looked at", {"1.2.0": STABLE}, "1.2.0", "barred", ""),
    ("an alert about it", {"1.1.0": rollout("Canary", trafficStartTime=since(90))}, "1.1.0", "alert", "alert Slow: P95 latency is three times the limit"),
    ("an alert about another one", {"1.0.0": STABLE, "1.1.0": rollout("Canary", trafficStartTime=since(90))}, "1.0.0", "alert", ""),
]  # fmt: skip


@pytest.mark.parametrize(("sentence", "releases", "version", "fact", "value"), ROWS, ids=[row[0].replace(" ", "-") for row in ROWS])
def test_what_is_known(
    snapshot: Callable[..., Observed], sentence: str, releases: dict[str, dict[str, Any]], version: str, fact: str, value: Any
) -> None:
    context = begin(observed(snapshot, releases), Inputs(now=NOW, alerts=(ALERT,), settings=SETTINGS))
    assert getattr(facts_of(context.before[name_of(version)], context.before, context), fact) == value, sentence


def test_a_version_that_was_made_after_a_later_one_became_stable_needs_a_person(snapshot: Callable[..., Observed]) -> None:
    later = a_release("1.1.0", **STABLE)
    hotfix = a_release("1.0.1", at=NOW, status=QUEUED["status"])
    context = begin(snapshot(later, hotfix), Inputs(now=NOW, settings=SETTINGS))
    obstacle = facts_of(context.before[name_of("1.0.1")], context.before, context).obstacle
    assert obstacle and obstacle.reason == Reason.OLDER_VERSION
    assert B in obstacle.message


ALERT = an_alert(B, at=NOW, name="Slow", sender="films")
BARRED = Entry(digest_of("1.2.0"), "old", "Alert", since(900), to=A)


def observed(snapshot: Callable[..., Observed], releases: dict[str, dict[str, Any]]) -> Observed:
    """The releases with their pods, all of them in a route that the gateway has taken over."""
    manifests, pods = [], {}
    for version, row in releases.items():
        more = dict(row)
        pods[version] = more.pop("pods", 2)
        asked = more.pop("request", "")
        manifest = a_release(version, **more)
        name = f"pib-videogen-videofusion-v{version}-{manifest['spec']['model'].get('specialization', 'base')}"
        metadata = {"name": name} | ({"annotations": {ANNOTATION_REQUEST: asked}} if asked else {})
        manifests.append(merged(manifest, {"metadata": metadata}))
    children = [
        objects.deployment(one, SETTINGS) | {"status": dict.fromkeys(("readyReplicas", "availableReplicas"), pods[one.spec.model.version])}
        for one in snapshot(*manifests).releases
    ]
    first = snapshot(*manifests, *children)
    http = route.route(
        first, [(one, 1_000_000 if one.rollout.state == State.STABLE else route.IDLE) for one in first.releases], (BARRED,), SETTINGS
    )
    said = [{"type": "Accepted", "status": "True"}]
    answer = {"parentRef": http["spec"]["parentRefs"][0], "controllerName": SETTINGS["gateway_controller"], "conditions": said}
    return snapshot(*manifests, *children, http | {"status": {"parents": [answer]}}, a_node(cpu="32"))
