"""How long a clip takes that is generated alone, as a server generates it, and how long in batches.

A server answers one request at a time, so the time that users wait is that of a single clip; on a GPU a batch of 8 takes less
than 8 times as long. Clips of some batches are therefore generated one at a time. That makes no other clips, for each has a
generator of its own; which batches they are depends on their number alone, and they lie evenly among all, so that
processes have equal work.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from videogen_trainer.evaluate.measure import decimal

Array = NDArray[np.float64]

ALONE = 8  # batches; of their 64 clips the slowest is above the 95 % quantile with 96 % confidence (1 - 0.95^64)


@dataclass(frozen=True, slots=True)
class Timing:
    """Which of so many batches are generated one clip at a time."""

    batches: int

    def alone(self, number: int) -> bool:
        """Whether batch `number` is one of them: all are if there are at most ALONE, else never the last one, which may be smaller."""
        if self.batches <= ALONE:
            return True
        return number in {(2 * place + 1) * (self.batches - 1) // (2 * ALONE) for place in range(ALONE)}

    def pieces(self, number: int, places: range) -> list[range]:
        """What of the batch's places is generated at once."""
        return [range(place, place + 1) for place in places] if self.alone(number) else [places]

    def rows(self, number: int, seconds: float, clips: int) -> dict[str, Array]:
        """Seconds for each clip, and clips, of a generation: a row [1, 2] of `seconds` if they were to be alone, else of `pace`."""
        row, none = np.array([[seconds / clips, float(clips)]]), np.zeros((0, 2))
        return {"seconds": row, "pace": none} if self.alone(number) else {"seconds": none, "pace": row}


def generated_how(pace: Array, at_once: int, steps: int, device: str) -> str:
    """How the timed clips were generated, and how fast those of `pace` [B, 2] in batches of at most `at_once`; for a result's message."""
    together = f"; {decimal(float(np.average(pace[:, 0], weights=pace[:, 1])))} each in batches of {at_once}" if len(pace) else ""
    return f"one at a time{together}, {steps} steps on {device}"
