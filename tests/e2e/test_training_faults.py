"""Pods die, nodes are drained: training goes on from the last checkpoint, and no step is counted twice."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest

from videogen_demo.kubectl import Cluster, Manifest
from videogen_testing.stories import SMALL, curate, ended, phase, run, train

STEPS = 400


def delete_a_worker(cluster: Cluster, namespace: str, name: str) -> None:
    cluster("delete", "pod", f"{name}-train-1-worker-1", "-n", namespace, "--wait=false")


def kill_a_worker_at_once(cluster: Cluster, namespace: str, name: str) -> None:
    cluster("delete", "pod", f"{name}-train-1-worker-1", "-n", namespace, "--grace-period=0", "--force", "--wait=false")


def drain_the_node(cluster: Cluster, namespace: str, name: str) -> None:
    node = cluster("get", "pod", f"{name}-train-1-worker-0", "-n", namespace, "-o", "jsonpath={.spec.nodeName}")
    try:
        cluster("drain", node, f"--pod-selector=videogen.pib.gov.in/run={name}", "--force", "--delete-emptydir-data", "--timeout=120s")
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


@pytest.mark.parametrize("fault", FAULTS)
def test_two_workers_lose_one_and_the_run_still_does_every_step_once(cluster: Cluster, dataset: str, fault: str) -> None:
    namespace, name = dataset, f"lose-{fault}"
    cluster.apply(run(namespace, name, train(resources=SMALL | {"workers": 2}), steps=STEPS))
    cluster.wait("a checkpoint", lambda: phase(cluster, namespace, name, "train").get("checkpointStep", 0) >= 2, 300)
    FAULTS[fault](cluster, namespace, name)
    assert ended(cluster, namespace, name)["status"] == "True"
    trained = phase(cluster, namespace, name, "train")
    attempts: list[Manifest] = trained["attempts"]
    assert len(attempts) >= 2, "the fault came too late to matter"
    assert trained["countedAttempts"] == 0, attempts
    for before, after in itertools.pairwise(attempts):
        assert after["resumedFromStep"] >= before["resumedFromStep"]
    assert attempts[-1]["resumedFromStep"] > 0
    assert attempts[-1]["lastStep"] == STEPS


def test_a_suspended_run_leaves_no_pod_and_goes_on_from_its_checkpoint(cluster: Cluster, dataset: str) -> None:
    namespace, name = dataset, "pause"
    cluster.apply(run(namespace, name, train(), steps=STEPS))
    cluster.wait("a checkpoint", lambda: phase(cluster, namespace, name, "train").get("checkpointStep", 0) >= 2, 300)
    cluster("patch", "trainingrun", name, "-n", namespace, "--type=merge", "-p", '{"spec":{"suspend":true}}')
    selector = f"videogen.pib.gov.in/run={name}"
    cluster.wait("the pods to go", lambda: not cluster.list("pod", namespace, selector), 120)
    cluster("patch", "trainingrun", name, "-n", namespace, "--type=merge", "-p", '{"spec":{"suspend":false}}')
    assert ended(cluster, namespace, name)["status"] == "True"
    last = phase(cluster, namespace, name, "train")["attempts"][-1]
    assert (last["resumedFromStep"] > 0, last["lastStep"]) == (True, STEPS)


def test_a_run_deleted_in_mid_training_takes_everything_with_it(cluster: Cluster, dataset: str) -> None:
    namespace, name = dataset, "unwanted"
    cluster.apply(run(namespace, name, train(), steps=STEPS))
    selector = f"videogen.pib.gov.in/run={name}"
    cluster.wait("its pod", lambda: cluster.list("pod", namespace, selector), 120)
    cluster("delete", "trainingrun", name, "-n", namespace, "--timeout=60s")
    cluster.wait("its job to go", lambda: not cluster.list("pytorchjob", namespace, selector), 60)
    cluster.wait("its pods to go", lambda: not cluster.list("pod", namespace, selector), 120)
