"""Attempts of one phase as a state machine.

A phase is worked on by attempts, one at a time; each is one PyTorchJob that is never restarted. The state is not
stored: it follows from what must be remembered anyway (`PhaseStatus`), so the two cannot contradict each other.

    Idle ──► Active ──► BackOff ──► Active ...        an attempt ended and may be repeated
      │        ├──────► Completed | Failed            it is over
      └────────┴──────► Suspended ──► BackOff | Idle  spec.suspend; time does not count

Attempts that ended through no fault of the work (preemption, lost nodes) do not use up `phase.attempts`; they are
bounded by MAXIMUM_INTERRUPTIONS all the same, so that nothing repeats for ever. A suspension is a person's own wish
and is not counted at all. Nor is an attempt that had no room for all its workers: the next one has fewer, and any other
end is followed by all of them again, so that these rows are short. Nor is what a queue takes back: the attempt stays
Active, and its job waits its turn again (`queued_time`).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from enum import StrEnum

from videogen_api.training_run import AttemptRecord, Phase, PhaseStatus, Reason
from videogen_operator.conditions import timestamp
from videogen_operator.kinds.training_run.failure_policy import NEXT_STEP, Action, Ending, for_phase
from videogen_operator.kinds.training_run.time_spent import spent, told_by
from videogen_operator.rules import IllegalMoveError

COLLECTING_DELAY = 3600  # seconds after an attempt that found too few new clips
MAXIMUM_INTERRUPTIONS = 100
FIRST_DELAY, LONGEST_DELAY = 10, 300  # seconds before a repeated attempt
PREEMPTED_DELAY = 2  # before the first repeat after a preemption
NO_INTERRUPTIONS = (
    Reason.SUSPENDED,
    Reason.BUDGET_EXCEEDED,
    Reason.UNSCHEDULABLE,
    Reason.TOO_FEW_NEW_CLIPS,
)  # a wish; too little room; too little data
MOST_BYTES = 2**53  # that the API server takes, whatever pods tell
MOST_EVICTIONS = 100_000  # that the API server takes
REMEMBERED = 10  # records of ended attempts in the status


class State(StrEnum):
    """Where a phase stands."""

    IDLE = "Idle"
    ACTIVE = "Active"
    BACK_OFF = "BackOff"
    SUSPENDED = "Suspended"
    COMPLETED = "Completed"
    FAILED = "Failed"


TRANSITIONS: Mapping[State, frozenset[State]] = {
    State.IDLE: frozenset({State.ACTIVE, State.SUSPENDED, State.FAILED, State.COMPLETED}),
    State.ACTIVE: frozenset({State.BACK_OFF, State.SUSPENDED, State.COMPLETED, State.FAILED}),
    State.BACK_OFF: frozenset({State.ACTIVE, State.SUSPENDED, State.FAILED}),
    State.SUSPENDED: frozenset({State.IDLE, State.BACK_OFF, State.FAILED}),
    State.COMPLETED: frozenset(),
    State.FAILED: frozenset({State.IDLE, State.BACK_OFF}),  # by a retry request alone
}


def state_of(phase: PhaseStatus) -> State:
    """The state that a status stands for."""
    if phase.outcome is not None:
        return State.COMPLETED if phase.outcome == Reason.COMPLETED else State.FAILED
    if phase.suspend_time:
        return State.SUSPENDED
    if phase.retry_time:
        return State.BACK_OFF
    return State.ACTIVE if phase.attempt else State.IDLE


def moved(old: PhaseStatus, **changes: object) -> PhaseStatus:
    """The status after a move. Raises IllegalMoveError if the table does not have it."""
    new = old.model_copy(update=changes)
    before, after = state_of(old), state_of(new)
    if before != after and after not in TRANSITIONS[before]:
        accepted = ", ".join(sorted(TRANSITIONS[before])) or "nothing"
        raise IllegalMoveError(f"phase {old.name}: {before} -> {after}; accepted from there: {accepted}")
    return new


def has_begun(phase: PhaseStatus) -> bool:
    """Whether anything was done for the phase, or may be done from now on. The API server refuses changes of what it does."""
    return phase.begun or phase.attempt > 0 or phase.start_time is not None or phase.outcome is not None


def begun(phase: PhaseStatus) -> PhaseStatus:
    """Its first job may be made as soon as this is written."""
    return phase.model_copy(update={"begun": True})


def started(phase: PhaseStatus, job: str, now: datetime, workers: int | None = None, *, queued: bool = False) -> PhaseStatus:
    """The next attempt exists; `workers`: its pods, None: as many as workers.replicas. `queued`: a queue lets it begin."""
    return moved(
        phase,
        attempt=phase.attempt + 1,
        job_name=job,
        start_time=phase.start_time or timestamp(now),
        attempt_start_time=timestamp(now),
        retry_time=None,
        progress=None,
        workers=workers,
        queued_time=timestamp(now) if queued else None,
    )


def admitted(phase: PhaseStatus, now: datetime) -> PhaseStatus:
    """Its queue lets the attempt begin, or go on; the time in the queue is none that the phase has taken."""
    return phase.model_copy(update={"attempt_start_time": timestamp(now), **_out_of_queue(phase, now)})


def evicted(phase: PhaseStatus, end: Ending, now: datetime) -> PhaseStatus:
    """The queue has taken back what it gave: the attempt is recorded as far as it came, and its job waits its turn again."""
    kept = {"workers": phase.workers, "burst": phase.burst, "interruptions": phase.interruptions}
    return recorded_end(phase, end, now).model_copy(
        update=kept | {"queued_time": timestamp(now), "evictions": min(phase.evictions + 1, MOST_EVICTIONS)}
    )


def queued(phase: PhaseStatus, now: datetime) -> PhaseStatus:
    """A queue holds the attempt, which has done nothing yet."""
    return phase.model_copy(update={"queued_time": timestamp(now)})


def was_evicted(phase: PhaseStatus) -> bool:
    """Whether the current attempt was recorded by `evicted`."""
    return state_of(phase) == State.ACTIVE and any(record.number == phase.attempt for record in phase.attempts)


def _out_of_queue(phase: PhaseStatus, now: datetime) -> dict[str, object]:
    if phase.queued_time is None:
        return {}
    waited = max(0, int((now - datetime.fromisoformat(phase.queued_time)).total_seconds()))
    return {"queued_time": None, "suspended_seconds": phase.suspended_seconds + waited}


def ended(phase: PhaseStatus, spec: Phase, end: Ending, now: datetime) -> PhaseStatus:
    """The current attempt has ended; what follows is decided by the failure policy's action."""
    end = for_phase(end, spec)
    recorded = recorded_end(phase, end, now)
    if end.action == Action.SUCCEED:
        return completed(recorded, now)
    if end.action == Action.FAIL:
        return failed(recorded, end.reason, advice(end.reason, end.message), now)
    counted = recorded.counted_attempts
    if counted >= spec.attempts:
        said = f"{counted} of {spec.attempts} attempts failed, the last one with {end.reason}: {end.message}"
        return failed(recorded, Reason.ATTEMPTS_EXHAUSTED, advice(end.reason, said), now)
    if recorded.interruptions >= MAXIMUM_INTERRUPTIONS:
        said = f"{recorded.interruptions} attempts were interrupted, the last one with {end.reason}: {end.message}"
        return failed(recorded, Reason.ATTEMPTS_EXHAUSTED, said, now)
    return moved(recorded, retry_time=timestamp(now + timedelta(seconds=delay_after(recorded))))


def recorded_end(phase: PhaseStatus, end: Ending, now: datetime) -> PhaseStatus:
    """The status with a record of the ended attempt and with what its report says."""
    counted = end.action in {Action.RETRY, Action.RETRY_SLOWER, Action.FAIL}
    report = end.report
    saved = max(report.last_step if report else 0, phase.checkpoint_step)
    if report and end.reason is Reason.DIVERGED:  # the trainer has taken back what it saved since the divergence began
        saved = report.last_step
    record = AttemptRecord(
        number=phase.attempt,
        reason=end.reason,
        message=end.message[:1024],
        counted=counted,
        start_time=phase.attempt_start_time,
        end_time=timestamp(now),
        resumed_from_step=report.resumed_from_step if report else 0,
        last_step=saved,
        workers=phase.workers,
    )
    kept = [old for old in phase.attempts if old.number != phase.attempt]
    changes: dict[str, object] = {
        "attempts": [*kept, record][-REMEMBERED:],
        "counted_attempts": phase.counted_attempts + int(counted),
        "interruptions": phase.interruptions + int(end.action == Action.RETRY_FREE and end.reason not in NO_INTERRUPTIONS),
        "divergences": phase.divergences + int(end.reason == Reason.DIVERGED),
        "progress": None,
        "workers": None,
        "burst": False,
        "checkpoint_step": saved,
        **_out_of_queue(phase, now),
        **spent(phase, (report.goodput if report else None) or told_by(phase.progress), elapsed_seconds(phase, now)),
    }
    if report:
        changes["bytes_written"] = with_written(phase.bytes_written, report.bytes_written)
        changes["datasets"] = report.datasets or phase.datasets
        changes["new_clips"] = report.new_clips or phase.new_clips
        changes["results"] = report.results or phase.results
        changes["trials"] = report.trials or phase.trials
        changes["optimization"] = report.optimization or phase.optimization
    return phase.model_copy(update=changes)


def with_written(before: int | None, more: int | None) -> int | None:
    """Bytes written in all; None while nobody has told of any."""
    return before if more is None else min(MOST_BYTES, max(0, more) + (before or 0))


def delay_after(phase: PhaseStatus) -> int:
    """Seconds before the next attempt: an hour for new clips, short after a first preemption, else doubling with the ends in a row.

    An attempt that saved a further step ends the row: what came before it says nothing of the next one.
    """
    if phase.attempts[-1].reason == Reason.TOO_FEW_NEW_CLIPS:
        return COLLECTING_DELAY
    tried = [record for record in phase.attempts if record.reason not in {Reason.UNSCHEDULABLE, Reason.TOO_FEW_NEW_CLIPS}]
    last = tried[-1]
    row = 0
    for record, before in zip(reversed(tried), [*reversed(tried[:-1]), None], strict=True):
        if record.counted != last.counted:
            break
        row += 1
        if before and record.last_step > before.last_step:
            break
    if not last.counted and row == 1:
        return PREEMPTED_DELAY
    return int(min(FIRST_DELAY * 2 ** (row - 1), LONGEST_DELAY))


def longest_delay(phase: PhaseStatus) -> int:
    """The longest time, in seconds, that may lie between the last attempt's end and the next one."""
    return COLLECTING_DELAY if phase.attempts and phase.attempts[-1].reason == Reason.TOO_FEW_NEW_CLIPS else LONGEST_DELAY


def reduced(phase: PhaseStatus, end: Ending, workers: int | None, now: datetime) -> PhaseStatus:
    """The current attempt had no room for all its workers: it counts for nothing, and the next one begins at once with so many."""
    return moved(recorded_end(phase, end, now), workers=workers, retry_time=timestamp(now))


def suspended(phase: PhaseStatus, reason: Reason, why: str, now: datetime) -> PhaseStatus:
    """Work stops because somebody, or a budget, wants it; a running attempt is recorded and does not count."""
    if state_of(phase) == State.ACTIVE:
        end = Ending(reason, Action.RETRY_FREE, why)
        return moved(recorded_end(phase, end, now), suspend_time=timestamp(now))
    return moved(phase, suspend_time=timestamp(now), workers=None, burst=False)


def resumed(phase: PhaseStatus, now: datetime) -> PhaseStatus:
    """What stopped it is gone: go on at once, and do not count the time between."""
    assert phase.suspend_time is not None
    seconds = max(0, int((now - datetime.fromisoformat(phase.suspend_time)).total_seconds())) if phase.start_time else 0
    return moved(
        phase,
        suspend_time=None,
        suspended_seconds=phase.suspended_seconds + seconds,
        retry_time=timestamp(now) if phase.attempt else None,
    )


def completed(phase: PhaseStatus, now: datetime, message: str = "") -> PhaseStatus:
    """The phase has done its work."""
    return moved(phase, outcome=Reason.COMPLETED, completion_time=timestamp(now), retry_time=None, progress=None, message=message[:1024])


def failed(phase: PhaseStatus, reason: Reason, message: str, now: datetime) -> PhaseStatus:
    """The phase, and with it the run, has failed for good."""
    changes = {"outcome": reason, "completion_time": timestamp(now), "retry_time": None, "suspend_time": None, "progress": None}
    changes |= {"queued_time": None}
    return moved(phase, **changes, message=message[:1024])


def restarted(phase: PhaseStatus, now: datetime) -> PhaseStatus:
    """A person asks for another try: counts and window begin anew; checkpoints, learning rate, pinned data and attempt numbers stay."""
    return moved(
        phase,
        outcome=None,
        message="",
        start_time=None,
        completion_time=None,
        window_start_time=timestamp(now),
        suspended_seconds=0,
        retry_time=phase.completion_time if phase.attempt else None,
        counted_attempts=0,
        interruptions=0,
        evictions=0,
        new_clips=None,
        results=[],
        report=None,
        trials=[],
        optimization=None,
        reused_from=None,
        time_spent=None,
        goodput=None,
        workers=None,
        burst=False,
    )


def elapsed_seconds(phase: PhaseStatus, now: datetime) -> float:
    """Time since the phase began, without suspensions and without the time that it waited in queues."""
    if phase.start_time is None:
        return 0.0
    stopped = phase.suspend_time or phase.queued_time
    end = datetime.fromisoformat(stopped) if stopped else now
    return (end - datetime.fromisoformat(phase.start_time)).total_seconds() - phase.suspended_seconds


def learning_rate_scale(phase: PhaseStatus) -> str:
    """Half for each attempt that diverged, at least 1/16."""
    return f"{0.5 ** min(phase.divergences, 4):g}"


def advice(reason: Reason, message: str) -> str:
    """The message with the next step, where there is one."""
    return f"{message}; {NEXT_STEP[reason]}" if reason in NEXT_STEP else message
