"""The snapshot: what belongs to a service, and which services an object's change concerns."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from videogen_api.meta import LABEL_SERVICE
from videogen_operator.kinds.model_release.observed import Observed, keys, route_weights
from videogen_operator.plan import Inputs, Key
from videogen_testing.releases import NAMESPACE, SETTINGS, START, Objects, a_claim, a_gateway, a_node, a_release, a_run, name_of

WORLD = Objects(
    a_release("1.0.0", lineage={"run": "training"}, status={"rollout": {"state": "Stable"}}),
    a_release("1.1.0", service="emergency", status={"rollout": {"state": "Queued"}}),
)
STANDARD, EMERGENCY = Key("ModelRelease", NAMESPACE, "standard"), Key("ModelRelease", NAMESPACE, "emergency")


def labelled(kind: str, labels: Mapping[str, str]) -> dict[str, Any]:
    return {"kind": kind, "metadata": {"name": "x", "namespace": NAMESPACE, "labels": dict(labels)}}


@pytest.mark.parametrize(
    ("sentence", "changed", "expected"),
    [
        ("a release concerns its service", a_release("1.0.0"), [STANDARD]),
        ("a run concerns the services of its releases", a_run("training"), [STANDARD]),
        ("another run concerns nobody", a_run("other"), []),
        ("a claim concerns whoever reads from it", a_claim(), [EMERGENCY, STANDARD]),
        ("another claim concerns nobody", a_claim("other"), []),
        ("a gateway concerns everybody", a_gateway(), [EMERGENCY, STANDARD]),
        ("a node concerns who waits for room", a_node(), [EMERGENCY]),
        ("a child concerns the service in its label", labelled("Deployment", {LABEL_SERVICE: "standard"}), [STANDARD]),
        ("an object of somebody else concerns nobody", labelled("Pod", {}), []),
    ],
)
def test_keys(sentence: str, changed: Mapping[str, Any], expected: list[Key]) -> None:
    assert list(keys(changed, WORLD)) == expected, sentence


def test_only_releases_of_the_service_belong_to_it(snapshot: Callable[..., Observed]) -> None:
    observed = snapshot(a_release("1.0.0"), a_release("1.1.0", service="emergency"))
    assert [release.name for release in observed.releases] == [name_of("1.0.0")]


def test_a_release_that_is_being_deleted_counts_no_more(snapshot: Callable[..., Observed]) -> None:
    going = a_release("1.1.0")
    going["metadata"]["deletionTimestamp"] = "2026-11-02T09:00:00Z"
    assert len(snapshot(a_release("1.0.0"), going).releases) == 1


def test_a_child_of_a_deleted_namesake_is_not_taken_for_its_own(snapshot: Callable[..., Observed]) -> None:
    child = {"kind": "Deployment", "metadata": {"name": name_of("1.0.0").replace(".", "-"), "namespace": NAMESPACE}}
    for uid, found in (("uid-1.0.0", True), ("uid-before", False)):
        child["metadata"]["ownerReferences"] = [{"uid": uid}]  # type: ignore[index]
        assert (snapshot(a_release("1.0.0"), child).releases[0].deployment is not None) == found


def test_a_spec_of_a_newer_version_is_told_and_does_not_stop_the_others(snapshot: Callable[..., Observed]) -> None:
    from videogen_operator.kinds.model_release.plan import plan

    strange = a_release("1.1.0")
    strange["spec"]["surprise"] = 1
    observed = snapshot(a_release("1.0.0"), strange)
    written = {write.object["metadata"]["name"]: write.status for write in plan(observed, Inputs(now=START, settings=SETTINGS)).statuses}
    conditions = {condition["type"]: condition for condition in written[name_of("1.1.0")]["conditions"]}
    assert conditions["Stalled"]["message"].startswith("this operator cannot read it: surprise: ")
    assert written[name_of("1.0.0")]["rollout"]["state"] == "Queued"


def test_a_release_of_the_old_shape_is_unreadable_and_says_where_before_and_after_stand(snapshot: Callable[..., Observed]) -> None:
    from videogen_operator.kinds.model_release.plan import plan

    old = a_release("1.0.0")
    old["spec"]["model"] = {"type": "videofusion", "version": "1.0.0"}
    (write,) = plan(snapshot(old), Inputs(now=START, settings=SETTINGS)).statuses
    conditions = {condition["type"]: condition for condition in write.status["conditions"]}
    assert {kind: (one["status"], one["reason"]) for kind, one in conditions.items()} == {
        "Ready": ("False", "Unreadable"),
        "Stalled": ("True", "Unreadable"),
    }
    assert "model.family: " in conditions["Ready"]["message"]
    assert "docs/upgrading.md" in conditions["Ready"]["message"]


def test_weights_are_shares_of_the_whole() -> None:
    def backend(name: str, weight: int) -> dict[str, Any]:
        header = {"set": [{"name": "x-videogen-release", "value": name}]}
        return {"weight": weight, "filters": [{"type": "RequestHeaderModifier", "requestHeaderModifier": header}]}

    route = {"spec": {"rules": [{"backendRefs": [backend("a", 3), backend("b", 1)]}]}}
    assert route_weights(route) == {"a": 75, "b": 25}
    assert route_weights({"spec": {"rules": [{"backendRefs": [backend("a", 0)]}]}}) == {}
    assert route_weights(None) == {}
