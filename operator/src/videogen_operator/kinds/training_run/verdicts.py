"""What a phase has measured, against its gates and against what optimisation may cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from videogen_api.evaluation import Gate, MetricResult, Verdict
from videogen_api.gates import judge_all, measurement, worst
from videogen_api.optimization import MaximumLoss, MetricLoss
from videogen_api.training_run import Phase, PhaseStatus, Reason

GATE_REASONS = {Verdict.FAILED: Reason.GATE_FAILED, Verdict.INCONCLUSIVE: Reason.GATE_INCONCLUSIVE, Verdict.ERROR: Reason.GATE_INCONCLUSIVE}


@dataclass(frozen=True, slots=True)
class Judgement:
    """A phase's status with all verdicts, and what they come to."""

    status: PhaseStatus
    words: str = ""  # empty if there was nothing to judge by
    reason: Reason | None = None  # why the phase fails


def judged(phase: Phase, status: PhaseStatus) -> Judgement:
    """Judge the results of an ended attempt."""
    _, gates = judge_all(phase.gates, status.results)
    changes: dict[str, object] = {"results": _with_verdicts(status.results, gates)} if gates else {}
    bounds = _bounds(phase, status)
    if status.optimization is not None and bounds:
        told = {bound.metric: verdict for bound, verdict, _ in bounds}
        losses = [loss.model_copy(update={"verdict": told.get(loss.metric)}) for loss in status.optimization.losses]
        changes["optimization"] = status.optimization.model_copy(update={"losses": losses})
    counted = [*((verdict, said) for _, verdict, said in gates), *((verdict, said) for _, verdict, said in bounds)]
    if not counted:
        return Judgement(status)
    words = "; ".join(_passed(rows, what) for rows, what in ((gates, "gates"), (bounds, "bounds of maximumLoss")) if rows)
    verdict = worst(one for one, _ in counted)
    why = "; ".join(said for one, said in counted if one == verdict)
    told_why = words if verdict == Verdict.PASSED else f"{words}: {why}"
    return Judgement(status.model_copy(update=changes), told_why, GATE_REASONS.get(verdict))


def judge_loss(bound: MaximumLoss, losses: Sequence[MetricLoss]) -> tuple[Verdict, str]:
    """The verdict on one bound and the reason in words. What was not measured never passes."""
    loss = next((loss for loss in losses if loss.metric == bound.metric), None)
    if loss is None:
        return Verdict.INCONCLUSIVE, f"the loss of {bound.metric} was not measured"
    said = (
        f"{bound.metric} was {loss.unoptimized} and became worse by {loss.loss} ({loss.low} to {loss.high}),"
        f" optimize.maximumLoss allows {bound.maximum}"
    )
    return (Verdict.PASSED if Decimal(loss.loss) <= Decimal(bound.maximum) else Verdict.FAILED), said


def _bounds(phase: Phase, status: PhaseStatus) -> list[tuple[MaximumLoss, Verdict, str]]:
    losses = status.optimization.losses if status.optimization else []
    return [(bound, *judge_loss(bound, losses)) for bound in (phase.optimize.maximum_loss if phase.optimize else [])]


def _passed(rows: Sequence[tuple[object, Verdict, str]], what: str) -> str:
    return f"{sum(verdict == Verdict.PASSED for _, verdict, _ in rows)} of {len(rows)} {what} passed"


def _with_verdicts(results: list[MetricResult], judged: Sequence[tuple[Gate, Verdict, str]]) -> list[MetricResult]:
    """Each result with what the gates that are judged by it say."""
    return [_with_verdict(result, [one for one in judged if measurement(one[0], results) is result]) for result in results]


def _with_verdict(result: MetricResult, judged: Sequence[tuple[Gate, Verdict, str]]) -> MetricResult:
    if not judged:
        return result
    verdict, message = worst(one for _, one, _ in judged), "; ".join(said for _, _, said in judged)
    return result.model_copy(update={"verdict": verdict, "message": message[:1024]})
