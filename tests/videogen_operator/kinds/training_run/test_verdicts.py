"""What a phase measured, against its gates and against what optimisation may cost."""

from typing import Any

import pytest

from videogen_api.evaluation import Metric, MetricResult, Verdict
from videogen_api.optimization import MaximumLoss, MetricLoss, Optimization
from videogen_api.training_run import Phase, PhaseStatus, Reason
from videogen_operator.kinds.training_run.verdicts import judge_loss, judged
from videogen_testing.runs import EVALUATE, OPTIMIZE


def a_phase(*bounds: tuple[str, str], gates: list[dict[str, Any]] | None = None) -> Phase:
    maximum_loss = [{"metric": metric, "maximum": maximum} for metric, maximum in bounds]
    return Phase.model_validate(OPTIMIZE | {"optimize": {"maximumLoss": maximum_loss}, "gates": gates or []})


def a_loss(metric: Metric, loss: str) -> MetricLoss:
    return MetricLoss(metric=metric, unoptimized="100", loss=loss, low="-1", high="9")


def measured(*losses: MetricLoss, seconds: str = "40") -> PhaseStatus:
    results = [
        MetricResult(metric=Metric.FVD, value="104", samples=128),
        MetricResult(metric=Metric.GENERATION_SECONDS, value=seconds, samples=128),
    ]
    return PhaseStatus(
        name="optimize", results=results, optimization=Optimization(unoptimized_bytes=9, optimized_bytes=3, losses=list(losses))
    )


@pytest.mark.parametrize(
    "loss, maximum, verdict",
    [
        ("4", "5", Verdict.PASSED),
        ("5", "5", Verdict.PASSED),
        ("5.000001", "5", Verdict.FAILED),
        ("-3", "0", Verdict.PASSED),
        ("1e-6", "0", Verdict.FAILED),
    ],
)
def test_a_loss_up_to_the_bound_passes(loss: str, maximum: str, verdict: Verdict) -> None:
    found, said = judge_loss(MaximumLoss(metric=Metric.FVD, maximum=maximum), [a_loss(Metric.FVD, loss)])
    assert found == verdict
    assert said == f"FVD was 100 and became worse by {loss} (-1 to 9), optimize.maximumLoss allows {maximum}"


def test_a_loss_that_was_not_measured_is_no_pass() -> None:
    phase = judged(a_phase(("CLIPScore", "0.01")), measured(a_loss(Metric.FVD, "1")))
    assert (phase.reason, phase.words) == (
        Reason.GATE_INCONCLUSIVE,
        "0 of 1 bounds of maximumLoss passed: the loss of CLIPScore was not measured",
    )


def test_a_trainer_that_reports_no_loss_at_all_is_no_pass() -> None:
    status = measured().model_copy(update={"optimization": None})
    assert judged(a_phase(("FVD", "5")), status).reason is Reason.GATE_INCONCLUSIVE


def test_each_loss_has_the_verdict_of_its_own_bound() -> None:
    found = judged(a_phase(("FVD", "5"), ("CLIPScore", "0.01")), measured(a_loss(Metric.FVD, "4"), a_loss(Metric.CLIP_SCORE, "0.02")))
    assert found.reason is Reason.GATE_FAILED
    assert found.words.startswith("1 of 2 bounds of maximumLoss passed: CLIPScore was 100 and became worse by 0.02")
    assert found.status.optimization is not None
    assert [loss.verdict for loss in found.status.optimization.losses] == [Verdict.PASSED, Verdict.FAILED]


def test_without_bounds_and_gates_nothing_is_judged() -> None:
    status = measured(a_loss(Metric.FVD, "999"))
    found = judged(a_phase(), status)
    assert (found.status, found.words, found.reason) == (status, "", None)


UNDER_60 = {"metric": "GenerationSeconds", "operator": "LessThan", "threshold": "60"}


@pytest.mark.parametrize("seconds, reason", [("59.9", None), ("60", Reason.GATE_FAILED)])
def test_an_optimised_model_may_have_to_generate_within_60_seconds(seconds: str, reason: Reason | None) -> None:
    found = judged(a_phase(("FVD", "5"), gates=[UNDER_60]), measured(a_loss(Metric.FVD, "4"), seconds=seconds))
    assert found.reason is reason
    assert f"{0 if reason else 1} of 1 gates passed; 1 of 1 bounds of maximumLoss passed" in found.words
    assert found.status.results[1].verdict is (Verdict.FAILED if reason else Verdict.PASSED)


def test_a_failed_bound_is_told_before_an_inconclusive_gate() -> None:
    gate = UNDER_60 | {"minimumSamples": 1000}
    found = judged(a_phase(("FVD", "5"), gates=[gate]), measured(a_loss(Metric.FVD, "6")))
    assert found.reason is Reason.GATE_FAILED
    assert found.words.endswith("optimize.maximumLoss allows 5")


def test_an_evaluate_phase_is_judged_by_its_gates_alone() -> None:
    found = judged(Phase.model_validate(EVALUATE), measured())
    assert (found.words, found.reason) == ("1 of 1 gates passed", None)
