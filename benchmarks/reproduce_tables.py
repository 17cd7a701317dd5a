"""The tables of `benchmarks.reproduce`: metrics of each model over its seeds, and how much two ways to train differ."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence

from videogen_api.evaluation import Metric, MetricResult, Normalization

SHOWN = {  # and whether less is better
    Metric.FVD: True,
    Metric.INCEPTION_SCORE: False,
    Metric.CLIP_SCORE: False,
    Metric.TEMPORAL_COHERENCE: False,
    Metric.ARTEFACT_RATE: True,
}
# Two-sided 95 % quantiles of Student's t for n - 1 degrees of freedom, n = 2 .. 10 seeds.
STUDENT = {2: 12.71, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365, 9: 2.306, 10: 2.262}

Values = dict[Metric, float]


def values(found: Sequence[MetricResult]) -> Values:
    """The metrics that are shown, with the mean cosine as CLIP score."""
    return {one.metric: float(one.value) for one in found if one.metric in SHOWN and one.normalization in (None, Normalization.RAW)}


def value_table(measured: Mapping[str, Sequence[Values]]) -> str:
    """Metrics of all models by their names, a row a metric."""
    names = list(measured)
    rows = [["metric", *names], ["---"] * (len(names) + 1)]
    for metric, less in SHOWN.items():
        cells = [_mean_and_spread([one[metric] for one in measured[name]]) for name in names]
        rows.append([f"{metric.value} ({'less' if less else 'more'} is better)", *cells])
    return _markdown(rows)


def _mean_and_spread(found: Sequence[float]) -> str:
    mean = f"{statistics.fmean(found):.3g}"
    return mean if len(found) == 1 else f"{mean} ({statistics.stdev(found):.2g})"


def difference_table(measured: Mapping[str, Sequence[Values]], one: str, other: str) -> str:
    """By how much the metrics of `one` differ from those of `other`, seed by seed, and which of the two is better."""
    rows = [["metric", "difference", "95 % interval", "better"], ["---"] * 4]
    for metric, less in SHOWN.items():
        differences = [mine[metric] - its[metric] for mine, its in zip(measured[one], measured[other], strict=True)]
        mean, (low, high) = statistics.fmean(differences), mean_interval(differences)
        rows.append([metric.value, f"{mean:+.3g}", f"{low:+.3g} … {high:+.3g}", verdict(low, high, one, other, less=less)])
    return _markdown(rows)


def mean_interval(found: Sequence[float]) -> tuple[float, float]:
    """95 % interval of the mean of 2 to 10 values, by Student's t."""
    half = STUDENT[len(found)] * statistics.stdev(found) / len(found) ** 0.5
    mean = statistics.fmean(found)
    return mean - half, mean + half


def verdict(low: float, high: float, one: str, other: str, *, less: bool) -> str:
    """Which of the two is better, if the interval of `one` minus `other` leaves out 0."""
    if low <= 0 <= high:
        return "not decided"
    return one if (high < 0) == less else other


def _markdown(rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(_lines(rows))


def _lines(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        yield "| " + " | ".join(cell.ljust(width, "-" if cell == "---" else " ") for cell, width in zip(row, widths, strict=True)) + " |"
