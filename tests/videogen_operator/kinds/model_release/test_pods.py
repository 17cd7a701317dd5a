"""What pods say while they start, and when it is final."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from videogen_api.meta import LABEL_RELEASE
from videogen_api.model_release import Reason
from videogen_operator.kinds.model_release.observed import Release
from videogen_operator.kinds.model_release.pods import crash, fatal, trouble
from videogen_operator.plan import Failure
from videogen_testing.releases import NAMESPACE, START, a_crashed_pod, a_release, merged, name_of

STARTING = {"rollout": {"state": "Starting", "stepStartTime": START.isoformat()}}


def a_pod(**status: Any) -> dict[str, Any]:
    metadata = {"name": "pod", "namespace": NAMESPACE, "labels": {LABEL_RELEASE: name_of("1.0.0")}}
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
    release = one(a_release(status=STARTING), pod)
    found = trouble(release, ())
    assert found is not None, sentence
    assert (found.reason, words in found.message) == (reason, True), sentence
    assert (fatal(release, START + timedelta(seconds=5)) is not None) == at_once
    late = fatal(release, START + timedelta(seconds=120))
    assert late is not None
    assert late.reason == (Reason.START_FAILED if reason == Reason.STARTING else reason)


def test_a_container_that_is_just_being_made_is_no_trouble(one: Callable[..., Release]) -> None:
    release = one(a_release(status=STARTING), waiting("ContainerCreating"))
    assert trouble(release, ()) is None
    assert fatal(release, START + timedelta(seconds=119)) is None


def test_a_refused_child_is_said_first(one: Callable[..., Release]) -> None:
    refused = Failure("Deployment", name_of("1.0.0").replace(".", "-"), 403, "violates PodSecurity restricted")
    found = trouble(one(a_release(status=STARTING), UNSCHEDULABLE), (refused,))
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
    assert crash(one(a_release(status=LOST), pod)) == ("the server ended with exit code 137: OOMKilled" if blamed else ""), sentence
    assert crash(one(a_release(status={"rollout": {"state": "Canary"}}), pod)) == "", "no pods are lost"
