"""Jobs in a queue of Kueue's: waiting, being let go on and taken back, and everything that can go wrong with a queue."""

from __future__ import annotations

from typing import Any

import pytest

from videogen_api.job import ExitCode
from videogen_api.training_run import Reason
from videogen_operator.kinds.training_run.queues import SETTLING_SECONDS, UNSEEN_SECONDS
from videogen_testing.queue_simulation import ADMITTED, EVICTED, NO_QUOTA, PENDING, QUEUE, RESERVED, QueueSimulation, Told
from videogen_testing.run_simulation import RandomLife, Simulation
from videogen_testing.runs import TRAIN, ended, running, trained

DAY = 86_400
NO_PLACE: dict[str, Any] = {
    "phase": "Pending",
    "conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes are available"}],
}


def test_a_job_is_made_suspended_and_says_for_what_it_waits_since_when_and_what_is_free() -> None:
    sim = QueueSimulation(phase={"workers": {"replicas": 2}, "resources": {"requests": {"cpu": "2"}, "limits": {"nvidia.com/gpu": "4"}}})
    assert sim.job()["spec"]["runPolicy"]["suspend"] is True
    assert sim.job()["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == QUEUE
    assert sim.top() == ("Unknown", Reason.QUEUED)
    head = (
        f"train: PyTorchJob run-train-1 waits in queue research since {sim.phase.queued_time} for"
        " 2 pods with nvidia.com/gpu 4, cpu 2, memory 4Gi each"
    )
    assert sim.said == f"{head}; Kueue has not looked at it yet"
    sim.kueue_says(PENDING)
    sim.settle()
    assert (sim.top()[1], sim.said) == (Reason.QUEUED, f"{head}; Kueue: {NO_QUOTA}")
    sim.kueue_says()
    sim.settle()
    assert (sim.top()[1], sim.said) == (Reason.QUEUED, f"{head}; it is not its turn yet")
    sim.kueue_says(RESERVED, checks=({"name": "autoscaler", "state": "Pending", "message": "waits for nodes"},))
    sim.settle()
    assert sim.said.endswith("; its quota is reserved; autoscaler is Pending: waits for nodes")


def test_the_preflight_waits_in_no_queue() -> None:
    sim = QueueSimulation()
    (name,) = sim.preflights()
    job = sim.world.get("PyTorchJob", "models", name)
    assert job
    assert "suspend" not in job["spec"].get("runPolicy", {})
    assert "kueue.x-k8s.io/queue-name" not in job["metadata"]["labels"]


def test_however_long_it_waits_it_is_neither_late_nor_unanswered_and_the_time_does_not_count() -> None:
    sim = QueueSimulation(phase={"window": {"deadlineSeconds": 3600}})
    sim.kueue_says(PENDING)
    sim.step(30 * DAY)
    sim.settle()
    assert (sim.top(), sim.phase.attempt) == (("Unknown", Reason.QUEUED), 1)
    sim.admit()
    assert sim.top() == ("Unknown", Reason.TRAINING)
    assert sim.phase.suspended_seconds == 30 * DAY
    sim.step(3500)
    sim.settle()
    assert sim.top() == ("Unknown", Reason.TRAINING)
    sim.step(200)
    sim.settle()
    assert sim.top() == ("False", Reason.DEADLINE_EXCEEDED)
    assert sim.jobs() == ()


@pytest.mark.parametrize("how", ["the job is deleted", "the run is suspended"])
def test_time_in_a_queue_that_ends_without_a_turn_does_not_count_either(how: str) -> None:
    sim = QueueSimulation(phase={"owner": "ml-team", "window": {"deadlineSeconds": 3600}})
    sim.kueue_says(PENDING)
    sim.step(DAY)
    sim.settle()
    (waiting,) = sim.phase.waiting_for
    assert (waiting.team, waiting.due) == ("ml-team", None), "nothing is due while the phase is in a queue"
    if how == "the job is deleted":
        sim.world.remove(sim.job())
    else:
        sim.spec(suspend=True)
        sim.settle()
        sim.spec(suspend=False)
    sim.settle()
    sim.step(400)
    sim.settle()
    assert (sim.top()[0], sim.phase.attempt) == ("Unknown", 2)


def test_a_job_that_waited_when_the_operator_was_upgraded_was_not_taken_back() -> None:
    sim = QueueSimulation()
    sim.kueue_says(PENDING)
    sim.settle()
    status = sim.run()["status"]
    phases = [{key: value for key, value in phase.items() if key != "queuedTime"} for phase in status["phases"]]
    sim.put(sim.run() | {"status": status | {"phases": phases}})
    sim.settle()
    assert (sim.top(), sim.phase.evictions, sim.phase.attempts) == (("Unknown", Reason.QUEUED), 0, [])


def test_what_is_taken_back_waits_its_turn_with_the_same_job_and_resumes_from_its_checkpoint() -> None:
    sim = QueueSimulation(phase={"attempts": 1})
    sim.kueue_says(PENDING)
    sim.admit()
    first, pods = sim.job()["metadata"]["uid"], {pod["metadata"]["uid"] for pod in sim.pods()}
    sim.step(100)
    sim.report(30)
    sim.settle()
    assert sim.phase.checkpoint_step == 30
    sim.kueue_says(RESERVED, EVICTED)
    sim.suspend(True)
    sim.settle()
    assert sim.top() == ("Unknown", Reason.QUEUED)
    assert "queue research has taken back what it gave, Preempted: Preempted to accommodate" in sim.said
    assert sim.said.endswith("; waiting for run-train-1-master-0 to save and end")
    assert sim.phase.attempts == [], "it is recorded when its pods have said how far they came"
    sim.pods_go()
    sim.step(1)
    sim.pods_end(40)
    sim.settle()
    (record,) = sim.phase.attempts
    assert (record.number, record.reason, record.counted, record.last_step) == (1, Reason.PREEMPTED, False, 40)
    assert (sim.phase.counted_attempts, sim.phase.interruptions, sim.phase.evictions) == (0, 0, 1)
    assert [line for line in sim.log if line.startswith("Preempted: ")] == [
        f"Preempted: train: {record.message}; attempt 1 waits its turn again, then resumes from step 40"
    ]
    sim.pods_vanish()
    sim.kueue_says(PENDING)
    sim.step(DAY)
    sim.settle()
    assert sim.said.endswith(f"; Kueue: {NO_QUOTA}")
    assert sim.policy_of(sim.job(), to_each_other=False), "of the pods that are still to come"
    sim.admit()
    assert (sim.job()["metadata"]["uid"], sim.phase.attempt, sim.phase.job_name) == (first, 1, "run-train-1")
    assert pods.isdisjoint(pod["metadata"]["uid"] for pod in sim.pods())
    sim.report(50)
    sim.settle()
    assert (sim.said, sim.phase.checkpoint_step) == ("train: step 50", 50)
    sim.set_pods(ended(0, trained().model_dump_json(by_alias=True, exclude_none=True)))
    sim.settle()
    assert sim.top() == ("True", Reason.COMPLETED)
    (record,) = sim.phase.attempts
    assert (record.number, record.reason, sim.phase.evictions) == (1, Reason.COMPLETED, 1)
    assert sum(line.startswith("JobCreated") for line in sim.log) == 1


def test_the_time_that_a_phase_took_has_no_time_of_queues() -> None:
    sim = QueueSimulation()
    sim.admit()
    for turn in range(1, 4):
        sim.step(100)
        sim.report(10 * turn)
        sim.settle()
        sim.evict(10 * turn)
        sim.step(DAY)
        sim.settle()
        sim.admit()
    assert sim.phase.evictions == 3
    assert sim.phase.suspended_seconds == 3 * DAY


def test_work_that_was_done_before_it_was_taken_back_counts_and_its_job_cannot_begin_again() -> None:
    sim = QueueSimulation()
    sim.admit()
    sim.set_pods(ended(0, trained().model_dump_json(by_alias=True, exclude_none=True)))
    sim.kueue_says(RESERVED, EVICTED)
    sim.suspend(True)
    sim.pods_go()
    sim.settle()
    assert sim.top() == ("True", Reason.COMPLETED)
    assert sim.jobs() == ()


def test_a_fault_of_its_own_counts_also_when_it_is_taken_back_at_that_moment() -> None:
    sim = QueueSimulation()
    sim.admit()
    sim.set_pods(ended(ExitCode.OUT_OF_MEMORY))
    sim.kueue_says(RESERVED, EVICTED)
    sim.suspend(True)
    sim.settle()
    assert (sim.phase.counted_attempts, sim.phase.attempts[-1].reason) == (1, Reason.OUT_OF_MEMORY)
    assert sim.jobs() == (), "it is not to begin again while the next attempt waits"
    sim.step(10)
    sim.settle()
    assert (sim.phase.attempt, sim.job()["metadata"]["name"], sim.top()[1]) == (2, "run-train-2", Reason.QUEUED)


def test_a_job_that_fails_as_it_is_let_go_on_is_repeated_for_free() -> None:
    """training-operator calls a job failed if it meets an old pod of it that still ends."""
    sim = QueueSimulation(phase={"attempts": 1})
    sim.admit()
    sim.evict(40)
    sim.kueue_says(RESERVED, ADMITTED)
    sim.suspend(False)
    failed = {"type": "Failed", "status": "True", "reason": "PyTorchJobFailed", "message": "PyTorchJob run-train-1 is failed"}
    sim.put(sim.job() | {"status": {"conditions": [failed]}})
    sim.settle()
    assert (sim.phase.counted_attempts, sim.phase.attempts[-1].reason) == (0, Reason.PREEMPTED)
    sim.step(30)
    sim.settle()
    job = next(one for one in sim.jobs() if one["metadata"]["name"] == "run-train-2")
    assert job["spec"]["runPolicy"]["suspend"] is True
    assert (sim.phase.attempt, sim.phase.checkpoint_step, sim.top()[1]) == (2, 40, Reason.QUEUED)


def test_a_job_that_fails_by_itself_after_it_has_worked_counts() -> None:
    sim = QueueSimulation(phase={"attempts": 1})
    sim.admit()
    sim.evict(40)
    sim.admit()
    sim.report(50)
    sim.settle()
    sim.pods_vanish()
    failed = {"type": "Failed", "status": "True", "reason": "PyTorchJobFailed", "message": "failed"}
    sim.put(sim.job() | {"status": {"conditions": [failed]}})
    sim.settle()
    assert sim.top() == ("False", Reason.ATTEMPTS_EXHAUSTED)


def test_pods_that_are_seen_to_go_before_their_job_is_seen_suspended_end_no_attempt() -> None:
    sim = QueueSimulation()
    sim.admit()
    job = sim.job()["metadata"]["uid"]
    sim.pods_go()
    plan = sim.step(1)
    assert plan.requeue_after is not None
    assert plan.requeue_after <= SETTLING_SECONDS
    sim.kueue_says(RESERVED, EVICTED)
    sim.step(10)
    sim.settle()
    sim.suspend(True)
    sim.pods_end(40)
    sim.settle()
    assert (sim.phase.attempt, sim.phase.evictions, sim.job()["metadata"]["uid"]) == (1, 1, job)


def test_pods_that_somebody_else_stops_end_the_attempt_as_ever() -> None:
    sim = QueueSimulation()
    sim.admit()
    sim.pods_go()
    sim.step(1)
    sim.step(SETTLING_SECONDS)
    sim.settle()
    assert (sim.phase.attempts[-1].reason, sim.phase.interruptions, sim.phase.evictions) == (Reason.PREEMPTED, 1, 0)
    sim.step(10)
    sim.settle()
    assert (sim.phase.attempt, sim.top()[1]) == (2, Reason.QUEUED)


UNUSABLE: list[tuple[str, tuple[Told, ...], bool, str]] = [
    (
        "a queue that does not exist",
        (("QuotaReserved", "False", "Inadmissible", "LocalQueue research doesn't exist"),),
        True,
        "Kueue: LocalQueue research doesn't exist",
    ),
    (
        "a stopped queue",
        (("QuotaReserved", "False", "Inadmissible", "ClusterQueue gpus is stopped"),),
        True,
        "Kueue: ClusterQueue gpus is stopped",
    ),
    (
        "a Workload that somebody has deactivated",
        (("Evicted", "True", "Deactivated", "The workload is deactivated"),),
        False,
        "its Workload pytorchjob-run-train-1 is deactivated (The workload is deactivated); set spec.active of the Workload to true",
    ),
    (
        "a job that Kueue cannot start",
        (("Finished", "True", "FailedToStart", "invalid podset infos"),),
        True,
        "Kueue has given it up: invalid podset infos; delete the job, and another one is made",
    ),
]


@pytest.mark.parametrize(("told", "active", "words"), [row[1:] for row in UNUSABLE], ids=[row[0] for row in UNUSABLE])
def test_a_queue_that_lets_nobody_begin_is_named(told: tuple[Told, ...], active: bool, words: str) -> None:
    sim = QueueSimulation()
    sim.kueue_says(*told, active=active)
    sim.settle()
    assert sim.top() == ("Unknown", Reason.QUEUE_UNAVAILABLE)
    assert sim.said.endswith(f"; {words}")


def test_a_job_that_kueue_does_not_look_at_says_why_that_may_be() -> None:
    sim = QueueSimulation()
    assert sim.top()[1] == Reason.QUEUED
    assert sim.step(1).requeue_after == UNSEEN_SECONDS - 1
    sim.step(UNSEEN_SECONDS - 1)
    sim.settle()
    assert sim.top() == ("Unknown", Reason.QUEUE_UNAVAILABLE)
    assert "Kueue has made no Workload of it in 15 s: Kueue 0.15 or later is not installed, not running" in sim.said
    sim.kueue_says(PENDING)
    sim.settle()
    assert sim.top()[1] == Reason.QUEUED


def test_a_queue_that_is_stopped_takes_back_what_it_gave() -> None:
    sim = QueueSimulation()
    sim.admit()
    sim.evict(40, ("Evicted", "True", "ClusterQueueStopped", "The ClusterQueue is stopped"))
    assert sim.phase.attempts[-1].message == "queue research has taken back what it gave, ClusterQueueStopped: The ClusterQueue is stopped"
    sim.kueue_says(("QuotaReserved", "False", "Inadmissible", "ClusterQueue gpus is stopped"))
    sim.settle()
    assert sim.top()[1] == Reason.QUEUE_UNAVAILABLE
    sim.admit()
    assert (sim.top()[1], sim.phase.attempt) == (Reason.TRAINING, 1)


def test_a_workload_that_somebody_deletes_costs_the_turn_and_nothing_else() -> None:
    sim = QueueSimulation()
    sim.admit()
    sim.forget_workload()
    sim.suspend(True)
    sim.settle()
    assert "was suspended, and Kueue does not say why" in sim.said
    sim.pods_end(40)
    sim.settle()
    sim.pods_vanish()
    sim.kueue_says(PENDING)
    sim.settle()
    assert (sim.phase.attempt, sim.phase.evictions, sim.top()[1]) == (1, 1, Reason.QUEUED)
    sim.admit()
    assert sim.top()[1] == Reason.TRAINING


def test_a_job_that_somebody_lets_go_on_is_followed_and_taken_back_by_kueue() -> None:
    sim = QueueSimulation()
    sim.kueue_says(PENDING)
    sim.settle()
    sim.suspend(False)
    sim.set_pods(running())
    sim.settle()
    assert "Admitted: train: PyTorchJob run-train-1 was let go on" in sim.log
    assert sim.top()[1] == Reason.TRAINING
    sim.suspend(True)
    sim.pods_end(0)
    sim.pods_vanish()
    sim.settle()
    assert (sim.top()[1], sim.phase.attempt, len(sim.jobs())) == (Reason.QUEUED, 1, 1)


def test_a_job_that_somebody_deletes_is_made_again() -> None:
    sim = QueueSimulation()
    sim.kueue_says(PENDING)
    sim.settle()
    sim.world.remove(sim.job())
    sim.settle()
    sim.step(10)
    sim.settle()
    assert (sim.phase.attempt, sim.job()["metadata"]["name"], sim.phase.counted_attempts) == (2, "run-train-2", 0)
    assert sim.job()["spec"]["runPolicy"]["suspend"] is True


def test_a_run_that_is_suspended_leaves_the_queue() -> None:
    sim = QueueSimulation()
    sim.kueue_says(PENDING)
    sim.step(DAY)
    sim.settle()
    sim.spec(suspend=True)
    sim.settle()
    assert (sim.top()[1], sim.jobs(), sim.phase.queued_time) == (Reason.SUSPENDED, (), None)
    sim.spec(suspend=False)
    sim.settle()
    assert (sim.phase.attempt, sim.top()[1]) == (2, Reason.QUEUED)
    assert [one.reason for one in sim.phase.attempts] == [Reason.SUSPENDED]


def test_a_queue_that_takes_every_job_holds_one_that_nobody_has_put_into_it() -> None:
    sim = Simulation(phases=[TRAIN])
    sim.settle()
    (job,) = sim.jobs()
    assert "suspend" not in job["spec"].get("runPolicy", {})
    labels = job["metadata"]["labels"] | {"kueue.x-k8s.io/queue-name": "default"}
    sim.put(job | {"spec": job["spec"] | {"runPolicy": {"suspend": True}}}, labels=labels)
    sim.settle()
    assert sim.top()[1] == Reason.QUEUED
    assert "waits in queue default since" in next(one.message for one in sim.status().conditions if one.type == "Succeeded")
    assert (sim.status().phases[0].attempts, sim.status().phases[0].evictions) == ([], 0)


def test_where_nodes_are_too_few_after_all_fewer_workers_wait_in_the_queue_anew() -> None:
    sim = QueueSimulation(phase={"workers": {"replicas": 2, "minReplicas": 1, "allReplicasDeadlineSeconds": 120}})
    sim.kueue_says(PENDING)
    sim.step(DAY)
    sim.settle()
    assert (sim.phase.attempt, sim.top()[1]) == (1, Reason.QUEUED), "the queue decides how long it waits, not the deadline for nodes"
    sim.kueue_says(RESERVED, ADMITTED)
    sim.suspend(False)
    for index, pod in enumerate(sim.made["run-train-1"]):
        placed = running() | {"conditions": [{"type": "PodScheduled", "status": "True", "lastTransitionTime": sim.now.isoformat()}]}
        sim.put({"apiVersion": "v1", "kind": "Pod"} | pod | {"status": NO_PLACE if index else placed}, "models")
    sim.settle()
    sim.step(121)
    sim.settle()
    assert (sim.phase.attempt, sim.phase.workers, sim.top()[1]) == (2, 1, Reason.QUEUED)
    assert sim.job()["spec"]["runPolicy"]["suspend"] is True
    assert "for 1 pod with cpu 1" in sim.said
    assert list(sim.job()["spec"]["pytorchReplicaSpecs"]) == ["Master"]


def test_where_nodes_are_too_few_after_all_the_burst_pool_waits_in_the_queue_too() -> None:
    burst = {"afterSeconds": 600, "nodeSelector": {"pool": "cloud"}}
    sim = QueueSimulation(placement={"burst": burst})
    sim.kueue_says(PENDING)
    sim.step(DAY)
    sim.settle()
    assert (sim.phase.attempt, sim.phase.burst) == (1, False)
    sim.kueue_says(RESERVED, ADMITTED)
    sim.suspend(False)
    sim.set_pods(NO_PLACE)
    sim.settle()
    sim.step(601)
    sim.settle()
    assert (sim.phase.attempt, sim.phase.burst, sim.top()[1]) == (2, True, Reason.QUEUED)
    sim.admit()
    sim.evict(40)
    assert (sim.phase.attempt, sim.phase.burst) == (2, True), "the same job waits, for the same nodes"


class QueuedLife(RandomLife):
    """Chance plays Kueue, too."""

    def _happen(self) -> None:
        sim, chance = self.sim, self.sim.random.random()
        queued = [job for job in sim.jobs() if job["spec"]["runPolicy"].get("suspend")]
        if not queued and chance < 0.3 and len(sim.jobs()) == 1 and sim.pods() and sim.current_job():
            self._write(sim.jobs()[0], True)
        elif queued and sim.pods():
            self._vanish()
        elif queued and not sim.run()["spec"].get("suspend"):
            self._write(queued[0], False)
        else:
            super()._happen()

    def _write(self, job: Any, suspend: bool) -> None:
        self.sim.put(job | {"spec": job["spec"] | {"runPolicy": job["spec"]["runPolicy"] | {"suspend": suspend}}})

    def _vanish(self) -> None:
        for pod in self.sim.pods():
            self.sim.world.remove(pod)


@pytest.mark.parametrize("seed", range(40))
def test_whatever_a_queue_does_the_run_comes_to_an_end(seed: int) -> None:
    life = QueuedLife(seed, phases=[TRAIN | {"placement": {"queueName": QUEUE}, "attempts": 50}])
    sim = life.live()
    assert sim.top()[0] in {"True", "False"}
    assert [job for job in sim.jobs() if job["spec"]["runPolicy"].get("suspend")] == [], "nothing waits that could begin again"
