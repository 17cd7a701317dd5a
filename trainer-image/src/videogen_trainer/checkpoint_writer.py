"""Checkpoints in the background: training pauses while its state is copied to memory, and goes on while the copy is written.

Atomicity, sums and deletion of old checkpoints are `checkpoint.save`'s affair, which runs here in a thread of its own. With shards each
process writes its own, and the first one publishes them when it has heard from all that they are written.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor

from videogen_api.training_run import Reason
from videogen_trainer import checkpoint
from videogen_trainer.distributed import World
from videogen_trainer.failure import Failure
from videogen_trainer.verification import agree

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Parts:
    """A checkpoint that is written in parts, and what is done when all are there: to publish it, in the first process."""

    step: int
    seal: Callable[[], None] | None


class CheckpointWriter:
    """Writes one checkpoint at a time. As a context it waits at its end for what is being written, whatever ends it.

    `published` is the step of the newest checkpoint that is safe: written, durable, under its own name; of one in parts, only in the first
    process. `written` is that of the newest that this process has written, or its part of it.
    """

    def __init__(self, root: Path, keep_last: int, keep_best: int = 0, world: World | None = None) -> None:
        self.published = self.written = 0
        self._root, self._world = root, world or World()
        self._keep_last, self._keep_best = keep_last, keep_best
        self._copies: dict[str, dict[str, Tensor]] = {}  # kept from save to save: new memory costs more than the copying
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="write-checkpoint")
        self._writing: Future[None] | None = None
        self._parts: _Parts | None = None

    def save(self, step: int, tensors: Mapping[str, Mapping[str, Tensor]], state: Mapping[str, Any], sound: int | None = None) -> None:
        """Copy the state and begin to write it; waits for the write before, if it is not done. Raises what that one raised.

        `sound` as in `checkpoint.save`.
        """
        self._copy(tensors)

        def write() -> None:
            checkpoint.save(self._root, step, self._copies, dict(state), self._keep_last, sound, self._keep_best)
            self.published = self.written = step

        self._writing = self._thread.submit(write)

    def save_shards(
        self, step: int, shards: Mapping[str, Mapping[str, Tensor]], state: Mapping[str, Any], sound: int | None = None
    ) -> None:
        """As `save`, what this process has; every process must call it. Waits until the checkpoint before is safe."""
        if self._parts:
            self.finish()
        self._copy(shards)
        rank, size = self._world.rank, self._world.size

        def write() -> None:
            checkpoint.save_part(self._root, step, self._copies, rank, size)
            self.written = step

        def seal() -> None:
            checkpoint.seal(self._root, step, state, size, self._keep_last, sound, self._keep_best)
            self.published = step

        self._parts = _Parts(step, seal if self._world.leads else None)
        self._writing = self._thread.submit(write)

    def all_written(self, step: float) -> None:
        """What all processes have of the checkpoint of `step` is written, if one in parts is: the first begins to publish it."""
        if (parts := self._parts) and parts.step == step:
            self.wait()
            self._parts = None
            self._writing = self._thread.submit(parts.seal) if parts.seal else None

    def finish(self) -> None:
        """Until the last checkpoint is safe; every process must call it. Raises in all of them what a write raised in one."""
        self._wait_for_all()
        if self._parts:
            self.all_written(self._parts.step)
            self._wait_for_all()

    def _wait_for_all(self) -> None:
        failure = None
        try:
            self.wait()
        except Failure as found:
            failure = found
        agree(self._world, failure)

    def _copy(self, tensors: Mapping[str, Mapping[str, Tensor]]) -> None:
        self.wait()
        self._copies = {
            name: {key: _copied(tensor.detach(), self._copies.get(name, {}).get(key)) for key, tensor in content.items()}
            for name, content in tensors.items()
        }
        if torch.cuda.is_available():
            torch.cuda.synchronize()  # the copies from a GPU are on their way

    def poll(self) -> int:
        """Step of the newest safe checkpoint, without waiting. Raises what a write that has ended raised, once."""
        if self._writing and self._writing.done():
            self.wait()
        return self.published

    def wait(self) -> None:
        """Until nothing is being written. Raises what the write raised, once: Failure(StorageFailed)."""
        writing, self._writing = self._writing, None
        if writing:
            writing.result()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            if self._parts and isinstance(error, Failure) and error.reason is Reason.DIVERGED:
                self.finish()  # all processes diverge in the same step
            self.wait()
        except Exception:
            if error is None:
                raise
            _LOG.exception("besides, the last checkpoint was not written")
        finally:
            self._thread.shutdown()


def _copied(tensor: Tensor, into: Tensor | None) -> Tensor:
    """A copy in the CPU's memory; in that of the last copy if it fits."""
    if into is None or (into.shape, into.dtype) != (tensor.shape, tensor.dtype):
        into = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.is_cuda)
    return into.copy_(tensor, non_blocking=True)
