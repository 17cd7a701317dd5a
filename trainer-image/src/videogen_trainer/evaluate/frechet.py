"""Fréchet distance between two sets of features, in float64: the arithmetic of FVD (Unterthiner et al., 2018, eq. 2).

    d²(1, 2) = |mean₁ - mean₂|² + tr(S₁ + S₂ - 2 (S₁ S₂)^½)

Not here: the feature network, which decides what the number means. The estimate is biased upwards by about c/N, so
values of different N are not comparable; `extrapolated` estimates the value at N → ∞.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Features = NDArray[np.float64]
ROUND_OFF = 1e-6  # of the traces: how far below 0 rounding may take the distance of equal sets


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Moments:
    """Count, mean [D] and scatter [D, D] (sum of the deviations' outer products) of features."""

    count: int
    mean: Features
    scatter: Features

    @property
    def covariance(self) -> Features:
        """Unbiased covariance [D, D], divided by count - 1."""
        return self.scatter / (self.count - 1)


def moments(features: Features) -> Moments:
    """Moments of features [N, D]. Raises ValueError if a feature is not finite or there are none."""
    if features.ndim != 2 or features.shape[0] == 0:
        raise ValueError(f"features of shape {features.shape}; expected [N, D] with N of at least 1")
    if not np.isfinite(features).all():
        raise ValueError("a feature is not finite; the feature network overflowed or was fed broken clips")
    exact = np.asarray(features, dtype=np.float64)  # no copy of rows that are
    mean = exact.mean(axis=0)
    deviation = exact - mean
    return Moments(count=len(exact), mean=mean, scatter=deviation.T @ deviation)


def distance(real: Moments, generated: Moments) -> float:
    """Fréchet distance d², at least 0. Raises ValueError with fewer than 2 samples on a side.

    The trace of the matrix root is Σ √λ over the eigenvalues λ of R S₂ R, R = S₁^½: symmetric, so neither complex
    numbers nor inverses occur and rank-deficient covariances (N ≤ D) are fine.
    """
    if min(real.count, generated.count) < 2:
        raise ValueError(f"{real.count} real and {generated.count} generated samples; a covariance needs at least 2 of each")
    first, second = real.covariance, generated.covariance
    root = _symmetric_root(first)
    eigenvalues = np.linalg.eigvalsh(root @ second @ root)
    traces = float(np.trace(first) + np.trace(second))
    shift = real.mean - generated.mean
    squared = float(shift @ shift + traces - 2.0 * np.sqrt(eigenvalues.clip(min=0.0)).sum())
    assert squared > -ROUND_OFF * max(traces, 1e-300), f"Fréchet distance {squared} of traces {traces}"
    return max(squared, 0.0)


def frechet_distance(real: Features, generated: Features) -> float:
    """Fréchet distance between two sets of features [N, D] and [M, D]."""
    return distance(moments(real), moments(generated))


def extrapolated(real: Features, generated: Features, *, seed: int, points: int = 8) -> float:
    """Value at N → ∞: intercept of a line through d² against 1/n, n from N/2 to N (Chong and Forsyth, 2020, sec. 3).

    Both sides are cut to n random samples, for both contribute bias. At least 0.
    """
    random = np.random.default_rng(seed)
    most = min(len(real), len(generated))
    sizes = np.unique(np.linspace(max(2, most // 2), most, points).astype(int))
    if len(sizes) < 2:
        return frechet_distance(real, generated)
    values = [frechet_distance(real[random.permutation(len(real))[:n]], generated[random.permutation(len(generated))[:n]]) for n in sizes]
    return max(float(np.polyfit(1.0 / sizes, values, deg=1)[1]), 0.0)


def _symmetric_root(matrix: Features) -> Features:
    eigenvalues, vectors = np.linalg.eigh(matrix)
    return (vectors * np.sqrt(eigenvalues.clip(min=0.0))) @ vectors.T
