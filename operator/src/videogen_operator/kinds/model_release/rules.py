"""The rules that move a rollout: the first one with a verdict does. What they know is in the Facts, and in nothing else."""

from __future__ import annotations

from collections.abc import Callable

from videogen_api.model_release import ModelReleaseSpec, Reason, Signal
from videogen_operator.kinds.model_release.rollout import (
    Facts,
    Move,
    Rollout,
    absorb,
    after,
    carried,
    checks_fail,
    failure_of,
    lost_deadline,
    next_weight,
    pods_for_all,
    step_of,
    unmet,
)
from videogen_operator.kinds.model_release.states import (
    BARRABLE,
    CANARIES,
    CANDIDATES,
    RETRIABLE,
    SERVING,
    WAITING,
    WITHDRAWABLE,
    Event,
    State,
)


def step(rollout: Rollout, spec: ModelReleaseSpec, facts: Facts) -> tuple[Rollout, Move | None]:
    """One pass of one release: absorb the newest round, then at most one move. Pure; all times come from `facts.now`."""
    absorbed = absorb(rollout, spec, facts)
    for states, rule in RULES:
        if absorbed.state in states and (move := rule(absorbed, spec, facts)):
            return after(absorbed, move, facts.now), move
    return absorbed, None


Rule = Callable[[Rollout, ModelReleaseSpec, Facts], Move | None]


def finish_rollback(_rollout: Rollout, _spec: ModelReleaseSpec, facts: Facts) -> Move | None:
    return Move(Event.ROLL_BACK, facts.unfinished.message, facts.unfinished.reason) if facts.unfinished else None


def abort_waiting(_rollout: Rollout, _spec: ModelReleaseSpec, facts: Facts) -> Move | None:
    if facts.request != "abort":
        return None
    return Move(Event.WITHDRAW, "aborted on request before it took traffic", Reason.WITHDRAWN)


def abort_serving(_rollout: Rollout, _spec: ModelReleaseSpec, facts: Facts) -> Move | None:
    return _taken_back(Reason.ROLLED_BACK_REQUEST, "aborted on request", facts) if facts.request == "abort" else None


def quarantine_serving(_rollout: Rollout, _spec: ModelReleaseSpec, facts: Facts) -> Move | None:
    if facts.request != "quarantine":
        return None
    return _taken_back(Reason.ROLLED_BACK_REQUEST, "quarantined on request", facts, Signal.REQUEST)


def bar(rollout: Rollout, _spec: ModelReleaseSpec, facts: Facts) -> Move | None:
    if facts.request != "quarantine":
        return None
    before = f"{rollout.message}; " if rollout.state == State.ROLLED_BACK else ""
    return Move(Event.BAR, f"{before}quarantined on request", Reason.QUARANTINED, (Signal.REQUEST,))


def withdraw(_rollout: Rollout, _spec: ModelReleaseSpec, facts: Facts) -> Move | None:
    return Move(Event.WITHDRAW, "withdrawn on request", Reason.WITHDRAWN) if facts.request == "withdraw" else None


def obey_alert(_rollout: Rollout, _spec: ModelReleaseSpec, facts: Facts) -> Move | None:
    return _taken_back(Reason.ROLLED_BACK_ALERT, facts.alert, facts, facts.alert_signal) if facts.alert else None


def fail_checks(rollout: Rollout, spec: ModelReleaseSpec, facts: Facts) -> Move | None:
    if not checks_fail(rollout, spec) or not facts.fallback or facts.outranked:  # one that was replaced just now is a standby
        return None
    return _taken_back(Reason.ROLLED_BACK_CHECK, failure_of(rollout), facts, Signal.SERVERS)


def fail_measurement(_rollout: Rollout, _spec: ModelReleaseSpec, facts: Facts) -> Move | None:
    if not facts.measured or not facts.fallback or facts.outranked:
        return None
    return _taken_back(Reason.ROLLED_BACK_MEASUREMENT, facts.measured, facts)


def lose_pods(rollout: Rollout, spec: ModelReleaseSpec, facts: Facts) -> Move | None:
    """The weights have already moved, and come back with the pods. A canary whose server ended by itself goes at once: it has
    proven nothing yet. A stable release has, and what ends its server is as likely a request, which may end the server of any
    other release; so it has the same time to become ready again as at the start, as have pods that were drained, evicted or
    lost with their node. Where the servers of both end, neither is to blame.
    """
    if rollout.lost is None or not facts.fallback or (facts.crash and facts.fallback_crash):
        return None
    if facts.crash and rollout.state in CANARIES:
        what = f"none of its pods is ready any more: {facts.crash}"
        return _taken_back(Reason.ROLLED_BACK_PODS_LOST, what, facts, Signal.CRASH)
    if facts.now < lost_deadline(rollout, spec):
        return None
    waited = f"none of its pods has been ready for {spec.serving.start_deadline_seconds} s (startDeadlineSeconds)"
    blamed = (Signal.CRASH,) if facts.crash else ()
    return _taken_back(Reason.ROLLED_BACK_PODS_LOST, f"{waited}: {facts.crash}" if facts.crash else waited, facts, *blamed)


def quarantine_canary(_rollout: Rollout, _spec: ModelReleaseSpec, facts: Facts) -> Move | None:
    """Another release of the same bundle was quarantined after this one had begun to take traffic. Where there is no other release
    that could ever take it back, this one is all that the service has.
    """
    return _taken_back(Reason.QUARANTINED, facts.barred, facts) if facts.barred and facts.stable else None


def _taken_back(reason: Reason, what: str, facts: Facts, *signals: Signal) -> Move:
    if facts.fallback:
        return Move(Event.ROLL_BACK, f"{what}; {facts.fallback} takes the traffic back", reason, signals)
    hint = "; withdraw@<id> takes it out of the service all the same" if facts.request else ""
    return Move(None, f"{what}; it keeps serving, because no other release has ready pods to take the traffic back{hint}")


def adopt(_rollout: Rollout, _spec: ModelReleaseSpec, facts: Facts) -> Move | None:
    return Move(Event.TAKE_OVER, "the route already gives it the most traffic") if facts.adopted else None


def yield_traffic(_rollout: Rollout, _spec: ModelReleaseSpec, facts: Facts) -> Move | None:
    return Move(Event.YIELD, f"{facts.stable} took over; kept warm for a rollback") if facts.outranked else None


def recall(_rollout: Rollout, _spec: ModelReleaseSpec, facts: Facts) -> Move | None:
    return None if facts.stable else Move(Event.RECALL, "takes all traffic again")


def retire(_rollout: Rollout, _spec: ModelReleaseSpec, facts: Facts) -> Move | None:
    if facts.outranked:
        return Move(Event.RETIRE, "a newer release is the standby now", Reason.SUPERSEDED)
    over = facts.window_end is not None and facts.now >= facts.window_end
    return Move(Event.RETIRE, "the window for a rollback to it has ended", Reason.SUPERSEDED) if over else None


def retry(_rollout: Rollout, _spec: ModelReleaseSpec, facts: Facts) -> Move | None:
    return Move(Event.RETRY, "tried again on request") if facts.request == "retry" else None


def retry_rejected(_rollout: Rollout, _spec: ModelReleaseSpec, facts: Facts) -> Move | None:
    in_spite = {Reason.QUARANTINED: "of the quarantine", Reason.OLDER_VERSION: "of a later version"}
    if facts.request != "retry" or facts.obstacle is None or facts.obstacle.reason not in in_spite:
        return None
    return Move(Event.RETRY, f"tried again on request, in spite {in_spite[facts.obstacle.reason]}")


def overtake(_rollout: Rollout, _spec: ModelReleaseSpec, facts: Facts) -> Move | None:
    if not facts.overtaken_by:
        return None
    return Move(Event.OVERTAKE, f"{facts.overtaken_by}, a later version, became stable before it could start", Reason.SUPERSEDED)


def obstructed(rollout: Rollout, _spec: ModelReleaseSpec, facts: Facts) -> Move | None:
    obstacle = facts.obstacle
    if obstacle is None or rollout.state == {Event.WAIT: State.GATING, Event.REJECT: State.REJECTED}[obstacle.event]:
        return None
    return Move(obstacle.event, obstacle.message, obstacle.reason)


def admit(_rollout: Rollout, _spec: ModelReleaseSpec, facts: Facts) -> Move | None:
    return None if facts.obstacle else Move(Event.ADMIT, "gates passed")


def start(_rollout: Rollout, _spec: ModelReleaseSpec, facts: Facts) -> Move | None:
    return Move(Event.START, "its pods are being started") if facts.may_start and not facts.obstacle else None


def quarantine_start(_rollout: Rollout, _spec: ModelReleaseSpec, facts: Facts) -> Move | None:
    """Another release of the same bundle was rolled back after this one's turn had come."""
    if facts.obstacle is None or facts.obstacle.reason != Reason.QUARANTINED:
        return None
    return Move(Event.REJECT, facts.obstacle.message, Reason.QUARANTINED)


def give_room_back(_rollout: Rollout, _spec: ModelReleaseSpec, facts: Facts) -> Move | None:
    return Move(Event.REQUEUE, facts.unplaced, Reason.INSUFFICIENT_CAPACITY) if facts.unplaced else None


def fail_start(_rollout: Rollout, _spec: ModelReleaseSpec, facts: Facts) -> Move | None:
    return Move(Event.GIVE_UP, facts.fatal.message, facts.fatal.reason) if facts.fatal else None


def take_all(_rollout: Rollout, _spec: ModelReleaseSpec, facts: Facts) -> Move | None:
    if facts.stable or facts.available == 0 or facts.route_problem:
        return None
    return Move(Event.TAKE_OVER, "takes all traffic, because no other release is stable")


def take_traffic(_rollout: Rollout, spec: ModelReleaseSpec, facts: Facts) -> Move | None:
    if facts.route_problem or not facts.stable:
        return None
    if not spec.rollout.steps:
        full = carried(facts.reachable, spec, facts.stable_replicas) >= 100
        return Move(Event.TAKE_OVER, "takes all traffic: the rollout has no steps") if full else None
    first = spec.rollout.steps[0].weight_percent
    enough = carried(facts.reachable, spec, facts.stable_replicas) >= first
    return Move(Event.TAKE_TRAFFIC, f"takes {first} % of the traffic") if enough else None


def promote(_rollout: Rollout, spec: ModelReleaseSpec, facts: Facts) -> Move | None:
    if facts.request != "promote":
        return None
    if carried(facts.ready, spec, facts.stable_replicas) < 100:
        needed = pods_for_all(spec, facts.stable_replicas)
        return Move(None, f"not promoted on request: {facts.ready} of {needed} pods are ready")
    return Move(Event.TAKE_OVER, "promoted on request")


def hold(_rollout: Rollout, _spec: ModelReleaseSpec, facts: Facts) -> Move | None:
    return Move(Event.HOLD, "held on request") if facts.request == "hold" else None


def resume(_rollout: Rollout, _spec: ModelReleaseSpec, facts: Facts) -> Move | None:
    return Move(Event.RESUME, "goes on by request") if facts.request == "resume" else None


def advance(rollout: Rollout, spec: ModelReleaseSpec, facts: Facts) -> Move | None:
    if unmet(rollout, spec, facts):
        return None
    now_at = step_of(rollout, spec).weight_percent
    target = next_weight(rollout, spec)
    why = f"weight {now_at} -> {target} %: {rollout.requests} requests answered{_passed(rollout)}"
    return Move(Event.TAKE_OVER if rollout.step + 1 >= len(spec.rollout.steps) else Event.ADVANCE, why)


def _passed(rollout: Rollout) -> str:
    return f", {len(rollout.verdicts)} of {len(rollout.verdicts)} checks passed" if rollout.verdicts else ""


_ADMISSION = frozenset({State.PENDING, State.GATING, State.REJECTED})
_QUEUE = frozenset({State.PENDING, State.GATING, State.QUEUED})
RULES: tuple[tuple[frozenset[State], Rule], ...] = (
    (SERVING | {State.PENDING}, finish_rollback),  # the route already took its traffic back: only the status is missing
    (_QUEUE | {State.STARTING}, abort_waiting),  # a person takes it out of the race
    (SERVING, abort_serving),  # a person takes its traffic back
    (SERVING, quarantine_serving),  # and bars its digest
    (BARRABLE, bar),  # a person bars the digest of one that takes no traffic
    (WITHDRAWABLE, withdraw),  # a person takes it out of the service, also the only one
    (SERVING, obey_alert),  # a verified alert names it
    (SERVING, fail_checks),  # failureLimit rounds of live checks failed one after the other
    (SERVING, fail_measurement),  # what a cycle has measured of it in production does not pass its gates
    (SERVING, lose_pods),  # none of its pods is ready, for too long or by its own fault, and another release's are
    (CANARIES, quarantine_canary),  # its digest was quarantined meanwhile
    (frozenset({State.PENDING}), adopt),  # an operator that lost the status goes on with what the route says
    (frozenset({State.STABLE}), yield_traffic),  # the candidate was promoted in this pass
    (frozenset({State.STANDBY}), recall),  # the stable release was rolled back or deleted
    (frozenset({State.STANDBY}), retire),  # its window is over, or there is a newer standby
    (RETRIABLE - {State.REJECTED}, retry),  # a person wants it to be tried again
    (frozenset({State.REJECTED}), retry_rejected),  # a person lifts a quarantine or takes an older version, but never lifts a gate
    (_QUEUE, overtake),  # a later version is already stable: an older one that waited must not replace it
    (WAITING, obstructed),  # gates, lineage, quarantine and claim decide whether it may start
    (_ADMISSION, admit),  # nothing stands in the way any more
    (frozenset({State.QUEUED}), start),  # its turn, and there is room for its pods
    (frozenset({State.STARTING}), quarantine_start),  # its digest was quarantined meanwhile
    (frozenset({State.STARTING}), give_room_back),  # somebody else was given the room first: it waits for its turn again
    (frozenset({State.STARTING}), fail_start),  # its pods will never be ready, or took too long
    (CANDIDATES, take_all),  # no release is stable: whoever is ready serves
    (frozenset({State.STARTING}), take_traffic),  # ready pods can carry the first step
    (CANARIES, promote),  # a person skips the remaining steps
    (frozenset({State.CANARY}), hold),  # a person stops at this step
    (frozenset({State.HELD}), resume),  # and lets it go on
    (frozenset({State.CANARY}), advance),  # time, requests, checks and capacity allow the next step
)
