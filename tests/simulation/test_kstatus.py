"""What Flux and Helm wait for: the library that both wait by looks at runs and releases in every state that they come to."""

from collections import defaultdict
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest

from videogen_api.evaluation import Metric, MetricResult
from videogen_api.job import Report
from videogen_operator.kinds.model_release.states import State
from videogen_testing.kstatus import kstatus, real_kstatus
from videogen_testing.releases import a_gate, a_release, a_result, a_run, name_of
from videogen_testing.run_simulation import Simulation as Run
from videogen_testing.runs import EVALUATE, RELEASE, TRAIN, ended, release_status, running, trained
from videogen_testing.service_simulation import Simulation as Service

PACE: dict[str, Any] = {
    "rollout": {"steps": [{"weightPercent": 10, "minimumRequests": 50, "minimumSeconds": 20}], "checkIntervalSeconds": 5},
    "rollback": {"windowSeconds": 100},
    "serving": {"startDeadlineSeconds": 40},
}
OLD, NEW = "1.0.0", "1.1.0"
WAITING, DONE, OVER = "InProgress", "Current", "Failed"
EXPECTED: dict[State, set[str]] = {  # docs/decisions/0026
    **{state: {WAITING} for state in (State.PENDING, State.GATING, State.QUEUED, State.STARTING, State.CANARY, State.HELD)},
    State.STABLE: {WAITING, DONE},  # it has no traffic yet, or lost its pods; then it serves
    State.STANDBY: {DONE},
    State.SUPERSEDED: {DONE},
    **{state: {OVER} for state in (State.REJECTED, State.ROLLED_BACK, State.WITHDRAWN, State.FAILED)},
}


def service(**spec: Any) -> Service:
    """1.0.0 is stable, and 1.1.0 was just made."""
    made = Service(a_release(OLD, **PACE))
    made.until(OLD, "Stable")
    made.put(a_release(NEW, at=made.now, **PACE, **spec))
    return made


def a_rollout_that_is_held_and_promoted(see: Callable[[Service], None]) -> None:
    made = service()
    see(made)
    for state in ("Starting", "Canary"):
        made.until(NEW, state)
        see(made)
    made.request(NEW, "hold@1")
    made.until(NEW, "Held")
    see(made)
    made.request(NEW, "resume@1")
    for version, state in ((NEW, "Stable"), (OLD, "Standby"), (OLD, "Superseded")):
        made.until(version, state)
        see(made)
    made.tick(8)
    see(made)


def gates_that_wait_and_fail(see: Callable[[Service], None]) -> None:
    made = service(gates=[a_gate()], lineage={"run": "training"})
    made.until(NEW, "Gating")
    see(made)
    made.put(a_run(digest=a_release(NEW)["spec"]["artifact"]["digest"], results=[a_result(value="900")], ended="True"))
    made.until(NEW, "Rejected")
    see(made)


def a_release_that_does_not_start_and_one_that_waits_for_it(see: Callable[[Service], None]) -> None:
    made = service()
    made.broken.add(NEW)
    made.until(NEW, "Starting")
    made.put(a_release("1.2.0", at=made.now, **PACE))
    made.tick()
    see(made)
    made.until(NEW, "Failed")
    see(made)


def traffic_that_is_taken_back(see: Callable[[Service], None], verb: str = "abort", state: str = "RolledBack") -> None:
    made = service()
    made.until(NEW, "Canary")
    made.request(NEW, f"{verb}@1")
    made.until(NEW, state)
    see(made)


def a_withdrawal(see: Callable[[Service], None]) -> None:
    traffic_that_is_taken_back(see, "withdraw", "Withdrawn")


STORIES = (
    a_rollout_that_is_held_and_promoted,
    gates_that_wait_and_fail,
    a_release_that_does_not_start_and_one_that_waits_for_it,
    traffic_that_is_taken_back,
    a_withdrawal,
)


@pytest.fixture(scope="module")
def releases() -> dict[State, list[dict[str, Any]]]:
    """Releases as they are in each state."""
    seen: dict[State, list[dict[str, Any]]] = defaultdict(list)

    def see(made: Service) -> None:
        for version, item in made.releases().items():
            seen[State(made.state(version))].append(deepcopy(item))

    for story in STORIES:
        story(see)
    return seen


def test_the_stories_come_to_every_state_that_lasts(releases: dict[State, list[dict[str, Any]]]) -> None:
    assert set(State) - releases.keys() <= {State.PENDING}, "which ends in the pass that sees it"
    assert set(EXPECTED) == set(State)


@pytest.mark.parametrize("state", [state for state in State if state != State.PENDING])
def test_whoever_waits_for_a_release_is_told_in_state(releases: dict[State, list[dict[str, Any]]], state: State) -> None:
    told = real_kstatus(releases[state])
    assert told, f"no story comes to {state}"
    assert set(told) <= EXPECTED[state]
    assert told == [kstatus(item) for item in releases[state]]


def test_a_stable_release_that_serves_is_current(releases: dict[State, list[dict[str, Any]]]) -> None:
    serving = [item for item in releases[State.STABLE] if item["status"]["traffic"]["weightPercent"] == 100]
    assert serving
    assert set(real_kstatus(serving)) == {DONE}


def text(report: Report) -> str:
    return report.model_dump_json(by_alias=True, exclude_none=True)


def a_run_and_its_release(see: Callable[[Run, str], None]) -> None:
    sim = Run(phases=[TRAIN, EVALUATE, RELEASE], storage={"claimName": "late"})
    sim.release_status = release_status("Canary", ready=False, Reconciling="Canary")
    see(sim, WAITING)  # nobody has looked at it
    sim.settle()
    see(sim, WAITING)  # it waits for its claim
    labels = {"videogen.pib.gov.in/storage": "true"}
    sim.put({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "late", "labels": labels}}, "models")
    sim.step()
    see(sim, WAITING)  # its first phase is marked, and has no job yet
    sim.settle()
    see(sim, DONE)  # like a Job that runs
    sim.set_pods(running())
    sim.settle()
    see(sim, DONE)
    sim.spec(suspend=True)
    see(sim, WAITING)  # until the operator has seen it
    sim.settle()
    see(sim, DONE)
    sim.spec(suspend=False)
    sim.settle()
    for report in (trained(), Report(results=[MetricResult(metric=Metric.FVD, value="100", samples=128)])):
        sim.set_pods(ended(0, text(report)))
        sim.settle()
        see(sim, DONE)
    sim.release(release_status("Stable"))
    sim.settle()
    assert sim.top()[0] == "True"
    see(sim, DONE)


def a_run_that_fails(see: Callable[[Run, str], None]) -> None:
    sim = Run(phases=[TRAIN, EVALUATE])
    sim.settle()
    sim.set_pods(ended(0, text(trained())))
    sim.settle()
    sim.set_pods(ended(0, text(Report(results=[MetricResult(metric=Metric.FVD, value="900", samples=128)]))))
    sim.settle()
    assert sim.top()[0] == "False"
    see(sim, OVER)


def a_run_that_cannot_be_read(see: Callable[[Run, str], None]) -> None:
    sim = Run()
    sim.spec(recipe={"steps": "many"})
    sim.step()
    see(sim, OVER)


@pytest.mark.parametrize("story", [a_run_and_its_release, a_run_that_fails, a_run_that_cannot_be_read])
def test_whoever_waits_for_a_run_is_told_as_of_a_job(story: Callable[[Callable[[Run, str], None]], None]) -> None:
    seen: list[tuple[dict[str, Any], str]] = []
    story(lambda sim, expected: seen.append((deepcopy({"status": {"observedGeneration": -1}} | sim.run()), expected)))
    items = [item for item, _ in seen]
    assert real_kstatus(items) == [expected for _, expected in seen] == [kstatus(item) for item in items]


def test_an_object_that_is_being_deleted_is_told_so() -> None:
    item = a_release(OLD)
    item["metadata"] |= {"deletionTimestamp": "2026-11-02T09:00:00Z", "name": name_of(OLD)}
    assert real_kstatus([item]) == [kstatus(item)] == ["Terminating"]
