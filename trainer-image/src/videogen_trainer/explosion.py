"""When a loss or a gradient's norm explodes though it stays finite, as it does where gradients are clipped.

Losses of diffusion vary by orders of magnitude from batch to batch, with the timesteps that are drawn, so that one that is large says
nothing. A value that is not negative is more than `factor` times its mean with a probability p of at most 1 / factor (Markov's
inequality). Steps beyond are counted up and others down: with batches that are drawn independently the count comes from 0 to
`ENOUGH`, before it is 0 again, with a probability of about (p / (1 - p)) ** ENOUGH at most (the gambler's ruin): 3e-10 for 10 and 10.

A single one says enough if it is out of all proportion: more than factor ** 2 times the mean, and further above what is usual than
`FAR` standard deviations, both of the logarithm (of losses that are distributed log-normally 6e-16 are). The first makes up for a
series that has hardly varied yet, the second for one that varies widely.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

ENOUGH = 10
WINDOW = 1000  # steps that the means look back
FAR = 8.0
KNOWN = 30  # values that a standard deviation is taken of at least


@dataclass(slots=True)
class Level:
    """The mean of a series' absolute values and how their logarithms are distributed, and how long it has been beyond the mean."""

    mean: float = 0.0
    count: int = 0  # values that the mean is of, at most WINDOW
    beyond: int = 0  # steps beyond, less those since that were not; not below 0
    logarithms: int = 0  # values that the next two are of, at most WINDOW; a checkpoint of an older image has none
    log_mean: float = 0.0
    log_variance: float = 0.0

    def add(self, value: float, factor: float) -> None:
        """Take the next value, finite; with a factor of 0 none is beyond.

        What is beyond counts as twice the mean: an explosion shall not become usual before it is found. While values are few it
        counts for more: first ones that are small by chance shall not stay the measure.
        """
        value = abs(value)
        self._add_logarithm(_logarithm(value))
        is_beyond = 0.0 < factor * self.mean < value
        self.beyond = max(0, self.beyond + (1 if is_beyond else -1))
        most = 2.0 if self.count >= ENOUGH else max(2.0, factor / 2)
        self.count = min(self.count + 1, WINDOW)
        self.mean += ((most * self.mean if is_beyond else value) - self.mean) / self.count

    def _add_logarithm(self, value: float) -> None:
        self.logarithms = min(self.logarithms + 1, WINDOW)
        before = value - self.log_mean
        self.log_mean += before / self.logarithms
        self.log_variance += (before * (value - self.log_mean) - self.log_variance) / self.logarithms

    def leaps_to(self, value: float, factor: float) -> bool:
        """Whether the next value, finite, would be out of all proportion; with a factor of 0 none is, nor after nothing but zeros."""
        if factor * self.mean == 0 or self.logarithms < KNOWN or abs(value) <= factor**2 * self.mean:
            return False
        return _logarithm(value) - self.log_mean > FAR * math.sqrt(self.log_variance)

    @property
    def has_exploded(self) -> bool:
        """Whether it has been beyond for so long that it is no chance."""
        return self.beyond >= ENOUGH


def _logarithm(value: float) -> float:
    return math.log(max(abs(value), 1e-300))
