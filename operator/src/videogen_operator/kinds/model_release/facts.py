"""From the snapshot to what a step may know: each release's facts, with the other releases as this pass has moved them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from zlib import crc32

from videogen_api.model_release import Capacity, Reason, Signal
from videogen_operator.conditions import timestamp
from videogen_operator.kinds.model_release import capacity, eligibility, pods, requests
from videogen_operator.kinds.model_release.judging import alerts, measured, quarantine
from videogen_operator.kinds.model_release.judging.checks import round_of, verified
from videogen_operator.kinds.model_release.observed import Observed, Release, blocking, with_rollout
from videogen_operator.kinds.model_release.remembered import moment
from videogen_operator.kinds.model_release.rollout import Facts, Obstacle, Trigger, not_ahead
from videogen_operator.kinds.model_release.route import policy_problem, problem, settled, taken
from videogen_operator.kinds.model_release.states import CANARIES, CANDIDATES, SERVING, WAITING, Event, State
from videogen_operator.plan import Inputs, Manifest

TRY_AGAIN_SECONDS = 60  # after the scheduler found no node although there seemed to be room


@dataclass(frozen=True, slots=True)
class Pass:
    """One pass over a service: the snapshot, the inputs, and what was found out once for all releases."""

    observed: Observed
    inputs: Inputs
    quarantine: tuple[quarantine.Entry, ...]
    route_problem: str
    route_reason: Reason
    settled: bool  # the gateway has taken over the route as it is now
    before: Mapping[str, Release]  # all releases as they were observed, by name
    firing: Mapping[str, Manifest] = field(default_factory=dict)  # accepted and verified alert by release
    answers: Mapping[str, str] = field(default_factory=dict)  # alerts by fingerprint that were refused or not verified


def begin(observed: Observed, inputs: Inputs) -> Pass:
    """Sort the alerts, read the quarantine, ask what the gateway says."""
    timely = tuple(with_rollout(release, not_ahead(release.rollout, inputs.now)) for release in observed.releases)
    observed, releases = replace(observed, releases=timely), {release.name: release for release in timely}
    firing: dict[str, Manifest] = {}
    answers: dict[str, str] = {}
    for alert in inputs.alerts:
        name = str((alert.get("labels") or {}).get("release", ""))
        release = releases.get(name)
        refused = alerts.refusal(alert, release, observed.namespace, inputs.now)
        if refused is None and release is not None and alerts.is_verifiable(alert):
            refused = verified(alert, release, inputs.measurements)
        if refused:
            answers[alert["fingerprint"]] = refused.value
        else:
            firing.setdefault(name, alert)
    double = taken(observed, inputs.settings)
    gateway = double or problem(observed, inputs.settings, inputs.failures)
    reason = Reason.HOSTNAME_TAKEN if double else Reason.GATEWAY_NOT_FOUND
    missing = "" if observed.route else "the HTTPRoute is being created"
    taken_over = settled(observed, inputs.settings)
    return Pass(observed, inputs, quarantine.entries(observed), gateway or missing, reason, taken_over, releases, firing, answers)


def facts_of(release: Release, roster: Mapping[str, Release], context: Pass) -> Facts:
    """What the release's step may know. `roster` has every release as it stands now, also this one."""
    now, state = context.inputs.now, release.rollout.state
    others = [other for other in roster.values() if other.name != release.name]
    waiting = state in WAITING
    obstacle = eligibility.obstacle(release, context.quarantine) if waiting or state == State.STARTING else None
    if waiting and obstacle is None:
        obstacle = _older_on_purpose(release, others)
    request, alert = requests.pending(release), context.firing.get(release.name)
    fallback = _fallback(release, others)
    return Facts(
        now=now,
        ready=release.ready,
        available=release.available,
        reachable=release.reachable if context.settled else 0,
        crash=pods.crash(release),
        obstacle=obstacle,
        barred=_barred(release, context),
        overtaken_by=_overtaken_by(release, others) if waiting else "",
        may_start=state == State.QUEUED and obstacle is None and waits_for(release, roster, context) is None,
        adopted=_adopted(release, others),
        unplaced=pods.unplaced(release, now) if state == State.STARTING and not _requests_nodes(release) else "",
        fatal=pods.fatal(release, now) if state == State.STARTING else None,
        route_problem=context.route_problem,
        policy_problem=policy_problem(context.observed, context.inputs.settings) if state in SERVING else "",
        route_reason=context.route_reason,
        stable=(stable := _stable_beside(release, others)),
        stable_replicas=roster[stable].spec.serving.replicas if stable else 0,
        outranked=_outranked(release, others),
        window_end=window_end(release, others),
        fallback=fallback.name if fallback else "",
        fallback_crash=_crash_beside(release, fallback),
        round=round_of(release, context.inputs.measurements, now),
        alert=alerts.sentence(alert) if alert else "",
        alert_signal=Signal.SERVERS if alert and alerts.is_verifiable(alert) else Signal.ALERT,
        measured=measured.failed_gates(release.spec, release.rollout, release.measured) if state in SERVING else "",
        request=request.verb if request else "",
        unfinished=quarantine.unfinished(release, release.rollout, context.quarantine),
    )


def _barred(release: Release, context: Pass) -> str:
    """As which release of the same bundle the digest of a canary was quarantined, in words, or ""."""
    entry = quarantine.holding(release, context.quarantine) if release.rollout.state in CANARIES else None
    return f"its digest was rolled back as {entry.release} ({entry.reason})" if entry else ""


def _adopted(release: Release, others: list[Release]) -> bool:
    """Whether an operator that lost the status goes on with this release: the route gives it the most, and none is Stable."""
    if release.status.rollout is not None or release.weight == 0:
        return False
    most = all((release.weight, release.version) > (other.weight, other.version) for other in others)
    return most and not _stable_beside(release, others)


def waits_for(release: Release, roster: Mapping[str, Release], context: Pass) -> Trigger | None:
    """What a queued release waits for: another candidate, room, or its turn among those for which there is room; None:
    nothing.
    """
    if broken := blocking(context.observed):
        return Trigger(Reason.QUEUED, f"waits for {broken}, which takes traffic and which this operator cannot read")
    candidate = next((r for r in roster.values() if r.rollout.state in CANDIDATES and r.name != release.name), None)
    if candidate:
        return Trigger(Reason.QUEUED, f"waits for {candidate.name}, which is {candidate.rollout.state}")
    if missing := _no_room(release, context):
        return Trigger(Reason.INSUFFICIENT_CAPACITY, missing)
    queued = in_turn(r for r in roster.values() if r.rollout.state == State.QUEUED)
    first = next((r for r in queued if r.name == release.name or not _no_room(r, context)), release)
    if first.name != release.name:
        return Trigger(Reason.QUEUED, f"waits for {first.name}, which is before it in the queue")
    return None


def _no_room(release: Release, context: Pass) -> str:
    """Why its pods do not fit, in words, or "". What the scheduler has refused is tried again after a while, and two services that were in
    each other's way not at the same time.
    """
    if _requests_nodes(release):
        return ""
    if missing := capacity.shortage(release, context.observed.nodes, context.observed.pods, context.inputs.settings):
        return missing
    rollout = release.rollout
    if rollout.state != State.QUEUED or rollout.reason != Reason.INSUFFICIENT_CAPACITY or rollout.since is None:
        return ""
    again = rollout.since + timedelta(seconds=TRY_AGAIN_SECONDS + crc32(release.uid.encode()) % TRY_AGAIN_SECONDS)
    return f"{rollout.message}; tried again at {timestamp(again)}" if context.inputs.now < again else ""


def _requests_nodes(release: Release) -> bool:
    return release.spec.serving.capacity == Capacity.REQUEST_NODES


def in_turn(releases: Iterable[Release]) -> list[Release]:
    """The queue in order: of one line of versions the lower version first; of several lines the one that has waited longest."""
    queued = list(releases)
    waiting_since = {line: min(r.created for r in queued if r.line == line) for line in {r.line for r in queued}}
    return sorted(queued, key=lambda r: (waiting_since[r.line], r.line, r.version, r.created, r.name))


def window_end(release: Release, others: list[Release]) -> datetime | None:
    """Until when a standby stays warm: the window of the release that replaced it, and longer while it carries the service for that one,
    which has no pods.
    """
    stable = next((other for other in others if other.rollout.state == State.STABLE), None)
    if release.rollout.state != State.STANDBY or stable is None or release.rollout.retired is None:
        return None
    if not stable.reachable or release.weight > 0:
        return None
    return release.rollout.retired + timedelta(seconds=stable.spec.rollback.window_seconds)


def _stable_beside(release: Release, others: list[Release]) -> str:
    """Another stable release; for a candidate also the standby, which is recalled in this pass if there is no stable."""
    kept = (State.STABLE,) if release.rollout.state in {State.STANDBY, State.STABLE} else (State.STABLE, State.STANDBY)
    return next((other.name for state in kept for other in others if other.rollout.state == state), "")


def _outranked(release: Release, others: list[Release]) -> bool:
    state = release.rollout.state
    rivals = [other for other in others if other.rollout.state == state]
    if state == State.STABLE:
        return any(_rank(other.rollout.promoted, other) > _rank(release.rollout.promoted, release) for other in rivals)
    return state == State.STANDBY and any(_rank(o.rollout.retired, o) > _rank(release.rollout.retired, release) for o in rivals)


def _rank(when: datetime | None, release: Release) -> tuple[float, tuple[int, ...], str]:
    return (when.timestamp() if when else 0.0), release.version, release.name


def _overtaken_by(release: Release, others: list[Release]) -> str:
    """A later version that became stable while this one waited. One that a person asked to retry is not overtaken."""
    later = _later_stable(release, others)
    return later.name if later and not _made_after(release, later) else ""


def _older_on_purpose(release: Release, others: list[Release]) -> Obstacle | None:
    """A version that was made although a later one is stable. That may be a hotfix for the time after it, a repository that is applied anew
    or a wish to go back, and only a person knows which (docs/decisions/0025-taking-back-is-not-blame.md).
    """
    later = _later_stable(release, others)
    if later is None or not _made_after(release, later):
        return None
    words = f"{later.name}, a later version, is stable; it rolls out once that one is taken back, or by the request retry@<id>"
    return Obstacle(Reason.OLDER_VERSION, words, Event.REJECT)


def _later_stable(release: Release, others: list[Release]) -> Release | None:
    """The stable release, if it is of the same line and of a higher version and nobody asked to retry this one all the same."""
    if release.rollout.retried:
        return None
    return next((o for o in others if o.rollout.state == State.STABLE and o.line == release.line and o.version > release.version), None)


def _made_after(release: Release, other: Release) -> bool:
    mine, theirs = moment(release.created), moment(other.created)
    return mine is not None and theirs is not None and mine > theirs


def _crash_beside(release: Release, fallback: Release | None) -> str:
    """What a server of the fallback ended with since this release lost its pods, and so since the fallback has had its traffic."""
    lost = release.rollout.lost
    return pods.ended_by_itself(fallback, lost - pods.CRASH_SECONDS) if fallback and lost else ""


def _fallback(release: Release, others: list[Release]) -> Release | None:
    """A release with reachable pods that takes the traffic if this one loses it."""
    if release.rollout.state not in SERVING:
        return None
    places = (State.STANDBY, State.STABLE) if release.rollout.state == State.STABLE else (State.STABLE, State.STANDBY)
    return next((o for state in places for o in others if o.rollout.state == state and o.reachable > 0), None)
