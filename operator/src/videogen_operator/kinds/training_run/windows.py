"""When a phase may begin, until when it must be done, and whose turn it is: `spec.phases[].window` and `owner`.

A window opens at the later of `notBefore` and the end of the phase before, which are there to be seen; only what moved it since, a
retry request or a suspension, is remembered.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from videogen_api.training_run import Phase, PhaseStatus, Reason, TrainingRunSpec, TrainingRunStatus
from videogen_api.windows import WaitingFor
from videogen_operator.conditions import timestamp
from videogen_operator.kinds.training_run import attempts
from videogen_operator.kinds.training_run.attempts import State, begun, state_of
from videogen_operator.kinds.training_run.observed import Observed
from videogen_operator.kinds.training_run.status import position
from videogen_operator.kinds.training_run.step import Step, healing, soonest
from videogen_operator.kinds.training_run.waiting import Situation, Wait


def turn_of(observed: Observed, status: PhaseStatus) -> datetime | None:
    """Since when it is the phase's turn; None if nobody has noted it."""
    names = [phase.name for phase in observed.spec.phases]
    place = names.index(status.name)
    before = observed.phase_status(names[place - 1]).completion_time if place else observed.run["metadata"].get("creationTimestamp")
    text = status.window_start_time or before or status.start_time
    return datetime.fromisoformat(text) if text else None


def opens(phase: Phase) -> datetime | None:
    """The phase's notBefore."""
    text = phase.window.not_before if phase.window else None
    return datetime.fromisoformat(text) if text else None


def counted_from(situation: Situation) -> datetime | None:
    """From when the phase's time counts."""
    return max((time for time in (turn_of(situation.observed, situation.status), opens(situation.phase)) if time), default=None)


def due(situation: Situation) -> datetime | None:
    """When the phase must be done; None: it may take any time."""
    since, limit = counted_from(situation), situation.phase.deadline_seconds
    return since + timedelta(seconds=limit) if since and limit else None


def closes_in(situation: Situation) -> float | None:
    """Seconds until the window closes, 0 or less once it has; None: it does not, or not while the phase is suspended or in a queue."""
    end, stands = due(situation), state_of(situation.status) == State.SUSPENDED or situation.status.queued_time is not None
    return None if end is None or stands else (end - situation.now).total_seconds()


def is_early(phase: Phase, now: datetime) -> bool:
    """Whether the phase's notBefore is to come."""
    time = opens(phase)
    return time is not None and now < time


def before(situation: Situation) -> Step | None:
    """Wait for the phase's notBefore; None: it has come, or the phase's first attempt has begun. An edit may still change all of it."""
    phase, status = situation.phase, situation.status
    if status.start_time is not None or not is_early(phase, situation.now):
        return None
    time = opens(phase)
    assert time is not None
    said = Wait(Reason.WAITING_FOR_WINDOW, f"begins at {timestamp(time)} (window.notBefore)")
    return Step(status=status, said=said, again=soonest((time - situation.now).total_seconds(), healing(situation.observed)))


def resumed(situation: Situation) -> PhaseStatus:
    """The phase goes on after a suspension, and its window is longer by that time."""
    assert situation.status.suspend_time is not None
    return _longer(situation, attempts.resumed(situation.status, situation.now), situation.status.suspend_time)


def admitted(situation: Situation) -> PhaseStatus:
    """The phase goes on after its queue, and its window is longer by that time."""
    assert situation.status.queued_time is not None
    return _longer(situation, attempts.admitted(situation.status, situation.now), situation.status.queued_time)


def out_of_queue(situation: Situation, status: PhaseStatus) -> PhaseStatus:
    """The status with a window that is longer by the time in a queue, if the attempt ends there without its turn."""
    queued = situation.status.queued_time
    return status if queued is None or status.queued_time is not None else _longer(situation, status, queued)


def _longer(situation: Situation, status: PhaseStatus, stopped_at: str) -> PhaseStatus:
    since = counted_from(situation)
    if since is None or since >= situation.now:
        return status
    stopped = max(since, datetime.fromisoformat(stopped_at))
    return status.model_copy(update={"window_start_time": timestamp(since + max(situation.now - stopped, timedelta()))})


def whose_turn(situation: Situation, step: Step) -> list[WaitingFor]:
    """Whom the phase waits for after this step: those whom the step names, else its owner; nobody before its window opens."""
    state = state_of(step.status)
    if state == State.COMPLETED or step.said.reason in {Reason.WAITING_FOR_WINDOW, Reason.SUSPENDED}:
        return []
    runs = state != State.FAILED and step.status.queued_time is None  # a window stands while the phase is in a queue
    end, since = due(situation) if runs else None, counted_from(situation)
    said = step.status.message if state == State.FAILED else step.said.message
    asked = step.asked or (((situation.phase.owner, said),) if situation.phase.owner else ())
    return [
        WaitingFor(team=team, what=what[:1024], since=timestamp(since) if since else None, due=timestamp(end) if end else None)
        for team, what in asked
    ]


def with_next_begun(spec: TrainingRunSpec, status: TrainingRunStatus, now: datetime) -> TrainingRunStatus:
    """The status in which a phase is done, with the mark that the next one has begun: so that it needs no write of its own."""
    place = position(spec, status)
    if place is None or spec.suspend or is_early(spec.phases[place], now):
        return status
    name = spec.phases[place].name
    later = next((one for one in status.phases if one.name == name), PhaseStatus(name=name))
    return status.model_copy(update={"phases": [*(one for one in status.phases if one.name != name), begun(later)]})
