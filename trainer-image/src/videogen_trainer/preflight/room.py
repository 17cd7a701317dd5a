"""Free space for the checkpoints of a run's training, as far as it can be told without building the networks."""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from safetensors import SafetensorError, safe_open

from videogen_api.job import Job
from videogen_api.meta import ModelFamily
from videogen_api.recipe import Architecture, OptimizerName
from videogen_api.training_run import TRAINING, Reason, Task
from videogen_trainer.failure import Failure

LEAST_BYTES = 64 << 20  # samples, tables and reports of any run
# Weights that learn, rounded down: all networks of VideoFusion, and the U-Net of a new image model. Temporal layers are at least as large.
VIDEOFUSION = {Architecture.TINY: 2_400_000, Architecture.SMALL: 80_000_000, Architecture.PAPER: 1_480_000_000}
UNET = {Architecture.TINY: 1_070_000, Architecture.SMALL: 37_000_000, Architecture.PAPER: 859_000_000}
COUNTED = {Task.TRAIN, Task.FINE_TUNE, Task.ADAPT}  # other training tasks learn parts of which no file tells the size
MOMENTS = {OptimizerName.ADAMW: 8, OptimizerName.ADAMW_8BIT: 2}  # bytes a weight


def check_room(phases: Sequence[Job], storage: Path) -> None:
    """Raises Failure(StorageFailed) if the checkpoints of one of the phases have no room."""
    needed, free = needed_bytes(phases, storage), shutil.disk_usage(storage).free
    if free < needed:
        said = f"{free:,} bytes are free, and the run needs {needed:,} at least"
        raise Failure(Reason.STORAGE_FAILED, f"{said}; make room on the claim, or lower checkpoints.keepLast or keepBest")


def needed_bytes(phases: Sequence[Job], storage: Path) -> int:
    """Of the phase whose checkpoints are largest: those of a phase that is done may go.

    A checkpoint has the weights that learn, their moving average and the two moments of the optimiser.
    """
    source = next((path for job in phases if (path := _given(job))), None)
    sizes = [_checkpoints(job) * _learned(job, storage / source if source else None) * _weight_bytes(job) for job in phases]
    return max([LEAST_BYTES, *sizes])


def _given(job: Job) -> str | None:
    """Where the image model lies with which a run begins."""
    init = job.init_from or job.artifact
    return init.path if init else job.recipe.backbone.path if job.recipe.backbone else None


def _checkpoints(job: Job) -> int:
    """How many lie there at a time: those that are kept, and the one that is being written."""
    recipe, kept = job.recipe, job.recipe.checkpoints
    saved = math.ceil(recipe.steps / kept.every_steps)
    return min(kept.keep_last + kept.keep_best + 1, saved) if job.task in TRAINING else 0


def _learned(job: Job, source: Path | None) -> int:
    if job.task not in COUNTED:
        return 0
    if job.model.family is ModelFamily.VIDEOFUSION:
        return VIDEOFUSION[job.recipe.architecture]
    if source is None:
        return UNET[job.recipe.architecture]
    # The largest file alone: others may be the same weights once more, in half precision.
    return max((_numbers_in(path) for path in (source / "unet").glob("*.safetensors")), default=0)


def _numbers_in(path: Path) -> int:
    """None in a file that cannot be read, which is told elsewhere."""
    with suppress(OSError, SafetensorError), safe_open(str(path), framework="numpy") as file:
        return sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118
    return 0


def _weight_bytes(job: Job) -> int:
    return 4 + 4 + MOMENTS[job.recipe.optimizer.name]
