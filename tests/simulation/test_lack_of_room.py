"""Attempts that find no room: the burst pool after a bounded wait, and gangs that do not hold nodes for ever."""

from __future__ import annotations

from typing import Any

from videogen_api.job import ExitCode
from videogen_api.training_run import PhaseStatus, Reason
from videogen_testing.run_simulation import Simulation
from videogen_testing.runs import TRAIN, ended, running

NO_PLACE: dict[str, Any] = {
    "phase": "Pending",
    "conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes are available"}],
}
TAINT = {"key": "cloud", "operator": "Exists"}
BURST = {"afterSeconds": 3600, "nodeSelector": {"pool": "cloud"}, "tolerations": [TAINT]}
OWN = {"nodeSelector": {"pool": "own"}, "priorityClassName": "training"}


def begun(uid: str = "uid-1", placement: dict[str, Any] | None = None, **workers: int) -> Simulation:
    sim = Simulation(phases=[TRAIN | {"workers": workers or {"replicas": 1}} | ({"placement": placement} if placement else {})])
    sim.put(sim.run(), uid=uid)
    sim.settle()
    return sim


def place(sim: Simulation, count: int) -> None:
    """So many pods of the current job find a node and run; the others find none."""
    for index, pod in enumerate(sim.made[sim.current_job()["metadata"]["name"]]):
        placed = running() | {"conditions": [{"type": "PodScheduled", "status": "True", "lastTransitionTime": sim.now.isoformat()}]}
        sim.put({"apiVersion": "v1", "kind": "Pod"} | pod | {"status": placed if index < count else NO_PLACE}, "models")
    sim.settle()


def of(sim: Simulation) -> PhaseStatus:
    return sim.status().phases[0]


def said(sim: Simulation) -> str:
    return next(one.message for one in sim.status().conditions if one.type == "Succeeded")


def pod_spec(sim: Simulation) -> dict[str, Any]:
    return sim.templates[sim.current_job()["metadata"]["name"]]


def test_after_a_bounded_wait_the_next_attempt_is_for_the_burst_pool() -> None:
    sim = begun(placement=OWN | {"burst": BURST})
    place(sim, 0)
    assert said(sim).endswith(
        "0 of 1 workers have a place; if that does not change within 3600 s, the next attempt is for the burst pool (placement.burst)"
    )
    assert pod_spec(sim)["nodeSelector"] == {"pool": "own"}
    assert TAINT not in pod_spec(sim)["tolerations"]
    assert sim.step(3599).requeue_after == 1
    assert of(sim).attempt == 1
    sim.step(1)
    sim.settle()
    assert (of(sim).attempt, of(sim).burst, of(sim).counted_attempts, of(sim).interruptions) == (2, True, 0, 0)
    assert pod_spec(sim)["nodeSelector"] == {"pool": "cloud"}
    assert TAINT in pod_spec(sim)["tolerations"]
    assert pod_spec(sim)["priorityClassName"] == "training"
    assert any(line.startswith("MovedToBurstPool: train: attempt 1 ends: 0 of 1 workers have a place after 3600 s") for line in sim.log)
    assert "JobCreated: train: attempt 2 is PyTorchJob run-train-2 in the burst pool" in sim.log
    place(sim, 1)
    assert said(sim) == "train: attempt 2 is running; in the burst pool"


def test_in_the_burst_pool_it_waits_and_after_another_end_the_first_pool_is_tried_again() -> None:
    sim = begun(placement=OWN | {"burst": BURST})
    place(sim, 0)
    sim.step(3600)
    sim.settle()
    place(sim, 0)
    sim.step(86_400)
    sim.settle()
    assert (of(sim).attempt, of(sim).burst) == (2, True)
    sim.set_pods(ended(ExitCode.PREEMPTED))
    sim.step(0)
    sim.step(10)
    sim.settle()
    assert (of(sim).attempt, of(sim).burst) == (3, False)
    assert pod_spec(sim)["nodeSelector"] == {"pool": "own"}


def test_without_a_burst_pool_one_pod_waits_as_long_as_it_takes() -> None:
    sim = begun()
    place(sim, 0)
    sim.step(30 * 86_400)
    sim.settle()
    assert (of(sim).attempt, sim.top()[1]) == (1, Reason.UNSCHEDULABLE)


def test_a_gang_with_no_node_at_all_holds_nothing_and_waits() -> None:
    sim = begun(replicas=2)
    place(sim, 0)
    sim.step(86_400)
    sim.settle()
    assert of(sim).attempt == 1


def test_half_a_gang_gives_its_nodes_back_and_is_tried_again_a_little_later() -> None:
    sim = begun(replicas=2, allReplicasDeadlineSeconds=120)
    place(sim, 1)
    assert "1 of 2 workers have a place; if that does not change within 120 s, the next attempt begins a little later" in said(sim)
    sim.step(120)
    assert sim.top() == ("Unknown", Reason.RETRYING)
    sim.settle()
    assert sim.jobs() == (), "others have the nodes"
    assert any(line.startswith("NodesReleased: train: attempt 1 ends: 1 of 2 workers have a place after 120 s") for line in sim.log)
    sim.step(20)
    sim.settle()
    assert (of(sim).attempt, of(sim).workers, of(sim).counted_attempts, of(sim).interruptions) == (2, 2, 0, 0)


def waits(uid: str, times: int) -> list[float]:
    """Seconds between the end of an attempt and the next one, so many times in a row."""
    sim, found = begun(uid, replicas=2, allReplicasDeadlineSeconds=120), []
    for attempt in range(1, times + 1):
        place(sim, 1)
        sim.step(120)
        sim.settle()
        since = sim.now
        while of(sim).attempt == attempt:
            sim.step(1)
        sim.settle()
        found.append((sim.now - since).total_seconds())
    return found


def test_each_time_it_waits_longer_up_to_five_minutes_and_no_two_runs_as_long() -> None:
    one, other = waits("uid-1", 8), waits("uid-2", 8)
    for found in (one, other):
        assert all(10 * 2**row <= wait <= 20 * 2**row + 1 for row, wait in enumerate(found[:4]))
        assert max(found) <= 301
    assert one != other


def test_a_gang_that_trains_has_all_its_nodes_and_what_is_lost_later_tells_its_own_reason() -> None:
    sim = begun(replicas=2, allReplicasDeadlineSeconds=120)
    place(sim, 2)
    sim.step(86_400)
    sim.settle()
    assert (of(sim).attempt, sim.top()[1]) == (1, Reason.TRAINING)


def test_what_is_due_first_is_done_first() -> None:
    sim = begun(placement={"burst": BURST | {"afterSeconds": 60}}, replicas=2, minReplicas=1, allReplicasDeadlineSeconds=120)
    place(sim, 1)
    sim.step(60)
    sim.settle()
    assert (of(sim).attempt, of(sim).burst, of(sim).workers) == (2, True, 2)
    place(sim, 1)
    sim.step(120)
    sim.settle()
    assert (of(sim).attempt, of(sim).burst, of(sim).workers) == (3, True, 1)
