from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from videogen_api.job import Report
from videogen_api.training_run import Phase, PhaseStatus, Reason, Task
from videogen_operator.conditions import timestamp
from videogen_operator.kinds.training_run import attempts
from videogen_operator.kinds.training_run.attempts import TRANSITIONS, State, state_of
from videogen_operator.kinds.training_run.failure_policy import Action, Ending
from videogen_operator.rules import IllegalMoveError

NOW = datetime(2026, 11, 1, tzinfo=UTC)
SPEC = Phase.model_validate({"name": "train", "task": Task.TRAIN, "data": [{"dataset": "d", "version": "1"}], "attempts": 3})
FRESH = PhaseStatus(name="train")


def at(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def end(action: Action, reason: Reason = Reason.TRAINER_FAILED, step: int = 0) -> Ending:
    return Ending(reason, action, "said so", Report(last_step=step) if step else None)


def after(*actions: Action) -> PhaseStatus:
    status = FRESH
    for index, action in enumerate(actions):
        if state_of(status) != State.ACTIVE:
            status = attempts.started(status, f"job-{index + 1}", NOW)
        status = attempts.ended(status, SPEC, end(action), NOW)
    return status


ENDS = [
    ("a failure is repeated", (Action.RETRY,), State.BACK_OFF, 1, None),
    ("the last allowed failure is final", (Action.RETRY,) * 3, State.FAILED, 3, Reason.ATTEMPTS_EXHAUSTED),
    ("interruptions do not count", (Action.RETRY_FREE,) * 20, State.BACK_OFF, 0, None),
    ("but they are bounded", (Action.RETRY_FREE,) * attempts.MAXIMUM_INTERRUPTIONS, State.FAILED, 0, Reason.ATTEMPTS_EXHAUSTED),
    ("two failures between interruptions", (Action.RETRY, Action.RETRY_FREE, Action.RETRY, Action.RETRY_FREE), State.BACK_OFF, 2, None),
    ("what cannot be helped is not repeated", (Action.RETRY_FREE, Action.FAIL), State.FAILED, 1, Reason.TRAINER_FAILED),
    ("success ends the phase", (Action.RETRY, Action.SUCCEED), State.COMPLETED, 1, Reason.COMPLETED),
]


@pytest.mark.parametrize("actions, state, counted, outcome", [row[1:] for row in ENDS], ids=[row[0] for row in ENDS])
def test_what_follows_an_end(actions: tuple[Action, ...], state: State, counted: int, outcome: Reason | None) -> None:
    status = after(*actions)
    assert (state_of(status), status.counted_attempts, status.outcome) == (state, counted, outcome)
    assert len(status.attempts) <= attempts.REMEMBERED


DELAYS = [
    ("first failure", (Action.RETRY,), 10),
    ("second failure", (Action.RETRY,) * 2, 20),
    ("first preemption", (Action.RETRY_FREE,), 2),
    ("preemptions in a row", (Action.RETRY_FREE,) * 3, 40),
    ("never longer than five minutes", (Action.RETRY_FREE,) * 30, 300),
    ("a preemption after a failure is a first one", (Action.RETRY, Action.RETRY_FREE), 2),
]


@pytest.mark.parametrize("actions, seconds", [row[1:] for row in DELAYS], ids=[row[0] for row in DELAYS])
def test_how_long_the_next_attempt_waits(actions: tuple[Action, ...], seconds: int) -> None:
    assert after(*actions).retry_time == timestamp(at(seconds))


def test_an_attempt_that_saved_a_further_step_is_followed_as_if_it_were_the_first() -> None:
    status = after(*(Action.RETRY_FREE,) * 5)
    delays = []
    for saved in (0, 40, 40, 80):  # by its reports of progress: the attempt is killed and leaves none
        status = attempts.started(status, "job", NOW).model_copy(update={"checkpoint_step": saved})
        status = attempts.ended(status, SPEC, end(Action.RETRY_FREE), NOW)
        delays.append(status.retry_time)
    assert delays == [timestamp(at(seconds)) for seconds in (300, 2, 20, 2)]
    assert [record.last_step for record in status.attempts][-4:] == [0, 40, 40, 80]


def test_suspended_time_is_no_part_of_the_deadline() -> None:
    status = attempts.started(FRESH, "job", at(0))
    status = attempts.suspended(status, at(100))
    assert attempts.elapsed_seconds(status, at(5000)) == 100
    status = attempts.resumed(status, at(1000))
    assert state_of(status) == State.BACK_OFF
    assert attempts.elapsed_seconds(status, at(1050)) == 150
    assert status.attempts[-1].reason == Reason.SUSPENDED
    assert not status.attempts[-1].counted


def test_suspension_before_the_first_attempt_counts_nothing() -> None:
    status = attempts.resumed(attempts.suspended(FRESH, at(0)), at(500))
    assert status == FRESH


def test_a_retry_request_begins_the_counts_anew_and_keeps_checkpoint_and_numbers() -> None:
    status = attempts.started(FRESH, "job-1", NOW)
    status = attempts.ended(status, SPEC, end(Action.RETRY, step=70), NOW)
    status = attempts.ended(attempts.started(status, "job-2", NOW), SPEC, end(Action.FAIL), at(9))
    again = attempts.restarted(status, NOW)
    assert state_of(again) == State.BACK_OFF
    assert (again.attempt, again.counted_attempts, again.checkpoint_step, again.outcome) == (2, 0, 70, None)


@pytest.mark.parametrize("diverged, scale", [(0, "1"), (1, "0.5"), (3, "0.125"), (9, "0.0625")])
def test_each_divergence_halves_the_learning_rate_to_a_sixteenth(diverged: int, scale: str) -> None:
    status = FRESH
    for number in range(diverged):
        started = attempts.started(status, f"job-{number}", NOW)
        status = attempts.recorded_end(started, end(Action.RETRY_SLOWER, Reason.DIVERGED), NOW)
        status = status.model_copy(update={"retry_time": timestamp(NOW)})
    assert attempts.learning_rate_scale(status) == scale


def test_after_a_divergence_the_newest_checkpoint_is_the_one_that_the_trainer_went_back_to() -> None:
    status = attempts.started(FRESH, "job-1", NOW).model_copy(update={"checkpoint_step": 80})
    status = attempts.ended(status, SPEC, end(Action.RETRY_SLOWER, Reason.DIVERGED, step=40), NOW)
    assert (status.checkpoint_step, status.attempts[-1].last_step) == (40, 40)
    status = attempts.ended(attempts.started(status, "job-2", NOW), SPEC, end(Action.RETRY, step=0), NOW)
    assert status.checkpoint_step == 40


def test_a_divergence_is_not_forgotten_among_preemptions_and_retry_requests() -> None:
    spec = SPEC.model_copy(update={"attempts": 1})
    status = attempts.ended(attempts.started(FRESH, "job-1", NOW), spec, end(Action.RETRY_SLOWER, Reason.DIVERGED), NOW)
    status = attempts.restarted(status, NOW)
    for number in range(2 * attempts.REMEMBERED):
        status = attempts.ended(attempts.started(status, f"job-{number}", NOW), spec, end(Action.RETRY_FREE, Reason.PREEMPTED), NOW)
    assert Reason.DIVERGED not in {record.reason for record in status.attempts}
    assert attempts.learning_rate_scale(status) == "0.5"


def test_a_retry_request_after_too_many_interruptions_allows_as_many_again() -> None:
    status = after(*(Action.RETRY_FREE,) * attempts.MAXIMUM_INTERRUPTIONS)
    assert "100 attempts were interrupted" in status.message
    status = attempts.restarted(status, NOW)
    for number in range(1, attempts.MAXIMUM_INTERRUPTIONS + 1):
        assert state_of(status) == State.BACK_OFF
        status = attempts.ended(attempts.started(status, f"job-{number}", NOW), SPEC, end(Action.RETRY_FREE, Reason.PREEMPTED), NOW)
    assert status.message.startswith("100 attempts were interrupted, the last one with Preempted")


def test_suspensions_are_no_interruptions() -> None:
    status = FRESH
    for number in range(2 * attempts.MAXIMUM_INTERRUPTIONS):
        status = attempts.resumed(attempts.suspended(attempts.started(status, f"job-{number}", NOW), NOW), NOW)
    status = attempts.ended(attempts.started(status, "job", NOW), SPEC, end(Action.RETRY_FREE, Reason.PREEMPTED), NOW)
    assert (state_of(status), status.interruptions, status.counted_attempts) == (State.BACK_OFF, 1, 0)


def test_a_lack_of_room_counts_for_nothing_and_the_next_attempt_begins_at_once_with_fewer() -> None:
    no_room = end(Action.RETRY_FREE, Reason.UNSCHEDULABLE)
    status = after(Action.RETRY_FREE, Action.RETRY_FREE)
    for number in range(2 * attempts.MAXIMUM_INTERRUPTIONS):
        status = attempts.reduced(attempts.started(status, f"job-{number}", NOW, 4), no_room, 2, at(9))
    assert (state_of(status), status.workers, status.retry_time) == (State.BACK_OFF, 2, timestamp(at(9)))
    assert (status.interruptions, status.counted_attempts, status.attempts[-1].workers) == (2, 0, 4)


def test_a_lack_of_room_between_two_preemptions_does_not_make_the_wait_longer_or_shorter() -> None:
    no_room = end(Action.RETRY_FREE, Reason.UNSCHEDULABLE)
    status, delays = FRESH, []
    for number in range(4):
        status = attempts.reduced(attempts.started(status, f"all-{number}", NOW, 2), no_room, 1, NOW)
        status = attempts.ended(attempts.started(status, f"fewer-{number}", NOW, 1), SPEC, end(Action.RETRY_FREE, Reason.PREEMPTED), NOW)
        delays.append(status.retry_time)
        assert status.workers is None, "all are tried again"
    assert delays == [timestamp(at(seconds)) for seconds in (2, 20, 40, 80)]


def test_an_illegal_move_is_refused() -> None:
    with pytest.raises(IllegalMoveError, match="train: Completed -> Active; accepted from there: nothing"):
        attempts.moved(after(Action.SUCCEED), outcome=None)


def test_every_state_can_be_reached_and_only_completed_is_final() -> None:
    assert set(TRANSITIONS) == set(State)
    assert set(State) == {State.IDLE} | {target for targets in TRANSITIONS.values() for target in targets}
    assert [state for state, targets in TRANSITIONS.items() if not targets] == [State.COMPLETED]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([*Action, "suspend", "resume", "retry"]), st.integers(0, 900)), max_size=40))
def test_whatever_happens_numbers_rise_counts_stay_bounded_and_checkpoints_never_go_back(events: list[tuple[str, int]]) -> None:
    status, now, step = FRESH, NOW, 0
    for event, seconds in events:
        now += timedelta(seconds=seconds)
        before, step = status, step + 5
        match event, state_of(status):
            case "suspend", State.IDLE | State.ACTIVE | State.BACK_OFF:
                status = attempts.suspended(status, now)
            case "resume", State.SUSPENDED:
                status = attempts.resumed(status, now)
            case "retry", State.FAILED:
                status = attempts.restarted(status, NOW)
            case Action(), State.ACTIVE if event != Action.ASK_SIBLINGS:
                status = attempts.ended(status, SPEC, end(Action(event), step=step), now)
            case Action(), State.IDLE | State.BACK_OFF:
                status = attempts.started(status, f"job-{status.attempt + 1}", now)
            case _:
                pass
        assert status.attempt >= before.attempt
        assert status.counted_attempts <= SPEC.attempts
        assert status.checkpoint_step >= before.checkpoint_step
        assert [record.number for record in status.attempts] == sorted({record.number for record in status.attempts})
        assert PhaseStatus.model_validate(status.wire()) == status
