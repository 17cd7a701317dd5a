"""TrainingRuns with the real operator against a real API server; the tests play training-operator and kubelet."""

import json
import signal
import time
from datetime import UTC, datetime
from typing import Any

import pytest

from videogen_api.evaluation import Metric, MetricResult
from videogen_api.job import ExitCode, Report
from videogen_api.training_run import Reason
from videogen_testing.control_plane import Api, eventually
from videogen_testing.runs import DIGEST, EVALUATE, JOBS, RELEASE, RUNS, TRAIN, a_claim, a_run, ended, play, running, trained

RELEASES = "/apis/videogen.pib.gov.in/v1alpha1/namespaces/{}/modelreleases"


class Story:
    """One run in one namespace."""

    def __init__(self, api: Api, namespace: str) -> None:
        self.api, self.namespace = api, namespace
        self.runs, self.jobs = RUNS.format(namespace), JOBS.format(namespace)
        self.core = f"/api/v1/namespaces/{namespace}"

    def begin(self, **keywords: Any) -> Any:
        self.api.create(f"{self.core}/persistentvolumeclaims", a_claim())
        return self.api.create(self.runs, a_run(namespace=self.namespace, **keywords))

    def run(self, name: str = "run") -> Any:
        return self.api.get(f"{self.runs}/{name}")

    def succeeded(self) -> tuple[str, str]:
        conditions = self.run()["status"].get("conditions", [])
        return next(((one["status"], one["reason"]) for one in conditions if one["type"] == "Succeeded"), ("", ""))

    def message(self) -> str:
        return next((one["message"] for one in self.run()["status"].get("conditions", []) if one["type"] == "Succeeded"), "")

    def says(self, status: str, reason: Reason) -> None:
        eventually(lambda: self.succeeded() == (status, reason) or None, 20)

    def job(self, phase: str, attempt: int) -> Any:
        return eventually(lambda: self.api.find(f"{self.jobs}/run-{phase}-{attempt}"))

    def end(self, phase: str, attempt: int, code: int, report: Report | None = None, reason: str = "") -> None:
        message = report.model_dump_json(by_alias=True, exclude_none=True) if report else ""
        play(self.api, self.namespace, self.job(phase, attempt), ended(code, message, reason))


@pytest.fixture
def story(api: Api, namespace: str) -> Story:
    return Story(api, namespace)


def test_a_run_becomes_a_job_and_ends_as_a_release(story: Story, operator: Any) -> None:
    operator.start()
    story.begin(phases=[TRAIN, EVALUATE, RELEASE])
    job = story.job("train", 1)
    config = story.api.get(f"{story.core}/configmaps/run-train-1")
    assert config["immutable"] is True
    assert {owner["uid"] for owner in job["metadata"]["ownerReferences"]} == {story.run()["metadata"]["uid"]}
    eventually(lambda: story.succeeded() == ("Unknown", "Starting"))
    play(story.api, story.namespace, job, running())
    story.says("Unknown", Reason.TRAINING)
    story.end("train", 1, 0, trained())
    story.job("validate", 1)
    assert story.run()["status"]["artifact"]["digest"] == DIGEST
    result = MetricResult(metric=Metric.FVD, value="120.5", samples=128, extractor="default")
    story.end("validate", 1, 0, Report(results=[result]))
    story.says("True", Reason.COMPLETED)
    release = story.api.get(f"{RELEASES.format(story.namespace)}/pib-videogen-videofusion-v1.0.0-base")
    assert release["spec"]["artifact"]["digest"] == DIGEST
    assert release["spec"]["gates"][0]["metric"] == "FVD"
    assert "ownerReferences" not in release["metadata"]
    assert story.run()["metadata"].get("finalizers") is None
    assert not [key for key in story.run()["metadata"].get("annotations", {}) if "kopf" in key]


def test_creation_costs_at_most_six_requests_and_rest_costs_none(story: Story, operator: Any) -> None:
    operator.start()
    before = operator.requests("POST", "PATCH", "PUT", "DELETE")
    story.begin()
    story.says("Unknown", Reason.STARTING)
    eventually(lambda: operator.requests("POST") - before >= 3)
    made = [line for line in operator.metrics().splitlines() if line.startswith("videogen_api_requests_total")]
    assert operator.requests("POST", "PATCH", "PUT", "DELETE") - before == 4, made
    play(story.api, story.namespace, story.job("train", 1), ended(0, trained().model_dump_json(by_alias=True, exclude_none=True)))
    story.says("True", Reason.COMPLETED)
    operator.stop(signal.SIGKILL)
    version = story.run()["metadata"]["resourceVersion"]
    operator.start()
    eventually(lambda: operator.metrics().count('videogen_reconcile_total{kind="TrainingRun",result="Done"}'))
    assert operator.requests("POST", "PATCH", "PUT", "DELETE") == 0
    assert story.run()["metadata"]["resourceVersion"] == version


def test_a_failed_gate_stalls_the_run_and_retry_repeats_it(story: Story, operator: Any) -> None:
    operator.start()
    story.begin(phases=[EVALUATE | {"name": "validate"}], initFrom={"release": "pib-videogen-videofusion-v0.9.0-base"})
    story.says("Unknown", Reason.INIT_FROM_NOT_FOUND)
    assert "pib-videogen-videofusion-v0.9.0-base" in story.message()
    artifact = {"claimName": "models", "path": "bundles/x", "digest": DIGEST}
    model = {"type": "videofusion", "version": "0.9.0"}
    manifest = {"apiVersion": "videogen.pib.gov.in/v1alpha1", "kind": "ModelRelease"} | {
        "metadata": {"name": "pib-videogen-videofusion-v0.9.0-base"},
        "spec": {"service": "standard", "model": model, "artifact": artifact},
    }
    story.api.create(RELEASES.format(story.namespace), manifest)
    bad = MetricResult(metric=Metric.FVD, value="500", samples=128)
    story.end("validate", 1, 0, Report(results=[bad]))
    story.says("False", Reason.GATE_FAILED)
    assert "FVD is 500 and must be < 200" in story.message()
    story.api.merge(f"{story.runs}/run", {"metadata": {"annotations": {"videogen.pib.gov.in/request": "retry@1"}}})
    story.end("validate", 2, 0, Report(results=[bad.model_copy(update={"value": "100"})]))
    story.says("True", Reason.COMPLETED)
    assert story.run()["status"]["lastHandledRequest"] == "retry@1"


def test_a_claim_that_comes_later_lets_the_run_begin(story: Story, operator: Any) -> None:
    operator.start()
    story.api.create(story.runs, a_run(namespace=story.namespace))
    story.says("Unknown", Reason.CLAIM_NOT_FOUND)
    assert story.api.items(story.jobs) == []
    story.api.create(f"{story.core}/persistentvolumeclaims", a_claim())
    story.job("train", 1)


def test_suspend_deletes_the_pods_and_resume_goes_on_without_counting(story: Story, operator: Any) -> None:
    operator.start()
    story.begin()
    play(story.api, story.namespace, story.job("train", 1), running())
    story.says("Unknown", Reason.TRAINING)
    story.api.merge(f"{story.runs}/run", {"spec": {"suspend": True}})
    story.says("Unknown", Reason.SUSPENDED)
    eventually(lambda: story.api.items(story.jobs) == [] and story.api.items(f"{story.core}/pods") == [], 30)
    story.api.merge(f"{story.runs}/run", {"spec": {"suspend": False}})
    story.job("train", 2)
    phase = eventually(lambda: [p for p in story.run()["status"]["phases"] if p["attempt"] == 2])[0]
    assert phase["countedAttempts"] == 0
    assert [record["reason"] for record in phase["attempts"]] == ["Suspended"]


def test_preemption_resumes_and_rejected_data_stops_at_once(story: Story, operator: Any) -> None:
    operator.start()
    story.begin()
    story.end("train", 1, ExitCode.PREEMPTED, Report(reason=Reason.PREEMPTED, last_step=40))
    story.job("train", 2)
    report = Report(reason=Reason.DATASET_TOO_SMALL, message="dataset clips 1 has 3 clips and a batch needs 4")
    story.end("train", 2, ExitCode.DATA_REJECTED, report)
    story.says("False", Reason.DATASET_TOO_SMALL)
    assert "3 clips and a batch needs 4" in story.message()
    phase = story.run()["status"]["phases"][0]
    assert (phase["attempt"], phase["countedAttempts"], phase["checkpointStep"]) == (2, 1, 40)


@pytest.mark.timeout(150)
def test_where_two_workers_are_wanted_and_one_has_room_one_trains(story: Story, operator: Any) -> None:
    operator.start()
    story.begin(phases=[TRAIN | {"resources": {"workers": 2, "minWorkers": 1, "allWorkersDeadlineSeconds": 5}}])
    no_place = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes are available"}
    names = play(story.api, story.namespace, story.job("train", 1), {"phase": "Pending", "conditions": [no_place]})
    story.says("Unknown", Reason.INSUFFICIENT_CAPACITY)  # there is no node here
    story.api.merge(f"{story.core}/pods/{names[0]}/status", {"status": running() | {"conditions": []}})
    smaller = eventually(lambda: story.api.find(f"{story.jobs}/run-train-2"), 60)  # the garbage collector learns a new kind every 30 s
    assert list(smaller["spec"]["pytorchReplicaSpecs"]) == ["Master"]
    file = json.loads(story.api.get(f"{story.core}/configmaps/run-train-2")["data"]["job.json"])
    assert (file["workers"], file["gradientAccumulationSteps"], file["recipe"]["gradientAccumulationSteps"]) == (1, 2, 1)
    eventually(lambda: story.api.find(f"{story.jobs}/run-train-1") is None, 30)
    play(story.api, story.namespace, story.job("train", 2), running())
    story.says("Unknown", Reason.TRAINING)
    assert "1 of 2 workers: there was no room for the others" in story.message()
    phase = story.run()["status"]["phases"][0]
    assert (phase["attempt"], phase["workers"], phase["countedAttempts"], phase["interruptions"]) == (2, 1, 0, 0)
    assert [(one["reason"], one["workers"]) for one in phase["attempts"]] == [("Unschedulable", 2)]
    story.end("train", 2, ExitCode.PREEMPTED, Report(reason=Reason.PREEMPTED, last_step=40))
    assert story.job("train", 3)["spec"]["pytorchReplicaSpecs"]["Worker"]["replicas"] == 2, "all are tried again"


def test_work_that_was_done_while_the_operator_was_away_counts_after_the_deadline_too(story: Story, operator: Any) -> None:
    operator.start()
    story.begin(phases=[TRAIN | {"deadlineSeconds": 15}])
    play(story.api, story.namespace, story.job("train", 1), running())
    story.says("Unknown", Reason.TRAINING)
    operator.stop(signal.SIGKILL)
    story.end("train", 1, 0, trained())
    began = datetime.fromisoformat(story.run()["status"]["phases"][0]["startTime"])
    time.sleep(max(0, 16 - (datetime.now(UTC) - began).total_seconds()))
    operator.start()
    story.says("True", Reason.COMPLETED)
    assert story.run()["status"]["artifact"]["digest"] == DIGEST


def test_a_squatted_name_is_refused_until_it_is_free(story: Story, operator: Any) -> None:
    operator.start()
    stranger = {"metadata": {"name": "run-train-1", "labels": {"app": "stranger"}}, "data": {"job.json": "{}"}}
    story.api.create(f"{story.core}/configmaps", stranger)
    story.begin()
    story.says("Unknown", Reason.NAME_CONFLICT)
    assert "ConfigMap run-train-1" in story.message()
    assert story.api.items(story.jobs) == []
    assert story.api.get(f"{story.core}/configmaps/run-train-1")["data"] == {"job.json": "{}"}
    story.api.delete(f"{story.core}/configmaps/run-train-1")
    story.job("train", 1)


def test_deletion_in_any_state_takes_the_children_along(story: Story, operator: Any) -> None:
    operator.start()
    story.begin()
    play(story.api, story.namespace, story.job("train", 1), running())
    story.api.delete(f"{story.runs}/run")
    eventually(lambda: story.api.find(f"{story.runs}/run") is None and story.api.items(story.jobs) == [], 30)
    eventually(lambda: story.api.items(f"{story.core}/pods") == [], 30)
    eventually(lambda: story.api.find(f"{story.core}/configmaps/run-train-1") is None, 30)


def test_a_lost_job_is_made_again(story: Story, operator: Any) -> None:
    operator.start()
    story.begin()
    story.job("train", 1)
    story.says("Unknown", Reason.STARTING)
    story.api.delete(f"{story.jobs}/run-train-1")
    story.job("train", 2)
    assert story.run()["status"]["phases"][0]["countedAttempts"] == 0
