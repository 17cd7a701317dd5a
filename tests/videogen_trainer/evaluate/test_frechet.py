"""Fréchet distance: against closed forms and an independent matrix root, and its behaviour at small N."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from videogen_trainer.evaluate.frechet import Moments, distance, extrapolated, frechet_distance, moments

Matrix = NDArray[np.float64]


def gaussian(mean: Matrix, covariance: Matrix, count: int = 1000) -> Moments:
    return Moments(count=count, mean=mean, scatter=covariance * (count - 1))


def newton_root(matrix: Matrix) -> Matrix:
    """Square root of a matrix with positive eigenvalues, which need not be symmetric (Denman and Beavers, 1976)."""
    root, inverse = matrix, np.eye(len(matrix))
    for _ in range(60):
        root, inverse = (root + np.linalg.inv(inverse)) / 2, (inverse + np.linalg.inv(root)) / 2
    return root


def random_covariance(random: np.random.Generator, size: int) -> Matrix:
    factor = random.standard_normal((size, 2 * size))
    return factor @ factor.T / (2 * size)


@pytest.mark.parametrize(
    ("scales", "others", "shift"),
    [
        pytest.param([1.0, 4.0, 9.0], [1.0, 4.0, 9.0], [0.0, 0.0, 0.0], id="equal Gaussians"),
        pytest.param([1.0, 4.0, 9.0], [4.0, 1.0, 0.25], [0.0, 0.0, 0.0], id="variances differ"),
        pytest.param([1.0, 4.0, 9.0], [1.0, 4.0, 9.0], [3.0, 0.0, 4.0], id="means differ by 5"),
        pytest.param([1.0, 0.0, 9.0], [0.0, 2.0, 9.0], [1.0, 0.0, 0.0], id="a direction has no variance"),
    ],
)
def test_commuting_covariances_have_a_closed_form(scales: list[float], others: list[float], shift: list[float]) -> None:
    """With common eigenvectors d² = |shift|² + Σ (√a - √b)²."""
    rotation, _ = np.linalg.qr(np.random.default_rng(0).standard_normal((3, 3)))
    first = gaussian(np.zeros(3), rotation @ np.diag(scales) @ rotation.T)
    second = gaussian(np.array(shift), rotation @ np.diag(others) @ rotation.T)
    expected = np.square(shift).sum() + np.square(np.sqrt(scales) - np.sqrt(others)).sum()
    assert distance(first, second) == pytest.approx(expected, abs=1e-7)  # roots of rounding errors where there is no variance


@pytest.mark.parametrize("size", [2, 7, 40])
def test_it_agrees_with_the_root_of_the_product_by_newtons_method(size: int) -> None:
    random = np.random.default_rng(size)
    one, two = random_covariance(random, size), random_covariance(random, size)
    shift = random.standard_normal(size)
    expected = shift @ shift + np.trace(one) + np.trace(two) - 2 * np.trace(newton_root(one @ two))
    assert distance(gaussian(np.zeros(size), one), gaussian(shift, two)) == pytest.approx(expected, rel=1e-8)


def test_it_agrees_with_the_eigenvalues_of_the_unsymmetric_product() -> None:
    random = np.random.default_rng(5)
    real, made = random.standard_normal((300, 20)), random.standard_normal((200, 20)) * 1.3 + 0.2
    one, two = np.cov(real.T), np.cov(made.T)
    roots = torch.linalg.eigvals(torch.from_numpy(one @ two)).sqrt().real.sum().item()
    shift = real.mean(0) - made.mean(0)
    assert frechet_distance(real, made) == pytest.approx(shift @ shift + np.trace(one) + np.trace(two) - 2 * roots, rel=1e-9)


@pytest.mark.parametrize("count", [2, 30, 500], ids=lambda count: f"{count} samples of 64 features")
def test_identical_sets_are_at_distance_zero_and_never_below(count: int) -> None:
    features = np.random.default_rng(count).standard_normal((count, 64)) * 10
    assert 0.0 <= frechet_distance(features, features) < 1e-4


def test_it_is_symmetric_and_does_not_change_under_rotation() -> None:
    random = np.random.default_rng(1)
    real, made = random.standard_normal((100, 8)), random.standard_normal((80, 8)) * 2
    rotation, _ = np.linalg.qr(random.standard_normal((8, 8)))
    assert frechet_distance(real, made) == pytest.approx(frechet_distance(made, real), rel=1e-9)
    assert frechet_distance(real @ rotation, made @ rotation) == pytest.approx(frechet_distance(real, made), rel=1e-9)


def test_moments_far_from_zero_keep_their_digits() -> None:
    """The sum of squares minus the square of the sum would lose ten."""
    features = np.random.default_rng(3).standard_normal((100, 5)) + 1e5
    found = moments(features)
    assert found.count == 100
    np.testing.assert_allclose(found.mean, features.mean(axis=0), rtol=1e-14)
    np.testing.assert_allclose(found.covariance, np.cov((features - 1e5).T), rtol=1e-6, atol=1e-9)


def test_moments_of_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="N of at least 1"):
        moments(np.zeros((0, 5)))


def mean_distance(count: int, size: int = 32, repeats: int = 12) -> float:
    random = np.random.default_rng(count)
    return float(
        np.mean([frechet_distance(random.standard_normal((count, size)), random.standard_normal((count, size))) for _ in range(repeats)])
    )


def test_the_bias_of_equal_distributions_falls_as_one_over_n() -> None:
    biases = {count: mean_distance(count) for count in (64, 128, 256, 512)}
    for count in (64, 128, 256):
        assert biases[2 * count] / biases[count] == pytest.approx(0.5, abs=0.1)


def test_extrapolation_takes_most_of_the_bias_away_and_keeps_a_true_distance() -> None:
    random = np.random.default_rng(0)
    real, same = random.standard_normal((256, 32)), random.standard_normal((256, 32))
    assert extrapolated(real, same, seed=0) < 0.35 * frechet_distance(real, same)
    assert extrapolated(real, same + 1.0, seed=0) == pytest.approx(32.0, rel=0.15)


@pytest.mark.parametrize(
    ("features", "message"),
    [
        pytest.param(np.zeros((0, 3)), "N of at least 1", id="no samples"),
        pytest.param(np.zeros(3), "expected \\[N, D\\]", id="a vector"),
        pytest.param(np.array([[np.nan, 1.0]]), "not finite", id="not a number"),
    ],
)
def test_features_that_mean_nothing_are_refused(features: Matrix, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        moments(features)


def test_one_sample_has_no_covariance() -> None:
    with pytest.raises(ValueError, match="1 generated samples"):
        frechet_distance(np.zeros((5, 2)), np.zeros((1, 2)))
