"""May a release start? Gates, lineage, quarantine and claim, as ordered rules: the first obstacle is the reason."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from videogen_api.evaluation import MetricResult, Verdict
from videogen_api.gates import evaluation_digest, judge_all
from videogen_api.model_release import Reason
from videogen_api.training_run import Task
from videogen_operator.kinds.model_release.judging.quarantine import Entry, holding
from videogen_operator.kinds.model_release.observed import Release
from videogen_operator.kinds.model_release.rollout import Obstacle
from videogen_operator.kinds.model_release.states import Event
from videogen_operator.kubernetes_objects import NOTHING, conditions
from videogen_operator.names import allows_storage, not_allowed


@dataclass(frozen=True, slots=True)
class Case:
    """A release with the evidence about it."""

    release: Release
    results: tuple[MetricResult, ...]  # of the run, or those kept in the status
    quarantine: Sequence[Entry]

    @property
    def run(self) -> Mapping[str, Any] | None:
        """The run that made the bundle, if it still exists."""
        return self.release.run

    @property
    def run_name(self) -> str:
        """spec.lineage.run."""
        return self.release.spec.lineage.run or ""


def evidence(release: Release) -> tuple[MetricResult, ...]:
    """Results of the run's last evaluated phase; without them the ones that an earlier pass has kept.

    Those of scenarios are judged by the gates of their own phase; those of an optimisation that failed are about a bundle that the run
    did not take.
    """
    run = release.run or {}
    phases = (run.get("status") or {}).get("phases") or []
    tried = {phase["name"] for phase in (run.get("spec") or {}).get("phases") or [] if phase.get("task") == Task.TEST_SCENARIOS}
    measured = [phase["results"] for phase in phases if phase.get("results") and phase.get("name") not in tried and not _rejected(phase)]
    if measured and not _foreign(release):
        return tuple(_readable(measured[-1]))
    return tuple(release.status.evaluation)


def _readable(results: Sequence[Any]) -> Iterator[MetricResult]:
    """Without those of a newer operator, such as of a metric that no gate here can name: they must not end the pass of a service."""
    for result in results:
        with suppress(ValidationError):
            yield MetricResult.model_validate(result)


def obstacle(release: Release, quarantine: Sequence[Entry]) -> Obstacle | None:
    """The first reason why the release may not start, or None."""
    case = Case(release, evidence(release), quarantine)
    return next((found for rule in RULES if (found := rule(case))), None)


def gates_passed(release: Release) -> tuple[int, int]:
    """How many gates pass, and how many there are."""
    _, judged = judge_all(release.spec.gates, evidence(release))
    return sum(verdict == Verdict.PASSED for _, verdict, _ in judged), len(judged)


def artifact_matches(case: Case) -> Obstacle | None:
    if not _foreign(case.release):
        return None
    made, asked = _made(case.release), case.release.spec.artifact.digest
    return _reject(
        Reason.ARTIFACT_MISMATCH,
        f"spec.artifact.digest is {asked}, and TrainingRun {case.run_name} made {made}; publish a release with that digest",
    )


def lineage_is_there(case: Case) -> Obstacle | None:
    if not case.release.spec.gates or case.results:
        return None
    if not case.run_name:
        return _reject(Reason.GATE_INCONCLUSIVE, "spec.gates need measurements, and spec.lineage.run names no TrainingRun that has them")
    if case.run is None:
        return _wait(Reason.RUN_NOT_FOUND, f"TrainingRun {case.run_name} of spec.lineage.run does not exist, so the gates cannot be judged")
    return None


def run_has_measured(case: Case) -> Obstacle | None:
    if not case.release.spec.gates or case.results:
        return None
    if _ended(case.run or {}):
        return _reject(Reason.GATE_INCONCLUSIVE, f"TrainingRun {case.run_name} ended without an evaluation")
    return _wait(Reason.GATES_PENDING, f"waits for the evaluation by TrainingRun {case.run_name}")


def artifact_is_known(case: Case) -> Obstacle | None:
    if not case.release.spec.gates or case.run is None or case.release.status.evaluation or _made(case.release):
        return None
    return _wait(Reason.GATES_PENDING, f"waits for TrainingRun {case.run_name} to say which bundle its evaluation is about")


def evaluation_matches(case: Case) -> Obstacle | None:
    told = case.release.spec.lineage.evaluation
    if told is None or not case.results or (found := evaluation_digest(case.results)) == told.digest:
        return None
    said = f"spec.lineage.evaluation.digest is {told.digest}, and what TrainingRun {case.run_name} measured has {found}"
    return _reject(Reason.EVALUATION_MISMATCH, f"{said}; publish a release of what was measured, or leave lineage.evaluation out")


def gates_hold(case: Case) -> Obstacle | None:
    verdict, judged = judge_all(case.release.spec.gates, case.results)
    if verdict == Verdict.PASSED:
        return None
    reason = Reason.GATE_FAILED if verdict == Verdict.FAILED else Reason.GATE_INCONCLUSIVE
    return _reject(reason, "; ".join(words for _, one, words in judged if one != Verdict.PASSED))


def digest_is_free(case: Case) -> Obstacle | None:
    entry = holding(case.release, case.quarantine)
    if entry is None:
        return None
    what = f"this digest was rolled back as {entry.release} ({entry.reason})"
    return _reject(Reason.QUARANTINED, f"{what}; publish a better version, or ask for it with the request retry@<id>")


def claim_exists(case: Case) -> Obstacle | None:
    if case.release.claim is not None:
        return None
    return _wait(Reason.CLAIM_NOT_FOUND, f"PersistentVolumeClaim {case.release.spec.artifact.claim_name} does not exist in this namespace")


def claim_is_allowed(case: Case) -> Obstacle | None:
    claim = case.release.claim
    if claim is None or allows_storage(claim):
        return None
    name = case.release.spec.artifact.claim_name
    return _wait(Reason.CLAIM_NOT_ALLOWED, f"spec.artifact.claimName names persistent volume claim {name}, {not_allowed(claim)}")


RULES: tuple[Callable[[Case], Obstacle | None], ...] = (
    artifact_matches,  # the bundle is the one that the run has made
    lineage_is_there,  # gates without a run, or with one that is gone, can never be judged
    run_has_measured,  # the run's evaluation may still come
    artifact_is_known,  # and it must be about this bundle
    evaluation_matches,  # and be the one that the release was made for
    gates_hold,  # every gate passed; too few samples is not a pass
    digest_is_free,  # the digest was not rolled back in this service, or a person wants it again
    claim_exists,  # the bundle's volume is there
    claim_is_allowed,  # and its owner lets releases mount it
)


def _made(release: Release) -> str:
    return str((((release.run or {}).get("status") or {}).get("artifact") or {}).get("digest") or "")


def _rejected(phase: Mapping[str, Any]) -> bool:
    return phase.get("optimization") is not None and phase.get("outcome") != "Completed"


def _foreign(release: Release) -> bool:
    return bool(_made(release)) and _made(release) != release.spec.artifact.digest


def _ended(run: Mapping[str, Any]) -> bool:
    return conditions(run).get("Succeeded", NOTHING).get("status") in {"True", "False"}


def _wait(reason: Reason, message: str) -> Obstacle:
    return Obstacle(reason, message, Event.WAIT)


def _reject(reason: Reason, message: str) -> Obstacle:
    return Obstacle(reason, message, Event.REJECT)
