"""The ModelRelease that a Release phase creates, and what becomes of it. The run does not own it: a release outlives its run.

The phase is done when the release has all traffic of its service, or with `waitFor: Created` when it exists. Of the release the run
reads what everybody may: its conditions.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from videogen_api.evaluation import Gate
from videogen_api.lineage import MOST_LINEAGE_APPROVALS
from videogen_api.meta import API_VERSION, release_name
from videogen_api.model_release import Artifact, ConditionType, ModelReleaseSpec, ReleaseTemplate, WaitFor
from videogen_api.model_release import Reason as ReleaseReason
from videogen_api.pinned import RunArtifact
from videogen_api.training_run import PhaseStatus, Reason, Task, TrainingRunSpec
from videogen_operator.conditions import timestamp
from videogen_operator.kinds.training_run import approvals, attempts, noise, windows
from videogen_operator.kinds.training_run.attempts import State, state_of
from videogen_operator.kinds.training_run.lineage import lineage_of
from videogen_operator.kinds.training_run.observed import Observed
from videogen_operator.kinds.training_run.sources import SAME_VERSION, value_at
from videogen_operator.kinds.training_run.step import Step, begins, doing, healing
from videogen_operator.kinds.training_run.waiting import Situation, Wait, before_attempt, refused
from videogen_operator.names import MANAGED_BY
from videogen_operator.plan import Manifest

SERVED = frozenset({ReleaseReason.STABLE, ReleaseReason.STANDBY})  # of a release that has, or had, all traffic of its service


def advance(situation: Situation) -> Step:
    """Create the ModelRelease once, then wait for it."""
    observed, template = situation.observed, situation.phase.release
    assert template is not None
    if state_of(situation.status) == State.SUSPENDED:
        return Step(status=windows.resumed(situation), said=doing(situation, "resumed"))
    if wait := windows.before(situation):
        return wait
    artifact = observed.artifact
    if artifact is None:
        said = before_attempt(situation) or Wait(Reason.INIT_FROM_NOT_FOUND, "there is no bundle to release")
        return Step(status=situation.status, said=said, again=healing(observed))
    wanted = manifest(observed, template, artifact, situation.now)
    name = wanted["metadata"]["name"]
    if observed.release is None:
        return _created(situation, wanted)
    found = digest_of(observed.release)
    if found is None:
        said = Wait(Reason.RELEASING, f"ModelRelease {name} exists and this operator cannot read its spec.artifact.digest; {SAME_VERSION}")
        return Step(status=situation.status, said=said, again=healing(observed))
    if found != artifact.digest:
        words = f"ModelRelease {name} exists with artifact {found} and this run has made {artifact.digest}"
        words += "; raise spec.model.version in a new run"
        return _failed(situation, Reason.RELEASE_CONFLICT, words)
    if (other := value_at(observed.release, "spec", "service")) != template.service:
        words = f"ModelRelease {name} exists in service {other}, and this run's is for {template.service}"
        words += "; raise spec.model.version in a new run"
        return _failed(situation, Reason.RELEASE_CONFLICT, words)
    begun = _begun(situation)
    if template.wait_for == WaitFor.CREATED:
        return Step(status=attempts.completed(begun, situation.now, f"ModelRelease {name} is created"), said=doing(situation, "done"))
    return _followed(situation, begun, observed.release)


def _created(situation: Situation, wanted: Manifest) -> Step:
    """Create the release; one that was there and is gone has been deleted by somebody, and stays so."""
    name = wanted["metadata"]["name"]
    if situation.status.start_time is not None:
        return _failed(situation, Reason.RELEASE_FAILED, f"ModelRelease {name} was deleted before it was Stable")
    if wait := approvals.before_release(situation):
        return wait
    if situation.failures:
        said = refused(situation) or doing(situation, "")
        return Step(status=situation.status, said=said, create=(wanted,))
    if not situation.status.begun:
        return begins(situation)
    return Step(status=_begun(situation), said=Wait(Reason.RELEASING, f"creating ModelRelease {name}"), create=(wanted,))


def _followed(situation: Situation, begun: PhaseStatus, found: Manifest) -> Step:
    """Wait until the release has all traffic of its service. One that cannot get there fails the run."""
    name, ready = found["metadata"]["name"], _condition(found, ConditionType.READY)
    back, stalled = _condition(found, ConditionType.ROLLED_BACK), _condition(found, ConditionType.STALLED)
    if value_at(back, "status") == "True":
        return _failed(situation, Reason.RELEASE_ROLLED_BACK, f"ModelRelease {name} was rolled back: {_reason_of(back)}")
    if value_at(stalled, "status") == "True":
        return _failed(situation, Reason.RELEASE_FAILED, f"ModelRelease {name} does not get into service: {_reason_of(stalled)}")
    superseded = (ready is None and back is not None) or value_at(ready, "reason") == ReleaseReason.SUPERSEDED  # it is ready for nothing
    reason = ReleaseReason.SUPERSEDED if superseded else value_at(ready, "reason")
    if superseded and not value_at(found, "status", "rollout", "promotedTime"):
        return _failed(situation, Reason.RELEASE_FAILED, f"ModelRelease {name} never got into service: a later release has taken it over")
    serves = value_at(ready, "status") == "True" and value_at(_condition(found, ConditionType.RECONCILING), "status") != "True"
    if superseded or (serves and reason in SERVED):
        return Step(status=attempts.completed(begun, situation.now, f"ModelRelease {name} is {reason}"), said=doing(situation, "done"))
    return Step(status=begun, said=doing(situation, waiting(found)), again=healing(situation.observed))


def waiting(found: Manifest) -> str:
    """What is waited for. Not the release's own words, which change with every request that it answers."""
    name, reason = found["metadata"]["name"], value_at(_condition(found, ConditionType.READY), "reason") or ReleaseReason.PENDING
    return f"ModelRelease {name} is {reason}; waits until it is Stable"


def late(situation: Situation) -> str:
    """What to do about a release that did not become Stable in time."""
    found, then = situation.observed.release, "suspend the run and raise it; the request retry@<id> waits as long again"
    if found is None:
        return f"{'its ModelRelease is gone' if situation.status.start_time else 'nothing was released'}; {then}"
    name, why = found["metadata"]["name"], _reason_of(_condition(found, ConditionType.READY))
    return f"ModelRelease {name} is not Stable ({why}) and goes on without the run; {then}"


def _begun(situation: Situation) -> PhaseStatus:
    """The phase's time begins with its release."""
    return situation.status.model_copy(update={"begun": True, "start_time": situation.status.start_time or timestamp(situation.now)})


def _failed(situation: Situation, reason: Reason, words: str) -> Step:
    return Step(status=attempts.failed(situation.status, reason, words, situation.now), said=doing(situation, "done"))


def _condition(found: Manifest, kind: ConditionType) -> Manifest | None:
    conditions = value_at(found, "status", "conditions")
    listed: list[Manifest] = conditions if isinstance(conditions, list) else []
    return next((one for one in listed if value_at(one, "type") == kind), None)


def _reason_of(condition: Manifest | None) -> str:
    reason, message = value_at(condition, "reason") or ReleaseReason.PENDING, value_at(condition, "message")
    return f"{reason}: {message}" if message else str(reason)


def manifest(observed: Observed, template: ReleaseTemplate, artifact: RunArtifact, now: datetime) -> dict[str, Any]:
    """The release of the run's bundle: named after the model, judged by the gates of the run's last phase that measures."""
    given = [one for phase in observed.status.phases for one in phase.approvals][-MOST_LINEAGE_APPROVALS:]
    lineage = lineage_of(observed).model_copy(update={"base_noise_shares_since": noise.since(observed, now), "approvals": given})
    spec = ModelReleaseSpec(
        service=template.service,
        model=observed.spec.model,
        artifact=Artifact(claim_name=observed.spec.storage.claim_name, path=artifact.path, digest=artifact.digest),
        lineage=lineage,
        serving=template.serving,
        gates=last_gates(observed.spec),
        rollout=template.rollout,
        rollback=template.rollback,
    )
    key, value = MANAGED_BY
    return {
        "apiVersion": API_VERSION,
        "kind": "ModelRelease",
        "metadata": {"name": release_name(observed.spec.model), "namespace": observed.namespace, "labels": {key: value}},
        "spec": spec.wire(),
    }


def last_gates(spec: TrainingRunSpec) -> list[Gate]:
    """Gates of the last phase that measures: an Evaluate phase, or an Optimize phase with gates of its own after it."""
    return next((phase.gates for phase in reversed(spec.phases) if phase.task in {Task.EVALUATE, Task.OPTIMIZE}), [])


def digest_of(release: Manifest) -> str | None:
    """Digest of the bundle that an existing release serves; None if this operator cannot read it."""
    digest = value_at(release, "spec", "artifact", "digest")
    return digest if isinstance(digest, str) else None
