"""Removes the checkpoints of phases that are done, which nobody resumes from any more, beside the work of a later phase's pod.

It writes nothing, so a full disk does not stop it. What it cannot remove, and what it does not come to, stays for the next pod and fails
nobody's work. Bundles, datasets and everything that people look at are no checkpoints.
"""

from __future__ import annotations

import logging
import shutil
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

FOLDERS = ("checkpoints", "trials/*/checkpoints")  # below a phase's work path, see `videogen_api.job`
WAIT_SECONDS = 60.0  # that an attempt whose work is done waits for what is still being removed
_LOG = logging.getLogger(__name__)


class Cleaning:
    """Begins at once, in a thread of its own."""

    def __init__(self, storage: Path, work_paths: Sequence[str]) -> None:
        self._thread = threading.Thread(target=remove, args=(storage, work_paths), name="cleaning", daemon=True)
        self._thread.start()

    def finish(self, seconds: float = WAIT_SECONDS) -> None:
        """Wait until everything is removed, but not longer than that."""
        self._thread.join(seconds)


def remove(storage: Path, work_paths: Sequence[str]) -> None:
    """Remove the checkpoints below these paths of the storage. Raises nothing: what stays is logged."""
    for folder in (folder for path in work_paths for folder in checkpoints_below(storage, path)):
        try:
            shutil.rmtree(folder)
        except OSError as error:
            _LOG.warning("%s stays for a later pod to remove: %s", folder, error)
        else:
            _LOG.info("%s is removed: its phase is done", folder)


def checkpoints_below(storage: Path, path: str) -> Iterator[Path]:
    """Folders of checkpoints below a work path; none that a link would lead elsewhere."""
    whole = storage.resolve()
    for folder in (folder for pattern in FOLDERS for folder in sorted((storage / path).glob(pattern))):
        if folder.is_dir() and folder.resolve() == whole / folder.relative_to(storage):
            yield folder
