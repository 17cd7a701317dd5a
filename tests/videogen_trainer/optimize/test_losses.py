"""The loss of each metric: its sign, its size, and an interval that knows that clips come in pairs."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from videogen_api.evaluation import Metric, Normalization
from videogen_api.optimization import LOSSES, MetricLoss
from videogen_trainer.evaluate import measure
from videogen_trainer.evaluate.measure import Network
from videogen_trainer.optimize.losses import losses

Array = NDArray[np.float64]
CLIPS, FEATURES, CLASSES = 60, 6, 4


def log_probabilities(logits: Array) -> Array:
    return np.asarray(logits - np.log(np.exp(logits).sum(axis=1, keepdims=True)))


def rows(seed: int, *, noise: float = 0.0) -> dict[str, Array]:
    """Rows of generated clips: those of seed 0, and on top of them noise of another seed."""
    first, random = np.random.default_rng(0), np.random.default_rng(seed)
    return {
        "features of video-classifier": first.standard_normal((CLIPS, FEATURES)) + noise * random.standard_normal((CLIPS, FEATURES)),
        "classes of video-classifier": log_probabilities(4 * first.standard_normal((CLIPS, CLASSES))),
        "similarity by text-video-encoder": first.uniform(0.2, 0.4, CLIPS) + noise * random.standard_normal(CLIPS),
        "steadiness by text-video-encoder": first.uniform(0.8, 1.0, CLIPS),
        "motion": np.full(CLIPS, 0.1),
        "artefacts": np.zeros((CLIPS, 3, 3)),
        "seconds": np.stack([first.uniform(1, 2, CLIPS), np.full(CLIPS, 2)], axis=1),
    }


REAL = {
    "features of video-classifier": np.random.default_rng(9).standard_normal((40, FEATURES)),
    "motion": np.full(40, 0.1),
    "artefacts": np.zeros((120, 3)),
}


def measured(before: dict[str, Array], after: dict[str, Array]) -> dict[Metric, MetricLoss]:
    return {loss.metric: loss for loss in losses(REAL, before, after, np.arange(CLIPS) % 40, seed=0)}


def test_every_metric_has_a_loss_and_the_same_clips_have_none() -> None:
    found = measured(rows(1), rows(1))
    assert set(found) == set(LOSSES)
    assert {(float(loss.loss), float(loss.low), float(loss.high)) for loss in found.values()} == {(0.0, 0.0, 0.0)}
    assert found[Metric.CLIP_SCORE].normalization is Normalization.CLIP_SCORE_25


def worse(name: str, change: Array | float) -> dict[str, Array]:
    made = rows(1)
    return made | {name: made[name] + change}


ARTEFACTS = np.zeros((CLIPS, 3, 3))
ARTEFACTS[:30, 0, 0] = 50.0  # one frame of three, in half of the clips
WORSE = [
    (Metric.FVD, worse("features of video-classifier", 1.0), None),
    (Metric.CLIP_SCORE, worse("similarity by text-video-encoder", -0.1), 0.25),  # on the scale of 2.5
    (Metric.TEMPORAL_COHERENCE, worse("steadiness by text-video-encoder", -0.2), 0.2),
    (Metric.ARTEFACT_RATE, worse("artefacts", ARTEFACTS), 1 / 6),
    (Metric.GENERATION_SECONDS, worse("seconds", np.array([0.5, 0.0])), 0.5),
    (Metric.INCEPTION_SCORE, rows(1) | {"classes of video-classifier": np.full((CLIPS, CLASSES), -np.log(CLASSES))}, None),
]


@pytest.mark.parametrize("metric, after, expected", WORSE, ids=[str(row[0]) for row in WORSE])
def test_what_became_worse_has_a_loss_above_zero_and_the_other_way_round_below(
    metric: Metric, after: dict[str, Array], expected: float | None
) -> None:
    found, back = measured(rows(1), after)[metric], measured(after, rows(1))[metric]
    assert float(found.loss) > 0
    assert float(found.low) > 0
    assert float(back.loss) == -float(found.loss)
    if expected is not None:
        assert float(found.loss) == pytest.approx(expected, abs=1e-6)
    others = {other: loss for other, loss in measured(rows(1), after).items() if other is not metric}
    assert {float(loss.loss) for loss in others.values()} == {0.0}


def test_the_value_before_and_the_loss_are_those_of_the_two_evaluations() -> None:
    before, after = rows(1), rows(2, noise=0.3)
    network = Network(name="n", digest="sha256:" + "0" * 64)
    name = "features of video-classifier"
    values = [float(measure.fvd(network, REAL[name], made[name], seed=0).value) for made in (before, after)]
    loss = measured(before, after)[Metric.FVD]
    assert float(loss.unoptimized) == pytest.approx(values[0], abs=1e-6)
    assert float(loss.loss) == pytest.approx(values[1] - values[0], abs=2e-6)
    assert float(loss.low) <= float(loss.loss) <= float(loss.high)


def test_a_metric_that_stays_has_a_loss_of_0_without_a_sign() -> None:
    same = measured(rows(1), rows(1))
    assert {(loss.loss, loss.low, loss.high) for loss in same.values()} == {("0.000000",) * 3}


def test_pairs_have_a_narrower_interval_than_clips_of_other_noise() -> None:
    before, after = rows(1), rows(2, noise=0.01)
    mixed = {name: array[::-1] if name.startswith("similarity") else array for name, array in after.items()}
    paired, crossed = (measured(before, made)[Metric.CLIP_SCORE] for made in (after, mixed))
    widths = [float(loss.high) - float(loss.low) for loss in (paired, crossed)]
    assert float(paired.loss) == pytest.approx(float(crossed.loss), abs=1e-6)
    assert widths[1] > 3 * widths[0] > 0


def test_the_interval_holds_the_true_loss_19_times_of_20() -> None:
    """Scores that fall by 0.05 in the mean; 200 samples of pairs."""
    hits = 0
    for seed in range(200):
        random = np.random.default_rng(seed)
        before = rows(1) | {"similarity by text-video-encoder": random.uniform(0.4, 0.6, CLIPS)}
        fall = 0.02 + 0.01 * random.standard_normal(CLIPS)
        after = before | {"similarity by text-video-encoder": before["similarity by text-video-encoder"] - fall}
        (loss,) = (one for one in _clip_losses(before, after, seed))
        hits += float(loss.low) <= 0.05 <= float(loss.high)
    assert 180 <= hits <= 199


def _clip_losses(before: dict[str, Array], after: dict[str, Array], seed: int) -> list[MetricLoss]:
    from videogen_trainer.optimize.losses import _paired, _scores

    places = np.arange(CLIPS) % 40
    return [_paired(Metric.CLIP_SCORE, *(_scores(Metric.CLIP_SCORE, REAL, made, places) for made in (before, after)), seed=seed)]
