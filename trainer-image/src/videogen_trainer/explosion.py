"""When a loss or a gradient's norm explodes though it stays finite, as it does where gradients are clipped.

Losses of diffusion vary by orders of magnitude from batch to batch, with the timesteps that are drawn, so that no single one says
anything. A value that is not negative is more than `factor` times its mean with a probability p of at most 1 / factor (Markov's
inequality). Steps beyond are counted up and others down: with batches that are drawn independently the count comes from 0 to
`ENOUGH`, before it is 0 again, with a probability of about (p / (1 - p)) ** ENOUGH at most (the gambler's ruin): 3e-10 for 10 and 10.
"""

from __future__ import annotations

from dataclasses import dataclass

ENOUGH = 10
WINDOW = 1000  # steps that the mean looks back


@dataclass(slots=True)
class Level:
    """The mean of a series' absolute values, and how long the series has been beyond it."""

    mean: float = 0.0
    count: int = 0  # values that the mean is of, at most WINDOW
    beyond: int = 0  # steps beyond, less those since that were not; not below 0

    def add(self, value: float, factor: float) -> None:
        """Take the next value, finite; with a factor of 0 none is beyond.

        What is beyond counts as twice the mean: an explosion shall not become usual before it is found. While values are few it
        counts for more: first ones that are small by chance shall not stay the measure.
        """
        value = abs(value)
        is_beyond = 0.0 < factor * self.mean < value
        self.beyond = max(0, self.beyond + (1 if is_beyond else -1))
        most = 2.0 if self.count >= ENOUGH else max(2.0, factor / 2)
        self.count = min(self.count + 1, WINDOW)
        self.mean += ((most * self.mean if is_beyond else value) - self.mean) / self.count

    @property
    def has_exploded(self) -> bool:
        """Whether it has been beyond for so long that it is no chance."""
        return self.beyond >= ENOUGH
