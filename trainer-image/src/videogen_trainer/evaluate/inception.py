"""Inception Score of videos (Salimans et al., 2016; for video Saito et al., 2017): exp(E KL(p(y|x) ‖ p(y))).

1 ≤ IS ≤ min(classes, samples of a split): a score means nothing without the classifier, N and the number of splits.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

CUSTOMARY_SPLITS = 10


def split_count(samples: int, classes: int) -> int:
    """10 splits as is customary if each has at least as many samples as there are classes, else as many as have, at least 1."""
    return max(1, min(CUSTOMARY_SPLITS, samples // classes))


def inception_score(log_probabilities: NDArray[np.float64], *, splits: int) -> float:
    """Mean score over `splits` consecutive parts of log-probabilities [N, K] (log-softmax, float64), of clips in no order.

    Raises ValueError if a part would be empty or rows are no probability distributions.
    """
    rows = log_probabilities.astype(np.float64)
    if not 1 <= splits <= len(rows):
        raise ValueError(f"{splits} splits of {len(rows)} samples; expected 1 to {len(rows)}")
    if not np.allclose(np.exp(rows).sum(axis=1), 1.0, atol=1e-6):
        raise ValueError("rows of exp(log_probabilities) do not add up to 1; pass the log-softmax of the classifier's logits")
    return float(np.mean([_score(part) for part in np.array_split(rows, splits)]))


def _score(rows: NDArray[np.float64]) -> float:
    probabilities = np.exp(rows)
    marginal = probabilities.mean(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):  # 0 log 0 is 0
        terms = np.where(probabilities > 0, probabilities * (rows - np.log(marginal)), 0.0)
    return float(np.exp(terms.sum(axis=1).mean()))
