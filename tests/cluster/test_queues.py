"""Jobs in a queue with the real operator, API server and Workloads of Kueue's own CRD; the tests write what Kueue writes."""

from __future__ import annotations

import signal
from datetime import UTC, datetime
from typing import Any

import pytest

from videogen_api.job import ExitCode, Report
from videogen_api.training_run import Reason
from videogen_testing.control_plane import Api, ControlPlane, eventually
from videogen_testing.queue_simulation import ADMITTED, EVICTED, NO_QUOTA, PENDING, RESERVED, Told
from videogen_testing.runs import JOBS, RUNS, TRAIN, a_claim, a_run, ended, first_job, play, running, trained
from videogen_testing.upstream_crds import DEFINITIONS, install, kueue_definitions
from videogen_testing.webhook import post, token_of

WORKLOADS = "/apis/kueue.x-k8s.io/v1beta2/namespaces/{}/workloads"
QUEUED = TRAIN | {"placement": {"queueName": "research"}}
NOT_SEEN = "Kueue has not looked at it yet"


class Queue:
    """One run in a namespace's queue."""

    def __init__(self, api: Api, namespace: str) -> None:
        self.api, self.namespace = api, namespace
        self.core = f"/api/v1/namespaces/{namespace}"
        self.workloads = WORKLOADS.format(namespace)

    def begin(self, **run: Any) -> None:
        self.api.create(f"{self.core}/persistentvolumeclaims", a_claim())
        self.api.create(RUNS.format(self.namespace), a_run(namespace=self.namespace, phases=[QUEUED], **run))
        first_job(self.api, self.namespace)

    def job(self) -> Any:
        return self.api.get(f"{JOBS.format(self.namespace)}/run-train-1")

    def phase(self) -> Any:
        found: list[Any] = self.api.get(f"{RUNS.format(self.namespace)}/run")["status"]["phases"]
        return found[0]

    def told(self) -> Any:
        conditions = self.api.get(f"{RUNS.format(self.namespace)}/run").get("status", {}).get("conditions", [])
        return next((one for one in conditions if one["type"] == "Succeeded"), {"reason": "", "message": ""})

    def says(self, reason: Reason, words: str = "") -> None:
        eventually(lambda: self.told()["reason"] == reason and words in self.told()["message"])

    def suspend(self, wanted: bool) -> None:
        self.api.merge(f"{JOBS.format(self.namespace)}/run-train-1", {"spec": {"runPolicy": {"suspend": wanted}}})

    def kueue_says(self, *told: Told) -> None:
        job = self.job()
        name = f"pytorchjob-{job['metadata']['name']}"
        if self.api.find(f"{self.workloads}/{name}") is None:
            owner = {"apiVersion": "kubeflow.org/v1", "kind": "PyTorchJob", "controller": True} | {
                key: job["metadata"][key] for key in ("name", "uid")
            }
            metadata = {"name": name, "labels": {"kueue.x-k8s.io/job-uid": job["metadata"]["uid"]}, "ownerReferences": [owner]}
            template = {"spec": {"containers": [{"name": "pytorch"}]}}
            self.api.create(
                self.workloads,
                {"apiVersion": "kueue.x-k8s.io/v1beta2", "kind": "Workload", "metadata": metadata}
                | {"spec": {"queueName": "research", "podSets": [{"name": "master", "count": 1, "template": template}]}},
            )
        names = ("type", "status", "reason", "message")
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        conditions = [dict(zip(names, one, strict=True)) | {"lastTransitionTime": now} for one in told]
        self.api.merge(f"{self.workloads}/{name}/status", {"status": {"conditions": conditions}})


@pytest.fixture
def _kueue(plane: ControlPlane) -> None:
    install(plane.api, kueue_definitions())


@pytest.fixture
def queue(api: Api, namespace: str) -> Queue:
    return Queue(api, namespace)


def test_kueue_that_is_installed_later_is_noticed(queue: Queue, plane: ControlPlane, operator: Any) -> None:
    workloads = f"{DEFINITIONS}/workloads.kueue.x-k8s.io"
    if plane.api.find(workloads):  # of another test
        plane.api.delete(workloads)
    eventually(lambda: plane.api.find(workloads) is None)
    operator.start()
    queue.begin()
    assert queue.job()["spec"]["runPolicy"]["suspend"] is True
    queue.says(Reason.QUEUED, NOT_SEEN)
    queue.says(Reason.QUEUE_UNAVAILABLE, "Kueue has made no Workload of it")
    install(plane.api, kueue_definitions())
    queue.kueue_says(PENDING)
    queue.says(Reason.QUEUED, NO_QUOTA)


@pytest.mark.usefixtures("_kueue")
def test_a_job_waits_its_turn_is_taken_back_and_resumes(queue: Queue, operator: Any) -> None:
    operator.start()
    queue.begin()
    first = queue.job()["metadata"]["uid"]
    queue.kueue_says(PENDING)
    queue.says(Reason.QUEUED, f"1 pod with cpu 1, memory 4Gi; Kueue: {NO_QUOTA}")
    version = queue.job()["metadata"]["resourceVersion"]
    queue.kueue_says(RESERVED, ADMITTED)
    queue.suspend(False)
    (name,) = play(queue.api, queue.namespace, queue.job(), running())
    queue.says(Reason.TRAINING)
    report = {"trainerStatus": {"metrics": [{"name": "step", "value": "30"}, {"name": "checkpointStep", "value": "30"}]}}
    assert post(operator.inbox_port, "/v1/progress", token_of(queue.api, queue.namespace, name), report)[0] == 200
    queue.says(Reason.TRAINING, "step 30")

    # Kueue takes it back: it suspends the job, training-operator deletes the pod, which saves.
    queue.kueue_says(RESERVED, EVICTED)
    queue.suspend(True)
    queue.says(Reason.QUEUED, "has taken back what it gave, Preempted")
    pod = f"{queue.core}/pods/{name}"
    saved = Report(reason=Reason.PREEMPTED, last_step=40).model_dump_json(by_alias=True, exclude_none=True)
    queue.api.merge(f"{pod}/status", {"status": ended(ExitCode.PREEMPTED, saved)})
    eventually(lambda: queue.phase().get("evictions") == 1)
    queue.api.delete(f"{pod}?gracePeriodSeconds=0")
    queue.kueue_says(PENDING)
    queue.says(Reason.QUEUED, NO_QUOTA)
    (record,) = queue.phase()["attempts"]
    assert (record["number"], record["reason"], record["counted"], record["lastStep"]) == (1, "Preempted", False, 40)

    # The operator is away while the job is let go on, and knows the second pod of that name.
    operator.stop(signal.SIGKILL)
    queue.kueue_says(RESERVED, ADMITTED)
    queue.suspend(False)
    play(queue.api, queue.namespace, queue.job(), running())
    operator.start()
    queue.says(Reason.TRAINING)
    report["trainerStatus"]["metrics"][0]["value"] = "50"
    assert post(operator.inbox_port, "/v1/progress", token_of(queue.api, queue.namespace, name), report)[0] == 200
    queue.says(Reason.TRAINING, "step 50")
    play(queue.api, queue.namespace, queue.job(), ended(0, trained().model_dump_json(by_alias=True, exclude_none=True)))
    queue.says(Reason.COMPLETED)
    phase = queue.phase()
    assert (phase["attempt"], phase["countedAttempts"], phase.get("interruptions", 0), phase["evictions"]) == (1, 0, 0, 1)
    names = [one["metadata"]["name"] for one in queue.api.items(JOBS.format(queue.namespace))]
    assert sorted(names) == ["run-train-0", "run-train-1"], "nothing was started twice"
    assert queue.job()["metadata"]["uid"] == first
    assert version != queue.job()["metadata"]["resourceVersion"]


@pytest.mark.usefixtures("_kueue")
def test_a_queue_that_does_not_exist_is_named(queue: Queue, operator: Any) -> None:
    operator.start()
    queue.begin()
    queue.kueue_says(("QuotaReserved", "False", "Inadmissible", "LocalQueue research doesn't exist"))
    queue.says(Reason.QUEUE_UNAVAILABLE, "Kueue: LocalQueue research doesn't exist")


@pytest.mark.usefixtures("_kueue")
def test_a_webhook_of_kueues_that_is_down_is_named_and_nothing_is_made_twice(queue: Queue, operator: Any) -> None:
    """With Kueue's own names: the API server calls it for PyTorchJobs of this namespace, and gets no answer."""
    kinds, name = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations", f"kueue-{queue.namespace}"
    rule = {"apiGroups": ["kubeflow.org"], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pytorchjobs"]}
    service = {"name": "kueue-webhook-service", "namespace": "kueue-system", "path": "/mutate-kubeflow-org-v1-pytorchjob"}
    hook = {"name": "mpytorchjob.kb.io", "clientConfig": {"service": service}, "rules": [rule], "sideEffects": "None"}
    hook |= {
        "admissionReviewVersions": ["v1"],
        "failurePolicy": "Fail",
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": queue.namespace}},
        "matchConditions": [{"name": "queued", "expression": "'kueue.x-k8s.io/queue-name' in object.metadata.labels"}],
    }
    queue.api.create(kinds, {"metadata": {"name": name}, "webhooks": [hook]})
    operator.start()
    queue.api.create(f"{queue.core}/persistentvolumeclaims", a_claim())
    queue.api.create(RUNS.format(queue.namespace), a_run(namespace=queue.namespace, phases=[QUEUED]))
    jobs = JOBS.format(queue.namespace)
    preflight = eventually(lambda: queue.api.find(f"{jobs}/run-train-0"))
    play(queue.api, queue.namespace, preflight, ended(0, '{"preflight": {"checked": 3}}'))
    try:
        queue.says(Reason.QUEUE_UNAVAILABLE, "Kueue's webhook does not answer")
        assert queue.api.find(f"{jobs}/run-train-1") is None
    finally:
        queue.api.delete(f"{kinds}/{name}")
    eventually(lambda: queue.api.find(f"{jobs}/run-train-1"))
    assert len(queue.api.items(jobs)) == 2
