"""A queue of Kueue's with room for one pod, and runs that stand in it, on the local cluster."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from videogen_demo import footage, install
from videogen_demo.install import Installation
from videogen_demo.kubectl import Cluster, Manifest
from videogen_testing.patience import HANGS
from videogen_testing.small_examples import documents
from videogen_testing.stories import claim, run, state, train

MANAGED = {"localcluster.videogen/kueue": "true"}
QUEUE, CALM, URGENT = "video", "video-training", "video-urgent"  # of examples/queues, but the last
ROOM = {"cpu": "500m", "memory": "8Gi"}
ONE: Manifest = {"requests": {"cpu": "300m"}, "limits": {"memory": "3Gi"}}  # of which the queue has room for one


@contextmanager
def queues(cluster: Cluster, installation: Installation, clips: Path) -> Iterator[str]:
    """A namespace that Kueue looks at, with its queue and the footage; all of it, and Kueue, goes at the end."""
    assert installation.local, "Kueue is installed on the local cluster alone; unset KUBECONFIG"
    install.local_cluster("install-kueue")
    name = f"e2e-queues-{uuid.uuid4().hex[:6]}"
    labels = MANAGED | {"pod-security.kubernetes.io/enforce": "restricted"}
    try:
        cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}, claim(name))
        footage.upload(cluster, name, "models", clips, installation.images["trainer"])
        cluster.apply(*queue_of(name))
        yield name
    finally:
        cluster("delete", "trainingruns", "--all", "-n", name, "--cascade=foreground", "--timeout=400s")
        cluster("delete", "namespace", name, "--timeout=400s")
        for kind, one in (("clusterqueue", QUEUE), ("resourceflavor", "a100"), ("priorityclass", CALM), ("priorityclass", URGENT)):
            cluster("delete", kind, one, "--ignore-not-found", "--timeout=120s")
        install.local_cluster("remove-kueue")


def queue_of(namespace: str) -> list[Manifest]:
    """The queue of examples/queues with room for one of our pods, on any node, and what goes before its trainings."""
    flavor, shared, queue, priority = documents("queues/queue.yaml")
    del flavor["spec"], shared["spec"]["cohortName"]
    (group,) = shared["spec"]["resourceGroups"]
    for one in group["flavors"][0]["resources"]:
        one["nominalQuota"] = ROOM.get(one["name"], one["nominalQuota"])
    queue["metadata"]["namespace"] = namespace
    urgent = priority | {"metadata": {"name": URGENT}, "value": priority["value"] * 10}
    return [flavor, shared, queue, priority, urgent]


def queued(namespace: str, name: str, priority: str, steps: int, version: str, queue: str = QUEUE) -> Manifest:
    """A run that trains in the queue."""
    placement = {"queueName": queue, "priorityClassName": priority}
    return run(namespace, name, train(placement=placement, resources=ONE), steps=steps, version=version)


def says(cluster: Cluster, namespace: str, name: str, reason: str, words: str, seconds: float = HANGS) -> None:
    """Wait until the run says this."""

    def probe() -> bool:
        found = state(cluster, namespace, name)
        return found.get("reason") == reason and words in found.get("message", "")

    cluster.wait(f"{name} to say {reason}: {words}", probe, seconds)
