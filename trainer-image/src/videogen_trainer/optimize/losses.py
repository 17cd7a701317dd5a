"""By how much the metrics of an optimised bundle are worse than those of the bundle before, with paired intervals.

Both bundles have generated the same clips: of the same captions, from the same noise. The bootstrap (`evaluate.bootstrap`)
therefore draws pairs, so that what both have in common does not widen the interval.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from videogen_api.evaluation import DEFAULT_EXTRACTORS, Metric, Normalization
from videogen_api.optimization import MetricLoss
from videogen_trainer.evaluate import artefacts
from videogen_trainer.evaluate.bootstrap import interval
from videogen_trainer.evaluate.clip_score import normalized
from videogen_trainer.evaluate.coherence import coherence
from videogen_trainer.evaluate.frechet import frechet_distance
from videogen_trainer.evaluate.inception import inception_score, split_count
from videogen_trainer.evaluate.measure import decimal, percentile_seconds

Array = NDArray[np.float64]
Rows = Mapping[str, Array]  # arrays over all generated clips, as `evaluate.task.generate` names them
CLASSIFIER, ENCODER = DEFAULT_EXTRACTORS
LOWER_IS_BETTER = {Metric.FVD, Metric.ARTEFACT_RATE, Metric.GENERATION_SECONDS}


def losses(real: Rows, before: Rows, after: Rows, references: NDArray[np.intp], *, seed: int) -> list[MetricLoss]:
    """The loss of each metric of the default networks; `references` [N]: the real clip that each generated one belongs to."""
    return [
        _fvd(real[f"features of {CLASSIFIER}"], before[f"features of {CLASSIFIER}"], after[f"features of {CLASSIFIER}"], seed=seed),
        _inception(before[f"classes of {CLASSIFIER}"], after[f"classes of {CLASSIFIER}"], seed=seed),
        *(
            _paired(metric, _scores(metric, real, before, references), _scores(metric, real, after, references), seed=seed)
            for metric in _OF_CLIPS
        ),
        _statistic(Metric.GENERATION_SECONDS, percentile_seconds, before["seconds"], after["seconds"], seed=seed),
    ]


_OF_CLIPS = (Metric.CLIP_SCORE, Metric.TEMPORAL_COHERENCE, Metric.ARTEFACT_RATE)  # means over the clips


def _scores(metric: Metric, real: Rows, made: Rows, references: NDArray[np.intp]) -> Array:
    """A score [N] for each generated clip, whose mean is the metric."""
    match metric:
        case Metric.CLIP_SCORE:
            return normalized(made[f"similarity by {ENCODER}"], Normalization.CLIP_SCORE_25)
        case Metric.TEMPORAL_COHERENCE:
            return coherence(made[f"steadiness by {ENCODER}"], made["motion"], real["motion"][references])
        case _:
            return artefacts.rates(made["artefacts"], artefacts.limits(real["artefacts"]))


def _fvd(real: Array, before: Array, after: Array, *, seed: int) -> MetricLoss:
    """Both distances are to the same real clips in every resample."""

    def loss(of_real: NDArray[np.intp], of_made: NDArray[np.intp]) -> float:
        return frechet_distance(real[of_real], after[of_made]) - frechet_distance(real[of_real], before[of_made])

    whole = loss(np.arange(len(real)), np.arange(len(before)))
    bounds = interval(loss, len(real), len(before), seed=seed)
    return _loss(Metric.FVD, frechet_distance(real, before), whole, bounds)


def _inception(before: Array, after: Array, *, seed: int) -> MetricLoss:
    splits = split_count(*before.shape)
    return _statistic(Metric.INCEPTION_SCORE, lambda rows: inception_score(rows, splits=splits), before, after, seed=seed)


def _paired(metric: Metric, before: Array, after: Array, *, seed: int) -> MetricLoss:
    return _statistic(metric, lambda scores: float(scores.mean()), before, after, seed=seed)


def _statistic(metric: Metric, of: Callable[[Array], float], before: Array, after: Array, *, seed: int) -> MetricLoss:
    """The loss of a statistic of rows [N, ...], of which row n of both belongs together."""
    sign = 1 if metric in LOWER_IS_BETTER else -1

    def loss(drawn: NDArray[np.intp]) -> float:
        return sign * (of(after[drawn]) - of(before[drawn]))

    return _loss(metric, of(before), loss(np.arange(len(before))), interval(loss, len(before), seed=seed))


def _loss(metric: Metric, before: float, loss: float, bounds: tuple[float, float]) -> MetricLoss:
    return MetricLoss(
        metric=metric,
        unoptimized=decimal(before),
        loss=decimal(loss),
        low=decimal(bounds[0]),
        high=decimal(bounds[1]),
        normalization=Normalization.CLIP_SCORE_25 if metric is Metric.CLIP_SCORE else None,
    )
