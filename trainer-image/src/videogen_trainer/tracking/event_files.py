"""TensorBoard's event files: `tensorboard/` of a phase's folder, which TensorBoard shows as one run named <run>-<uid8>/<phase>/tensorboard.

Each attempt writes a file of its own, whose name ends in `.attempt-<n>`. It begins with a mark that voids what earlier attempts have
written of the steps that it will do again, so that each step shows once. A thread of the writer's own does the writing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tensorboard.compat.proto.summary_pb2 import Summary
from torch.utils.tensorboard import SummaryWriter

_LOG = logging.getLogger(__name__)
_QUEUE = 10_000  # events; a storage that hangs for longer than their steps take holds the training up, as its checkpoints would
_FLUSH_SECONDS = 5


class EventFiles:
    """The event file of one attempt. After the first error it takes nothing more: checkpoints tell whether the storage is sound."""

    def __init__(self, folder: Path, attempt: int, resumed: int) -> None:
        self.trouble = ""
        self._folder = folder
        self._writer: SummaryWriter | None = None
        self._try(lambda: self._open(attempt, resumed))

    def _open(self, attempt: int, resumed: int) -> None:
        self._writer = SummaryWriter(
            str(self._folder),
            purge_step=resumed + 1,
            max_queue=_QUEUE,
            flush_secs=_FLUSH_SECONDS,
            filename_suffix=f".attempt-{attempt}",
        )

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """All values as one event: it costs as much as a single value."""
        if not (writer := self._writer):
            return
        summary = Summary(value=[Summary.Value(tag=name, simple_value=value) for name, value in values.items()])
        file: Any = writer.file_writer
        self._try(lambda: file.add_summary(summary, step))

    def picture(self, step: int, path: Path) -> None:
        """The image, whole."""
        if writer := self._writer:
            self._try(lambda: writer.add_image("samples", np.asarray(Image.open(path).convert("RGB")), step, dataformats="HWC"))

    def file(self, path: Path) -> None:
        """Event files hold none; the file is in the storage already."""

    def flush(self) -> None:
        """Until the file has all."""
        if writer := self._writer:
            self._try(writer.flush)

    def close(self, outcome: str) -> None:  # noqa: ARG002 - event files do not say how an attempt ended
        """End the file."""
        if writer := self._writer:
            self._try(writer.close)

    def summary(self) -> str:
        """Why there is nothing more to see."""
        return f"TensorBoard's event files end early: {self.trouble}" if self.trouble else ""

    def _try(self, act: Callable[[], object]) -> None:
        try:
            act()
        except (OSError, ValueError) as error:  # ValueError: what Pillow makes of a damaged picture
            self.trouble = f"{type(error).__name__}: {error}"
            self._writer = None
            _LOG.warning("%s: no event files are written from here on: %s; training goes on", self._folder, self.trouble)
