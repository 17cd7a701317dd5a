"""`python -m benchmarks.metrics`: is our Fréchet distance right, how fast is it, and how far off is it with few clips.

The truth is the closed form for two Gaussians, on features whose sample moments are those of the Gaussians to rounding.
The peer is the arithmetic of cd-fvd, in our own lines. docs/benchmarks.md says what each figure means.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.figures import Figure, circumstances, table
from videogen_trainer.evaluate import measure
from videogen_trainer.evaluate.bootstrap import RESAMPLES
from videogen_trainer.evaluate.extractors import default_classifier
from videogen_trainer.evaluate.frechet import Moments, distance, extrapolated, frechet_distance, moments
from videogen_trainer.evaluate.task import BATCH
from videogen_trainer.synthetic import synthetic_clip

Matrix = NDArray[np.float64]

ACCURACY = 1e-6  # relative; an aim
TRACE = 121.0  # of the covariances, as of I3D's 400 logits on a benchmark's clips
SIZES = (64, 128, 256, 512, 1024, 2048, 4096)
DEFAULT_SIZE = 64  # features of the trainer's own network
ROUNDS = 5  # of each timing, ours and the peer's in turn; the fastest counts


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Two sets of features [N, D] and, where it is known, their true distance."""

    real: Matrix
    made: Matrix
    truth: float = 0.0


def main(arguments: list[str]) -> int:
    """0 if every aim of accuracy is met, at whatever speed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.metrics", description=__doc__)
    parser.add_argument("--features", type=int, default=400, help="length of a feature vector (I3D: %(default)s)")
    parser.add_argument("--samples", type=int, default=2048, help="vectors of a set (FVD's protocol: %(default)s)")
    parser.add_argument("--clips", type=int, default=256, help="clips for the throughput with the network")
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES), help="numbers of samples for the bias")
    parser.add_argument("--repeats", type=int, default=3, help="pairs of sets for each bias")
    options = parser.parse_args(arguments)
    if wrong := unusable(options):
        parser.error(wrong)
    torch.set_num_threads(1)
    print(circumstances(), flush=True)
    right = list(accuracy(options.samples, options.features))
    print(table([*right, *throughput(options.samples, options.features), *clip_throughput(options.clips)]), flush=True)
    print(f"\n{options.features} features, both sets from one Gaussian (the true distance is 0), mean of {options.repeats} pairs:\n")
    print(bias_table(options.sizes, options.features, options.repeats))
    return 1 if any(figure.verdict == "MISSED" for figure in right) else 0


def unusable(options: argparse.Namespace) -> str:
    """What cannot be measured, in words; "" if everything can."""
    # A set of half as many samples as features is measured too.
    least = {"features": 4, "clips": 1, "repeats": 1, "sizes": 2, "samples": options.features + 1}
    given = vars(options) | {"sizes": min(options.sizes)}
    few = next((name for name, count in least.items() if given[name] < count), None)
    if few is None:
        return ""
    why = "; a covariance has the rank of its features only with more samples than features" if few == "samples" else ""
    return f"--{few} is {given[few]}, accepted are {least[few]} and more{why}"


# Accuracy


def accuracy(samples: int, size: int) -> Iterator[Figure]:
    """Relative errors of the distance as Evaluate computes it."""
    for name, pair in (("that commute", commuting(samples, size)), ("that do not commute", not_commuting(samples, size))):
        yield Figure(f"closed form, covariances {name}: relative error", relative(evaluated(pair), pair.truth), "", ACCURACY)
    for name, count in ((f"N = {samples}", samples), (f"N = {size // 2}, rank-deficient", size // 2)):
        pair = drawn(count, size, seed=count)
        ours, peers = biased(pair), cd_fvd(pair)
        yield Figure(f"cd-fvd's formula, {name}: relative difference", relative(ours, peers), "", ACCURACY)
        yield Figure(f"cd-fvd's formula, {name}: what its covariance by 1/N changes", relative(peers, evaluated(pair)))
    same = drawn(samples, size, seed=0).real
    traces = 2 * float(np.trace(moments(same).covariance))
    yield Figure("identical sets: distance, of the traces", evaluated(Pair(real=same, made=same)) / traces, "", ACCURACY)


def relative(value: float, truth: float) -> float:
    """|value - truth| / |truth|."""
    return abs(value - truth) / abs(truth)


def evaluated(pair: Pair) -> float:
    """Our distance as Evaluate computes it: of rows that came in batches and were put together."""
    return distance(gathered(pair.real), gathered(pair.made))


def biased(pair: Pair) -> float:
    """The same with cd-fvd's normalisation: covariances are divided by N instead of N - 1."""
    real, made = (
        Moments(count=one.count, mean=one.mean, scatter=one.scatter * (1 - 1 / one.count))
        for one in (gathered(pair.real), gathered(pair.made))
    )
    return distance(real, made)


def gathered(features: Matrix, batch: int = BATCH) -> Moments:
    """Moments of features that come in batches, all of which are kept: intervals need the rows."""
    return moments(np.concatenate([features[start : start + batch] for start in range(0, len(features), batch)]))


def spectrum(size: int) -> Matrix:
    """Falling variances [D] that add up to TRACE."""
    falling = 1.0 / np.arange(1, size + 1)
    return np.asarray(falling * (TRACE / falling.sum()))


def rotation(size: int, seed: int) -> Matrix:
    """A random orthogonal matrix [D, D]."""
    return np.asarray(np.linalg.qr(np.random.default_rng(seed).standard_normal((size, size)))[0])


def exact(count: int, mean: Matrix, factor: Matrix, seed: int) -> Matrix:
    """Features [N, D], N > D, whose sample mean and covariance are `mean` [D] and factor factorᵀ, to rounding.

    Orthonormal columns that are also orthogonal to the vector of ones have mean 0 and covariance 1 / (N - 1).
    """
    size = len(mean)
    assert count > size, f"{count} samples cannot have a covariance of rank {size}"
    ones = np.ones((count, 1))
    columns = np.linalg.qr(np.hstack([ones, np.random.default_rng(seed).standard_normal((count, size))]))[0][:, 1:]
    return np.asarray(columns * np.sqrt(count - 1) @ factor.T + mean)


def commuting(count: int, size: int) -> Pair:
    """Common eigenvectors: d² = |shift|² + Σ (√a - √b)²."""
    axes, first, shift = rotation(size, 1), spectrum(size), np.linspace(0.0, 1.0, size)
    second = first[::-1]
    truth = float(shift @ shift + np.square(np.sqrt(first) - np.sqrt(second)).sum())
    zero = np.zeros(size)
    return Pair(real=exact(count, zero, axes * np.sqrt(first), 2), made=exact(count, shift, axes * np.sqrt(second), 3), truth=truth)


def not_commuting(count: int, size: int) -> Pair:
    """Gaussian x and its image T x + shift, T symmetric and positive: d² = |shift|² + tr((T - 1) S (T - 1)).

    Such a T is the optimal transport map (Dowson and Landau, 1982; Gelbrich, 1990), so d² is the mean of |T x + shift - x|².
    """
    axes, others, first, shift = rotation(size, 4), rotation(size, 5), spectrum(size), np.linspace(-1.0, 1.0, size)
    transport = (others * np.linspace(0.5, 2.0, size)) @ others.T
    factor = axes * np.sqrt(first)
    moved = transport @ factor
    truth = float(shift @ shift + np.square(moved - factor).sum())
    return Pair(real=exact(count, np.zeros(size), factor, 6), made=exact(count, shift, moved, 7), truth=truth)


def drawn(count: int, size: int, seed: int) -> Pair:
    """Features as networks give them: float32, correlated, with means beside zero."""
    random = np.random.default_rng(seed)
    factor = rotation(size, seed + 1) * np.sqrt(spectrum(size))
    real = random.standard_normal((count, size)) @ factor.T + 1.0
    made = random.standard_normal((count, size)) * 1.2 @ factor + 1.1
    return Pair(real=real.astype(np.float32).astype(np.float64), made=made.astype(np.float32).astype(np.float64))


# The peer: cd-fvd 0.1.1 (Ge et al., 2024), metric_utils.py and fvd.py, as arithmetic


def cd_fvd(pair: Pair) -> float:
    """|mean₁ - mean₂|² + tr(S₁ + S₂ - 2 (S₂ S₁)^½), S from raw sums divided by N, the real part of the root."""
    (mean, first), (other, second) = raw_moments(pair.real), raw_moments(pair.made)
    root = matrix_root(second @ first)
    return float(np.square(other - mean).sum() + np.real(np.trace(first + second - 2 * root)))


def raw_moments(features: Matrix, batch: int = BATCH) -> tuple[Matrix, Matrix]:
    """Mean [D] and covariance [D, D] by 1/N, from sums of x and x xᵀ over batches."""
    size = features.shape[1]
    total, squares = np.zeros(size), np.zeros((size, size))
    for start in range(0, len(features), batch):
        part = features[start : start + batch].astype(np.float64)
        total += part.sum(axis=0)
        squares += part.T @ part
    mean = total / len(features)
    return mean, squares / len(features) - np.outer(mean, mean)


def matrix_root(matrix: Matrix) -> NDArray[np.complex128]:
    """Principal square root V √Λ V⁻¹ of a diagonalisable matrix, symmetric or not; stands for scipy.linalg.sqrtm.

    Raises ValueError if its square is not the matrix.
    """
    values, vectors = np.linalg.eig(matrix)
    root = np.asarray(np.linalg.solve(vectors.T, (vectors * np.sqrt(values.astype(np.complex128))).T).T)
    wrong = float(np.linalg.norm(root @ root - matrix) / np.linalg.norm(matrix))
    if not wrong < 1e-8:
        raise ValueError(f"the square of the peer's matrix root is off by {wrong:.1e} of the matrix")
    return root


# Throughput


def throughput(samples: int, size: int) -> Iterator[Figure]:
    """Feature vectors a second to moments, and one distance, ours and the peer's in turn; then the whole of a result."""
    pair = drawn(samples, size, seed=8)
    for batch in (BATCH, 128):
        ours, peers = fastest([partial(gathered, pair.real, batch), partial(raw_moments, pair.real, batch)])
        yield Figure(f"vectors of {size} a second, in batches of {batch}", samples / ours, "/s", None, samples / peers)
    sides = gathered(pair.real), gathered(pair.made)
    product = sides[1].covariance @ sides[0].covariance
    ours, peers = fastest([lambda: distance(*sides), lambda: matrix_root(product)])
    yield Figure(f"one distance of {size} features, from moments", ours, "s", None, peers)
    (seconds,) = fastest([lambda: frechet_distance(pair.real, pair.made)])
    yield Figure(f"one distance of {size} features, from {samples} rows: an interval draws {RESAMPLES}", seconds, "s")
    narrow = drawn(samples, min(size, DEFAULT_SIZE), seed=9)
    network = measure.Network(name="drawn", digest="")
    (seconds,) = fastest([lambda: measure.fvd(network, narrow.real, narrow.made, seed=0)], rounds=1)
    yield Figure(f"FVD of {narrow.real.shape[1]} features with interval and extrapolation, {samples} rows", seconds, "s")


def clip_throughput(count: int) -> Iterator[Figure]:
    """Clips a second through the default network to moments."""
    network = default_classifier(torch.device("cpu"))
    clips = np.stack([synthetic_clip(number, seed=0, frames=16, height=32, width=32).frames for number in range(count)])

    def features() -> Iterator[Matrix]:
        return (network.features(clips[start : start + BATCH]) for start in range(0, count, BATCH))

    ours, peers = fastest([lambda: moments(np.concatenate(list(features()))), lambda: raw_moments(np.concatenate(list(features())))])
    yield Figure(f"clips a second, features and moments, in batches of {BATCH}", count / ours, "/s", None, count / peers)


def fastest(works: Sequence[Callable[[], object]], rounds: int = ROUNDS) -> list[float]:
    """Seconds of the fastest of so many calls of each, called in turn."""
    seconds = [float("inf")] * len(works)
    for _ in range(rounds):
        for place, work in enumerate(works):
            begun = time.perf_counter()
            work()
            seconds[place] = min(seconds[place], time.perf_counter() - begun)
    return seconds


# Bias


def first_order_bias(variances: Matrix) -> float:
    """c of the leading term c / N of E d² between two sets of N from one Gaussian with these eigenvalues of its covariance.

    Means: 2 Σ λ / N. Covariances: d² ≈ ½ Σ Δᵢⱼ² / (λᵢ + λⱼ), the second order of the Bures metric, and
    E Δᵢⱼ² = 2 λᵢ λⱼ (1 + δᵢⱼ) / N.
    """
    products, sums = np.outer(variances, variances), variances[:, None] + variances
    return float(2 * variances.sum() + (products * (1 + np.eye(len(variances))) / sums).sum())


def bias(count: int, size: int, repeats: int) -> tuple[float, float]:
    """Means of d² and of its extrapolation to N → ∞ over pairs of sets from one Gaussian."""
    random, scales = np.random.default_rng(count), np.sqrt(spectrum(size))
    pairs = [[random.standard_normal((count, size)) * scales for _ in range(2)] for _ in range(repeats)]
    found = [(frechet_distance(real, made), extrapolated(real, made, seed=0)) for real, made in pairs]
    plain, beyond = np.mean(found, axis=0)
    return float(plain), float(beyond)


def bias_table(sizes: Sequence[int], size: int, repeats: int) -> str:
    """A Markdown table: N, mean d², its share of the trace, the first-order theory, and what extrapolation leaves."""
    theory = first_order_bias(spectrum(size))
    lines = ["| N | d² | of the trace | theory c/N | extrapolated |", "|---|---|---|---|---|"]
    for count in sizes:
        plain, beyond = bias(count, size, repeats)
        lines.append(f"| {count} | {plain:.3g} | {plain / TRACE:.1%} | {theory / count:.3g} | {beyond:.3g} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
