"""Checkpoints in the background: training pauses while its state is copied to memory, and goes on while the copy is written.

Atomicity, sums and deletion of old checkpoints are `checkpoint.save`'s affair, which runs here in a thread of its own.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor

from videogen_trainer import checkpoint

_LOG = logging.getLogger(__name__)


class CheckpointWriter:
    """Writes one checkpoint at a time. As a context it waits at its end for the one in hand, whatever ends it.

    `published` is the step of the newest checkpoint that is safe: written, durable, under its own name.
    """

    def __init__(self, root: Path, keep_last: int, keep_best: int = 0) -> None:
        self.published = 0
        self._root = root
        self._keep_last, self._keep_best = keep_last, keep_best
        self._copies: dict[str, dict[str, Tensor]] = {}  # kept from save to save: new memory costs more than the copying
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="write-checkpoint")
        self._writing: Future[int] | None = None

    def save(self, step: int, tensors: Mapping[str, Mapping[str, Tensor]], state: Mapping[str, Any], sound: int | None = None) -> None:
        """Copy the state and begin to write it; waits for the write before, if it is not done. Raises what that one raised.

        `sound` as in `checkpoint.save`.
        """
        self.wait()
        self._copies = {
            name: {key: _copied(tensor.detach(), self._copies.get(name, {}).get(key)) for key, tensor in content.items()}
            for name, content in tensors.items()
        }
        if torch.cuda.is_available():
            torch.cuda.synchronize()  # the copies from a GPU are on their way
        self._writing = self._thread.submit(self._write, step, dict(state), sound)

    def poll(self) -> int:
        """Step of the newest safe checkpoint, without waiting. Raises what a write that has ended raised, once."""
        if self._writing and self._writing.done():
            self.wait()
        return self.published

    def wait(self) -> None:
        """Until nothing is being written. Raises what the write raised, once: Failure(StorageFailed)."""
        writing, self._writing = self._writing, None
        if writing:
            self.published = writing.result()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            self.wait()
        except Exception:
            if error is None:
                raise
            _LOG.exception("besides, the last checkpoint was not written")
        finally:
            self._thread.shutdown()

    def _write(self, step: int, state: Mapping[str, Any], sound: int | None) -> int:
        checkpoint.save(self._root, step, self._copies, state, self._keep_last, sound, self._keep_best)
        return step


def _copied(tensor: Tensor, into: Tensor | None) -> Tensor:
    """A copy in the CPU's memory; in that of the last copy if it fits."""
    if into is None or (into.shape, into.dtype) != (tensor.shape, tensor.dtype):
        into = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.is_cuda)
    return into.copy_(tensor, non_blocking=True)
