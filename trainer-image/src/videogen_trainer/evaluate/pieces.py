"""How many clips Evaluate has in hand at once: as many as memory has room for.

A clip has a generator of its own, so what is measured does not depend on it; only its time does, and the result says how many there were.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

import torch

from videogen_api.training_run import Reason
from videogen_trainer.distributed import World
from videogen_trainer.failure import Failure, is_out_of_memory

T = TypeVar("T")
_LOG = logging.getLogger(__name__)


class Pieces:
    """Work on ranges of clips, `clips` of them at most at once: halved whenever they are too many, down to 1."""

    def __init__(self, clips: int) -> None:
        self.clips = clips

    def agree(self, world: World, trial: Callable[[range], object]) -> None:
        """Find how many clips a trial has room for in every process, so that the times of all are those of the same work.

        Raises Failure(OutOfMemory) if even one is too many.
        """
        while world.any(self._tried(range(self.clips), trial) is None):
            self._halve()

    def run(self, places: range, work: Callable[[range], T]) -> list[T]:
        """The work's results for consecutive pieces of `places`. Raises Failure(OutOfMemory) if even one clip is too much."""
        done: list[T] = []
        place = places.start
        while place < places.stop:
            piece = range(place, min(place + self.clips, places.stop))
            result = self._tried(piece, work)
            if result is None:
                self._halve()
            else:
                done += result
                place = piece.stop
        return done

    def _tried(self, piece: range, work: Callable[[range], T]) -> list[T] | None:
        """The result alone in a list; None if memory did not suffice."""
        try:
            return [work(piece)]
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            _LOG.warning("%d clips at once: %s", len(piece), error)
            return None

    def _halve(self) -> None:
        if self.clips == 1:
            raise Failure(
                Reason.OUT_OF_MEMORY,
                "memory does not suffice to generate and measure one clip; make recipe.frames, recipe.resolution or recipe.architecture"
                " smaller, measure with fewer evaluate.extractors, or give the phase more memory",
            )
        self.clips = -(-self.clips // 2)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()  # in pieces of the old size nobody could use
        _LOG.warning("not enough memory: from here on %d clips are generated and measured at once", self.clips)
