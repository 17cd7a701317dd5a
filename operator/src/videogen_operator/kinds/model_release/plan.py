"""The plan of one service: step every release, split the traffic, state every object that follows, say it in the status."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal

from videogen_api.model_release import Reason, RollbackRecord, Signal
from videogen_operator import network_policies
from videogen_operator.conditions import timestamp
from videogen_operator.kinds.model_release import history, network, objects, requests, route, status, unreadable
from videogen_operator.kinds.model_release.facts import Pass, begin, facts_of, waits_for, window_end
from videogen_operator.kinds.model_release.judging import judgement, quarantine
from videogen_operator.kinds.model_release.judging.alerts import ADVICE, Answer
from videogen_operator.kinds.model_release.observed import Observed, Release, blocking, route_weights, slots, with_rollout
from videogen_operator.kinds.model_release.rollout import Move, checks_fail, failure_of, lost_deadline, step_of
from videogen_operator.kinds.model_release.rules import step
from videogen_operator.kinds.model_release.states import CANARIES, DRAINING, SERVING, WAITING, WARM, Event, State
from videogen_operator.kinds.model_release.traffic import weights
from videogen_operator.plan import Inputs, Manifest, Note, Plan, Ref, StatusWrite

RECHECK_SECONDS = 30.0  # for what nobody tells: room on the nodes, a deadline of a pod
AGAIN_SECONDS = 0.2  # after a move, if nothing wakes the loop before
AGAIN_SIGNAL_SECONDS = 2.0  # between two questions for the second signal of a rollback

# Candidates first, so that a promotion is seen by the stable release, and what happens to that one by the standby.
ORDER = (
    State.CANARY, State.HELD, State.STARTING, State.STABLE, State.STANDBY, State.QUEUED,
    State.GATING, State.REJECTED, State.PENDING, State.ROLLED_BACK, State.WITHDRAWN, State.FAILED, State.SUPERSEDED,
)  # fmt: skip
KEPT = frozenset({State.STABLE, State.STANDBY})  # releases that take traffic back, once their pods are ready
WARNINGS = frozenset({Event.ROLL_BACK, Event.GIVE_UP, Event.REJECT, Event.BAR})


@dataclass(frozen=True, slots=True)
class Outcome:
    """All releases after their steps, by name, and the moves that brought them there."""

    releases: Mapping[str, Release]
    moves: Mapping[str, Move]
    weights: Mapping[str, int] = field(init=False)  # percent of the traffic by release

    def __post_init__(self) -> None:
        object.__setattr__(self, "weights", weights(self.releases.values()))


def plan(observed: Observed, inputs: Inputs) -> Plan:
    """What the service needs now. Pure. The route comes first, so that a rollback waits for nothing else.

    A second call with the failures of the first one's writes repeats the moves, unless the route itself was refused:
    every move is about traffic, and traffic is as it was. Whatever else is refused, a bad release loses its traffic, and
    what calls for it is answered.
    """
    context = begin(observed, inputs)
    observed = context.observed
    frozen, blocked = route_refused(inputs), bool(blocking(observed))
    outcome = Outcome({r.name: r for r in observed.releases}, {}) if frozen else guard(context) if blocked else advance(context)
    recorded = {name: rollback_of(release, outcome, context) for name, release in outcome.releases.items()}
    routes, rest = (guarded(context, outcome, recorded), ()) if blocked else wanted(context, outcome, recorded)
    return Plan(
        apply=routes,
        beside=rest,
        delete=() if blocked else tuple(unwanted(context, outcome)),
        statuses=tuple(statuses(context, outcome, recorded, routes[0] if routes and not frozen else observed.route)),
        notes=() if frozen else tuple(notes(context, outcome, recorded)),
        requeue_after=requeue_after(outcome, context),
        answers={} if frozen else dict(context.answers) | answers(context, outcome),
    )


def route_refused(inputs: Inputs) -> bool:
    """Whether the API server did not take the route in this pass."""
    return any(failure.kind == "HTTPRoute" for failure in inputs.failures)


def guard(context: Pass) -> Outcome:
    """While a release with traffic cannot be read: only what takes traffic from the others."""
    return Outcome(*unreadable.taken_back(context))


def advance(context: Pass) -> Outcome:
    """One step of each release, in an order in which each sees what those before it have done."""
    roster = {release.name: release for release in context.observed.releases}
    moves: dict[str, Move] = {}
    for name in sorted(roster, key=lambda name: (ORDER.index(roster[name].rollout.state), roster[name].version, name)):
        release = roster[name]
        rollout, move = step(release.rollout, release.spec, facts_of(release, roster, context))
        roster[name] = with_rollout(release, rollout)
        if move:
            moves[name] = move
    return Outcome(roster, moves)


def rollback_of(release: Release, outcome: Outcome, context: Pass) -> RollbackRecord | None:
    """The record of a rollback that this pass decides, or the one that the status already has with what is known of it by now."""
    move, record = outcome.moves.get(release.name), release.status.rollback
    if move is not None and move.event == Event.BAR:
        return _barred(release, record, move, context)
    if move is None or move.event != Event.ROLL_BACK or move.reason is None:
        if record is None or route_refused(context.inputs):
            return record
        if written := _already_written(release, record, context):
            return written
        other = outcome.releases.get(record.to or "")
        return judgement.concluded(record, release, other, context.inputs.measurements, context.inputs.now)
    digest, before = release.spec.artifact.digest, _before(release, context)
    known = next((e for e in context.quarantine if (e.release, e.digest) == (release.name, digest)), None)
    if known and quarantine.unfinished(release, before.rollout, context.quarantine):
        return quarantine.record(known, move.reason, move.message)
    holding = quarantine.holding(release, context.quarantine)
    signals = tuple(Signal(signal) for signal in holding.signals) if holding and move.reason == Reason.QUARANTINED else move.signals
    served = before.rollout.state in SERVING
    to = unreadable.heir_of(context.observed, outcome.releases) or None if served else None
    now = context.inputs.now
    decided = RollbackRecord(reason=move.reason, message=move.message[:1024], time=timestamp(now), to=to, digest=digest)
    return judgement.begun(decided, signals, now)


def _barred(release: Release, record: RollbackRecord | None, move: Move, context: Pass) -> RollbackRecord:
    """The record of a digest that a person bars while its release takes no traffic; of one that was rolled back, that rollback's."""
    now = context.inputs.now
    if release.rollout.state == State.ROLLED_BACK and record is not None:
        return judgement.begun(record, (*record.signals, Signal.REQUEST), now).model_copy(update={"awaits_until": None})
    reason, digest = Reason.ROLLED_BACK_REQUEST, release.spec.artifact.digest
    return judgement.begun(RollbackRecord(reason=reason, message=move.message, time=timestamp(now), digest=digest), move.signals, now)


def _already_written(release: Release, record: RollbackRecord, context: Pass) -> RollbackRecord | None:
    """What the route already says of a digest, where the status still waits: an operator may have died between the two writes."""
    mine = (release.name, record.digest, record.time)
    known = next((entry for entry in context.quarantine if (entry.release, entry.digest, entry.time) == mine), None)
    if record.awaits_until is None or known is None or known.awaits_until or not known.judgement:
        return None
    return quarantine.record(known, record.reason, record.message)


def _before(release: Release, context: Pass) -> Release:
    return context.before[release.name]


# Objects ----------------------------------------------------------------------------------------------------------


Intents = tuple[dict[str, Any], ...]


def guarded(context: Pass, outcome: Outcome, recorded: Mapping[str, RollbackRecord | None]) -> Intents:
    """The route, if something is taken back or becomes known of what was; else it stays as it is."""
    entries = _quarantine(context, outcome, recorded)
    changed = unreadable.moved(context.observed, outcome.releases, entries)
    return (changed,) if outcome.moves or entries != context.quarantine else ()


def wanted(context: Pass, outcome: Outcome, recorded: Mapping[str, RollbackRecord | None]) -> tuple[Intents, Intents]:
    """Full intents: the route; and then what each warm release needs, and the policy of the route."""
    observed, settings = context.observed, context.inputs.settings
    releases = outcome.releases.values()
    split = route.backends(releases, outcome.weights, slots(observed.route), context.inputs.now)
    warm = [release for release in releases if release.rollout.state in WARM]
    limited = settings.get("traffic_policy") == "true" and observed.route is not None
    entries, closed = _quarantine(context, outcome, recorded), route.closed(observed, split)
    routes = (route.route(observed, () if closed else split, entries, settings, closed=closed),) if split or observed.route else ()
    children = [child for release in warm for child in network.children(release, objects.children(release, settings), settings)]
    policies = (route.traffic_policy(observed, warm, settings), route.refusal(observed)) if limited else ()
    return routes, (*children, *policies)


def _quarantine(context: Pass, outcome: Outcome, recorded: Mapping[str, RollbackRecord | None]) -> tuple[quarantine.Entry, ...]:
    back = [name for name, release in outcome.releases.items() if _is_recorded(release)]
    records = [(name, record) for name in back if (record := recorded[name])]
    cured = [r.spec.artifact.digest for r in outcome.releases.values() if r.rollout.state == State.STABLE]
    return quarantine.extended(context.quarantine, records, cured)


def _is_recorded(release: Release) -> bool:
    """Whether the route's annotation says what has become of the release: its traffic was taken back, or its digest was barred."""
    return release.rollout.state == State.ROLLED_BACK or (
        release.rollout.state == State.WITHDRAWN and release.rollout.reason == Reason.QUARANTINED
    )


def wants_pods(release: Release, now: datetime) -> bool:
    """Whether the release's pods shall run: while it is warm, and after it while requests that it has taken may last or the
    gateway's measurements of it are wanted.
    """
    ends = (drained_at(release), route.leaves_at(release))
    return release.rollout.state in WARM or any(end is not None and now < end for end in ends)


def drained_at(release: Release) -> datetime | None:
    """When the last request that the release can have taken has ended; None if it drains nothing."""
    if release.rollout.state not in DRAINING or release.rollout.retired is None:
        return None
    return release.rollout.retired + timedelta(seconds=release.spec.serving.timeout_seconds + objects.DRAIN_SECONDS)


def unwanted(context: Pass, outcome: Outcome) -> Iterable[Ref]:
    """Children of releases whose pods shall not run any more, a budget that one pod has no use for, and a policy that none shall
    have. What has had traffic stays until the gateway has taken over the route without it; a policy stays as long as a pod.
    """
    settings = context.inputs.settings
    for release in outcome.releases.values():
        existing = (release.deployment, release.service, release.budget)
        doomed = (release.budget,) if release.spec.serving.replicas == 1 else ()
        stays = wants_pods(release, context.inputs.now) or (release.rollout.retired is not None and not context.settled)
        guarded = network_policies.wanted(settings) and (stays or release.deployment or release.labelled)
        for child in (*(doomed if stays else existing), *(() if guarded else (release.policy,))):
            if child is not None and not child["metadata"].get("deletionTimestamp"):
                meta = child["metadata"]
                yield Ref(child["apiVersion"], child["kind"], meta["namespace"], meta["name"], meta["uid"])


# Words ------------------------------------------------------------------------------------------------------------


def statuses(
    context: Pass, outcome: Outcome, recorded: Mapping[str, RollbackRecord | None], routed: Manifest | None
) -> Iterable[StatusWrite]:
    """The complete status of every release whose status would change. `routed` is the route as it is after this pass."""
    shares, now = route_weights(routed), context.inputs.now
    pending = {name: requests.pending(_before(release, context)) for name, release in outcome.releases.items()}
    asked = {name: request.token for name, request in pending.items() if request and request.verb}
    cause = history.cause_of(outcome.moves, asked)
    for name, release in outcome.releases.items():
        request = pending[name]
        handled = name in outcome.moves or not blocking(context.observed)
        answered = request.token if request and handled and not route_refused(context.inputs) else release.status.last_handled_request
        view = status.View(
            release=release,
            facts=facts_of(release, outcome.releases, context),
            waits_for=waits_for(release, outcome.releases, context) if release.rollout.state == State.QUEUED else None,
            rollback=recorded[name],
            answered=answered,
            failures=context.inputs.failures,
            history=history.extended(release.status.traffic_history, shares.get(name, 0), cause, now),
        )
        yield from _changed(release.manifest, status.status(view))
    for broken in context.observed.unreadable:
        yield from _changed(broken.manifest, status.unreadable(broken, context.inputs.now))


def _changed(manifest: Manifest, new: Mapping[str, Any]) -> Iterable[StatusWrite]:
    if new != manifest.get("status"):
        yield StatusWrite(manifest, new)


def notes(context: Pass, outcome: Outcome, recorded: Mapping[str, RollbackRecord | None]) -> Iterable[Note]:
    """Each move with its reason, each request that could not be done, each alert that was ignored."""
    for name, release in outcome.releases.items():
        move, request = outcome.moves.get(name), requests.pending(_before(release, context))
        if move and (move.event or move.message != _before(release, context).rollout.message):
            yield _note(release, _event_reason(release, move), move.message, warning=move.event is None or move.event in WARNINGS)
        yield from _judged(release, recorded[name])
        if not move and checks_fail(release.rollout, release.spec) and not checks_fail(_before(release, context).rollout, release.spec):
            yield _note(release, "ChecksFailing", f"{failure_of(release.rollout)}; no other release can take over", warning=True)
        if request and request.refusal and not blocking(context.observed):
            yield _note(release, "RequestRefused", request.refusal, warning=True)
        elif request and not move and not blocking(context.observed):
            yield _note(release, "RequestRefused", f"{request.verb} was asked for and cannot be done now", warning=True)
    for alert in context.inputs.alerts:
        answer = context.answers.get(alert["fingerprint"])
        named = outcome.releases.get(str((alert.get("labels") or {}).get("release", "")))
        if answer and named:
            advice = ADVICE.get(Answer(answer))
            words = f"alert {alert['labels'].get('alertname', 'without name')} is ignored: {answer}" + (f": {advice}" if advice else "")
            yield _note(named, "AlertIgnored", words, warning=False)


def _judged(release: Release, after: RollbackRecord | None) -> Iterable[Note]:
    """What has become of a rollback whose second signal was waited for."""
    before = release.status.rollback
    if before and after and before.time == after.time and before.awaits_until and not after.awaits_until:
        reason = "Quarantined" if after.quarantined else "NotQuarantined"
        yield _note(release, reason, after.judgement, warning=after.quarantined)


def _event_reason(release: Release, move: Move) -> str:
    if move.event is None:
        return "NotRolledBack"
    if move.event == Event.BAR:
        return "Quarantined"
    return release.rollout.state.value if move.event != Event.ADVANCE else "WeightRaised"


def _note(release: Release, reason: str, message: str, *, warning: bool) -> Note:
    kind: Literal["Normal", "Warning"] = "Warning" if warning else "Normal"
    return Note(release.manifest, reason, message, kind)


def answers(context: Pass, outcome: Outcome) -> dict[str, str]:
    """What became of the accepted alerts. While a release that could take the traffic back has no ready pods, nothing is
    decided: the alert is sent again, and the release that it names goes no further.
    """
    result = {}
    for alert in context.inputs.alerts:
        release = outcome.releases.get(str((alert.get("labels") or {}).get("release", "")))
        if alert["fingerprint"] not in context.answers and release:
            if release.rollout.state == State.ROLLED_BACK:
                result[alert["fingerprint"]] = Answer.ROLLED_BACK.value
            elif not any(other.rollout.state in KEPT and other.name != release.name for other in outcome.releases.values()):
                result[alert["fingerprint"]] = Answer.NOTHING_TO_ROLL_BACK_TO.value
    return result


# Timers -----------------------------------------------------------------------------------------------------------


def requeue_after(outcome: Outcome, context: Pass) -> float | None:
    """Seconds until the first thing that no event announces: a round of checks, the end of a step, window or drain."""
    if any(move.event for move in outcome.moves.values()):
        return AGAIN_SECONDS
    now = context.inputs.now
    times = [time for release in outcome.releases.values() for time in _timers(release, outcome, now)]
    if context.route_reason == Reason.HOSTNAME_TAKEN:
        times.append(now + timedelta(seconds=RECHECK_SECONDS))  # nothing of the other service wakes this one
    return max(AGAIN_SECONDS, min((time - now).total_seconds() for time in times)) if times else None


def _timers(release: Release, outcome: Outcome, now: datetime) -> Iterable[datetime]:
    rollout, spec = release.rollout, release.spec
    others = [other for other in outcome.releases.values() if other.name != release.name]
    if rollout.state in CANARIES or (rollout.state == State.STABLE and spec.rollout.checks):
        interval = timedelta(seconds=spec.rollout.check_interval_seconds)
        due = (rollout.last_check or rollout.since or now) + interval
        yield due if due > now else now + interval
    if rollout.state in CANARIES and rollout.since:
        earliest = rollout.since + timedelta(seconds=step_of(rollout, spec).minimum_seconds)
        if earliest > now:
            yield earliest
    record = release.status.rollback
    if rollout.state == State.ROLLED_BACK and record and record.awaits_until:
        yield now + timedelta(seconds=AGAIN_SIGNAL_SECONDS)
    if rollout.lost and rollout.state in SERVING:
        deadline = lost_deadline(rollout, spec)
        yield deadline if deadline > now else now + timedelta(seconds=RECHECK_SECONDS)
    for time in (window_end(release, others), drained_at(release), route.leaves_at(release)):
        if time and (time > now or rollout.state == State.STANDBY):
            yield time
    if rollout.state in WAITING | {State.STARTING}:
        yield now + timedelta(seconds=RECHECK_SECONDS)
