"""The status of one release: conditions, what it takes, what must be remembered, and one sentence for a person.

Every state has one function that says its headline: ready or not, why, how far, and what it waits for. Texts change
only when something happens or a round of checks is judged, so that a status that says the same costs no write.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from videogen_api.evaluation import Verdict
from videogen_api.meta import LABEL_RELEASE
from videogen_api.model_release import ConditionType, ModelReleaseStatus, Reason, ReleaseSummary, RollbackRecord, Traffic, TrafficChange
from videogen_operator.conditions import Wanted, merged, timestamp
from videogen_operator.kinds.model_release import eligibility, pods, remembered
from videogen_operator.kinds.model_release.observed import Release, Unreadable
from videogen_operator.kinds.model_release.rollout import (
    Facts,
    Trigger,
    checks_fail,
    doubts,
    failure_of,
    lost_deadline,
    step_of,
    unmet,
    worst,
)
from videogen_operator.kinds.model_release.states import CANARIES, State
from videogen_operator.names import UPGRADING
from videogen_operator.plan import Failure

COLUMN = 72  # characters


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """A release after this pass, with what its status needs."""

    release: Release
    facts: Facts
    waits_for: Trigger | None
    rollback: RollbackRecord | None
    answered: str
    failures: tuple[Failure, ...] = ()
    history: Sequence[TrafficChange] = ()


@dataclass(frozen=True, slots=True)
class Headline:
    """What the conditions say: Ready, with the state as its reason, and Reconciling or Stalled, with `cause` as theirs if there is one.

    kstatus, by which Flux and Helm wait, takes Stalled for failed, Reconciling and a Ready that is not True for in progress, and
    everything else for done. So only what ends well is neither, and a release that was replaced has no Ready at all.
    """

    ready: bool | None  # None: nothing that anybody could wait for
    reason: Reason
    message: str
    changing: bool = False
    stuck: bool = False
    cause: Reason | None = None


def status(view: View) -> dict[str, Any]:
    """The complete status, as it stands in JSON."""
    release, line = view.release, headline(view)
    generation = int(release.manifest["metadata"].get("generation", 0))
    before = (release.manifest.get("status") or {}).get("conditions") or []
    rest = ModelReleaseStatus(
        observed_generation=generation,
        replicas=int(((release.deployment or {}).get("status") or {}).get("replicas") or 0),
        selector=f"{LABEL_RELEASE}={release.name}",
        image_id=pods.image_that_runs(release),
        traffic=Traffic(weight_percent=release.weight, ready_replicas=release.ready),
        traffic_history=list(view.history),
        evaluation=list(eligibility.evidence(release)),
        measurements=list(release.measured),
        rollout=remembered.write(release.rollout),
        rollback=view.rollback,
        last_handled_request=view.answered,
        summary=_summary(release, line),
    )
    return rest.wire() | {"conditions": merged(before, _conditions(view, line), generation, view.facts.now)}


def unreadable(broken: Unreadable, now: datetime) -> dict[str, Any]:
    """The status of a release whose spec cannot be read: everything else in it stays."""
    metadata, old = broken.manifest["metadata"], broken.manifest.get("status") or {}
    generation = int(metadata.get("generation", 0))
    message = f"this operator cannot read it: {broken.message}; {UPGRADING}"
    said = [
        Wanted(ConditionType.READY.value, status=False, reason=Reason.UNREADABLE.value, message=message),
        Wanted(ConditionType.STALLED.value, status=True, reason=Reason.UNREADABLE.value, message=message),
    ]
    shown = {**(old.get("summary") or {}), "status": Reason.UNREADABLE.value, "message": _shortened(message)}
    conditions = merged(old.get("conditions") or [], said, generation, now)
    return {**old, "observedGeneration": generation, "conditions": conditions, "summary": shown}


def _conditions(view: View, line: Headline) -> list[Wanted]:
    rollout = view.release.rollout
    back = rollout.state == State.ROLLED_BACK
    taken = (rollout.reason or Reason.ROLLED_BACK_REQUEST, rollout.message) if back else (Reason.NOT_ROLLED_BACK, "")
    said = ((line.cause or line.reason).value, line.message)
    conflict = view.facts.policy_problem
    alone = rollout.state == State.STABLE
    live = failure_of(rollout) if alone and checks_fail(rollout, view.release.spec) else ""
    failures = "; ".join(filter(None, (live, view.facts.measured if alone else "")))
    failing, failure_words = bool(failures), f"{failures}; no other release can take over" if failures else ""
    because = Reason.ROLLED_BACK_CHECK if live else Reason.ROLLED_BACK_MEASUREMENT
    return [
        *(() if line.ready is None else (Wanted(ConditionType.READY.value, line.ready, line.reason.value, line.message),)),
        Wanted(ConditionType.RECONCILING.value, line.changing, *said, when_false=False),
        Wanted(ConditionType.STALLED.value, line.stuck, *said, when_false=False),
        Wanted(ConditionType.ROLLED_BACK.value, back, taken[0].value, taken[1]),
        Wanted(ConditionType.POLICY_CONFLICT.value, bool(conflict), Reason.POLICY_NOT_ACCEPTED.value, conflict, when_false=False),
        Wanted(ConditionType.CHECKS_FAILING.value, failing, because.value, failure_words, when_false=False),
    ]


def _summary(release: Release, line: Headline) -> ReleaseSummary:
    passed, gates = eligibility.gates_passed(release)
    steps = len(release.spec.rollout.steps)
    at = f" (step {min(release.rollout.step + 1, steps)}/{steps})" if release.rollout.state in CANARIES and steps else ""
    return ReleaseSummary(
        status=line.reason.value,
        weight=f"{release.weight} %{at}",
        gates=f"{passed}/{gates}" if gates else "none",
        message=_shortened(line.message),
    )


def _shortened(message: str) -> str:
    """What fits a column of `kubectl get`; the condition has the whole."""
    return message if len(message) <= COLUMN else message[: COLUMN - 1].rstrip() + "…"


# Headlines --------------------------------------------------------------------------------------------------------


def headline(view: View) -> Headline:
    """Ready or not, why, and what it waits for."""
    return HEADLINES[view.release.rollout.state](view)


def _waiting(view: View) -> Headline:
    obstacle = view.facts.obstacle
    if obstacle is None:
        return Headline(ready=False, reason=Reason.PENDING, message="about to be queued", changing=True)
    rejected = view.release.rollout.state == State.REJECTED
    return Headline(ready=False, reason=obstacle.reason, message=obstacle.message, changing=not rejected, stuck=rejected)


def _queued(view: View) -> Headline:
    waits = view.waits_for or Trigger(Reason.QUEUED, "about to start")
    return Headline(ready=False, reason=waits.reason, message=waits.message, changing=True)


def _starting(view: View) -> Headline:
    release = view.release
    counted = f"{release.ready} of {release.spec.serving.replicas} pods are ready"
    trouble = pods.trouble(release, view.failures)
    if trouble:
        return Headline(ready=False, reason=trouble.reason, message=f"{counted}; {trouble.message}", changing=True)
    if view.facts.route_problem:
        return Headline(ready=False, reason=view.facts.route_reason, message=f"{counted}; {view.facts.route_problem}", changing=True)
    return Headline(ready=False, reason=Reason.STARTING, message=counted, changing=True)


def _canary(view: View) -> Headline:
    release, rollout = view.release, view.release.rollout
    held = rollout.state == State.HELD
    stage, steps = step_of(rollout, release.spec), len(release.spec.rollout.steps)
    parts = [f"{release.weight} % of {release.spec.service}", f"step {min(rollout.step + 1, steps)} of {steps}"]
    own, beside = release.spec.serving.replicas, view.facts.stable_replicas
    if own < beside:
        parts.append(f"{own} pods take over from {beside}")
    if stage.minimum_requests:
        parts.append(f"{rollout.requests} of {stage.minimum_requests} requests")
    waits = [words for words in unmet(rollout, release.spec, view.facts) if not words.endswith(" requests")]
    tail = "; held on request" if held else f"; waits: {', '.join(waits)}" if waits else ""
    doubtful = worst(rollout.verdicts) in {Verdict.INCONCLUSIVE, Verdict.ERROR}
    words = ", ".join(parts) + tail
    line = _lost(view, words) or _serving(view, Reason.HELD if held else Reason.CANARY, words)
    return replace(line, ready=False, changing=True, cause=line.cause or (Reason.CHECKS_INCONCLUSIVE if doubtful and not held else None))


def _stable(view: View) -> Headline:
    release, rollout, facts = view.release, view.release.rollout, view.facts
    words = f"{release.weight} % of {release.spec.service}"
    if facts.fallback:
        words += f"; {facts.fallback} is kept for a rollback"
    if rollout.failed_rounds:
        words += f"; {failure_of(rollout)}"
    elif worst(rollout.verdicts) in {Verdict.INCONCLUSIVE, Verdict.ERROR}:
        words += f"; {doubts(rollout)}"
    return _lost(view, words) or _with_pods(view, _serving(view, Reason.STABLE, words))


def _with_pods(view: View, line: Headline) -> Headline:
    """The headline with what its pods still wait for, after they were scaled or edited, or have lost their nodes."""
    release, trouble = view.release, pods.trouble(view.release, ())
    if release.ready >= release.spec.serving.replicas and trouble is None:
        return line
    counted = f"{release.ready} of {release.spec.serving.replicas} pods are ready"
    words = "; ".join([line.message, counted, *([trouble.message] if trouble else [])])
    cause = line.cause or (trouble.reason if trouble else Reason.STARTING)
    return replace(line, message=words, changing=True, cause=cause)


def _lost(view: View, words: str) -> Headline | None:
    """The headline of a release that is meant to serve and has no ready pod."""
    rollout, fallback = view.release.rollout, view.facts.fallback
    if rollout.lost is None:
        return None
    until = timestamp(lost_deadline(rollout, view.release.spec))
    help_ = (
        f"{fallback} takes its traffic; servers of both end by themselves, so neither is rolled back: {view.facts.fallback_crash}"
        if fallback and view.facts.crash and view.facts.fallback_crash
        else f"{fallback} takes its traffic, and it is rolled back unless a pod is ready before {until}"
        if fallback
        else "no other release can take over"
    )
    return Headline(ready=False, reason=Reason.ROLLED_BACK_PODS_LOST, message=f"{words}; none of its pods is ready; {help_}", changing=True)


def _serving(view: View, reason: Reason, words: str) -> Headline:
    """The headline of a release that takes traffic, if the gateway lets it."""
    refused = [_refused(failure) for failure in view.failures if failure.kind != "HTTPRoute"]
    told = "; ".join([words, *([view.release.rollout.message] if view.release.rollout.message else []), *refused])
    if view.facts.route_problem:
        return Headline(ready=False, reason=view.facts.route_reason, message=f"{told}; {view.facts.route_problem}", changing=True)
    # The share that it leaves to a canary is no change of its own; that it has none yet, although it took over, is one.
    return Headline(ready=True, reason=reason, message=told, changing=not view.release.weight)


def _refused(failure: Failure) -> str:
    absent = failure.kind == "BackendTrafficPolicy" and failure.code == 404
    cure = "; set the chart's gateway.trafficPolicy=false for a gateway other than Envoy's" if absent else ""
    return f"{failure.kind} {failure.name} was refused by the API server: {failure.message}{cure}"


def _standby(view: View) -> Headline:
    until = f" until {timestamp(view.facts.window_end)}" if view.facts.window_end else ""
    words = f"kept warm for a rollback{until}; {view.release.ready} of {view.release.spec.serving.replicas} pods are ready"
    release, trouble = view.release, pods.trouble(view.release, ())
    whole = release.ready >= release.spec.serving.replicas and trouble is None
    told = f"{words}; {trouble.message}" if trouble else words
    cause = trouble.reason if trouble else None
    return Headline(ready=release.ready > 0, reason=Reason.STANDBY, message=told, changing=not whole, cause=cause)


def _superseded(view: View) -> Headline:
    return Headline(ready=None, reason=Reason.SUPERSEDED, message=view.release.rollout.message or "a later release serves")


def _rolled_back(view: View) -> Headline:
    rollout = view.release.rollout
    cure = "publish a better version, or ask for it with the request retry@<id>"
    record = view.rollback
    barred = "its digest is quarantined" if record is None or record.quarantined else "its digest is not quarantined"
    why = f" ({record.judgement})" if record and record.judgement else ""
    words = f"{rollout.message}; {barred}{why}: {cure}"
    return Headline(ready=False, reason=Reason.ROLLED_BACK, message=words, stuck=True)


def _withdrawn(view: View) -> Headline:
    release = view.release
    alone = "" if view.facts.stable else f"; no other release serves {release.spec.service}, which refuses requests"
    barred = "; its digest is quarantined" if release.rollout.reason == Reason.QUARANTINED else ""
    words = f"{release.rollout.message}{barred}{alone}; retry@<id> brings it back"
    return Headline(ready=False, reason=Reason.WITHDRAWN, message=words, stuck=True)


def _failed(view: View) -> Headline:
    rollout = view.release.rollout
    words = f"{rollout.message}; publish a better version, or ask for it with the request retry@<id>"
    return Headline(ready=False, reason=rollout.reason or Reason.START_FAILED, message=words, stuck=True)


HEADLINES: Mapping[State, Callable[[View], Headline]] = {
    State.PENDING: _waiting,
    State.GATING: _waiting,
    State.REJECTED: _waiting,
    State.QUEUED: _queued,
    State.STARTING: _starting,
    State.CANARY: _canary,
    State.HELD: _canary,
    State.STABLE: _stable,
    State.STANDBY: _standby,
    State.SUPERSEDED: _superseded,
    State.ROLLED_BACK: _rolled_back,
    State.WITHDRAWN: _withdrawn,
    State.FAILED: _failed,
}
