from dataclasses import replace
from typing import Any

import pytest

from videogen_api.training_run import Phase, Reason
from videogen_operator.kinds.training_run.room import shortage
from videogen_testing.run_simulation import Simulation
from videogen_testing.runs import TRAIN, running

PENDING: dict[str, Any] = {
    "phase": "Pending",
    "conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes"}],
}


def pulling(reason: str) -> dict[str, Any]:
    waiting = {"waiting": {"reason": reason, "message": "not there"}}
    return {"phase": "Pending", "containerStatuses": [{"name": "pytorch", "image": "trainer:1", "state": waiting}]}


PODS = [
    ("a running pod trains", {}, running(), Reason.TRAINING, "is running"),
    (
        "an image that cannot be pulled",
        {},
        pulling("ImagePullBackOff"),
        Reason.IMAGE_NOT_FOUND,
        "image trainer:1 of pod run-train-1-master-0: not there",
    ),
    (
        "an image that may not be pulled",
        {},
        pulling("ErrImageNeverPull"),
        Reason.IMAGE_NOT_FOUND,
        "push the image, or correct trainer.image in the chart's values",
    ),
    ("a container that is being created", {}, pulling("ContainerCreating"), Reason.STARTING, "0 of 1 pods run"),
    ("full nodes", {"requests": {"cpu": "8"}}, PENDING, Reason.UNSCHEDULABLE, "0/1 nodes"),
    (
        "more CPUs than any node has",
        {"requests": {"cpu": 9}},
        PENDING,
        Reason.INSUFFICIENT_CAPACITY,
        "asks for 9 CPUs and the largest node has 8",
    ),
    ("more memory", {"limits": {"memory": "65Gi"}}, PENDING, Reason.INSUFFICIENT_CAPACITY, "65Gi bytes of memory"),
    (
        "GPUs where no node has any",
        {"limits": {"nvidia.com/gpu": 1}},
        PENDING,
        Reason.INSUFFICIENT_CAPACITY,
        "asks for 1 GPUs and the largest node has 0",
    ),
    (
        "slices of GPUs where no node has any",
        {"limits": {"nvidia.com/mig-1g.10gb": 2}},
        PENDING,
        Reason.INSUFFICIENT_CAPACITY,
        "asks for 2 nvidia.com/mig-1g.10gb and the largest node has 0",
    ),
    ("a scheduler that has not looked", {}, {"phase": "Pending"}, Reason.STARTING, "0 of 1 pods run"),
]


def node(name: str, cpus: int, gpus: int, **metadata: Any) -> dict[str, Any]:
    allocatable = {"cpu": str(cpus), "memory": "512Gi", "nvidia.com/gpu": str(gpus)}
    return {"kind": "Node", "metadata": {"name": name, **metadata}, "status": {"allocatable": allocatable}}


NODES = {
    "each resource on another node": (
        {"resources": {"requests": {"cpu": 64}, "limits": {"nvidia.com/gpu": 8}}},
        "one worker asks for 64 CPUs, 8 GPUs, 4Gi bytes of memory, and no single node has all of it",
    ),
    "a label that no node has": (
        {"placement": {"nodeSelector": {"pool": "gpu"}}},
        "no node has the labels pool=gpu and only taints that the phase tolerates",
    ),
    "a label of a node that is too small": (
        {"placement": {"nodeSelector": {"pool": "cpu"}}, "resources": {"limits": {"nvidia.com/gpu": 1}}},
        "one worker asks for 1 GPUs and the largest node has 0",
    ),
    "what one node has": ({"resources": {"requests": {"cpu": 16}, "limits": {"nvidia.com/gpu": 8}}}, ""),
}


@pytest.mark.parametrize(("fields", "words"), NODES.values(), ids=NODES.keys())
def test_one_node_must_have_everything_that_a_worker_asks_for(fields: Any, words: str) -> None:
    nodes = [node("large", 16, 8), node("many", 128, 0, labels={"pool": "cpu"})]
    said = shortage(Phase.model_validate(TRAIN | fields), nodes, Simulation(phases=[TRAIN]).settings.for_plans())
    assert said.startswith(words) and bool(said) == bool(words)


@pytest.mark.parametrize("resources, status, reason, words", [row[1:] for row in PODS], ids=[row[0] for row in PODS])
def test_why_an_attempt_does_not_run(resources: Any, status: Any, reason: Reason, words: str) -> None:
    sim = Simulation(phases=[TRAIN | {"resources": resources}])
    sim.settings = replace(sim.settings, nodes_on_demand="true")  # else the preflight says it before there is an attempt
    sim.settle()
    sim.set_pods(status)
    sim.settle()
    assert sim.top() == ("Unknown", reason)
    assert words in sim.status().conditions[0].message or words in sim.status().conditions[-1].message


BEFORE = [
    (
        "weights of a release that is not there",
        {"initFrom": {"release": "pib-videogen-videofusion-v0.9.0-base"}},
        Reason.INIT_FROM_NOT_FOUND,
    ),
    ("weights of a run that is not there", {"initFrom": {"run": "another"}}, Reason.INIT_FROM_NOT_FOUND),
    ("a claim that is not there", {"storage": {"claimName": "elsewhere"}}, Reason.CLAIM_NOT_FOUND),
]


@pytest.mark.parametrize("spec, reason", [row[1:] for row in BEFORE], ids=[row[0] for row in BEFORE])
def test_what_keeps_an_attempt_from_being_created(spec: Any, reason: Reason) -> None:
    sim = Simulation(**spec)
    sim.settle()
    assert sim.top() == ("Unknown", reason)
    assert sim.jobs() == ()
    assert sim.status().phases == []
    reconciling = [one for one in sim.status().conditions if one.type == "Reconciling"]
    assert [one.reason for one in reconciling] == [reason]


def test_a_claim_applied_together_with_its_run_is_not_called_missing_at_once() -> None:
    sim = Simulation(storage={"claimName": "late"})
    sim.put(sim.run(), creationTimestamp="2026-11-01T00:00:00Z")
    assert sim.step(1).requeue_after == 1.0
    assert sim.run().get("status") is None
    sim.step(2)
    assert sim.top() == ("Unknown", Reason.CLAIM_NOT_FOUND)
