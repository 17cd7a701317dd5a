"""Is there room? Nodes, what runs on them, and what is asked for."""

from collections.abc import Callable
from typing import Any

import pytest

from videogen_api.meta import LABEL_RELEASE
from videogen_operator.kinds.model_release.capacity import shortage
from videogen_operator.kinds.model_release.observed import Release
from videogen_testing.releases import SETTINGS, a_node, a_release, name_of


def a_pod(
    node: str, *, gpus: int = 0, memory: str = "1Gi", cpu: str = "1", release: str = "other", phase: str = "Running"
) -> dict[str, Any]:
    resources = {"requests": {"cpu": cpu, "memory": memory, "nvidia.com/gpu": str(gpus)}}
    return {
        "kind": "Pod",
        "metadata": {"name": f"pod-{node}-{gpus}", "labels": {LABEL_RELEASE: release}},
        "spec": {"nodeName": node, "containers": [{"name": "server", "resources": resources}]},
        "status": {"phase": phase},
    }


def unschedulable(pod: dict[str, Any]) -> dict[str, Any]:
    """A pod for which the scheduler has found no node."""
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}
    return pod | {"status": {"phase": "Pending", "conditions": [condition]}}


TAINT = {"key": "nvidia.com/gpu", "effect": "NoSchedule"}
OTHER_TAINT = {"key": "maintenance", "effect": "NoExecute"}

POOL = "videogen.pib.gov.in/pool"
ANY_POOL = {"key": POOL, "operator": "Exists"}
RESERVED: dict[str, Any] = {
    "placement": {
        "nodeSelector": {POOL: "emergency"},
        "tolerations": [{"key": POOL, "operator": "Equal", "value": "emergency", "effect": "NoSchedule"}],
    }
}


def pooled(name: str, effect: str = "NoSchedule") -> dict[str, Any]:
    """A node that a taint keeps for a pool, with the label that leads there."""
    node = a_node(taints=[{"key": POOL, "value": name, "effect": effect}])
    return node | {"metadata": node["metadata"] | {"labels": {POOL: name}}}


def of_class(pod: dict[str, Any], name: str) -> dict[str, Any]:
    return pod | {"spec": pod["spec"] | {"priorityClassName": name}}


@pytest.mark.parametrize(
    ("sentence", "serving", "nodes", "pods", "room"),
    [
        ("two pods fit on one large node", {}, [a_node()], [], None),
        ("without any known node nothing is said", {}, [], [], None),
        ("GPUs are needed and no node has them", {"resources": {"limits": {"nvidia.com/gpu": 1}}}, [a_node()], [], 0),
        ("two pods of two GPUs fit on four", {"resources": {"limits": {"nvidia.com/gpu": 2}}}, [a_node(gpus=4)], [], None),
        (
            "a pod's GPUs must be on one node",
            {"resources": {"limits": {"nvidia.com/gpu": 4}}, "replicas": 1},
            [a_node("a", gpus=2), a_node("b", gpus=2)],
            [],
            0,
        ),
        (
            "GPUs that others hold are not free",
            {"resources": {"limits": {"nvidia.com/gpu": 2}}},
            [a_node(gpus=4)],
            [a_pod("node-1", gpus=1)],
            1,
        ),
        (
            "a pod that has ended holds nothing",
            {"resources": {"limits": {"nvidia.com/gpu": 2}}},
            [a_node(gpus=4)],
            [a_pod("node-1", gpus=4, phase="Succeeded")],
            None,
        ),
        (
            "its own pods hold nothing",
            {"resources": {"limits": {"nvidia.com/gpu": 2}}},
            [a_node(gpus=4)],
            [a_pod("node-1", gpus=4, release=name_of("1.0.0"))],
            None,
        ),
        (
            "a pod that was made just now will hold what it asks for",
            {"resources": {"limits": {"nvidia.com/gpu": 2}}},
            [a_node(gpus=4)],
            [a_pod("", gpus=2)],
            1,
        ),
        (
            "on one node alone",
            {"resources": {"limits": {"nvidia.com/gpu": 2}}},
            [a_node("a", gpus=4), a_node("b", gpus=4)],
            [a_pod("", gpus=4)],
            None,
        ),
        (
            "a pod that no node takes holds nothing",
            {"resources": {"limits": {"nvidia.com/gpu": 2}}},
            [a_node(gpus=4)],
            [unschedulable(a_pod("", gpus=4))],
            None,
        ),
        ("pods that ask for nothing fit", {"resources": {"requests": {"cpu": 0, "memory": 0}}}, [a_node()], [], None),
        ("memory runs out first", {"resources": {"limits": {"memory": "200Gi"}}}, [a_node()], [], 1),
        ("CPUs run out first", {"resources": {"requests": {"cpu": 48}}}, [a_node()], [], 1),
        ("slices of GPUs are counted as what they are", {"resources": {"limits": {"nvidia.com/mig-1g.10gb": 1}}}, [a_node(gpus=4)], [], 0),
        ("a cordoned node has no room", {}, [a_node(unschedulable=True)], [], 0),
        ("a tainted node has no room", {}, [a_node(taints=[OTHER_TAINT])], [], 0),
        (
            "the GPU taint is tolerated by pods with GPUs",
            {"resources": {"limits": {"nvidia.com/gpu": 1}}},
            [a_node(gpus=2, taints=[TAINT])],
            [],
            None,
        ),
        ("the GPU taint keeps pods without GPUs away", {}, [a_node(gpus=2, taints=[TAINT])], [], 0),
        ("a taint of the release's own pool is tolerated", RESERVED, [pooled("emergency")], [], None),
        ("a taint of another pool is not", RESERVED, [pooled("training")], [], 0),
        ("nodes without the label are not meant", RESERVED, [a_node()], [], 0),
        ("a toleration of any value", {"placement": {"tolerations": [ANY_POOL]}}, [pooled("training")], [], None),
        ("a taint of another effect is not tolerated", RESERVED, [pooled("emergency", "NoExecute")], [], 0),
        (
            "pods of other priority classes may give way",
            {"resources": {"limits": {"nvidia.com/gpu": 2}}, "placement": {"priorityClassName": "emergency"}},
            [a_node(gpus=4)],
            [a_pod("node-1", gpus=4)],
            None,
        ),
        (
            "pods of its own class may not",
            {"resources": {"limits": {"nvidia.com/gpu": 2}}, "placement": {"priorityClassName": "emergency"}},
            [a_node(gpus=4)],
            [of_class(a_pod("node-1", gpus=4), "emergency")],
            0,
        ),
    ],
)
def test_shortage(
    one: Callable[..., Release],
    sentence: str,
    serving: dict[str, Any],
    nodes: list[dict[str, Any]],
    pods: list[dict[str, Any]],
    room: int | None,
) -> None:
    said = shortage(one(a_release(serving=serving)), nodes, pods, SETTINGS)
    assert (said == "") if room is None else (f"there is room for {room};" in said), f"{sentence}: {said}"


def test_the_administrators_placement_counts_too(one: Callable[..., Release]) -> None:
    settings = SETTINGS | {"serving_placement": '{"nodeSelector": {"' + POOL + '": "emergency"}}'}
    said = shortage(one(a_release()), [a_node()], [], settings)
    assert "there is room for 0" in said
    assert shortage(one(a_release()), [a_node()], [], SETTINGS) == ""


def test_the_message_has_the_numbers_of_the_best_nodes(one: Callable[..., Release]) -> None:
    nodes = [a_node("big", gpus=8), a_node("small", gpus=1)]
    said = shortage(
        one(a_release(serving={"resources": {"limits": {"nvidia.com/gpu": 4}}})),
        nodes,
        [a_pod("big", gpus=2, memory="56Gi", cpu="500m")],
        SETTINGS,
    )
    assert said == (
        "2 pods of 4 GPUs, 1 CPUs and 2 GiB each are asked for, and there is room for 1; "
        "free: big 6 GPUs, 63.5 CPUs and 200 GiB, small 1 GPUs, 64 CPUs and 256 GiB"
    )
