"""Inception Score: its bounds, its value on known distributions, and splits."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from videogen_trainer.evaluate.inception import inception_score, split_count

Rows = NDArray[np.float64]


def one_hot(classes: list[int], count: int) -> Rows:
    with np.errstate(divide="ignore"):
        return np.asarray(np.log(np.eye(count)[classes]))


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        pytest.param(one_hot(list(range(101)), 101), 101.0, id="certain and evenly spread over 101 classes"),
        pytest.param(one_hot(list(range(50)), 101), 50.0, id="50 certain samples reach 50 at most"),
        pytest.param(one_hot([3] * 40, 101), 1.0, id="certain, but always the same class"),
        pytest.param(np.full((40, 101), -np.log(101)), 1.0, id="knows nothing"),
        pytest.param(np.log([[0.75, 0.25], [0.25, 0.75]]), 1.139754, id="two half-certain samples: exp(ln 2 - H(1/4))"),
    ],
)
def test_known_distributions(rows: Rows, expected: float) -> None:
    assert inception_score(rows, splits=1) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("samples", [3, 20, 200])
def test_it_lies_between_one_and_the_smaller_of_classes_and_samples(seed: int, samples: int) -> None:
    logits = np.random.default_rng(seed).standard_normal((samples, 12)) * 8
    rows = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    assert 1.0 <= inception_score(rows, splits=1) <= min(samples, 12) + 1e-9


def test_with_splits_it_is_the_mean_over_consecutive_parts() -> None:
    rows = one_hot([0, 1, 2, 0, 0, 0], 3)
    assert inception_score(rows, splits=2) == pytest.approx((3.0 + 1.0) / 2)


@pytest.mark.parametrize(("samples", "classes", "expected"), [(2048, 101, 10), (500, 101, 4), (50, 101, 1), (1, 101, 1)])
def test_splits_are_no_smaller_than_the_number_of_classes(samples: int, classes: int, expected: int) -> None:
    assert split_count(samples, classes) == expected


@pytest.mark.parametrize("splits", [0, 4], ids=["no split", "more splits than samples"])
def test_impossible_splits_are_refused(splits: int) -> None:
    with pytest.raises(ValueError, match="expected 1 to 3"):
        inception_score(one_hot([0, 1, 2], 3), splits=splits)


def test_logits_are_refused() -> None:
    with pytest.raises(ValueError, match="log-softmax"):
        inception_score(np.array([[3.0, 1.0], [0.5, 2.0]]), splits=1)
