"""Pods die, nodes are drained: training resumes from the last checkpoint, and no step is counted twice.

The runs have more steps than anybody waits for, so that a fault always finds them at work; that a resumed run comes to the
same end as one that was never interrupted is shown by `tests/videogen_trainer/test_processes.py`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from videogen_api.job import work_path
from videogen_demo.kubectl import Cluster, Manifest
from videogen_testing.patience import HANGS
from videogen_testing.pod_processes import END_FIRST
from videogen_testing.stories import SMALL, curate, ended, phase, run, state, train

ENDLESS = 1_000_000  # steps: no machine comes to the end of them before the fault, or at all


def delete_a_worker(cluster: Cluster, namespace: str, name: str) -> None:
    cluster("delete", "pod", f"{name}-train-1-worker-1", "-n", namespace, "--wait=false")


def kill_a_worker_at_once(cluster: Cluster, namespace: str, name: str) -> None:
    cluster("delete", "pod", f"{name}-train-1-worker-1", "-n", namespace, "--grace-period=0", "--force", "--wait=false")


def drain_the_node(cluster: Cluster, namespace: str, name: str) -> None:
    node = cluster("get", "pod", f"{name}-train-1-worker-0", "-n", namespace, "-o", "jsonpath={.spec.nodeName}")
    try:
        cluster("drain", node, f"--pod-selector=videogen.pib.gov.in/run={name}", "--force", "--delete-emptydir-data", "--timeout=300s")
    finally:
        cluster("uncordon", node)


FAULTS: dict[str, Callable[[Cluster, str, str], None]] = {
    "deleted": delete_a_worker,
    "killed": kill_a_worker_at_once,
    "drained": drain_the_node,
}


@pytest.fixture(scope="module")
def dataset(cluster: Cluster, namespace: str) -> str:
    cluster.apply(run(namespace, "make-data", curate()))
    assert ended(cluster, namespace, "make-data")["status"] == "True"
    return namespace


@contextmanager
def endless(cluster: Cluster, namespace: str, name: str, **fields: Any) -> Iterator[int]:
    """A run in training -> a step that has surely been saved."""
    cluster.apply(run(namespace, name, train(**{"resources": SMALL} | fields), steps=ENDLESS))
    try:
        cluster.wait("a checkpoint", lambda: phase(cluster, namespace, name, "train").get("checkpointStep", 0) >= 2, 300)
        yield phase(cluster, namespace, name, "train")["checkpointStep"]
    finally:
        cluster("delete", "trainingrun", name, "-n", namespace, "--wait=false")


def next_attempt(cluster: Cluster, namespace: str, name: str) -> Manifest:
    """The train phase, once a later attempt than the first reports progress."""

    def probe() -> Manifest | None:
        found = phase(cluster, namespace, name, "train")
        return found if found.get("attempt", 0) >= 2 and found.get("progress") else None

    found: Manifest = cluster.wait("the next attempt to train", probe, 600)
    return found


def python(cluster: Cluster, namespace: str, pod: str, code: str) -> str:
    return cluster("exec", pod, "-n", namespace, "--", "python3", "-c", code)


def goes_on_from(cluster: Cluster, namespace: str, name: str, role: str, saved: int) -> None:
    """The next attempt has begun with the last checkpoint, has gone further, and no step is left out or there twice."""
    trained = next_attempt(cluster, namespace, name)
    number, pod = trained["attempt"], f"{trained['jobName']}-{role}"
    uid = (cluster.get("trainingrun", name, namespace) or {})["metadata"]["uid"]
    curve = python(cluster, namespace, pod, f"print(open('/storage/{work_path(name, uid, 'train')}/curve.jsonl').read())")
    steps = [json.loads(line)["step"] for line in curve.splitlines() if line.endswith("}")]  # the last line may be being written
    python(cluster, namespace, pod, END_FIRST)  # it saves, and reports where it began and ended

    def report() -> Manifest | None:
        return next((one for one in phase(cluster, namespace, name, "train").get("attempts", []) if one["number"] == number), None)

    record = cluster.wait("the end of that attempt", report, 300)
    assert record["reason"] == "Preempted", record
    assert saved <= record["resumedFromStep"] < record["lastStep"], record
    assert record["resumedFromStep"] <= len(steps) <= record["lastStep"]
    assert steps == list(range(1, len(steps) + 1))
    assert phase(cluster, namespace, name, "train").get("countedAttempts", 0) == 0


@pytest.mark.parametrize("fault", FAULTS)
def test_two_workers_lose_one_and_go_on_without_doing_a_step_twice(cluster: Cluster, dataset: str, fault: str) -> None:
    namespace, name = dataset, f"lose-{fault}"
    with endless(cluster, namespace, name, workers={"replicas": 2}) as saved:
        FAULTS[fault](cluster, namespace, name)
        goes_on_from(cluster, namespace, name, "worker-0", saved)


@pytest.fixture
def gpus_of_the_only_node(cluster: Cluster) -> Iterator[int]:
    """How many GPUs a node offers, those of the local cluster compute on the CPU; no pod is given to another node meanwhile."""
    first, *others = cluster.list("node", "default")
    names = [node["metadata"]["name"] for node in others]
    gpus = int(first["status"]["allocatable"].get("nvidia.com/gpu", 0))
    assert gpus, f"{first['metadata']['name']} has no GPUs, of which two workers could want more than there are"
    if names:
        cluster("cordon", *names)
    yield gpus
    if names:
        cluster("uncordon", *names)


def test_two_workers_with_room_for_one_train_as_one(cluster: Cluster, dataset: str, gpus_of_the_only_node: int) -> None:
    namespace, name = dataset, "crowded"
    workers = {"replicas": 2, "minReplicas": 1, "processes": 1, "allReplicasDeadlineSeconds": 15}
    resources = SMALL | {"limits": SMALL["limits"] | {"nvidia.com/gpu": gpus_of_the_only_node // 2 + 1}}
    with endless(cluster, namespace, name, workers=workers, resources=resources):
        trained = phase(cluster, namespace, name, "train")
        assert (trained["attempt"], trained["workers"]) == (2, 1), trained
        assert [(one["reason"], one["workers"]) for one in trained["attempts"]] == [("Unschedulable", 2)]
        assert "1 of 2 workers: there was no room for the others" in state(cluster, namespace, name)["message"]
        assert "WorkersReduced" in cluster("get", "events", "-n", namespace, "-o", "jsonpath={.items[*].reason}")


def test_a_suspended_run_leaves_no_pod_and_goes_on_from_its_checkpoint(cluster: Cluster, dataset: str) -> None:
    namespace, name = dataset, "pause"
    with endless(cluster, namespace, name) as saved:
        cluster("patch", "trainingrun", name, "-n", namespace, "--type=merge", "-p", '{"spec":{"suspend":true}}')
        selector = f"videogen.pib.gov.in/run={name}"
        cluster.wait("the pods to go", lambda: not cluster.list("pod", namespace, selector), HANGS)
        cluster("patch", "trainingrun", name, "-n", namespace, "--type=merge", "-p", '{"spec":{"suspend":false}}')
        goes_on_from(cluster, namespace, name, "master-0", saved)


def test_a_run_deleted_in_mid_training_takes_everything_with_it(cluster: Cluster, dataset: str) -> None:
    namespace, name = dataset, "unwanted"
    cluster.apply(run(namespace, name, train(), steps=ENDLESS))
    selector = f"videogen.pib.gov.in/run={name}"
    cluster.wait("it to train", lambda: phase(cluster, namespace, name, "train").get("progress"), 300)
    cluster("delete", "trainingrun", name, "-n", namespace, "--timeout=300s")
    cluster.wait("its job to go", lambda: not cluster.list("pytorchjob", namespace, selector), HANGS)
    cluster.wait("its pods to go", lambda: not cluster.list("pod", namespace, selector), HANGS)
