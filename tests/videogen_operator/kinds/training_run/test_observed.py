"""The snapshot: what this operator cannot read is told on its own object, and disturbs nobody else."""

from typing import Any

import pytest

from videogen_api.training_run import Reason
from videogen_operator.kinds.training_run import TRAINING_RUN
from videogen_operator.kinds.training_run.observed import Observed
from videogen_operator.plan import Inputs, Key
from videogen_testing.queue_simulation import PENDING, QueueSimulation
from videogen_testing.run_simulation import KEY, Simulation
from videogen_testing.runs import EVALUATE, RELEASE, TRAIN, a_run, ended, running, trained

RELEASE_NAME = "pib-videogen-videofusion-v1.0.0-base"
OTHER = Key("TrainingRun", "models", "other")
UNREADABLE: list[tuple[str, Any, Any, str]] = [
    ("a field of a newer version", {"surprise": 1}, {}, "spec.surprise: "),
    ("a phase of a newer version", {"phases": [TRAIN | {"task": "Distill"}]}, {}, "spec.phases.0.task: "),
    ("a storage of another shape", {"storage": "models"}, {}, "spec.storage: "),
    ("a model of another shape", {"model": "1.0.0"}, {}, "spec.model: "),
    ("a model from before there were families", {"model": {"type": "videofusion", "version": "1.0.0"}}, {}, "spec.model.family: "),
    ("resources from before they were Kubernetes' own", {"phases": [TRAIN | {"resources": {"workers": 2}}]}, {}, "spec.phases.0.resources"),
    ("a status of another shape", {}, {"phases": [{"name": "train", "attempt": "two"}]}, "status.phases.0.attempt: "),
    ("a status that is a list of conditions alone", {}, {"conditions": {"Succeeded": "True"}}, "status.conditions: "),
]


def with_neighbour(spec: Any, status: Any) -> Simulation:
    """A good run beside one that cannot be read."""
    sim = Simulation(phases=[TRAIN, EVALUATE, RELEASE])
    strange = a_run("other")
    sim.put(strange | {"spec": strange["spec"] | spec, "status": status}, "models", generation=3)
    return sim


def told(sim: Simulation, key: Key = OTHER) -> Any:
    observed = TRAINING_RUN.observe(sim.world, key)
    assert observed is not None
    assert TRAINING_RUN.queries(observed, Inputs(now=sim.now)) == ()
    return TRAINING_RUN.plan(observed, Inputs(now=sim.now))


@pytest.mark.parametrize("spec, status, words", [row[1:] for row in UNREADABLE], ids=[row[0] for row in UNREADABLE])
def test_a_run_of_another_version_is_told_and_keeps_the_rest_of_its_status(spec: Any, status: Any, words: str) -> None:
    sim = with_neighbour(spec, status | {"lastHandledRequest": "retry@1"})
    plan = told(sim)
    assert (plan.create, plan.delete, plan.requeue_after) == ((), (), None)
    (write,) = plan.statuses
    conditions = {one["type"]: one for one in write.status["conditions"]}
    assert {kind: one["status"] for kind, one in conditions.items()} == {"Succeeded": "Unknown", "Stalled": "True"}
    assert conditions["Stalled"]["message"].startswith(f"this operator cannot read it: {words}")
    assert {one["reason"] for one in conditions.values()} == {"Unreadable"}
    assert "write it anew as docs/upgrading.md says" in conditions["Stalled"]["message"]
    kept = {key: value for key, value in write.status.items() if key not in {"conditions", "observedGeneration"}}
    assert kept == {key: value for key, value in (status | {"lastHandledRequest": "retry@1"}).items() if key != "conditions"}
    assert write.status["observedGeneration"] == 3


def test_it_is_told_once() -> None:
    sim = with_neighbour({"surprise": 1}, {})
    (write,) = told(sim).statuses
    sim.put(sim.world.get("TrainingRun", "models", "other") | {"status": write.status})  # type: ignore[operator]
    assert told(sim).statuses == ()


def test_a_run_that_has_ended_stays_as_it_is() -> None:
    done = {"type": "Succeeded", "status": "True", "reason": "Completed", "lastTransitionTime": "2026-11-01T00:00:00Z"}
    sim = with_neighbour({"surprise": 1}, {"conditions": [done]})
    assert told(sim).statuses == ()


def test_pods_of_a_run_that_became_unreadable_run_on() -> None:
    sim = Simulation()
    sim.settle()
    sim.set_pods(running())
    sim.settle()
    sim.spec(surprise=1)
    plan = told(sim, KEY)
    assert (plan.create, plan.delete) == ((), ())
    (write,) = plan.statuses
    assert write.status["phases"] == sim.run()["status"]["phases"]


@pytest.mark.parametrize("spec, status", [row[1:3] for row in UNREADABLE], ids=[row[0] for row in UNREADABLE])
def test_whoever_changes_an_unreadable_neighbour_disturbs_nobody(spec: Any, status: Any) -> None:
    sim = with_neighbour(spec, status)
    sim.settle()
    claim, release = {"kind": "PersistentVolumeClaim"}, {"kind": "ModelRelease"}
    assert KEY in list(TRAINING_RUN.keys(claim | {"metadata": {"name": "models", "namespace": "models"}}, sim.world))
    assert KEY in list(TRAINING_RUN.keys(release | {"metadata": {"name": RELEASE_NAME, "namespace": "models"}}, sim.world))
    assert OTHER in list(TRAINING_RUN.keys(sim.world.get("TrainingRun", "models", "other") or {}, sim.world))
    sim.set_pods(ended(0, trained().model_dump_json(by_alias=True, exclude_none=True)))
    sim.settle()
    assert [phase.outcome for phase in sim.status().phases] == [Reason.COMPLETED, None]


DONE = {"conditions": [{"type": "Succeeded", "status": "True"}]}
SOURCES: list[tuple[str, str, Any, str]] = [
    ("a release without a spec", "ModelRelease", {}, "has made no bundle"),
    ("a release of another shape", "ModelRelease", {"spec": {"artifact": ["x"]}}, "cannot read: path: "),
    ("a release whose digest is none", "ModelRelease", {"spec": {"artifact": {"path": "x", "digest": "md5:1"}}}, "cannot read: digest: "),
    (
        "a run without a spec",
        "TrainingRun",
        {"status": DONE | {"artifact": {"path": "x", "digest": "sha256:" + "a" * 64}}},
        "on claim None",
    ),
    ("a run that made nothing", "TrainingRun", {"spec": {}, "status": DONE}, "has made no bundle; name a run with a training phase"),
]


@pytest.mark.parametrize("kind, content, words", [row[1:] for row in SOURCES], ids=[row[0] for row in SOURCES])
def test_a_source_of_weights_that_cannot_be_read_is_waited_for(kind: str, content: Any, words: str) -> None:
    name = RELEASE_NAME if kind == "ModelRelease" else "source"
    sim = Simulation(initFrom={"release" if kind == "ModelRelease" else "run": name})
    head = {"apiVersion": "videogen.pib.gov.in/v1alpha1", "kind": kind, "metadata": {"name": name}}
    sim.put(head | content, "models")
    sim.settle()
    assert sim.top() == ("Unknown", Reason.INIT_FROM_NOT_FOUND)
    assert any(words in one.message for one in sim.status().conditions)


@pytest.mark.parametrize("status", ["done", {}, {"conditions": "all"}, {"conditions": ["Succeeded"]}])
def test_a_run_whose_status_says_nothing_that_can_be_read_has_not_succeeded(status: Any) -> None:
    sim = Simulation(initFrom={"run": "source"})
    sim.put(a_run("source") | {"status": status}, "models")
    sim.settle()
    assert sim.top() == ("Unknown", Reason.INIT_FROM_NOT_READY)


def test_a_release_of_the_same_name_that_cannot_be_read_is_waited_for_and_is_no_conflict() -> None:
    sim = Simulation(phases=[TRAIN, EVALUATE | {"gates": []}, RELEASE])
    head = {"apiVersion": "videogen.pib.gov.in/v1alpha1", "kind": "ModelRelease", "metadata": {"name": RELEASE_NAME}}
    sim.put(head | {"spec": {"bundle": "elsewhere"}}, "models")
    sim.settle()
    sim.set_pods(ended(0, trained().model_dump_json(by_alias=True, exclude_none=True)))
    sim.settle()
    sim.set_pods(ended(0, '{"results":[{"metric":"FVD","value":"1","samples":128}]}'))
    sim.settle()
    assert sim.top() == ("Unknown", Reason.RELEASING)
    assert "cannot read its spec.artifact.digest" in sim.status().conditions[0].message


def test_a_label_that_is_no_number_stops_nothing() -> None:
    sim = Simulation()
    sim.settle()
    sim.set_pods(running())
    (pod,) = sim.pods()
    sim.put(pod | {"metadata": pod["metadata"] | {"name": "stranger", "uid": "stranger"}})
    sim.put(sim.world.get("Pod", "models", "stranger"), labels=pod["metadata"]["labels"] | {"videogen.pib.gov.in/attempt": "x"})
    sim.settle()
    sim.set_pods(ended(1))
    sim.settle()
    assert sim.status().phases[0].attempts[0].reason == Reason.TRAINER_FAILED


def test_a_workload_wakes_the_run_whose_job_it_is_for_and_nobody_else() -> None:
    sim = QueueSimulation()
    sim.kueue_says(PENDING)
    (workload,) = sim.world.list("Workload", "models")
    assert list(TRAINING_RUN.keys(workload, sim.world)) == [KEY]
    (owner,) = workload["metadata"]["ownerReferences"]
    stranger = workload | {"metadata": workload["metadata"] | {"ownerReferences": [owner | {"name": "of-another-team"}]}}
    assert list(TRAINING_RUN.keys(stranger, sim.world)) == []


def test_a_workload_that_only_names_our_job_says_nothing_about_it() -> None:
    sim = QueueSimulation()
    sim.kueue_says(PENDING)
    (workload,) = sim.world.list("Workload", "models")
    (owner,) = workload["metadata"]["ownerReferences"]
    sim.put(workload, ownerReferences=[owner | {"uid": "another"}])
    observed = TRAINING_RUN.observe(sim.world, KEY)
    assert isinstance(observed, Observed)
    assert observed.workloads == ()
