"""The plan of one service: step every release, split the traffic, state every object that follows, say it in the status."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from videogen_api.model_release import RollbackRecord
from videogen_operator.conditions import timestamp
from videogen_operator.kinds.model_release import objects, quarantine, requests, route, status
from videogen_operator.kinds.model_release.alerts import Answer
from videogen_operator.kinds.model_release.facts import Pass, begin, checked, facts_of, waits_for, window_end
from videogen_operator.kinds.model_release.observed import Observed, Release, slots, with_rollout
from videogen_operator.kinds.model_release.rollout import Move, lost_deadline, step_of
from videogen_operator.kinds.model_release.rules import step
from videogen_operator.kinds.model_release.states import CANARIES, SERVING, WAITING, WARM, Event, State
from videogen_operator.kinds.model_release.traffic import weights
from videogen_operator.plan import Inputs, Manifest, Note, Plan, Ref, StatusWrite

RECHECK_SECONDS = 30.0  # for what nobody tells: room on the nodes, a deadline of a pod
AGAIN_SECONDS = 0.2  # after a move, if nothing wakes the loop before

# Candidates first, so that a promotion is seen by the stable release, and what happens to that one by the standby.
ORDER = (
    State.CANARY, State.HELD, State.STARTING, State.STABLE, State.STANDBY, State.QUEUED,
    State.GATING, State.REJECTED, State.PENDING, State.ROLLED_BACK, State.FAILED, State.SUPERSEDED,
)  # fmt: skip
KEPT = frozenset({State.STABLE, State.STANDBY})  # releases that take traffic back, once their pods are ready
WARNINGS = frozenset({Event.ROLL_BACK, Event.GIVE_UP, Event.REJECT})


@dataclass(frozen=True, slots=True)
class Outcome:
    """All releases after their steps, by name, and the moves that brought them there."""

    releases: Mapping[str, Release]
    moves: Mapping[str, Move]


def plan(observed: Observed, inputs: Inputs) -> Plan:
    """What the service needs now. Pure. The route comes first, so that a rollback waits for nothing else.

    A second call with the failures of the first one's writes repeats the moves, unless the route itself was refused:
    every move is about traffic, and traffic is as it was. Whatever else is refused, a bad release loses its traffic, and
    what calls for it is answered.
    """
    if blocked(observed):
        return Plan(statuses=tuple(unreadable(observed, inputs)), requeue_after=RECHECK_SECONDS)
    context = begin(observed, inputs)
    frozen = route_refused(inputs)
    outcome = Outcome({r.name: r for r in observed.releases}, {}) if frozen else advance(context)
    recorded = {name: rollback_of(release, outcome, context) for name, release in outcome.releases.items()}
    routes, rest = wanted(context, outcome, recorded)
    return Plan(
        apply=routes,
        beside=rest,
        delete=tuple(unwanted(context, outcome)),
        statuses=tuple(statuses(context, outcome, recorded)),
        notes=() if frozen else tuple(notes(context, outcome)),
        requeue_after=requeue_after(outcome, context),
        answers={} if frozen else dict(context.answers) | answers(context, outcome),
    )


def blocked(observed: Observed) -> bool:
    """Whether a release that cannot be read may have traffic: then the route and everything else stay as they are."""
    return bool({broken.manifest["metadata"]["name"] for broken in observed.unreadable} & set(slots(observed.route)))


def route_refused(inputs: Inputs) -> bool:
    """Whether the API server did not take the route in this pass."""
    return any(failure.kind == "HTTPRoute" for failure in inputs.failures)


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
    """The record of a rollback that this pass decides, or the one that the status already has."""
    move = outcome.moves.get(release.name)
    if move is None or move.event != Event.ROLL_BACK or move.reason is None:
        return release.status.rollback
    known = next((e for e in context.quarantine if (e.release, e.digest) == (release.name, release.spec.artifact.digest)), None)
    finishing = quarantine.unfinished(release, _before(release, context).rollout, context.quarantine) is not None
    served = _before(release, context).rollout.state in SERVING
    to = next((r.name for r in outcome.releases.values() if served and r.rollout.state == State.STABLE), None)
    return RollbackRecord(
        reason=move.reason,
        message=move.message[:1024],
        time=known.time if known and finishing else timestamp(context.inputs.now),
        to=(known.to or None) if known and finishing else to,
        digest=release.spec.artifact.digest,
    )


def _before(release: Release, context: Pass) -> Release:
    return next(r for r in context.observed.releases if r.name == release.name)


# Objects ----------------------------------------------------------------------------------------------------------


Intents = tuple[dict[str, Any], ...]


def wanted(context: Pass, outcome: Outcome, recorded: Mapping[str, RollbackRecord | None]) -> tuple[Intents, Intents]:
    """Full intents: the route; and then what each warm release needs, and the policy of the route."""
    observed, settings = context.observed, context.inputs.settings
    releases = outcome.releases.values()
    split = route.backends(releases, weights(releases), slots(observed.route), context.inputs.now)
    sticky = settings.get("sticky_users") == "true" and observed.route is not None
    routes = (route.route(observed, split, _quarantine(context, outcome, recorded), settings),) if split or observed.route else ()
    children = [child for r in releases if r.rollout.state in WARM for child in objects.children(r, settings)]
    return routes, (*children, *((route.sticky_policy(observed),) if sticky else ()))


def _quarantine(context: Pass, outcome: Outcome, recorded: Mapping[str, RollbackRecord | None]) -> tuple[quarantine.Entry, ...]:
    back = [name for name, release in outcome.releases.items() if release.rollout.state == State.ROLLED_BACK]
    records = [(name, record) for name in back if (record := recorded[name])]
    cured = [r.spec.artifact.digest for r in outcome.releases.values() if r.rollout.state == State.STABLE]
    return quarantine.extended(context.quarantine, records, cured)


def wants_pods(release: Release, now: datetime) -> bool:
    """Whether the release's pods shall run: while it is warm, and after it while requests that it has taken may last."""
    end = drained_at(release)
    return release.rollout.state in WARM or (end is not None and now < end)


def drained_at(release: Release) -> datetime | None:
    """When the last request that the release can have taken has ended; None if it drains nothing."""
    if release.rollout.state not in {State.ROLLED_BACK, State.SUPERSEDED, State.QUEUED} or release.rollout.retired is None:
        return None
    return release.rollout.retired + timedelta(seconds=release.spec.serving.timeout_seconds + objects.DRAIN_SECONDS)


def unwanted(context: Pass, outcome: Outcome) -> Iterable[Ref]:
    """Children of releases whose pods shall not run any more, and a budget that one pod has no use for. What has had
    traffic stays until the gateway has taken over the route without it.
    """
    settled = route.settled(context.observed, context.inputs.settings)
    for release in outcome.releases.values():
        existing = (release.deployment, release.service, release.budget)
        doomed = (release.budget,) if release.spec.serving.replicas == 1 else ()
        stays = wants_pods(release, context.inputs.now) or (release.rollout.retired is not None and not settled)
        for child in doomed if stays else existing:
            if child is not None and not child["metadata"].get("deletionTimestamp"):
                meta = child["metadata"]
                yield Ref(child["apiVersion"], child["kind"], meta["namespace"], meta["name"], meta["uid"])


# Words ------------------------------------------------------------------------------------------------------------


def statuses(context: Pass, outcome: Outcome, recorded: Mapping[str, RollbackRecord | None]) -> Iterable[StatusWrite]:
    """The complete status of every release whose status would change."""
    for name, release in outcome.releases.items():
        request = requests.pending(_before(release, context))
        answered = request.token if request and not route_refused(context.inputs) else release.status.last_handled_request
        view = status.View(
            release=release,
            facts=facts_of(release, outcome.releases, context),
            waits_for=waits_for(release, outcome.releases, context) if release.rollout.state == State.QUEUED else None,
            settled=route.settled(context.observed, context.inputs.settings),
            rollback=recorded[name],
            answered=answered,
            failures=context.inputs.failures,
            wanted_weight=weights(outcome.releases.values()).get(name, 0),
        )
        yield from _changed(release.manifest, status.status(view))
    yield from unreadable(context.observed, context.inputs)


def unreadable(observed: Observed, inputs: Inputs) -> Iterable[StatusWrite]:
    """What is said on releases that this version cannot read."""
    for broken in observed.unreadable:
        yield from _changed(broken.manifest, status.unreadable(broken, inputs.now))


def _changed(manifest: Manifest, new: Mapping[str, Any]) -> Iterable[StatusWrite]:
    if new != manifest.get("status"):
        yield StatusWrite(manifest, new)


def notes(context: Pass, outcome: Outcome) -> Iterable[Note]:
    """Each move with its reason, each request that could not be done, each alert that was ignored."""
    for name, release in outcome.releases.items():
        move, request = outcome.moves.get(name), requests.pending(_before(release, context))
        if move and (move.event or move.message != _before(release, context).rollout.message):
            yield _note(release, _event_reason(release, move), move.message, warning=move.event is None or move.event in WARNINGS)
        if request and request.refusal:
            yield _note(release, "RequestRefused", request.refusal, warning=True)
        elif request and not move:
            yield _note(release, "RequestRefused", f"{request.verb} was asked for and cannot be done now", warning=True)
    for alert in context.inputs.alerts:
        answer = context.answers.get(alert["fingerprint"])
        named = outcome.releases.get(str((alert.get("labels") or {}).get("release", "")))
        if answer and named:
            words = f"alert {alert['labels'].get('alertname', 'without name')} is ignored: {answer}"
            yield _note(named, "AlertIgnored", words, warning=False)


def _event_reason(release: Release, move: Move) -> str:
    if move.event is None:
        return "NotRolledBack"
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
    return max(AGAIN_SECONDS, min((time - now).total_seconds() for time in times)) if times else None


def _timers(release: Release, outcome: Outcome, now: datetime) -> Iterable[datetime]:
    rollout, spec = release.rollout, release.spec
    others = [other for other in outcome.releases.values() if other.name != release.name]
    if rollout.state in SERVING and checked(release, others):
        interval = timedelta(seconds=spec.rollout.check_interval_seconds)
        due = (rollout.last_check or rollout.since or now) + interval
        yield due if due > now else now + interval
    if rollout.state in CANARIES and rollout.since:
        earliest = rollout.since + timedelta(seconds=step_of(rollout, spec).minimum_seconds)
        if earliest > now:
            yield earliest
    if rollout.lost and rollout.state in SERVING:
        deadline = lost_deadline(rollout, spec)
        yield deadline if deadline > now else now + timedelta(seconds=RECHECK_SECONDS)
    for time in (window_end(release, others), drained_at(release), route.leaves_at(release)):
        if time and (time > now or rollout.state == State.STANDBY):
            yield time
    if rollout.state in WAITING | {State.STARTING}:
        yield now + timedelta(seconds=RECHECK_SECONDS)
