"""The calendar of a run in a closed loop: when phases begin, until when they must be done, and whose turn it is."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from videogen_api.meta import ANNOTATION_REQUEST
from videogen_api.training_run import Phase, PhaseStatus, Reason
from videogen_operator.kinds.training_run.metrics import samples
from videogen_testing.run_simulation import Simulation
from videogen_testing.runs import EVALUATE, RELEASE, TRAIN, a_run, ended, running, trained

START = datetime(2026, 11, 1, tzinfo=UTC)
DAY = 86_400


def at(days: float) -> str:
    return (START + timedelta(days=days)).strftime("%Y-%m-%dT%H:%M:%SZ")


def calendar(*phases: dict[str, Any], **run: Any) -> Simulation:
    """A run that was created at the beginning of day 0."""
    sim = Simulation(phases=list(phases), **run)
    sim.put(sim.run(), creationTimestamp=at(0))
    sim.settle()
    return sim


def of(sim: Simulation, name: str) -> PhaseStatus:
    return next((one for one in sim.status().phases if one.name == name), PhaseStatus(name=name))


def said(sim: Simulation) -> str:
    return next(one.message for one in sim.status().conditions if one.type == "Succeeded")


def finish(sim: Simulation) -> None:
    sim.set_pods(ended(0, trained().model_dump_json(by_alias=True, exclude_none=True)))
    sim.settle()


def told(sim: Simulation, gauge: str) -> dict[tuple[str, ...], float]:
    return {labels: value for one, labels, value in samples(sim.run()) if one.name == gauge}


def test_a_phase_begins_when_its_window_opens_and_not_before() -> None:
    sim = calendar(TRAIN | {"window": {"notBefore": at(7), "deadlineSeconds": 7 * DAY}, "owner": "ml-engineering"})
    assert sim.top() == ("Unknown", Reason.WAITING_FOR_WINDOW)
    assert said(sim) == f"train of ml-engineering: begins at {at(7)} (window.notBefore)"
    assert sim.preflights() != (), "what is missing is found before the window opens"
    assert sim.jobs() == ()
    assert not of(sim, "train").begun, "all of it can still be changed"
    assert of(sim, "train").waiting_for == [], "it is nobody's turn"
    sim.step(7 * DAY - 1)
    assert sim.jobs() == ()
    sim.step(1)
    sim.settle()
    assert [job["metadata"]["name"] for job in sim.jobs()] == ["run-train-1"]


def test_the_next_phase_waits_for_its_own_window_and_is_not_marked_as_begun() -> None:
    sim = calendar(TRAIN, TRAIN | {"name": "more", "window": {"notBefore": at(1)}})
    finish(sim)
    assert sim.top() == ("Unknown", Reason.WAITING_FOR_WINDOW)
    assert not of(sim, "more").begun
    sim.step(DAY)
    sim.settle()
    assert of(sim, "more").attempt == 1


def test_a_window_that_has_opened_long_ago_holds_nothing_up() -> None:
    sim = calendar(TRAIN | {"window": {"notBefore": at(-30)}})
    assert of(sim, "train").attempt == 1


def test_the_deadline_counts_from_the_end_of_the_phase_before() -> None:
    sim = calendar(TRAIN, TRAIN | {"name": "more", "window": {"deadlineSeconds": 600}})
    sim.step(3 * DAY)
    finish(sim)
    sim.step(599)
    assert sim.top()[0] == "Unknown"
    sim.step(1)
    assert sim.top() == ("False", Reason.DEADLINE_EXCEEDED)
    assert "took longer than window.deadlineSeconds 600" in said(sim)


def test_the_deadline_counts_from_not_before_where_that_is_later() -> None:
    sim = calendar(TRAIN, TRAIN | {"name": "more", "window": {"notBefore": at(2), "deadlineSeconds": 600}})
    finish(sim)
    sim.step(2 * DAY + 599)
    sim.settle()
    assert sim.top()[0] == "Unknown"
    sim.step(1)
    assert sim.top() == ("False", Reason.DEADLINE_EXCEEDED)


def test_waiting_counts_too_so_a_run_whose_storage_never_comes_ends() -> None:
    sim = Simulation(phases=[TRAIN | {"window": {"deadlineSeconds": 600}}])
    sim.put(sim.run(), creationTimestamp=at(0))
    sim.world.remove(sim.world.get("PersistentVolumeClaim", "models", "models"))  # type: ignore[arg-type]
    sim.step(10)
    assert sim.top() == ("Unknown", Reason.CLAIM_NOT_FOUND)
    assert sim.step(589).requeue_after == 1
    sim.step(1)
    assert sim.top() == ("False", Reason.DEADLINE_EXCEEDED)


def test_time_spent_suspended_is_not_part_of_the_window() -> None:
    sim = calendar(TRAIN | {"window": {"notBefore": at(1), "deadlineSeconds": 600}})
    sim.spec(suspend=True)
    sim.settle()
    sim.step(DAY + 300)  # of which only 300 s are the window's
    sim.spec(suspend=False)
    sim.settle()
    assert of(sim, "train").window_start_time == at(1 + 300 / DAY)
    sim.step(599)
    assert sim.top()[0] == "Unknown"
    sim.step(1)
    assert sim.top() == ("False", Reason.DEADLINE_EXCEEDED)


def test_a_suspension_that_ends_before_the_window_opens_changes_nothing() -> None:
    sim = calendar(TRAIN | {"window": {"notBefore": at(1), "deadlineSeconds": 600}})
    sim.spec(suspend=True)
    sim.settle()
    sim.step(300)
    sim.spec(suspend=False)
    sim.settle()
    assert of(sim, "train").window_start_time is None


def test_a_window_can_be_moved_while_the_run_is_suspended() -> None:
    sim = calendar(TRAIN | {"window": {"deadlineSeconds": 600}})
    sim.spec(suspend=True)
    sim.settle()
    sim.spec(phases=[TRAIN | {"window": {"deadlineSeconds": 1200}}])
    sim.spec(suspend=False)
    sim.settle()
    sim.step(1199)
    assert sim.top()[0] == "Unknown"
    sim.step(1)
    assert sim.top() == ("False", Reason.DEADLINE_EXCEEDED)


def test_a_retry_request_gives_the_phase_its_window_again() -> None:
    sim = calendar(TRAIN | {"window": {"deadlineSeconds": 600}})
    sim.step(600)
    assert sim.top() == ("False", Reason.DEADLINE_EXCEEDED)
    sim.step(DAY)
    sim.annotate(ANNOTATION_REQUEST, "retry@1")
    sim.settle()
    sim.step(599)
    assert sim.top()[0] == "Unknown"
    sim.step(1)
    assert sim.top() == ("False", Reason.DEADLINE_EXCEEDED)


def test_the_release_waits_for_its_window() -> None:
    sim = calendar(TRAIN, EVALUATE | {"gates": []}, RELEASE | {"window": {"notBefore": at(5)}}, initFrom=None)
    finish(sim)
    results = '{"reason": "Completed", "results": [{"metric": "FVD", "value": "100", "samples": 128}]}'
    sim.set_pods(ended(0, results))
    sim.settle()
    assert sim.top() == ("Unknown", Reason.WAITING_FOR_WINDOW)
    assert sim.world.list("ModelRelease") == ()
    sim.step(5 * DAY)
    sim.settle()
    assert len(sim.world.list("ModelRelease")) == 1


def test_whose_turn_it_is_stands_in_status_messages_events_and_metrics() -> None:
    sim = calendar(TRAIN | {"owner": "ml-engineering", "window": {"deadlineSeconds": DAY}}, TRAIN | {"name": "more", "owner": "qa"})
    sim.set_pods(running())
    sim.settle()
    (turn,) = of(sim, "train").waiting_for
    assert (turn.team, turn.what, turn.since, turn.due) == ("ml-engineering", "attempt 1 is running", at(0), at(1))
    assert said(sim) == "train of ml-engineering: attempt 1 is running"
    assert sim.status().summary.team == "ml-engineering"  # type: ignore[union-attr]
    assert "JobCreated: train of ml-engineering: attempt 1 is PyTorchJob run-train-1" in sim.log
    labels = ("models", "run", "train", "ml-engineering")
    assert told(sim, "videogen_training_turn_since_time_seconds") == {labels: START.timestamp()}
    assert told(sim, "videogen_training_due_time_seconds") == {labels: START.timestamp() + DAY}
    sim.now += timedelta(hours=1)
    finish(sim)
    assert of(sim, "train").waiting_for == []
    (turn,) = of(sim, "more").waiting_for
    assert (turn.team, turn.since, turn.due) == ("qa", at(1 / 24), None)
    assert told(sim, "videogen_training_due_time_seconds") == {}


def test_a_phase_that_failed_says_whose_it_is() -> None:
    sim = calendar(TRAIN | {"owner": "ml-engineering", "window": {"deadlineSeconds": 600}})
    sim.step(600)
    assert said(sim).startswith("train of ml-engineering: the phase took longer than")
    (turn,) = of(sim, "train").waiting_for
    assert (turn.team, turn.due) == ("ml-engineering", None)
    assert turn.what.startswith("the phase took longer than")
    assert any(line.startswith("DeadlineExceeded: train of ml-engineering: ") for line in sim.log)


def test_a_phase_without_owner_and_window_reads_as_before() -> None:
    sim = calendar(TRAIN)
    sim.set_pods(running())
    sim.settle()
    assert said(sim) == "train: attempt 1 is running"
    assert of(sim, "train").waiting_for == []
    assert Phase.model_validate(TRAIN).title == "train"
    assert a_run()["spec"]["phases"] == [TRAIN]
