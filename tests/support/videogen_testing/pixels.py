"""How far videos are apart, in the 8-bit values of their pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

ROUNDED = 1  # sums in another order move a value to the other side of a half
SEEN = 4  # more than this no rounding does


def apart(one: NDArray[Any], other: NDArray[Any]) -> int:
    """The largest difference of two videos of one shape, 0 to 255."""
    assert one.shape == other.shape
    return int(np.abs(one.astype(np.int16) - other.astype(np.int16)).max())
