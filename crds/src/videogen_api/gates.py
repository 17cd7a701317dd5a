"""Gates: is a metric good enough, by what it was measured with and on how many samples. The operator decides by them; a release's report
says the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import Decimal

from videogen_api.bundle import content_digest
from videogen_api.evaluation import TIMED_CLIPS, Gate, Metric, MetricResult, Normalization, Operator, Verdict

SIGNS = {Operator.LESS_THAN: "<", Operator.GREATER_THAN: ">"}
SEVERITY = (Verdict.FAILED, Verdict.ERROR, Verdict.INCONCLUSIVE, Verdict.PASSED)  # worst first


def judge(gate: Gate, results: Iterable[MetricResult]) -> tuple[Verdict, str]:
    """The verdict on one gate and the reason in words. No measurement, or another extractor's, is never a pass."""
    of_metric = [result for result in results if result.metric == gate.metric]
    result = measurement(gate, of_metric)
    if result is None:
        return Verdict.INCONCLUSIVE, _not_measured(gate, of_metric)
    if result.samples < gate.minimum_samples:
        more = "evaluate more clips (evaluate.samples, and data[].samples for FVD)"
        if gate.metric == Metric.GENERATION_SECONDS and result.samples == TIMED_CLIPS:
            more = f"Evaluate and Optimize time {TIMED_CLIPS} clips one at a time, however many they generate"
        said = f"{gate.metric} rests on {result.samples} samples and the gate needs {gate.minimum_samples}"
        return Verdict.INCONCLUSIVE, f"{said}; {more}, or lower minimumSamples"
    if out_of_reach := _out_of_reach(gate, result):
        return Verdict.INCONCLUSIVE, out_of_reach
    value, threshold = Decimal(result.value), Decimal(gate.threshold)
    holds = value < threshold if gate.operator == Operator.LESS_THAN else value > threshold
    sentence = f"{gate.metric} is {result.value} and must be {SIGNS[gate.operator]} {gate.threshold}"
    return (Verdict.PASSED, sentence) if holds else (Verdict.FAILED, sentence)


def measurement(gate: Gate, results: Iterable[MetricResult]) -> MetricResult | None:
    """The result that a gate is judged by: the first comparable one of its metric."""
    return next((result for result in results if result.metric == gate.metric and comparable(gate, result)), None)


def comparable(gate: Gate, result: MetricResult) -> bool:
    """Whether a result was measured as the gate demands: extractor by name, and for CLIPScore the scale."""
    extractor_fits = gate.extractor is None or result.extractor == gate.extractor
    scale_fits = gate.metric != Metric.CLIP_SCORE or (result.normalization or Normalization.CLIP_SCORE_25) == gate.normalization
    return extractor_fits and scale_fits


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """The worst verdict: Failed, Error, Inconclusive, then Passed, also if there is none."""
    return min(verdicts, key=SEVERITY.index, default=Verdict.PASSED)


def judge_all(gates: Sequence[Gate], results: Sequence[MetricResult]) -> tuple[Verdict, tuple[tuple[Gate, Verdict, str], ...]]:
    """The worst verdict over all gates, and each gate with its own."""
    judged = tuple((gate, *judge(gate, results)) for gate in gates)
    return worst(verdict for _, verdict, _ in judged), judged


def evaluation_digest(results: Iterable[MetricResult]) -> str:
    """`sha256:<hex>` of what was measured: the results in their order, without verdicts and messages, which a pod may have cut."""
    return content_digest([result.model_copy(update={"verdict": None, "message": ""}).wire() for result in results])


def _out_of_reach(gate: Gate, result: MetricResult) -> str:
    """Why no model could pass a gate on the Inception Score, which is at most the number of samples, and of classes; "" if one could."""
    if gate.metric != Metric.INCEPTION_SCORE or gate.operator != Operator.GREATER_THAN:
        return ""
    most, threshold = min(Decimal(result.samples), Decimal(result.maximum or result.samples)), Decimal(gate.threshold)
    if threshold < most:
        return ""
    said = f"{gate.metric} is {result.value}, must be > {gate.threshold} and cannot exceed {most} with {result.samples} samples"
    if most < result.samples:
        return f"{said} and a network of {most} classes; judge with an extractor of more classes or lower the threshold"
    return f"{said}; evaluate at least {int(threshold) + 1} (evaluate.samples), better ten times as many, or lower the threshold"


def _not_measured(gate: Gate, of_metric: Sequence[MetricResult]) -> str:
    wanted = f" with extractor {gate.extractor}" if gate.extractor else ""
    wanted += f" as {gate.normalization}" if gate.metric == Metric.CLIP_SCORE else ""
    measured = ", ".join(f"{result.extractor or 'the default extractor'} {result.normalization or ''}".strip() for result in of_metric)
    found = f"; it was measured with {measured}" if measured else ""
    return f"{gate.metric} was not measured{wanted}{found}"
