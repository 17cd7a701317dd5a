"""Where the seconds of an attempt go. Goodput is the share of them that brought the run nearer to its end.

Not productive: starting, waiting for data, pausing for checkpoints, and doing steps again that an earlier attempt did after
its last checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from videogen_api.job import Goodput


@dataclass(slots=True, kw_only=True)
class Meter:
    """Adds up seconds of a monotonic `clock`, by which the attempt began at `begun`."""

    clock: Callable[[], float]
    begun: float
    productive: float = 0.0
    data_wait: float = 0.0
    checkpoint_pause: float = 0.0
    repeated_steps: int = 0
    _waited: float = 0.0  # in the step that is being done

    @contextmanager
    def waiting_for_data(self) -> Iterator[None]:
        """Time that passes here is waited for the next batch."""
        since = self.clock()
        yield
        waited = self.clock() - since
        self.data_wait += waited
        self._waited += waited

    @contextmanager
    def saving(self) -> Iterator[None]:
        """Time that passes here is paused for a checkpoint."""
        since = self.clock()
        try:
            yield
        finally:
            self.checkpoint_pause += self.clock() - since

    def step(self, seconds: float, *, repeated: bool) -> None:
        """A step took `seconds`; what of them was waiting for data does not count as productive."""
        if repeated:
            self.repeated_steps += 1
        else:
            self.productive += seconds - self._waited
        self._waited = 0.0

    def read(self) -> Goodput:
        """The sums until now."""
        return Goodput(
            wall_seconds=f"{self.clock() - self.begun:.3f}",
            productive_seconds=f"{self.productive:.3f}",
            data_wait_seconds=f"{self.data_wait:.3f}",
            checkpoint_pause_seconds=f"{self.checkpoint_pause:.3f}",
            repeated_steps=self.repeated_steps,
        )

    def metrics(self) -> dict[str, object]:
        """The sums as metrics of progress."""
        now = self.read()
        return {
            "goodput": now.share,
            "productiveSeconds": now.productive_seconds,
            "dataWaitSeconds": now.data_wait_seconds,
            "checkpointPauseSeconds": now.checkpoint_pause_seconds,
            "repeatedSteps": now.repeated_steps,
        }
