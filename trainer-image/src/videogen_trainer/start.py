"""What training goes on from: the newest checkpoint. What a new one begins with is the family's affair (`families`)."""

from __future__ import annotations

import logging
from pathlib import Path

from videogen_api.job import Job
from videogen_api.training_run import Reason
from videogen_trainer import checkpoint
from videogen_trainer.distributed import World
from videogen_trainer.failure import Failure
from videogen_trainer.report import Milestones
from videogen_trainer.state import TrainState, is_same_recipe

_LOG = logging.getLogger(__name__)


def resume(state: TrainState, root: Path, job: Job, world: World) -> int:
    """Become the newest valid checkpoint, the same one in all processes -> its step, 0 if there is none."""
    if world.leads:
        checkpoint.remove_unfinished(root)
    step = world.from_leader(checkpoint.newest_valid(root) if world.leads else None)
    if step is None:
        return 0
    assert isinstance(step, int)
    tensors, values = checkpoint.load(root, step)
    if not is_same_recipe(values["recipe"], job.recipe):
        raise Failure(
            Reason.INVALID_JOB,
            f"{checkpoint.folder_of(root, step)} was made with another recipe; use a new workPath (a new run) for a new recipe",
        )
    state.restore(tensors, values)
    _LOG.info("resuming from step %d", step)
    return step


def distrust(job: Job, storage: Path, milestones: Milestones) -> None:
    """After a divergence: if nothing was saved since the attempt was resumed, its checkpoint may hold the beginning of the harm,
    and gives way to the one before, if there is one. Then the next attempt does not repeat this one.
    """
    resumed = milestones.resumed_from_step
    if 0 < resumed == milestones.last_step:
        milestones.last_step = checkpoint.step_back(storage / job.work_path / "checkpoints", resumed)
