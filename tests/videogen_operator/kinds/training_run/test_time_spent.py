from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from videogen_api.goodput import TimeSpent
from videogen_api.job import Goodput, Report
from videogen_api.progress import Progress
from videogen_api.training_run import Phase, PhaseStatus, Reason, Task
from videogen_operator.kinds.training_run import attempts
from videogen_operator.kinds.training_run.failure_policy import Action, Ending
from videogen_operator.kinds.training_run.time_spent import spent, told_by

NOW = datetime(2026, 11, 1, tzinfo=UTC)
SPEC = Phase.model_validate({"name": "train", "task": Task.TRAIN, "data": [{"dataset": "d", "version": "1"}], "attempts": 100})


def parts(productive: object, waited: object = 0, paused: object = 0, repeated: object = 0) -> Goodput:
    return Goodput.model_validate({
        "wallSeconds": "1",
        "productiveSeconds": str(productive),
        "dataWaitSeconds": str(waited),
        "checkpointPauseSeconds": str(paused),
        "repeatedSteps": repeated,
    })  # fmt: skip


def progress(told: Goodput | None) -> Progress:
    metrics = {"step": "7", **({} if told is None else told.wire())}
    return Progress.model_validate({"metrics": [{"name": name, "value": str(value)} for name, value in metrics.items()]})


def running(status: PhaseStatus, told: Goodput, seconds: float) -> PhaseStatus:
    """The status after an attempt has told this, as `plan` writes it."""
    return status.model_copy(update={**spent(status, told_by(progress(told)), seconds), "progress": progress(told)})


def ended(status: PhaseStatus, seconds: float, report: Goodput | None = None) -> PhaseStatus:
    end = Ending(Reason.PREEMPTED, Action.RETRY_FREE, "gone", Report(goodput=report) if report else None)
    return attempts.ended(status, SPEC, end, NOW + timedelta(seconds=seconds))


def begun(status: PhaseStatus, seconds: float = 0) -> PhaseStatus:
    return attempts.started(status, "job", NOW + timedelta(seconds=seconds))


def test_a_phase_keeps_what_all_its_attempts_have_spent() -> None:
    """Before, each new attempt's share took the place of the last one's, and all the rest went with its progress."""
    status = running(begun(PhaseStatus(name="train")), parts(30, 2, 1), 50)
    status = running(status, parts(70, 4, 2), 100)
    status = ended(status, 130)  # killed: nothing but its progress is known
    status = running(begun(status, 140), parts(10, 1, 1, 5), 160)
    status = ended(status, 200, parts("40.5", 1, 3, 5))
    assert status.time_spent
    assert status.time_spent.wire() == {
        "wallSeconds": "200.000",
        "productiveSeconds": "110.500",
        "dataWaitSeconds": "5.000",
        "dataWaitShare": "0.02",
        "checkpointPauseSeconds": "5.000",
        "repeatedSteps": 5,
    }
    assert (status.goodput, status.progress) == ("0.55", None), "the 10 s between the attempts are no good"


def test_an_attempt_that_tells_nothing_costs_time_all_the_same() -> None:
    status = ended(running(begun(PhaseStatus(name="train")), parts(50), 100), 100)
    status = ended(begun(status, 100), 200)
    assert status.time_spent
    assert (status.time_spent.wall_seconds, status.goodput) == ("200.000", "0.25")


def test_time_that_a_run_was_suspended_is_not_wall_time() -> None:
    status = running(begun(PhaseStatus(name="train")), parts(50), 100)
    status = attempts.resumed(attempts.suspended(status, NOW + timedelta(seconds=100)), NOW + timedelta(seconds=900))
    status = ended(running(begun(status, 900), parts(50), 200), 1000)
    assert status.time_spent
    assert (status.time_spent.wall_seconds, status.goodput) == ("200.000", "0.50")


def test_a_phase_that_measures_no_time_says_nothing_of_it() -> None:
    status = ended(begun(PhaseStatus(name="train")), 100)
    assert (status.time_spent, status.goodput) == (None, None)


def test_a_phase_that_is_tried_anew_counts_anew() -> None:
    status = ended(running(begun(PhaseStatus(name="train")), parts(50), 100), 100)
    failed = attempts.failed(status, Reason.TRAINER_FAILED, "why", NOW + timedelta(seconds=100))
    anew = attempts.restarted(failed, NOW)
    assert (anew.time_spent, anew.goodput) == (None, None)
    again = ended(running(begun(anew, 500), parts(9), 10), 510)
    assert again.time_spent
    assert (again.time_spent.wall_seconds, again.goodput) == ("10.000", "0.90")


def test_an_attempt_that_an_older_operator_followed_is_counted_whole() -> None:
    status = begun(PhaseStatus(name="train")).model_copy(update={"progress": progress(parts(80)), "goodput": "0.97"})
    assert running(status, parts(90), 100).goodput == "0.90"


@pytest.mark.parametrize("told", [{"productiveSeconds": "7 of 8"}, {"repeatedSteps": "-1"}, {"dataWaitSeconds": "-3"}])
def test_what_is_no_measurement_is_not_counted(told: dict[str, str]) -> None:
    metrics = {**{name: str(value) for name, value in parts(5).wire().items()}, **told}
    assert told_by(Progress.model_validate({"metrics": [{"name": name, "value": value} for name, value in metrics.items()]})) is None


Measured = st.tuples(*(st.integers(0, 10**6),) * 3, st.integers(0, 1000))
Attempts = st.lists(st.tuples(st.lists(Measured, max_size=4), st.none() | Measured), max_size=6)


@settings(max_examples=60, deadline=None)
@given(Attempts)
def test_sums_are_those_of_each_attempts_last_word(all_attempts: list[tuple[list[Any], Any]]) -> None:
    status, last_words, clock = PhaseStatus(name="train"), [], 0
    for reports, final in all_attempts:
        status = begun(status, clock)
        for told in reports:
            clock += 3
            status = running(status, parts(*told), clock)
        clock += 3
        status = ended(status, clock, parts(*final) if final else None)
        last_words += [final or reports[-1]] if final or reports else []
    sums = [sum(Decimal(words[part]) for words in last_words) for part in range(4)]
    time = status.time_spent or TimeSpent()
    found = (time.productive_seconds, time.data_wait_seconds, time.checkpoint_pause_seconds, time.repeated_steps)
    assert [Decimal(value) for value in found] == sums


@given(st.lists(st.sampled_from(["0", "999999999", "1e99", "0.000000001", "5e-9"]), min_size=1, max_size=4))
def test_whatever_pods_tell_fits_the_schema(values: list[str]) -> None:
    status = begun(PhaseStatus(name="train"))
    for number, value in enumerate(values):
        status = begun(ended(running(status, parts(value, value, value, 10**9), number), number), number)
        assert PhaseStatus.model_validate(status.wire()) == status
