"""Forward and backward passes of a step: over its accumulated parts and, where memory does not suffice, over pieces of parts.

When memory runs out, every process halves its micro-batch and does the step again: the global batch and what is learned from it
stay, a step only takes longer. The sums are made in another order, so losses may differ in their last digits. With sharding
it is not done: a process that gave up in the middle of a pass would leave the others waiting for its parts of the weights.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch
from torch import Tensor, nn

from videogen_api.recipe import Recipe
from videogen_api.training_run import Reason
from videogen_trainer.averaging import GradientAverage
from videogen_trainer.data import Batch, Batches
from videogen_trainer.distributed import World
from videogen_trainer.failure import Failure, is_out_of_memory
from videogen_trainer.goodput import Meter
from videogen_trainer.sharding import is_shard, is_sharded

_LOG = logging.getLogger(__name__)

Pass = Callable[[Batch, float], Tensor]  # batch, divisor of its losses -> losses, detached, the gradients being added


class MicroBatches:
    """Gives a step its gradients. `clips` is how many clips a pass of this process has."""

    def __init__(self, batches: Batches, recipe: Recipe, world: World, objective: nn.Module, meter: Meter) -> None:
        self._batches = batches
        self._parts = recipe.gradient_accumulation_steps
        self._share = recipe.global_batch_size // (self._parts * world.size)
        self._device = world.device
        self._objective = objective
        self._is_sharded = is_sharded(objective)
        whole = (parameter for parameter in objective.parameters() if not is_shard(parameter))
        self._average = GradientAverage(whole, world.size) if world.size > 1 else None
        self._meter = meter
        self.clips = self._share

    def step(self, number: int, run: Pass) -> Tensor:
        """Gradients and losses of this process' share of a step; the gradients are averaged over all processes.

        Raises Failure(OutOfMemory) if even one clip a pass is too much.
        """
        while (losses := self._step(number, run)) is None:
            self._halve(number)
        return losses

    def _step(self, number: int, run: Pass) -> Tensor | None:
        """None if a process has not enough memory; then there are no gradients."""
        losses = self._passes_if_memory_suffices(number, run)
        complete = losses is not None
        if self._average:
            complete = self._average.finish(complete=complete)
        if complete:
            return losses
        self._objective.zero_grad(set_to_none=True)
        return None

    def _passes_if_memory_suffices(self, number: int, run: Pass) -> Tensor | None:
        try:
            return self._passes(number, run)
        except (MemoryError, RuntimeError) as error:
            if self._is_sharded or not is_out_of_memory(error):
                raise
            _LOG.warning("step %d: %s", number, error)
            return None

    def _passes(self, number: int, run: Pass) -> Tensor:
        losses: list[Tensor] = []
        for part in range(self._parts):
            with self._meter.waiting_for_data():
                batch = self._batches.get(number, part)
            pieces = batch.pieces(self.clips)
            for place, piece in enumerate(pieces, start=1):
                if self._average and not self._is_sharded and part + 1 == self._parts and place == len(pieces):
                    self._average.begin()
                losses.append(run(piece, self._parts * len(batch.positions) / len(piece.positions)))
        return torch.stack(losses).sum(dim=0)

    def _halve(self, number: int) -> None:
        if self.clips == 1:
            raise Failure(
                Reason.OUT_OF_MEMORY,
                f"step {number}: memory does not suffice for one clip; make recipe.frames, recipe.resolution or recipe.architecture smaller"
                " or the machines larger",
            )
        self.clips = -(-self.clips // 2)
        if self._device.type == "cuda":
            torch.cuda.empty_cache()  # in pieces of the old size nobody could use
        _LOG.warning("not enough memory: from here on a pass has %d clips; the batch of a step stays", self.clips)
