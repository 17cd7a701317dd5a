"""The rollout of one release as a value: what is remembered of it, and how what was seen and a move change it.

`states.py` opens with the theory of operation and has the table of moves; `rules.py` chooses them. `unmet` says in words
what a canary still waits for, and is the same function that decides whether it may go on.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from videogen_api.evaluation import Verdict
from videogen_api.model_release import CheckVerdict, ModelReleaseSpec, Reason, Signal, Step
from videogen_operator.conditions import timestamp
from videogen_operator.kinds.model_release.states import SERVING, Event, State, moved
from videogen_operator.rules import Finding


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """What is remembered of one release; `remembered.py` has its form in the status."""

    state: State = State.PENDING
    step: int = 0
    since: datetime | None = None  # when the state or step began
    traffic_since: datetime | None = None  # when it first took traffic in this rollout
    last_check: datetime | None = None
    requests: int = 0
    failed_rounds: int = 0
    lost: datetime | None = None  # since when none of its pods is ready, while it is meant to serve
    promoted: datetime | None = None
    retired: datetime | None = None
    retried: bool = False
    reason: Reason | None = None
    message: str = ""
    verdicts: tuple[CheckVerdict, ...] = ()


Trigger = Finding[Reason]  # why traffic is taken back, or why something cannot start


@dataclass(frozen=True)
class Obstacle(Finding[Reason]):
    """Why a release may not start: WAIT for what may still come, REJECT for what a person must change."""

    event: Event


@dataclass(frozen=True, slots=True)
class Round:
    """One round of live checks and the requests that were counted with it; None: they could not be counted."""

    verdicts: tuple[CheckVerdict, ...]
    requests: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What a step may know beside the remembered value and the spec."""

    now: datetime
    ready: int = 0  # pods whose model is ready
    available: int = 0  # those of them that have been ready for some seconds
    reachable: int = 0  # those of them that the gateway knows by now
    crash: str = ""  # what its server ended with, if that is why no pod is ready
    obstacle: Obstacle | None = None
    barred: str = ""  # a canary: as what its digest was quarantined meanwhile
    overtaken_by: str = ""  # a stable release of a higher version that was made later
    may_start: bool = False  # no other release is a candidate, nobody is before it in the queue, there is room
    adopted: bool = False  # the route gives it the most traffic though nothing is remembered
    unplaced: str = ""  # no node takes its pods, and it is not meant to wait for nodes
    fatal: Trigger | None = None  # its pods will never become ready
    route_problem: str = ""
    route_reason: Reason = Reason.GATEWAY_NOT_FOUND
    policy_problem: str = ""  # why the service's traffic policy is not in force
    stable: str = ""  # another release that is Stable
    stable_replicas: int = 0  # how many pods that release is to have
    outranked: bool = False  # another release became Stable (for a Stable) or Standby (for a Standby) later than this one
    window_end: datetime | None = None  # Standby: until when it stays warm
    fallback: str = ""  # another release with reachable pods that would take the traffic back
    fallback_crash: str = ""  # what a server of that release ended with, since this one lost its pods
    round: Round | None = None
    alert: str = ""  # an accepted and verified alert in words
    alert_signal: Signal = Signal.ALERT  # who vouches for it
    measured: str = ""  # gates that it does not pass in production, in words
    request: str = ""  # a verb of requests.py; "" is none
    unfinished: Trigger | None = None  # a rollback that the route has and the status has not


@dataclass(frozen=True, slots=True)
class Move:
    """A rule's verdict. Without event the state stays and only the message is remembered."""

    event: Event | None
    message: str
    reason: Reason | None = None
    signals: tuple[Signal, ...] = ()  # of a rollback: who blames the release


def not_ahead(rollout: Rollout, now: datetime) -> Rollout:
    """The value without moments that lie ahead. They are from before the clock was set back, and count as now: what waits for a time after
    them waits anew, and not for a day. The first traffic counts as long ago as it lies ahead, since alerts from before it are ignored.
    """
    first = rollout.traffic_since
    return replace(
        rollout,
        since=_not_ahead(rollout.since, now),
        traffic_since=now - (first - now) if first and first > now else first,
        last_check=_not_ahead(rollout.last_check, now),
        lost=_not_ahead(rollout.lost, now),
        promoted=_not_ahead(rollout.promoted, now),
        retired=_not_ahead(rollout.retired, now),
    )


def _not_ahead(moment: datetime | None, now: datetime) -> datetime | None:
    return min(moment, now) if moment else None


def absorb(rollout: Rollout, spec: ModelReleaseSpec, facts: Facts) -> Rollout:
    """The value with what this pass has seen: pods that are lost or back, and a round of checks."""
    lost = (rollout.lost or facts.now) if rollout.state in SERVING and not facts.ready else None
    return absorb_round(rollout if lost == rollout.lost else replace(rollout, lost=lost), spec, facts)


def absorb_round(rollout: Rollout, spec: ModelReleaseSpec, facts: Facts) -> Rollout:
    """The value with a round of checks in it. Passed sets the count of failed rounds to 0, Failed adds one, and
    Inconclusive and Error leave it as it is: they are no evidence in either direction.
    """
    if facts.round is None or rollout.state not in SERVING:
        return rollout
    verdict = worst(facts.round.verdicts)
    same = [(one.name, one.verdict) for one in rollout.verdicts] == [(one.name, one.verdict) for one in facts.round.verdicts]
    failed = {Verdict.PASSED: 0, Verdict.FAILED: min(rollout.failed_rounds + 1, 1000)}.get(verdict, rollout.failed_rounds)
    limit = spec.rollout.failure_limit
    if rollout.state == State.STABLE and same and min(failed, limit) == min(rollout.failed_rounds, limit):
        return rollout  # nothing that matters has changed: a stable release does not write its status every few seconds
    counted = rollout.requests if facts.round.requests is None else max(rollout.requests, facts.round.requests)
    return replace(rollout, verdicts=facts.round.verdicts, failed_rounds=failed, requests=counted, last_check=facts.now)


def worst(verdicts: tuple[CheckVerdict, ...]) -> Verdict:
    """Failed before Error before Inconclusive before Passed; Passed if there are none."""
    order = (Verdict.FAILED, Verdict.ERROR, Verdict.INCONCLUSIVE, Verdict.PASSED)
    return min((check.verdict for check in verdicts), key=order.index, default=Verdict.PASSED)


def after(rollout: Rollout, move: Move, now: datetime) -> Rollout:
    """The value after a move: a new state or step begins with nothing measured."""
    if move.event is None:
        return replace(rollout, message=move.message)
    state = moved(rollout.state, move.event)
    fresh = replace(
        rollout,
        state=state,
        since=now,
        last_check=None,
        requests=0,
        failed_rounds=0,
        verdicts=(),
        lost=None,
        reason=move.reason,
        message="",
    )
    match move.event:
        case Event.HOLD | Event.RESUME:  # the same step goes on, and what was measured in it still holds
            return replace(rollout, state=state)
        case Event.ADVANCE:
            return replace(fresh, step=rollout.step + 1)
        case Event.TAKE_TRAFFIC:
            return replace(fresh, step=0, traffic_since=now)
        case Event.TAKE_OVER:
            return replace(fresh, promoted=now, retired=None, traffic_since=rollout.traffic_since or now, retried=False)
        case Event.RECALL:
            return replace(fresh, promoted=now, retired=None, traffic_since=now)
        case Event.YIELD:
            return replace(fresh, retired=now)
        case Event.BAR if rollout.state == State.ROLLED_BACK:  # it stays what it is; its record says that the digest is barred
            return replace(rollout, message=move.message)
        case Event.ROLL_BACK | Event.WITHDRAW | Event.BAR:
            taken = now if rollout.state in SERVING | {State.STANDBY} else rollout.retired  # without traffic there is nothing to drain
            return replace(fresh, retired=taken, promoted=None, retried=False, message=move.message)
        case Event.GIVE_UP | Event.OVERTAKE | Event.REQUEUE:
            return replace(fresh, message=move.message)
        case Event.RETRY:
            return Rollout(state=state, since=now, retired=rollout.retired, retried=True)  # what it had taken still drains
        case _:
            return fresh


# What a canary waits for ------------------------------------------------------------------------------------------


def unmet(rollout: Rollout, spec: ModelReleaseSpec, facts: Facts) -> tuple[str, ...]:
    """Everything that the next step still waits for, in words; empty: it may come. No data is never enough."""
    stage = step_of(rollout, spec)
    earliest = (rollout.since or facts.now) + timedelta(seconds=stage.minimum_seconds)
    answers = (
        (facts.now < earliest, f"not before {timestamp(earliest)}"),
        (rollout.requests < stage.minimum_requests, f"{rollout.requests} of {stage.minimum_requests} requests"),
        (len(rollout.verdicts) < len(spec.rollout.checks), "first round of checks"),
        (worst(rollout.verdicts) != Verdict.PASSED, doubts(rollout)),
        (
            carried(facts.available, spec, facts.stable_replicas) < next_weight(rollout, spec),
            f"{facts.available} of {pods_for_all(spec, facts.stable_replicas)} pods are available",
        ),
        (bool(facts.route_problem), facts.route_problem),
    )
    return tuple(words for missing, words in answers if missing)


def step_of(rollout: Rollout, spec: ModelReleaseSpec) -> Step:
    """The current step; a full one if there are none."""
    steps = spec.rollout.steps or [Step(weight_percent=100, minimum_requests=0, minimum_seconds=0)]
    return steps[min(rollout.step, len(steps) - 1)]


def next_weight(rollout: Rollout, spec: ModelReleaseSpec) -> int:
    """Percent of the step after the current one; 100 after the last."""
    following = spec.rollout.steps[rollout.step + 1 :]
    return following[0].weight_percent if following else 100


def pods_for_all(spec: ModelReleaseSpec, stable_replicas: int) -> int:
    """How many pods are meant for 100 % of the traffic: all replicas, but no more than those of the stable release, which carry it now.
    So a canary that is scaled up keeps its share while the new pods start.
    """
    return min(spec.serving.replicas, stable_replicas) or spec.serving.replicas


def carried(ready: int, spec: ModelReleaseSpec, stable_replicas: int) -> int:
    """Percent of the service's traffic that the ready pods can carry."""
    return min(100, 100 * ready // pods_for_all(spec, stable_replicas))


def lost_deadline(rollout: Rollout, spec: ModelReleaseSpec) -> datetime:
    """Until when one of the lost pods must be ready again."""
    assert rollout.lost is not None
    return rollout.lost + timedelta(seconds=spec.serving.start_deadline_seconds)


def doubts(rollout: Rollout) -> str:
    """The checks that did not pass, in words."""
    return "; ".join(f"check {v.name} {v.verdict}: {v.message}" for v in rollout.verdicts if v.verdict != Verdict.PASSED)


def failure_of(rollout: Rollout) -> str:
    """The failed checks, in words."""
    failed = [f"check {v.name}: {v.message}" for v in rollout.verdicts if v.verdict == Verdict.FAILED]
    rounds = f" ({rollout.failed_rounds} rounds)" if rollout.failed_rounds > 1 else ""
    return ("; ".join(failed) or "live checks failed") + rounds


def checks_fail(rollout: Rollout, spec: ModelReleaseSpec) -> bool:
    """Whether as many rounds of checks have failed as take traffic back."""
    return rollout.state in SERVING and rollout.failed_rounds >= spec.rollout.failure_limit


def round_due(rollout: Rollout, spec: ModelReleaseSpec, now: datetime) -> bool:
    """Whether a round of checks is to be judged now; a new state or step first serves for one interval."""
    if rollout.state not in SERVING:
        return False
    last = rollout.last_check or rollout.since or now
    return now >= last + timedelta(seconds=spec.rollout.check_interval_seconds)
