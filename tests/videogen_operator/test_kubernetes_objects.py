"""What is read of the objects of Kubernetes, also where they say nothing yet."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import pytest

from videogen_operator import kubernetes_objects as read

SAID = [{"type": "Ready", "status": "True"}, {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "no room"}]
AGAIN = {"state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": {"terminated": {"exitCode": 1}}}
SILENT: list[Mapping[str, Any]] = [{}, {"status": None}, {"status": {}}, {"status": {"conditions": None, "containerStatuses": None}}]


@pytest.mark.parametrize("item", SILENT, ids=str)
def test_an_object_that_says_nothing_is_neither_ready_nor_ended_nor_without_a_place(item: Mapping[str, Any]) -> None:
    assert read.conditions(item) == {}
    assert not read.is_true(item, "Ready")
    assert not read.has_ended(item)
    assert read.without_place(item) is None
    assert list(read.containers(item)) == []
    assert read.allocatable(item, "cpu") == 0


def test_conditions_are_read_by_their_type() -> None:
    item = {"status": {"conditions": SAID}}
    assert read.is_true(item, "Other", "Ready")
    assert not read.is_true(item, "PodScheduled")
    assert (read.without_place(item) or {})["message"] == "no room"


@pytest.mark.parametrize(
    ("sentence", "state", "is_error"),
    [
        ("the kubelet waits before it pulls again", {"waiting": {"reason": "ImagePullBackOff"}}, True),
        ("the runtime cannot look at the image", {"waiting": {"reason": "ImageInspectError"}}, True),
        ("the container is being made", {"waiting": {"reason": "ContainerCreating"}}, False),
        ("it runs", {"running": {}}, False),
        ("nothing is known yet", None, False),
    ],
)
def test_why_an_image_cannot_be_pulled(sentence: str, state: Mapping[str, Any] | None, is_error: bool) -> None:
    assert (read.pull_error({"state": state}) is not None) == is_error, sentence


@pytest.mark.parametrize(
    ("container", "codes"), [(AGAIN, [1]), ({"state": {"terminated": {"exitCode": 0}}, "lastState": {}}, [0]), ({}, [])], ids=str
)
def test_the_ends_of_a_container_are_its_own_and_that_before(container: Mapping[str, Any], codes: list[int]) -> None:
    assert [end["exitCode"] for end in read.ends(container)] == codes


@pytest.mark.parametrize(("phase", "ended"), [("Pending", False), ("Running", False), ("Succeeded", True), ("Failed", True)])
def test_a_pod_has_ended_in_two_phases(phase: str, ended: bool) -> None:
    assert read.has_ended({"status": {"phase": phase}}) == ended


def test_what_a_node_has_for_pods() -> None:
    node = {"status": {"allocatable": {"cpu": "1500m"}, "conditions": SAID[:1]}}
    assert read.is_ready(node)
    assert read.allocatable(node, "cpu") == Decimal("1.5")
    assert read.allocatable(node, "nvidia.com/gpu") == 0
