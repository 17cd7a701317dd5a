"""From the snapshot to what a step may know: each release's facts, with the other releases as this pass has moved them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from videogen_api.model_release import Reason
from videogen_operator.kinds.model_release import alerts, capacity, eligibility, pods, quarantine, requests
from videogen_operator.kinds.model_release.checks import round_of
from videogen_operator.kinds.model_release.observed import Observed, Release
from videogen_operator.kinds.model_release.remembered import moment
from videogen_operator.kinds.model_release.rollout import Facts, Trigger
from videogen_operator.kinds.model_release.route import problem, settled
from videogen_operator.kinds.model_release.states import CANDIDATES, SERVING, WAITING, State
from videogen_operator.plan import Inputs, Manifest


@dataclass(frozen=True, slots=True)
class Pass:
    """One pass over a service: the snapshot, the inputs, and what was found out once for all releases."""

    observed: Observed
    inputs: Inputs
    quarantine: tuple[quarantine.Entry, ...]
    route_problem: str
    firing: Mapping[str, Manifest] = field(default_factory=dict)  # accepted alert by release
    answers: Mapping[str, str] = field(default_factory=dict)  # refused alerts by fingerprint


def begin(observed: Observed, inputs: Inputs) -> Pass:
    """Sort the alerts, read the quarantine, ask what the gateway says."""
    releases = {release.name: release for release in observed.releases}
    firing: dict[str, Manifest] = {}
    answers: dict[str, str] = {}
    for alert in inputs.alerts:
        name = str((alert.get("labels") or {}).get("release", ""))
        if refused := alerts.refusal(alert, releases.get(name), observed.namespace):
            answers[alert["fingerprint"]] = refused.value
        else:
            firing.setdefault(name, alert)
    gateway = problem(observed, inputs.settings, inputs.failures)
    missing = "" if observed.route else "the HTTPRoute is being created"
    return Pass(observed, inputs, quarantine.entries(observed), gateway or missing, firing, answers)


def facts_of(release: Release, roster: Mapping[str, Release], context: Pass) -> Facts:
    """What the release's step may know. `roster` has every release as it stands now, also this one."""
    now, state = context.inputs.now, release.rollout.state
    others = [other for other in roster.values() if other.name != release.name]
    waiting = state in WAITING
    obstacle = eligibility.obstacle(release, context.quarantine) if waiting or state == State.STARTING else None
    request = requests.pending(release)
    return Facts(
        now=now,
        ready=release.ready,
        available=release.available,
        reachable=release.reachable if settled(context.observed, context.inputs.settings) else 0,
        crash=pods.crash(release),
        obstacle=obstacle,
        overtaken_by=_overtaken_by(release, others) if waiting else "",
        may_start=state == State.QUEUED and obstacle is None and waits_for(release, roster, context) is None,
        adopted=_adopted(release, others),
        fatal=pods.fatal(release, now) if state == State.STARTING else None,
        route_problem=context.route_problem,
        stable=_stable_beside(release, others),
        outranked=_outranked(release, others),
        window_end=window_end(release, others),
        refuge=_refuge(release, others),
        checked=checked(release, others),
        round=round_of(release, context.inputs.measurements, checked(release, others), now),
        alert=alerts.sentence(context.firing[release.name]) if release.name in context.firing else "",
        request=request.verb if request else "",
        unfinished=quarantine.unfinished(release, release.rollout, context.quarantine),
    )


def _adopted(release: Release, others: list[Release]) -> bool:
    """Whether an operator that lost the status goes on with this release: the route gives it the most, and none is Stable."""
    most = all((release.weight, release.version) > (other.weight, other.version) for other in others)
    return release.status.rollout is None and release.weight > 0 and most and not _stable_beside(release, others)


def waits_for(release: Release, roster: Mapping[str, Release], context: Pass) -> Trigger | None:
    """What a queued release waits for: another candidate, room, or its turn among those for which there is room; None:
    nothing.
    """
    candidate = next((r for r in roster.values() if r.rollout.state in CANDIDATES and r.name != release.name), None)
    if candidate:
        return Trigger(Reason.QUEUED, f"waits for {candidate.name}, which is {candidate.rollout.state}")
    if missing := _shortage(release, context):
        return Trigger(Reason.INSUFFICIENT_CAPACITY, missing)
    queued = sorted((r for r in roster.values() if r.rollout.state == State.QUEUED), key=turn)
    first = next((r for r in queued if r.name == release.name or not _shortage(r, context)), release)
    if first.name != release.name:
        return Trigger(Reason.QUEUED, f"waits for {first.name}, which is before it in the queue")
    return None


def _shortage(release: Release, context: Pass) -> str:
    return capacity.shortage(release, context.observed.nodes, context.observed.pods)


def turn(release: Release) -> tuple[object, ...]:
    """Order of the queue: the lower version first, then the older object."""
    return release.version, release.created, release.name


def checked(release: Release, others: list[Release]) -> bool:
    """Whether live checks decide something: for a stable release only while there is a standby."""
    return release.rollout.state != State.STABLE or any(other.rollout.state == State.STANDBY for other in others)


def window_end(release: Release, others: list[Release]) -> datetime | None:
    """Until when a standby stays warm: the window of the release that replaced it."""
    stable = next((other for other in others if other.rollout.state == State.STABLE), None)
    if release.rollout.state != State.STANDBY or stable is None or release.rollout.retired is None:
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
    """A later version that is already stable. A lower version made after it is somebody's will, and is not overtaken;
    nor is one that a person asked to retry.
    """
    if release.rollout.retried:
        return ""
    stable = next((other for other in others if other.rollout.state == State.STABLE), None)
    mine, theirs = moment(release.created), moment(stable.created) if stable else None
    older = mine is not None and theirs is not None and mine <= theirs
    return stable.name if stable and older and release.version < stable.version else ""


def _refuge(release: Release, others: list[Release]) -> str:
    """A release with reachable pods that takes the traffic if this one loses it."""
    if release.rollout.state not in SERVING:
        return ""
    places = (State.STANDBY, State.STABLE) if release.rollout.state == State.STABLE else (State.STABLE, State.STANDBY)
    return next((o.name for state in places for o in others if o.rollout.state == state and o.reachable > 0), "")
