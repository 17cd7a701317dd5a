"""What pods say while they start, and when it is final."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from videogen_api.model_release import Reason
from videogen_operator.kinds.model_release.observed import Release
from videogen_operator.kinds.model_release.pods import crash, fatal, image_that_runs, trouble, unplaced
from videogen_operator.kubernetes_objects import PULL_ERRORS
from videogen_operator.plan import Failure
from videogen_testing.releases import START, a_crashed_pod, a_deployment, a_release, a_replica_set, merged, name_of

MADE = (a_deployment(name_of("1.0.0")), a_replica_set(name_of("1.0.0")))  # by which its pods are the release's
STARTING = {"rollout": {"state": "Starting", "stepStartTime": START.isoformat()}}


def a_pod(**status: Any) -> dict[str, Any]:
    metadata = a_crashed_pod(name_of("1.0.0"), exit_code=1, at=START)["metadata"]
    return {"kind": "Pod", "metadata": metadata, "spec": {}, "status": status}


def waiting(reason: str) -> dict[str, Any]:
    return a_pod(containerStatuses=[{"name": "server", "image": "serving:9", "state": {"waiting": {"reason": reason}}}])


def ended(code: int, message: str) -> dict[str, Any]:
    crashed = {"waiting": {"reason": "CrashLoopBackOff"}}
    last = {"terminated": {"exitCode": code, "message": message}}
    return a_pod(containerStatuses=[{"name": "server", "state": crashed, "lastState": last}])


UNSCHEDULABLE = a_pod(
    conditions=[{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes are available"}]
)


@pytest.mark.parametrize(
    ("sentence", "pod", "reason", "words", "at_once"),
    [
        ("an image that cannot be pulled", waiting("ImagePullBackOff"), Reason.IMAGE_NOT_FOUND, "image serving:9 cannot be pulled", False),
        ("an invalid image name", waiting("InvalidImageName"), Reason.IMAGE_NOT_FOUND, "InvalidImageName", False),
        ("no node", UNSCHEDULABLE, Reason.INSUFFICIENT_CAPACITY, "the scheduler finds no node: 0/1 nodes", False),
        ("a crash", ended(1, "Traceback\nKeyError: 'x'"), Reason.STARTING, "the server ended with exit code 1: KeyError: 'x'", False),
        ("a bundle with a wrong digest", ended(67, "digest is sha256:00"), Reason.ARTIFACT_INVALID, "the server refused the bundle", True),
    ],
)
def test_trouble(one: Callable[..., Release], sentence: str, pod: dict[str, Any], reason: Reason, words: str, at_once: bool) -> None:
    release = one(a_release(status=STARTING), pod, *MADE)
    found = trouble(release, ())
    assert found is not None, sentence
    assert (found.reason, words in found.message) == (reason, True), sentence
    assert (fatal(release, START + timedelta(seconds=5)) is not None) == at_once
    late = fatal(release, START + timedelta(seconds=120))
    if reason == Reason.INSUFFICIENT_CAPACITY:
        assert late is None, "a node may come at any time"
        return
    assert late is not None
    assert late.reason == (Reason.START_FAILED if reason == Reason.STARTING else reason)


@pytest.mark.parametrize("reason", sorted(PULL_ERRORS))
def test_whatever_keeps_an_image_from_being_pulled_is_named(one: Callable[..., Release], reason: str) -> None:
    found = trouble(one(a_release(status=STARTING), waiting(reason), *MADE), ())
    assert found is not None
    assert (found.reason, reason in found.message) == (Reason.IMAGE_NOT_FOUND, True)


def test_the_deadline_begins_when_the_last_pod_has_got_its_node(one: Callable[..., Release]) -> None:
    placed = {"type": "PodScheduled", "status": "True", "lastTransitionTime": (START + timedelta(seconds=900)).isoformat()}
    release = one(a_release(status=STARTING), a_pod(conditions=[placed]), *MADE)
    assert fatal(release, START + timedelta(seconds=1019)) is None
    assert fatal(release, START + timedelta(seconds=1020)) is not None


def test_pods_that_no_node_takes_are_given_up_after_half_a_minute(one: Callable[..., Release]) -> None:
    release = one(a_release(status=STARTING), UNSCHEDULABLE, *MADE)
    assert unplaced(release, START + timedelta(seconds=29)) == ""
    assert "0/1 nodes are available" in unplaced(release, START + timedelta(seconds=30))
    assert unplaced(one(a_release(status=STARTING), waiting("ContainerCreating"), *MADE), START + timedelta(seconds=30)) == ""


def test_a_container_that_is_just_being_made_is_no_trouble(one: Callable[..., Release]) -> None:
    release = one(a_release(status=STARTING), waiting("ContainerCreating"), *MADE)
    assert trouble(release, ()) is None
    assert fatal(release, START + timedelta(seconds=119)) is None


def test_a_refused_child_is_said_first(one: Callable[..., Release]) -> None:
    refused = Failure("Deployment", name_of("1.0.0").replace(".", "-"), 403, "violates PodSecurity restricted")
    found = trouble(one(a_release(status=STARTING), UNSCHEDULABLE, *MADE), (refused,))
    assert found is not None
    assert "violates PodSecurity restricted" in found.message
    assert trouble(one(a_release(status=STARTING)), (Failure("Deployment", "another", 403, "x"),)) is None


LOST = {"rollout": {"state": "Canary", "podsLostTime": START.isoformat()}}


@pytest.mark.parametrize(
    ("sentence", "seconds", "change", "blamed"),
    [
        ("its server ended just before the pods were lost", -5, {}, True),
        ("an end of long ago has nothing to do with it", -600, {}, False),
        ("a pod that is deleted was ended by somebody else", -5, {"metadata": {"deletionTimestamp": START.isoformat()}}, False),
        ("a pod that is evicted was ended by somebody else", -5, {"status": {"phase": "Failed", "reason": "Evicted"}}, False),
    ],
)
def test_only_a_server_that_ended_by_itself_is_to_blame(
    one: Callable[..., Release], sentence: str, seconds: float, change: dict[str, Any], blamed: bool
) -> None:
    pod = merged(a_crashed_pod(name_of("1.0.0"), exit_code=137, at=START + timedelta(seconds=seconds)), change)
    assert crash(one(a_release(status=LOST), pod, *MADE)) == ("the server ended with exit code 137: OOMKilled" if blamed else ""), sentence
    assert crash(one(a_release(status={"rollout": {"state": "Canary"}}), pod, *MADE)) == "", "no pods are lost"


DIGEST = "registry.example/serving@sha256:" + "ab" * 32


@pytest.mark.parametrize(
    ("sentence", "status", "pod", "image"),
    [
        ("what the kubelet tells", {}, a_pod(containerStatuses=[{"name": "server", "imageID": f"docker-pullable://{DIGEST}"}]), DIGEST),
        ("another container's is none", {}, a_pod(containerStatuses=[{"name": "proxy", "imageID": DIGEST}]), ""),
        ("before it runs, what ran before", {"imageID": DIGEST}, waiting("ImagePullBackOff"), DIGEST),
    ],
)
def test_the_image_that_runs_is_recorded(
    one: Callable[..., Release], sentence: str, status: dict[str, Any], pod: dict[str, Any], image: str
) -> None:
    assert image_that_runs(one(a_release(status=status), pod, *MADE)) == image, sentence
