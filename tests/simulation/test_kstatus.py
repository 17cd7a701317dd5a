"""What Flux and Helm wait for: the library that both wait by looks at runs and releases in every state that they come to."""

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest

from videogen_api.evaluation import Metric, MetricResult
from videogen_api.job import Report
from videogen_operator.kinds.model_release.states import State
from videogen_testing.kstatus import kstatus, real_kstatus
from videogen_testing.release_states import OLD, in_each_state
from videogen_testing.releases import a_release, name_of
from videogen_testing.run_simulation import Simulation as Run
from videogen_testing.runs import EVALUATE, RELEASE, TRAIN, ended, release_status, running, trained

WAITING, DONE, OVER = "InProgress", "Current", "Failed"
EXPECTED: dict[State, set[str]] = {  # docs/decisions/0026
    **{state: {WAITING} for state in (State.PENDING, State.GATING, State.QUEUED, State.STARTING, State.CANARY, State.HELD)},
    State.STABLE: {WAITING, DONE},  # it has no traffic yet, or lost its pods; then it serves
    State.STANDBY: {DONE},
    State.SUPERSEDED: {DONE},
    **{state: {OVER} for state in (State.REJECTED, State.ROLLED_BACK, State.WITHDRAWN, State.FAILED)},
}


@pytest.fixture(scope="module")
def releases() -> dict[State, list[dict[str, Any]]]:
    """Releases as they are in each state."""
    return in_each_state()


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
