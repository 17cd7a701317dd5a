"""95 % intervals by the bootstrap (Efron, 1979): draw samples with replacement, compute the metric again, look at the spread.

The percentiles are shifted by the resamples' mean offset from the estimate. Resamples repeat samples, so statistics with a bias of
c/N (Fréchet distance, Inception Score) lie beside the estimate in all of them; the interval shows the spread around the
estimate, not that bias.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.95
RESAMPLES = 200

Indices = NDArray[np.intp]


def interval(statistic: Callable[..., float], *sizes: int, seed: int, resamples: int = RESAMPLES) -> tuple[float, float]:
    """Lower and upper end of the 95 % interval of `statistic(indices, ...)`, with indices into one sample set for each size.

    Every set is resampled on its own. The same for the same seed; never without the estimate itself.
    """
    random = np.random.default_rng(seed)
    estimate = statistic(*(np.arange(size) for size in sizes))
    values = np.array([statistic(*(random.integers(0, size, size) for size in sizes)) for _ in range(resamples)])
    tail = (1.0 - LEVEL) / 2.0
    low, high = np.quantile(values - values.mean() + estimate, [tail, 1.0 - tail])
    return min(float(low), estimate), max(float(high), estimate)
