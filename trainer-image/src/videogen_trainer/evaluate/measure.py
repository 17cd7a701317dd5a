"""From features to results: each metric with its interval, sample count and the network that it rests on.

Not here: generating clips and running networks over them (`task.py`), and verdicts, which are the operator's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from videogen_api.evaluation import Metric, MetricResult, Normalization
from videogen_trainer.evaluate import artefacts
from videogen_trainer.evaluate.bootstrap import interval
from videogen_trainer.evaluate.clip_score import normalized
from videogen_trainer.evaluate.coherence import coherence
from videogen_trainer.evaluate.frechet import extrapolated, frechet_distance
from videogen_trainer.evaluate.inception import inception_score, split_count

Array = NDArray[np.float64]


CUSTOMARY_SAMPLES = 2048  # of FVD's protocol (Unterthiner et al., 2018)
PERCENTILE = 0.95  # of generation times


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """Which feature network, in a result's words."""

    name: str
    digest: str


NO_NETWORK = Network(name="", digest="")


def fvd(network: Network, real: Array, generated: Array, *, seed: int) -> MetricResult:
    """FVD between features [R, D] and [N, D]. Its `samples` is the smaller count, for both sides bias the value."""
    low, high = interval(lambda of_real, of_made: frechet_distance(real[of_real], generated[of_made]), len(real), len(generated), seed=seed)
    samples, unbiased = min(len(real), len(generated)), decimal(extrapolated(real, generated, seed=seed))
    few = f"; of {samples} clips it is larger than of the customary {CUSTOMARY_SAMPLES}" if samples < CUSTOMARY_SAMPLES else ""
    return result(
        Metric.FVD,
        frechet_distance(real, generated),
        (max(low, 0.0), high),
        samples=samples,
        network=network,
        message=f"{len(generated)} generated against {len(real)} real clips; extrapolated to infinitely many: {unbiased}{few}",
    )


def inception(network: Network, log_probabilities: Array, *, seed: int) -> MetricResult:
    """Inception Score of log-probabilities [N, K]."""
    samples, classes = log_probabilities.shape
    splits = split_count(samples, classes)
    value = inception_score(log_probabilities, splits=splits)
    low, high = interval(lambda drawn: inception_score(log_probabilities[drawn], splits=splits), samples, seed=seed)
    most = min(classes, samples // splits)
    message = f"{splits} split{'s' if splits > 1 else ''}, {classes} classes: at most {most}"
    found = result(Metric.INCEPTION_SCORE, value, (max(low, 1.0), high), samples=samples, network=network, message=message)
    return found.model_copy(update={"maximum": str(most)})


def clip_scores(network: Network, cosines: Array, unknown: int, *, seed: int) -> list[MetricResult]:
    """CLIP score of clips by their `similarities` [N] with their captions, in both normalisations.

    `unknown` captions have no word that the encoder knows; the message says so.
    """
    message = f"{unknown} of {len(cosines)} captions have no word that this encoder knows" if unknown else ""
    return [
        _mean(Metric.CLIP_SCORE, normalized(cosines, scale), network, seed=seed, message=message, normalization=scale)
        for scale in Normalization
    ]


def temporal_coherence(network: Network, steady: Array, moved: Array, reference_moved: Array, *, seed: int) -> MetricResult:
    """Temporal coherence of clips by their steadiness and motions [N]; see `coherence.py`."""
    return _mean(Metric.TEMPORAL_COHERENCE, coherence(steady, moved, reference_moved), network, seed=seed)


def artefact_rate(real: Array, generated: Array, *, seed: int) -> MetricResult:
    """Artefact rate from `measures` of real frames [M, 3] and of generated clips [N, F, 3]. Its interval takes the limits as given."""
    above = artefacts.limits(real)
    own = float(artefacts.rates(real[None], above)[0])
    limits = ", ".join(f"{name} {limit:.3g}" for name, limit in zip(("flicker", "blocking", "saturation"), above, strict=True))
    message = f"real frames: {decimal(own)}; limits: {limits}"
    return _mean(Metric.ARTEFACT_RATE, artefacts.rates(generated, above), NO_NETWORK, seed=seed, message=message)


def generation_seconds(batches: Array, *, seed: int, message: str) -> MetricResult:
    """95 % of the clips took at most so long: of batches [B, 2] with the seconds for each clip and the number of clips.

    Batches are resampled whole, for the clips of one share its time.
    """
    low, high = interval(lambda drawn: percentile_seconds(batches[drawn]), len(batches), seed=seed)
    samples, mean = int(batches[:, 1].sum()), float(np.average(batches[:, 0], weights=batches[:, 1]))
    return result(
        Metric.GENERATION_SECONDS,
        percentile_seconds(batches),
        (max(low, 0.0), high),
        samples=samples,
        network=NO_NETWORK,
        message=f"95 % of the clips took at most so long each, in the mean {decimal(mean)}; {message}",
    )


def percentile_seconds(batches: Array) -> float:
    """The seconds that 95 % of the clips keep within, of batches [B, 2] as `generation_seconds` takes them."""
    return float(np.quantile(np.repeat(batches[:, 0], batches[:, 1].astype(int)), PERCENTILE, method="inverted_cdf"))


def _mean(
    metric: Metric, values: Array, network: Network, *, seed: int, message: str = "", normalization: Normalization | None = None
) -> MetricResult:
    bounds = interval(lambda drawn: float(values[drawn].mean()), len(values), seed=seed)
    return result(metric, float(values.mean()), bounds, samples=len(values), network=network, message=message, normalization=normalization)


def result(
    metric: Metric,
    value: float,
    bounds: Sequence[float],
    *,
    samples: int,
    network: Network,
    message: str,
    normalization: Normalization | None = None,
) -> MetricResult:
    """A result without a verdict."""
    return MetricResult(
        metric=metric,
        value=decimal(value),
        low=decimal(bounds[0]),
        high=decimal(bounds[1]),
        samples=samples,
        extractor=network.name,
        extractor_digest=network.digest,
        normalization=normalization,
        message=message,
    )


def decimal(value: float) -> str:
    """The API's decimal string with six digits: "0.731250", or "1.5e-7" for what six places cannot show."""
    if not np.isfinite(value):
        raise ValueError(f"a metric came out as {value}; the generated clips or the feature network are broken")
    if value == 0 or 1e-3 <= abs(value) < 1e9:
        return f"{value + 0.0:.6f}"  # -0.0 + 0.0 is 0.0, which has no sign
    digits, exponent = f"{value:.5e}".split("e")
    return f"{digits}e{int(exponent)}"
