"""The preflight in a closed loop: nothing begins before it is passed, and what stands against that is told."""

from dataclasses import replace
from typing import Any

import pytest

from videogen_api.fine_tune_cycle import LABEL_CYCLE, LABEL_MEASURES
from videogen_api.job import ExitCode, Report
from videogen_api.meta import ANNOTATION_REQUEST
from videogen_api.preflight import Preflight, Problem
from videogen_api.training_run import Reason
from videogen_testing.run_simulation import Simulation
from videogen_testing.runs import EVALUATE, RELEASE, TRAIN, ended, passed, running, trained, volumes_of

MISSING = Problem(path="spec.phases[0].data[0]", message="dataset clips has no version '1'; run a Curate phase for it first")
ZERO = Problem(path="spec.phases[1].evaluate.extractors[0]", message="i3d: the digest is 64 zeros")
GPU = {"limits": {"nvidia.com/gpu": 8}}


def waiting(**run: Any) -> Simulation:
    """A run whose preflight has a job, and whose pod does what a test says."""
    sim = Simulation(**run)
    sim.preflight = None
    sim.settle()
    return sim


def preflight(sim: Simulation) -> Preflight:
    found = sim.status().preflight
    assert found is not None
    return found


def conditions(sim: Simulation) -> dict[str, tuple[str, str]]:
    return {one.type: (one.reason, one.message) for one in sim.status().conditions}


def test_one_pod_looks_before_the_first_attempt_and_then_it_begins() -> None:
    sim = waiting(phases=[TRAIN, EVALUATE])
    assert sim.preflights() == ("run-train-0",)
    assert (sim.jobs(), sim.status().phases) == ((), [])
    assert sim.top() == ("Unknown", Reason.CHECKING)
    sim.set_preflight(running())
    sim.settle()
    assert conditions(sim)["Succeeded"] == (Reason.CHECKING, "train: looks at what 2 phases will need (PyTorchJob run-train-0)")
    sim.set_preflight(ended(0, passed()))
    plan = sim.step()
    assert (preflight(sim).problems, preflight(sim).checked, plan.create) == ([], 5, ()), "it is written before anything begins"
    sim.settle()
    assert [job["metadata"]["name"] for job in sim.jobs()] == ["run-train-1"]
    assert [one.phase for one in sim.preflight_files["run-train-0"].preflight] == ["train", "validate"]
    sim.set_pods(ended(0, trained().model_dump_json(by_alias=True, exclude_none=True)))
    sim.settle()
    assert len(sim.preflights()) == 1, "a later phase has none"


@pytest.mark.parametrize(
    ("labels", "looks"),
    [({}, None), ({LABEL_CYCLE: "weekly"}, True), ({LABEL_CYCLE: "weekly", LABEL_MEASURES: "base-1.0.0"}, None)],
    ids=["of no cycle", "of a cycle", "of a cycle that measures"],
)
def test_a_version_that_a_cycle_has_made_is_looked_for_in_the_storage(labels: dict[str, str], looks: bool | None) -> None:
    sim = Simulation()
    sim.preflight = None
    sim.put(dict(sim.run()), labels=labels)
    sim.settle()
    assert sim.preflight_files["run-train-0"].new_version is looks


def test_all_problems_stand_in_one_condition_and_the_run_waits_stalled() -> None:
    sim = waiting(phases=[TRAIN | {"resources": GPU}, EVALUATE])
    sim.set_preflight(ended(0, passed(MISSING, ZERO)))
    sim.settle()
    told = conditions(sim)
    assert told.keys() == {"Succeeded", "Stalled"}, "no tool waits for what does not go on by itself"
    assert told["Stalled"] == told["Succeeded"]
    assert told["Stalled"] == (
        Reason.PREFLIGHT_FAILED,
        "3 problems before the first attempt: spec.phases[0].resources: one worker asks for 8 GPUs and the largest node has 0; add a larger"
        f" node, or suspend the run and ask for less in the phase's resources; {MISSING.path}: {MISSING.message}; {ZERO.path}: {ZERO.message}",
    )
    assert [problem.path for problem in preflight(sim).problems] == ["spec.phases[0].resources", MISSING.path, ZERO.path]
    assert (preflight(sim).checked, sim.jobs()) == (5, ())


def test_what_is_mended_is_found_by_the_next_preflight() -> None:
    sim = waiting()
    sim.set_preflight(ended(0, passed(MISSING)))
    sim.settle()
    assert sim.step(59).create == ()
    sim.step(1)
    assert conditions(sim)["Stalled"][0] == Reason.PREFLIGHT_FAILED, "until it is known to be mended"
    (again,) = sim.preflights()
    assert again != "run-train-0", "of a lost node's pods the name stays taken"
    sim.set_preflight(ended(0, passed()))
    sim.settle()
    assert conditions(sim).keys() == {"Succeeded"}
    assert [job["metadata"]["name"] for job in sim.jobs()] == ["run-train-1"]
    assert [line.partition(":")[0] for line in sim.log if "reflight" in line] == [
        "PreflightFailed",
        "PreflightPassed",
    ]


@pytest.mark.parametrize("how", ["a retry request", "a spec that was changed"])
def test_who_has_mended_it_need_not_wait(how: str) -> None:
    sim = waiting()
    sim.set_preflight(ended(0, passed(MISSING)))
    sim.settle()
    assert sim.step(5).create == ()
    if how == "a retry request":
        sim.annotate(ANNOTATION_REQUEST, "retry@1")
    else:
        sim.spec(ttlSecondsAfterFinished=5)
    sim.settle()
    assert preflight(sim).number == 2
    assert preflight(sim).job_name in sim.preflights()


@pytest.mark.parametrize(
    "pod, reason",
    [
        ({"phase": "Failed", "reason": "Evicted", "message": "the node was low on memory"}, Reason.PREEMPTED),
        ({"phase": "Failed", "reason": "NodeLost"}, Reason.NODE_LOST),
        (ended(ExitCode.STORAGE_FAILED), Reason.STORAGE_FAILED),
        (ended(1), Reason.TRAINER_FAILED),
        (ended(0), Reason.COMPLETED),
    ],
    ids=["evicted", "lost node", "storage fails", "unexpected error", "no report"],
)
def test_a_preflight_that_could_not_be_done_is_repeated_and_no_attempt_is_used_up(pod: dict[str, Any], reason: Reason) -> None:
    sim = waiting()
    for number in range(1, 7):
        assert preflight(sim).number == number
        sim.set_preflight(pod)
        sim.settle()
        assert sim.top() == ("Unknown", Reason.RETRYING)
        assert "Stalled" not in conditions(sim)
        assert f"preflight {number} ended with {reason}" in conditions(sim)["Succeeded"][1]
        assert sim.step(9).create == (), "it is not repeated at once"
        sim.step(300)
        sim.settle()
    sim.set_preflight(ended(0, passed()))
    sim.settle()
    phase = sim.status().phases[0]
    assert (phase.attempt, phase.counted_attempts, phase.interruptions, phase.attempts) == (1, 0, 0, [])


def test_what_the_trainer_refuses_for_good_stalls_the_run() -> None:
    sim = waiting()
    report = Report(reason=Reason.CONTRACT_UNSUPPORTED, message="contract is v1, this trainer knows v0")
    sim.set_preflight(ended(ExitCode.CONTRACT_UNSUPPORTED, report.model_dump_json(by_alias=True, exclude_none=True)))
    sim.settle()
    assert conditions(sim)["Stalled"][0] == Reason.PREFLIGHT_FAILED
    assert "this trainer knows v0" in preflight(sim).problems[0].message


@pytest.mark.parametrize(
    "pod, reason, words",
    [
        ({"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1"}]},
         Reason.UNSCHEDULABLE, "0/1"),
        ({"phase": "Pending", "containerStatuses": [
            {"name": "pytorch", "image": "trainer:1", "state": {"waiting": {"reason": "ErrImagePull", "message": "not there"}}}]},
         Reason.IMAGE_NOT_FOUND, "not there"),
        (None, Reason.TRAINING_OPERATOR_UNAVAILABLE, "is the Kubeflow training-operator running?"),
    ],
    ids=["no place", "no image", "no training-operator"],
)  # fmt: skip
def test_why_a_preflight_does_not_run(pod: dict[str, Any] | None, reason: Reason, words: str) -> None:
    sim = waiting()
    if pod:
        sim.set_preflight(pod)
    sim.step(31)
    assert sim.top() == ("Unknown", reason)
    told = conditions(sim)["Succeeded"][1]
    assert told.startswith("train: the preflight cannot run: ")
    assert words in told
    assert sim.status().phases == []


def test_its_pod_has_the_first_phases_place_without_the_queue_and_only_reads() -> None:
    placement = {"nodeSelector": {"pool": "gpu"}, "priorityClassName": "training", "queueName": "research"}
    train = TRAIN | {"placement": placement, "resources": GPU, "workers": {"replicas": 2, "processes": 2}}
    sim = Simulation(phases=[train])
    sim.settings = replace(sim.settings, nodes_on_demand="true")
    *_, job = sim.step().create
    assert "kueue.x-k8s.io/queue-name" not in job["metadata"]["labels"]
    (replica,) = job["spec"]["pytorchReplicaSpecs"].values()
    pod = replica["template"]["spec"]
    assert (replica["replicas"], pod["nodeSelector"], pod["priorityClassName"]) == (1, {"pool": "gpu"}, "training")
    assert {"key": "nvidia.com/gpu", "operator": "Exists"} in pod["tolerations"], "where GPUs are kept for those who ask"
    assert pod["containers"][0]["resources"]["requests"] == {"ephemeral-storage": "1Gi", "cpu": "100m", "memory": "512Mi"}
    mounts = {mount["name"]: mount for mount in pod["containers"][0]["volumeMounts"]}
    assert mounts["storage"]["readOnly"]
    assert volumes_of(job)[1] == {"name": "storage", "persistentVolumeClaim": {"claimName": "models"}}


def test_a_suspended_run_has_none_and_one_that_is_suspended_looks_again_when_it_goes_on() -> None:
    sim = Simulation(suspend=True)
    sim.settle()
    assert (sim.preflights(), sim.top()) == ((), ("Unknown", Reason.SUSPENDED))
    sim.preflight = None
    sim.spec(suspend=False)
    sim.settle()
    (first,) = sim.preflights()
    sim.set_preflight(ended(0, passed(MISSING)))
    sim.settle()
    sim.spec(suspend=True)
    sim.settle()
    assert (sim.preflights(), preflight(sim).problems, sim.top()) == ((), [], ("Unknown", Reason.SUSPENDED))
    assert "Stalled" not in conditions(sim)
    sim.spec(suspend=False)
    sim.settle()
    (second,) = sim.preflights()
    assert second != first
    sim.set_preflight(ended(0, passed()))
    sim.settle()
    assert [job["metadata"]["name"] for job in sim.jobs()] == ["run-train-1"]


def test_its_job_goes_when_it_is_no_longer_needed_and_the_policy_stays_for_the_run() -> None:
    sim = waiting()
    (policy,) = sim.world.list("NetworkPolicy", "models")
    assert "ingress" not in policy["spec"]
    sim.set_preflight(ended(0, passed()))
    job = dict(sim.world.get("PyTorchJob", "models", "run-train-0") or {})
    sim.put(job | {"status": {"conditions": [{"type": "Succeeded", "status": "True"}]}})
    sim.settle()
    assert list(sim.world.list("NetworkPolicy", "models")) == [policy]
    sim.set_pods(ended(0, trained().model_dump_json(by_alias=True, exclude_none=True)))
    sim.settle()
    assert sim.preflights() == ("run-train-0",), "its log stays as long as the others'"
    sim.step(604800)
    assert (sim.preflights(), sim.jobs()) == ((), ())


def test_a_run_that_an_older_operator_began_has_none() -> None:
    sim = Simulation(phases=[TRAIN, EVALUATE, RELEASE])
    sim.settle()
    old = {key: value for key, value in sim.run()["status"].items() if key != "preflight"}
    sim.put(sim.run() | {"status": old})
    sim.set_pods(ended(1))
    sim.settle()
    sim.step(60)
    sim.settle()
    assert (len(sim.preflights()), sim.status().preflight) == (1, None)
    assert [job["metadata"]["name"] for job in sim.jobs()] == ["run-train-2"]


def test_a_crash_after_its_job_was_made_makes_no_second_one() -> None:
    sim = Simulation()
    sim.preflight = None
    before = sim.run()
    sim.step()
    (name,) = sim.preflights()
    sim.put(dict(before))  # the status was not written
    sim.settle()
    assert (sim.preflights(), preflight(sim).job_name) == ((name,), name)


def test_a_job_of_a_spec_that_was_changed_meanwhile_does_not_answer_for_the_new_one() -> None:
    sim = Simulation()
    sim.preflight = None
    before = sim.run()
    sim.step()
    sim.put(dict(before))
    sim.spec(ttlSecondsAfterFinished=5)
    sim.settle()
    assert preflight(sim).job_name != "run-train-0"
    assert preflight(sim).job_name in sim.preflights()


def test_a_job_that_was_deleted_is_made_again() -> None:
    sim = waiting()
    sim.world.remove(sim.world.get("PyTorchJob", "models", "run-train-0"))  # type: ignore[arg-type]
    sim.settle()
    assert sim.top() == ("Unknown", Reason.RETRYING)
    sim.step(10)
    sim.settle()
    assert preflight(sim).job_name in sim.preflights()


def test_a_gate_by_a_network_that_its_phase_does_not_have_is_told() -> None:
    gate = {"metric": "FVD", "operator": "LessThan", "threshold": "200", "extractor": "i3d"}
    sim = Simulation(phases=[TRAIN, EVALUATE | {"gates": [gate]}])
    sim.settle()
    (problem,) = preflight(sim).problems
    assert problem.path == "spec.phases[1].gates[0].extractor"
    assert "names i3d, and the phase measures with video-classifier, text-video-encoder" in problem.message
