"""A queue of Kueue's on the real cluster with real training: quota, waiting, a run that is taken back for a more urgent one, and resumes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from videogen_api.job import work_path
from videogen_demo.install import Installation
from videogen_demo.kubectl import Cluster, Manifest
from videogen_testing.patience import HANGS
from videogen_testing.pod_processes import END_FIRST
from videogen_testing.queued_runs import CALM, QUEUE, URGENT, queued, queues, says
from videogen_testing.small_examples import documents, small
from videogen_testing.stories import CLAIM, curate, ended, phase, run

ENDLESS = 1_000_000  # steps: the run is at work whenever the more urgent one comes


@pytest.fixture(scope="module")
def namespace(cluster: Cluster, installation: Installation, clips: Path) -> Iterator[str]:
    with queues(cluster, installation, clips) as name:
        yield name


def uid_of(cluster: Cluster, namespace: str, kind: str, name: str) -> str:
    return str((cluster.get(kind, name, namespace) or {})["metadata"]["uid"])


def steps_of(cluster: Cluster, namespace: str, name: str) -> list[int]:
    """What the run's curve has, read in its pod."""
    folder = work_path(name, uid_of(cluster, namespace, "trainingrun", name), "train")
    code = f"print(open('/storage/{folder}/curve.jsonl').read())"
    lines = cluster("exec", f"{name}-train-1-master-0", "-n", namespace, "--", "python3", "-c", code).splitlines()
    return [json.loads(line)["step"] for line in lines if line.endswith("}")]


def test_what_is_urgent_goes_first_and_the_other_one_resumes(cluster: Cluster, namespace: str) -> None:
    cluster.apply(run(namespace, "make-data", curate()))
    assert ended(cluster, namespace, "make-data")["status"] == "True"

    # A run fills the queue; the next one of its priority waits, and says for what.
    cluster.apply(queued(namespace, "calm", CALM, ENDLESS, "1.0.0"))
    cluster.wait("a checkpoint", lambda: phase(cluster, namespace, "calm", "train").get("checkpointStep", 0) >= 2, 600)
    saved, job = phase(cluster, namespace, "calm", "train")["checkpointStep"], uid_of(cluster, namespace, "pytorchjob", "calm-train-1")
    cluster.apply(queued(namespace, "waits", CALM, 4, "1.0.1"))
    says(cluster, namespace, "waits", "Queued", "insufficient unused quota for cpu")
    cluster("delete", "trainingrun", "waits", "-n", namespace, "--timeout=300s")

    # A more urgent one takes its place, and comes to its end; the first one waits its turn with the same job, and resumes.
    cluster.apply(queued(namespace, "urgent", URGENT, 4, "1.0.2"))
    cluster.wait("calm to be taken back", lambda: phase(cluster, namespace, "calm", "train").get("evictions") == 1, HANGS)
    assert ended(cluster, namespace, "urgent")["status"] == "True"
    before = phase(cluster, namespace, "calm", "train")
    assert [(one["number"], one["reason"], one["counted"]) for one in before["attempts"]] == [(1, "Preempted", False)], before
    assert f"queue {QUEUE} has taken back what it gave, Preempted" in before["attempts"][0]["message"]
    assert before["checkpointStep"] >= saved
    cluster.wait("calm to train again", lambda: phase(cluster, namespace, "calm", "train").get("progress"), 600)
    after = phase(cluster, namespace, "calm", "train")
    assert (after["attempt"], after.get("countedAttempts", 0), after.get("interruptions", 0)) == (1, 0, 0), after
    assert uid_of(cluster, namespace, "pytorchjob", "calm-train-1") == job
    steps = steps_of(cluster, namespace, "calm")
    assert steps == list(range(1, len(steps) + 1))

    # What it began with in its second turn, as it says itself when it ends.
    cluster("exec", "calm-train-1-master-0", "-n", namespace, "--", "python3", "-c", END_FIRST)

    def record() -> Manifest | None:
        rows = phase(cluster, namespace, "calm", "train").get("attempts", [])
        return next((one for one in rows if one["number"] == 1 and one["resumedFromStep"] > 0), None)

    told = cluster.wait("the end of the second turn", record, HANGS)
    assert before["checkpointStep"] <= told["resumedFromStep"] < told["lastStep"], told
    cluster("delete", "trainingrun", "calm", "-n", namespace, "--timeout=300s")


def test_a_queue_that_does_not_exist_and_one_that_is_stopped_are_named(cluster: Cluster, namespace: str) -> None:
    cluster.apply(queued(namespace, "nowhere", CALM, 4, "1.1.0", queue="nowhere"))
    says(cluster, namespace, "nowhere", "QueueUnavailable", "LocalQueue nowhere doesn't exist")
    cluster("delete", "trainingrun", "nowhere", "-n", namespace, "--timeout=300s")

    stop, go = (json.dumps({"spec": {"stopPolicy": policy}}) for policy in ("HoldAndDrain", "None"))
    cluster("patch", "clusterqueue", QUEUE, "--type=merge", "-p", stop)
    cluster.apply(queued(namespace, "held", CALM, 4, "1.1.1"))
    says(cluster, namespace, "held", "QueueUnavailable", "; Kueue: ")  # the ClusterQueue, or so the LocalQueue, is inactive
    cluster("patch", "clusterqueue", QUEUE, "--type=merge", "-p", go)
    assert ended(cluster, namespace, "held")["status"] == "True"


def test_the_example_trains_two_workers_that_the_queue_lets_begin_together(cluster: Cluster, namespace: str) -> None:
    (example,) = documents("queues/training-run.yaml")
    made = small(example, namespace, {})
    made["spec"]["storage"]["claimName"] = CLAIM
    data = run(namespace, "make-pib", curate(dataset="pib", version="2026.11"), version="1.2.0")
    data["spec"]["recipe"] = made["spec"]["recipe"]
    cluster.apply(data)
    assert ended(cluster, namespace, "make-pib")["status"] == "True"
    cluster.apply(made)
    name = made["metadata"]["name"]
    told = ended(cluster, namespace, name)
    assert told["status"] == "True", told
    trained = phase(cluster, namespace, name, "train")
    assert (trained["attempt"], trained["attempts"][-1].get("workers")) == (1, 2), trained
