"""TrainingRuns with the real operator against a real API server; the tests play training-operator and kubelet."""

import json
import signal
import time
from datetime import UTC, datetime
from typing import Any

import pytest

from videogen_api.evaluation import Metric, MetricResult
from videogen_api.job import ExitCode, Report
from videogen_api.meta import API_VERSION
from videogen_api.training_run import Reason
from videogen_testing.control_plane import Api, Refused, eventually
from videogen_testing.runs import DIGEST, EVALUATE, JOBS, RELEASE, RUNS, TRAIN, a_claim, a_run, ended, passed, play, running, trained

RELEASES = "/apis/videogen.pib.gov.in/v1alpha1/namespaces/{}/modelreleases"
WRITES = ("POST", "PATCH", "PUT", "DELETE")


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
        eventually(lambda: self.succeeded() == (status, reason) or None)

    def pass_preflight(self) -> None:
        """The pod of the preflight finds that all is there."""
        name = eventually(lambda: self.run()["status"].get("preflight", {}).get("jobName"))
        play(self.api, self.namespace, eventually(lambda: self.api.find(f"{self.jobs}/{name}")), ended(0, passed()))

    def job(self, phase: str, attempt: int) -> Any:
        if phase == self.run()["spec"]["phases"][0]["name"] and attempt == 1 and self.api.find(f"{self.jobs}/run-{phase}-1") is None:
            self.pass_preflight()
        return eventually(lambda: self.api.find(f"{self.jobs}/run-{phase}-{attempt}"))

    def job_file(self, job: Any) -> Any:
        """The ConfigMap that the pods of a job read."""
        (replicas,) = job["spec"]["pytorchReplicaSpecs"].values()
        volume = next(one for one in replicas["template"]["spec"]["volumes"] if one["name"] == "job")
        return self.api.get(f"{self.core}/configmaps/{volume['configMap']['name']}")

    def costs(self, operator: Any, before: int, made: list[str]) -> None:
        """So many writes since then, and no more."""
        eventually(lambda: operator.requests(*WRITES) - before >= len(made))
        lines = [line for line in operator.metrics().splitlines() if line.startswith("videogen_api_requests_total")]
        assert operator.requests(*WRITES) - before == len(made), "\n".join(lines)

    def end(self, phase: str, attempt: int, code: int, report: Report | None = None, reason: str = "") -> None:
        message = report.model_dump_json(by_alias=True, exclude_none=True) if report else ""
        play(self.api, self.namespace, self.job(phase, attempt), ended(code, message, reason))


@pytest.fixture
def story(api: Api, namespace: str) -> Story:
    return Story(api, namespace)


def test_a_run_becomes_a_job_and_ends_as_a_release(story: Story, operator: Any) -> None:
    operator.start()
    handed_over = RELEASE | {"release": RELEASE["release"] | {"waitFor": "Created"}}  # there is no gateway that could bring it traffic
    story.begin(phases=[TRAIN, EVALUATE, handed_over])
    job = story.job("train", 1)
    assert story.job_file(job)["immutable"] is True
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


def test_creation_costs_ten_requests_and_rest_costs_none(story: Story, operator: Any) -> None:
    operator.start()
    before = operator.requests(*WRITES)
    story.begin()
    story.says("Unknown", Reason.CHECKING)
    made = ["ConfigMap", "PyTorchJob", "status"]
    of_preflight = ["NetworkPolicy", *made]
    story.costs(operator, before, of_preflight)
    story.job("train", 1)
    story.says("Unknown", Reason.STARTING)
    story.costs(operator, before, [*of_preflight, "status", "Event", *made, "Event"])  # passed, and begun; the first attempt
    starts_again_without_a_write(story, operator)  # at work: the policy that denies all is as it was, without its empty list of rules
    play(story.api, story.namespace, story.job("train", 1), ended(0, trained().model_dump_json(by_alias=True, exclude_none=True)))
    story.says("True", Reason.COMPLETED)
    starts_again_without_a_write(story, operator)


def starts_again_without_a_write(story: Story, operator: Any) -> None:
    operator.stop(signal.SIGKILL)
    version = story.run()["metadata"]["resourceVersion"]
    operator.start()
    eventually(lambda: operator.metrics().count('videogen_reconcile_total{kind="TrainingRun",result="Done"}'))
    assert operator.requests(*WRITES) == 0
    assert story.run()["metadata"]["resourceVersion"] == version


def test_a_failed_gate_stalls_the_run_and_retry_repeats_it(story: Story, operator: Any) -> None:
    operator.start()
    story.begin(phases=[EVALUATE | {"name": "validate"}], initFrom={"release": "pib-videogen-videofusion-v0.9.0-base"})
    story.says("Unknown", Reason.INIT_FROM_NOT_FOUND)
    assert "pib-videogen-videofusion-v0.9.0-base" in story.message()
    artifact = {"claimName": "models", "path": "bundles/x", "digest": DIGEST}
    model = {"family": "VideoFusion", "version": "0.9.0"}
    manifest = {"apiVersion": "videogen.pib.gov.in/v1alpha1", "kind": "ModelRelease"} | {
        "metadata": {"name": "pib-videogen-videofusion-v0.9.0-base"},
        "spec": {"service": "standard", "model": model, "artifact": artifact},
    }
    story.api.create(RELEASES.format(story.namespace), manifest)
    story.says("Unknown", Reason.INIT_FROM_NOT_READY)
    served = {"state": "Superseded", "promotedTime": "2026-10-01T00:00:00Z"}
    story.api.merge(f"{RELEASES.format(story.namespace)}/{manifest['metadata']['name']}/status", {"status": {"rollout": served}})
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
    eventually(lambda: story.api.items(story.jobs) == [] and story.api.items(f"{story.core}/pods") == [])
    story.api.merge(f"{story.runs}/run", {"spec": {"suspend": False}})
    story.job("train", 2)
    phase = eventually(lambda: [p for p in story.run()["status"]["phases"] if p["attempt"] == 2])[0]
    assert phase["countedAttempts"] == 0
    assert [record["reason"] for record in phase["attempts"]] == ["Suspended"]


def test_what_has_not_begun_is_corrected_while_the_run_is_suspended(story: Story, operator: Any) -> None:
    operator.start()
    story.begin(phases=[TRAIN | {"attempts": 1}, EVALUATE])
    story.job("train", 1)
    story.api.merge(f"{story.runs}/run", {"spec": {"suspend": True}})
    story.says("Unknown", Reason.SUSPENDED)
    assert [(phase["name"], phase["begun"]) for phase in story.run()["status"]["phases"]] == [("train", True)]
    phases = [TRAIN | {"attempts": 2}, TRAIN | {"name": "longer"}, EVALUATE | {"data": [{"dataset": "other", "version": "1"}]}]
    story.api.merge(f"{story.runs}/run", {"spec": {"phases": phases}})
    story.api.merge(f"{story.runs}/run", {"spec": {"suspend": False}})
    story.end("train", 2, 0, trained())
    story.end("longer", 1, 0, trained())
    assert json.loads(story.job_file(story.job("validate", 1))["data"]["job.json"])["data"][0]["reference"]["dataset"] == "other"
    with pytest.raises(Refused, match="can only be changed while the run is suspended"):
        story.api.merge(f"{story.runs}/run", {"spec": {"phases": phases[:2]}})


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


def test_where_two_workers_are_wanted_and_one_has_room_one_trains(story: Story, operator: Any) -> None:
    operator.start()
    story.begin(phases=[TRAIN | {"workers": {"replicas": 2, "minReplicas": 1, "allReplicasDeadlineSeconds": 5}}])
    no_place = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes are available"}
    names = play(story.api, story.namespace, story.job("train", 1), {"phase": "Pending", "conditions": [no_place]})
    story.says("Unknown", Reason.INSUFFICIENT_CAPACITY)  # there is no node here
    story.api.merge(f"{story.core}/pods/{names[0]}/status", {"status": running() | {"conditions": []}})
    smaller = eventually(lambda: story.api.find(f"{story.jobs}/run-train-2"))  # the garbage collector learns a new kind every 30 s
    assert list(smaller["spec"]["pytorchReplicaSpecs"]) == ["Master"]
    file = json.loads(story.job_file(smaller)["data"]["job.json"])
    assert (file["workers"], file["gradientAccumulationSteps"], file["recipe"]["gradientAccumulationSteps"]) == (1, 2, 1)
    eventually(lambda: story.api.find(f"{story.jobs}/run-train-1") is None)
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
    story.begin(phases=[TRAIN | {"window": {"deadlineSeconds": 60}}])
    play(story.api, story.namespace, story.job("train", 1), running())
    story.says("Unknown", Reason.TRAINING)
    operator.stop(signal.SIGKILL)
    story.end("train", 1, 0, trained())
    began = datetime.fromisoformat(story.run()["status"]["phases"][0]["startTime"])
    time.sleep(max(0, 61 - (datetime.now(UTC) - began).total_seconds()))
    operator.start()
    story.says("True", Reason.COMPLETED)
    assert story.run()["status"]["artifact"]["digest"] == DIGEST


def test_a_quota_that_refuses_a_job_is_named(story: Story, operator: Any) -> None:
    path = f"{story.core}/resourcequotas"
    none = {"count/pytorchjobs.kubeflow.org": "0"}
    story.api.create(path, {"metadata": {"name": "no-jobs"}, "spec": {"hard": none}})
    story.api.merge(f"{path}/no-jobs/status", {"status": {"hard": none, "used": none}})  # its controller is not here
    operator.start()
    story.begin()
    story.says("Unknown", Reason.QUOTA_EXCEEDED)
    assert "exceeded quota: no-jobs" in story.message()
    story.api.delete(f"{path}/no-jobs")
    story.job("train", 1)


def test_a_policy_that_refuses_a_job_is_named(story: Story, operator: Any) -> None:
    kinds = "/apis/admissionregistration.k8s.io/v1"
    name, words = f"no-jobs-{story.namespace}", "not in this namespace"
    rule = {"apiGroups": ["kubeflow.org"], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pytorchjobs"]}
    here = {"matchLabels": {"kubernetes.io/metadata.name": story.namespace}}
    match = {"resourceRules": [rule], "namespaceSelector": here}
    policy = {"matchConstraints": match, "validations": [{"expression": "false", "message": words}]}
    story.api.create(f"{kinds}/validatingadmissionpolicies", {"metadata": {"name": name}, "spec": policy})
    binding = {"policyName": name, "validationActions": ["Deny"]}
    story.api.create(f"{kinds}/validatingadmissionpolicybindings", {"metadata": {"name": name}, "spec": binding})
    probe = {"apiVersion": "kubeflow.org/v1", "kind": "PyTorchJob", "metadata": {"name": "probe"}, "spec": {"pytorchReplicaSpecs": {}}}

    def is_in_force() -> bool:
        try:
            story.api.create(story.jobs + "?dryRun=All", probe)
        except Refused as refused:
            return words in str(refused)
        return False

    eventually(is_in_force)
    try:
        operator.start()
        story.begin()
        story.says("Unknown", Reason.ADMISSION_DENIED)
        assert words in story.message()
    finally:
        story.api.delete(f"{kinds}/validatingadmissionpolicybindings/{name}")
        story.api.delete(f"{kinds}/validatingadmissionpolicies/{name}")
    story.job("train", 1)


@pytest.mark.parametrize("owned", [False, True], ids=["of nobody", "that names the run as its owner"])
def test_a_squatted_name_is_refused_until_it_is_free(story: Story, operator: Any, owned: bool) -> None:
    container = {"name": "pytorch", "image": "stranger"}
    spec = {"pytorchReplicaSpecs": {"Master": {"template": {"spec": {"containers": [container]}}}}}
    stranger = {"apiVersion": "kubeflow.org/v1", "kind": "PyTorchJob", "metadata": {"name": "run-train-1"}, "spec": spec}
    story.begin()
    if owned:
        run = {"apiVersion": API_VERSION, "kind": "TrainingRun", "name": "run", "uid": story.run()["metadata"]["uid"]}
        stranger["metadata"]["ownerReferences"] = [run | {"controller": True}]
    made = story.api.create(story.jobs, stranger)
    operator.start()
    story.pass_preflight()
    story.says("Unknown", Reason.NAME_CONFLICT)
    assert "PyTorchJob run-train-1 cannot be created" in story.message()
    assert [job["metadata"]["name"] for job in story.api.items(story.jobs)] == ["run-train-0", "run-train-1"]
    assert story.api.get(f"{story.jobs}/run-train-1")["metadata"]["uid"] == made["metadata"]["uid"]
    story.api.delete(f"{story.jobs}/run-train-1")
    eventually(lambda: story.job("train", 1)["metadata"]["uid"] != made["metadata"]["uid"])


def test_deletion_in_any_state_takes_the_children_along(story: Story, operator: Any) -> None:
    operator.start()
    story.begin()
    job = story.job("train", 1)
    file = f"{story.core}/configmaps/{story.job_file(job)['metadata']['name']}"
    play(story.api, story.namespace, job, running())
    story.api.delete(f"{story.runs}/run")
    eventually(lambda: story.api.find(f"{story.runs}/run") is None and story.api.items(story.jobs) == [])
    eventually(lambda: story.api.items(f"{story.core}/pods") == [])
    eventually(lambda: story.api.find(file) is None)


def test_a_lost_job_is_made_again(story: Story, operator: Any) -> None:
    operator.start()
    story.begin()
    story.job("train", 1)
    story.says("Unknown", Reason.STARTING)
    story.api.delete(f"{story.jobs}/run-train-1")
    story.job("train", 2)
    assert story.run()["status"]["phases"][0]["countedAttempts"] == 0
