"""Training with fewer workers where there is no room for all, in a closed loop: stories, and invariants under random events."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from videogen_api.job import ExitCode, Job, Report
from videogen_api.meta import ANNOTATION_REQUEST
from videogen_api.training_run import PhaseStatus, Reason
from videogen_testing.run_simulation import RandomLife, Simulation
from videogen_testing.runs import TRAIN, a_run, ended, running, trained

RECIPE = a_run()["spec"]["recipe"] | {"globalBatchSize": 48}
NO_PLACE: dict[str, Any] = {
    "phase": "Pending",
    "conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes are available"}],
}


def begun(accumulation: int = 1, phase: dict[str, Any] | None = None, **workers: int) -> Simulation:
    """A run whose first attempt has its job."""
    asked = {"name": "train", "workers": workers} | (phase or {})
    sim = Simulation(phases=[TRAIN | asked], recipe=RECIPE | {"gradientAccumulationSteps": accumulation})
    sim.settle()
    return sim


def place(sim: Simulation, count: int) -> None:
    """So many pods of the current job find a node and run; the others find none."""
    for index, pod in enumerate(sim.made[sim.current_job()["metadata"]["name"]]):
        old = sim.world.get("Pod", "models", pod["metadata"]["name"])
        had = [one for one in (old or {}).get("status", {}).get("conditions", []) if one["status"] == "True"]
        placed = running() | {"conditions": had or [{"type": "PodScheduled", "status": "True", "lastTransitionTime": sim.now.isoformat()}]}
        sim.put({"apiVersion": "v1", "kind": "Pod"} | pod | {"status": placed if index < count else NO_PLACE}, "models")


def phase_of(sim: Simulation) -> PhaseStatus:
    return sim.status().phases[0]


def file_of(sim: Simulation) -> Job:
    return sim.files[sim.current_job()["metadata"]["name"]]


def said(sim: Simulation) -> str:
    return next(one.message for one in sim.status().conditions if one.type == "Succeeded")


def wait_in_vain(sim: Simulation, placed: int, seconds: float = 600) -> None:
    place(sim, placed)
    sim.settle()
    sim.step(seconds)
    sim.settle()


def wait_in_vain_again(sim: Simulation) -> None:
    assert sim.top() == ("Unknown", Reason.RETRYING)
    sim.step(300)
    sim.settle()


def test_a_run_that_has_room_for_one_of_two_workers_reads_like_this() -> None:
    sim = begun(replicas=2, minReplicas=1)
    place(sim, 1)
    sim.settle()
    assert sim.top() == ("Unknown", Reason.UNSCHEDULABLE)
    assert said(sim) == (
        "train: pod run-train-1-worker-1: 0/1 nodes are available; 1 of 2 workers have a place; if that does not change within 600 s,"
        " the next attempt has 1 (workers.minReplicas)"
    )
    assert sim.step(599).requeue_after == 1
    assert phase_of(sim).attempt == 1
    sim.step(1)
    assert sim.top() == ("Unknown", Reason.RETRYING)
    assert said(sim).endswith("the next attempt resumes from step 0 with 1 of them")
    sim.settle()
    assert [job["metadata"]["name"] for job in sim.jobs()] == ["run-train-2"]
    place(sim, 1)
    sim.settle()
    assert sim.top() == ("Unknown", Reason.TRAINING)
    assert said(sim) == "train: attempt 2 is running; 1 of 2 workers: there was no room for the others"
    assert phase_of(sim).workers == 1
    sim.set_pods(ended(0, trained().model_dump_json(by_alias=True, exclude_none=True)))
    sim.settle()
    assert sim.top() == ("True", Reason.COMPLETED)
    assert sim.log == [
        "PreflightPassed: 4 things that the phases need are there",
        "JobCreated: train: attempt 1 is PyTorchJob run-train-1",
        "WorkersReduced: train: attempt 1 ends: 1 of 2 workers have a place after 600 s; the next one has 1 (workers.minReplicas)",
        "JobCreated: train: attempt 2 is PyTorchJob run-train-2 with 1 of 2 workers: there was no room for the others",
        "PhaseCompleted: train: bundle sha256:" + "a" * 64 + " after step 100",
    ]
    records = [(one.reason, one.workers, one.counted) for one in phase_of(sim).attempts]
    assert records == [(Reason.UNSCHEDULABLE, 2, False), (Reason.COMPLETED, 1, False)]
    assert (phase_of(sim).counted_attempts, phase_of(sim).interruptions) == (0, 0)


def test_room_for_all_that_comes_late_is_given_to_one_after_the_other_and_all_train() -> None:
    sim = begun(replicas=4, minReplicas=1)
    wait_in_vain(sim, 0, 700)
    for count in (1, 2, 3):
        place(sim, count)
        sim.settle()
        sim.step(20)
        assert phase_of(sim).attempt == 1, f"{count} have a place, and the scheduler is at work"
    place(sim, 4)
    sim.settle()
    sim.step(5000)
    assert (phase_of(sim).attempt, phase_of(sim).workers) == (1, 4)


def test_where_room_comes_late_for_some_they_are_waited_with_until_no_more_is_given() -> None:
    sim = begun(replicas=4, minReplicas=1)
    wait_in_vain(sim, 0, 700)
    place(sim, 2)
    sim.settle()
    sim.step(29)
    assert phase_of(sim).attempt == 1
    sim.step(1)
    sim.settle()
    assert (phase_of(sim).attempt, phase_of(sim).workers) == (2, 2)
    assert sim.log[2].startswith("WorkersReduced: train: attempt 1 ends: 2 of 4 workers have a place after 730 s")


def test_pods_that_are_made_late_have_their_whole_time() -> None:
    sim = begun(replicas=2, minReplicas=1)
    sim.step(700)
    place(sim, 1)
    sim.settle()
    sim.step(599)
    assert phase_of(sim).attempt == 1
    sim.step(1)
    sim.settle()
    assert (phase_of(sim).attempt, phase_of(sim).workers) == (2, 1)


def test_a_gang_that_was_given_up_is_stopped_also_when_the_next_one_cannot_begin() -> None:
    sim = begun(replicas=2, minReplicas=1)
    place(sim, 1)
    sim.settle()
    sim.step(600)
    claim = sim.world.get("PersistentVolumeClaim", "models", "models")
    assert claim
    sim.world.remove(claim)
    sim.settle()
    assert (sim.top(), len(sim.jobs())) == (("Unknown", Reason.CLAIM_NOT_FOUND), 0)


COUNTS = [
    ("all that fit", {"replicas": 4, "minReplicas": 1}, 1, 2, 2),
    ("three take no whole micro-batches of four", {"replicas": 4, "minReplicas": 1}, 1, 3, 2),
    ("with accumulation they do", {"replicas": 4, "minReplicas": 1}, 3, 3, 3),
    ("not fewer than the fewest", {"replicas": 4, "minReplicas": 2}, 1, 1, 4),
    ("not when none has a place", {"replicas": 4, "minReplicas": 1}, 1, 0, 4),
    ("not when all have one", {"replicas": 4, "minReplicas": 1}, 1, 4, 4),
    ("not unless it is allowed", {"replicas": 4}, 1, 2, 4),
    ("fewest and all are the same", {"replicas": 4, "minReplicas": 4}, 1, 2, 4),
]


@pytest.mark.parametrize("asked, accumulation, placed, workers", [row[1:] for row in COUNTS], ids=[row[0] for row in COUNTS])
def test_with_how_many_workers_it_goes_on(asked: dict[str, int], accumulation: int, placed: int, workers: int) -> None:
    sim = begun(accumulation, **asked)
    wait_in_vain(sim, placed, 5000)
    if sim.current_job() is None:  # no smaller count fits: the nodes are given back for a while
        wait_in_vain_again(sim)
    file = file_of(sim)
    assert file.workers == phase_of(sim).workers == workers
    assert file.workers * file.accumulation_steps == asked["replicas"] * accumulation, "every micro-batch is taken by somebody"
    assert len(sim.made[sim.current_job()["metadata"]["name"]]) == workers
    assert phase_of(sim).attempt == (1 if placed in {0, asked["replicas"]} else 2)


def test_a_count_that_does_not_fit_either_gives_way_to_the_next() -> None:
    sim = begun(replicas=8, minReplicas=1)
    seen = []
    for placed in (5, 3, 1, 0):
        seen.append(file_of(sim).workers)
        wait_in_vain(sim, placed)
    assert seen == [8, 4, 2, 1]
    assert phase_of(sim).attempt == 4
    assert sim.top() == ("Unknown", Reason.UNSCHEDULABLE)
    assert 300 <= (sim.step(3600).requeue_after or 0) <= 450, "now it waits, and hardly looks by itself"


def test_how_long_it_waits_for_all_may_be_said_and_its_pods_wait_longer_for_each_other() -> None:
    sim = begun(replicas=2, minReplicas=1, allReplicasDeadlineSeconds=1200)
    assert file_of(sim).join_seconds == 1800
    wait_in_vain(sim, 1, 1199)
    assert phase_of(sim).attempt == 1
    sim.step(1)
    sim.settle()
    assert (phase_of(sim).attempt, phase_of(sim).workers) == (2, 1)
    assert begun(replicas=2).files["run-train-1"].join_seconds == 1200


def test_room_that_comes_in_time_is_used() -> None:
    sim = begun(replicas=2, minReplicas=1)
    wait_in_vain(sim, 1, 500)
    wait_in_vain(sim, 2, 500)
    assert (phase_of(sim).attempt, sim.top()) == (1, ("Unknown", Reason.TRAINING))
    assert said(sim) == "train: attempt 1 is running"


def test_pods_that_a_quota_keeps_from_being_made_have_no_place() -> None:
    sim = begun(replicas=2, minReplicas=1)
    place(sim, 1)
    sim.world.remove(sim.pods()[1])
    sim.settle()
    assert "1 of 2 workers have a place" in said(sim)
    sim.step(600)
    sim.settle()
    assert (phase_of(sim).attempt, phase_of(sim).workers) == (2, 1)


def test_a_pod_that_vanishes_from_a_training_is_a_loss_and_no_lack_of_room() -> None:
    sim = begun(replicas=2, minReplicas=1)
    place(sim, 2)
    sim.progress = {sim.pods()[0]["metadata"]["uid"]: {"metrics": [], "lastUpdatedTime": "2026-11-01T00:00:10Z"}}
    sim.settle()
    sim.world.remove(sim.pods()[1])
    sim.step(5000)
    assert (phase_of(sim).attempt, sim.top()) == (1, ("Unknown", Reason.TRAINING))


ENDS = [
    (
        "a preemption",
        ended(ExitCode.PREEMPTED, Report(reason=Reason.PREEMPTED, last_step=7).model_dump_json(by_alias=True)),
        Reason.PREEMPTED,
    ),
    ("a failure of its own", ended(1), Reason.TRAINER_FAILED),
]


@pytest.mark.parametrize("status, reason", [row[1:] for row in ENDS], ids=[row[0] for row in ENDS])
def test_after_any_other_end_all_workers_are_tried_again(status: dict[str, Any], reason: Reason) -> None:
    sim = begun(replicas=2, minReplicas=1)
    wait_in_vain(sim, 1)
    assert file_of(sim).workers == 1
    sim.set_pods(status)
    sim.settle()
    sim.step(10)
    sim.settle()
    assert file_of(sim).workers == phase_of(sim).workers == 2
    assert [(one.reason, one.workers) for one in phase_of(sim).attempts] == [(Reason.UNSCHEDULABLE, 2), (reason, 1)]


def test_a_suspension_tries_all_workers_again_from_wherever_it_began() -> None:
    for passes in (0, 1):  # just after the attempt was given up; in the next one
        sim = begun(replicas=2, minReplicas=1)
        place(sim, 1)
        sim.settle()
        sim.step(600)
        assert phase_of(sim).retry_time
        if passes:
            sim.settle()
        sim.spec(suspend=True)
        sim.settle()
        assert (sim.top(), sim.jobs()) == (("Unknown", Reason.SUSPENDED), ())
        sim.spec(suspend=False)
        sim.settle()
        assert file_of(sim).workers == phase_of(sim).workers == 2


def test_the_deadline_of_the_phase_ends_it_while_it_waits_for_room() -> None:
    sim = begun(replicas=2, minReplicas=1, phase={"window": {"deadlineSeconds": 300}})
    wait_in_vain(sim, 1)
    assert sim.top() == ("False", Reason.DEADLINE_EXCEEDED)
    assert sim.jobs() == ()


def test_a_retry_request_after_a_failure_tries_all_workers_again() -> None:
    sim = begun(replicas=2, minReplicas=1, phase={"window": {"deadlineSeconds": 1000}})
    wait_in_vain(sim, 1)
    sim.step(400)
    sim.settle()
    assert (sim.top(), phase_of(sim).workers) == (("False", Reason.DEADLINE_EXCEEDED), 1)
    sim.annotate(ANNOTATION_REQUEST, "retry@1")
    sim.settle()
    assert file_of(sim).workers == phase_of(sim).workers == 2


def test_an_operator_that_died_between_two_writes_goes_on_with_the_same_count() -> None:
    sim = begun(replicas=4, minReplicas=1)
    place(sim, 2)
    sim.settle()
    sim.step(600)
    sim.step()
    assert sim.jobs() == ()  # it was deleted, and the next one is to be made
    before = sim.run()
    sim.step()
    made = sim.files["run-train-2"]
    sim.put(before)  # the status was not written
    sim.put({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "another"}})  # and there would be room now
    sim.settle()
    assert sim.files["run-train-2"] == made
    assert (phase_of(sim).attempt, phase_of(sim).workers, made.workers) == (2, 2, 2)


def test_a_status_of_before_goes_on_with_all_workers() -> None:
    sim = begun(replicas=2, minReplicas=1)
    status = sim.run()["status"]
    old = [{name: value for name, value in one.items() if name != "workers"} for one in status["phases"]]
    sim.put(sim.run() | {"status": status | {"phases": old}})
    wait_in_vain(sim, 1)
    assert (phase_of(sim).attempt, file_of(sim).workers) == (2, 1)


class Crowded(RandomLife):
    """A cluster that often has too little room, beside all else that happens."""

    def __init__(self, seed: int, **run: Any) -> None:
        super().__init__(seed, **run)
        self.suspended: set[int] = set()  # attempts during or after which the run was suspended, after which all workers are tried again

    def _suspend(self) -> None:
        self.suspended.add(phase_of(self.sim).attempt)
        super()._suspend()

    def _happen(self) -> None:
        sim = self.sim
        if sim.current_job() is not None and self.bad_luck > 0 and sim.random.random() < 0.5:
            self.bad_luck -= 1
            place(sim, sim.random.randint(0, file_of(sim).workers))
            return
        super()._happen()

    def _check(self, highest: int) -> int:
        for file in self.sim.files.values():
            assert file.workers in {12, 6, 4, 3, 2}
            assert file.workers * file.accumulation_steps == 12
        records = phase_of(self.sim).attempts if self.sim.status().phases else []
        for one, following in pairwise(records):
            assert one.workers
            assert following.workers
            expected = following.workers < one.workers if one.reason == Reason.UNSCHEDULABLE else following.workers == 12
            again = one.number in self.suspended and following.workers == 12
            assert expected or again or following.reason == Reason.SUSPENDED, (one, following)
        return super()._check(highest)


@pytest.mark.parametrize("seed", range(10))
def test_whatever_happens_the_run_ends_and_every_micro_batch_is_taken(seed: int) -> None:
    phases = [TRAIN | {"attempts": 5, "workers": {"replicas": 12, "minReplicas": 2}}]
    sim = Crowded(seed, phases=phases, recipe=RECIPE).live()
    status, reason = sim.top()
    assert (status, reason) == ("True", Reason.COMPLETED) or reason in {Reason.ATTEMPTS_EXHAUSTED, Reason.STORAGE_FAILED}
