"""Somebody who may create pods in the namespace writes the labels of an attempt's pod and a report of their own: no gate believes it."""

from typing import Any

import pytest

from videogen_api.evaluation import Metric, MetricResult
from videogen_api.job import ExitCode, Report
from videogen_api.training_run import Reason
from videogen_operator.kinds.training_run.observed import is_pod_of
from videogen_testing.run_simulation import Simulation
from videogen_testing.runs import EVALUATE, TRAIN, ended, running, trained

PERFECT = ended(
    0, Report(results=[MetricResult(metric=Metric.FVD, value="0.1", samples=1000)]).model_dump_json(by_alias=True, exclude_none=True)
)
POOR = ended(
    0, Report(results=[MetricResult(metric=Metric.FVD, value="900", samples=1000)]).model_dump_json(by_alias=True, exclude_none=True)
)


def evaluating() -> Simulation:
    """A run whose evaluation has begun."""
    sim = Simulation(phases=[TRAIN, EVALUATE])
    sim.settle()
    sim.set_pods(ended(0, trained().model_dump_json(by_alias=True, exclude_none=True)))
    sim.settle()
    sim.set_pods(running())
    sim.settle()
    assert sim.top() == ("Unknown", Reason.EVALUATING)
    return sim


def owner(kind: str, name: str, uid: str, controller: bool = True) -> dict[str, Any]:
    return {"apiVersion": "kubeflow.org/v1", "kind": kind, "name": name, "uid": uid, "controller": controller}


def forge(sim: Simulation, name: str, *owners: dict[str, Any]) -> None:
    """A pod with the labels of the evaluation's own pod, a perfect report, and these owners."""
    job = sim.current_job()
    labels = job["metadata"]["labels"]
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": labels, "ownerReferences": list(owners)},
        "status": PERFECT,
    }
    sim.put(pod, "models")
    sim.settle()


def forged(sim: Simulation, how: str) -> None:
    job = sim.current_job()["metadata"]
    match how:
        case "no owner":
            forge(sim, "stranger")
        case "no owner, and the name of a second worker":
            forge(sim, f"{job['name']}-worker-1")
        case "another owner of the job's name":
            forge(sim, f"{job['name']}-worker-1", owner("PyTorchJob", job["name"], "another"))
        case "an owner that does not control it":
            forge(sim, f"{job['name']}-worker-1", owner("PyTorchJob", job["name"], job["uid"], controller=False))
        case "the run itself as its owner":
            forge(sim, f"{job['name']}-worker-1", owner("TrainingRun", "run", sim.run()["metadata"]["uid"]))
        case "the job as its owner, and a name that training-operator never gives":
            forge(sim, "stranger", owner("PyTorchJob", job["name"], job["uid"]))


WAYS = [
    "no owner",
    "no owner, and the name of a second worker",
    "another owner of the job's name",
    "an owner that does not control it",
    "the run itself as its owner",
    "the job as its owner, and a name that training-operator never gives",
]


@pytest.mark.parametrize("how", WAYS)
def test_a_forged_report_passes_no_gate(how: str) -> None:
    sim = evaluating()
    (own,) = sim.made[sim.current_job()["metadata"]["name"]]
    forged(sim, how)
    assert sim.top() == ("Unknown", Reason.EVALUATING), [one.message for one in sim.status().conditions]
    sim.put({"apiVersion": "v1", "kind": "Pod"} | own | {"status": POOR}, "models")
    sim.settle()
    assert sim.top() == ("False", Reason.GATE_FAILED)


# The garbage collector takes a pod whose owner does not exist, so the third way keeps nobody waiting for long.
@pytest.mark.parametrize("how", [how for how in WAYS if how != "another owner of the job's name"])
def test_a_forged_pod_keeps_no_next_attempt_waiting(how: str) -> None:
    sim = evaluating()
    (own,) = sim.made[sim.current_job()["metadata"]["name"]]
    forged(sim, how)
    pod = next(pod for pod in sim.pods() if pod["status"] == PERFECT)
    sim.put(pod | {"status": running()})
    sim.put({"apiVersion": "v1", "kind": "Pod"} | own | {"status": ended(1)}, "models")
    for _ in range(4):
        sim.step(60)
    assert sim.status().phases[-1].attempt == 2


def test_a_job_that_is_not_the_runs_own_brings_no_report() -> None:
    sim = evaluating()
    job = sim.current_job()
    sim.put(job, ownerReferences=[owner("TrainingRun", "run", "another")])
    sim.set_pods(PERFECT)
    sim.settle()
    assert sim.top()[1] != Reason.COMPLETED


def test_a_job_that_says_it_has_thousands_of_millions_of_replicas_stops_nobody() -> None:
    """Each name that it could have would be made, in the operator's one event loop, while all tenants wait."""
    job = {"metadata": {"name": "job", "uid": "u"}, "spec": {"pytorchReplicaSpecs": {"Master": {}, "Worker": {"replicas": 2**31 - 1}}}}
    owners = [owner("PyTorchJob", "job", "u")]
    names = [
        "stranger",
        "job-worker-",
        "job-worker-x",
        "job-worker-01",
        "job-worker--1",
        "job-worker-2147483647",
        "job-worker-" + "9" * 200,
    ]
    for name in [*names, "job-master-1", "other-worker-0"]:
        assert not is_pod_of({"metadata": {"name": name, "ownerReferences": owners}}, job), name
    for name in ("job-master-0", "job-worker-0", "job-worker-2147483646"):
        assert is_pod_of({"metadata": {"name": name, "ownerReferences": owners}}, job), name


@pytest.mark.parametrize("message", ["{}", '{"reason": "Completed"}'])
def test_a_failed_evaluation_is_no_completed_one_whatever_its_message_says(message: str) -> None:
    sim = evaluating()
    sim.set_pods(ended(ExitCode.EXTRACTOR_MISSING, message))
    sim.settle()
    assert sim.top() == ("False", Reason.EXTRACTOR_MISSING)
