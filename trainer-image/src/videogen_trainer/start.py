"""What training resumes from: the newest checkpoint. What a new one begins with is the family's affair (`families`)."""

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

INIT_FROM = "initFrom"  # of a checkpoint's values: the digest of the bundle that its training began with
_LOG = logging.getLogger(__name__)


def resume(state: TrainState, root: Path, job: Job, world: World, milestones: Milestones) -> int:
    """Become the newest valid checkpoint, the same one in all processes -> its step, 0 if there is none.

    What is wrong with newer ones goes into `milestones`. Raises Failure: StorageFailed if there are checkpoints and none is valid;
    they are set aside, and the next attempt begins anew. InvalidJob if it is of another recipe, or began with other weights.
    """
    if world.leads:
        checkpoint.remove_unfinished(root)
    found = world.from_leader(checkpoint.resumable(root) if world.leads else None)
    assert isinstance(found, tuple | list)
    step, milestones.damaged = found
    if step is None and milestones.damaged:
        raise _nothing_left(root, milestones.damaged)
    if step is None:
        return 0
    tensors, values = checkpoint.load(root, step)
    if not is_same_recipe(values["recipe"], job.recipe):
        raise Failure(
            Reason.INVALID_JOB,
            f"{checkpoint.folder_of(root, step)} was made with another recipe; use a new workPath (a new run) for a new recipe",
        )
    if (began := values.get(INIT_FROM)) != (asked := initial_digest(job)):
        raise Failure(
            Reason.INVALID_JOB,
            f"{checkpoint.folder_of(root, step)} is of training that began {_with(began)}, and this job begins {_with(asked)}; make a new"
            " run to begin with others",
        )
    state.restore(tensors, values)
    _LOG.info("resuming from step %d", step)
    return step


def initial_digest(job: Job) -> str | None:
    """Digest of the bundle that training begins with, as checkpoints record it; None: it begins from scratch or with a backbone."""
    return job.init_from.digest if job.init_from else None


def _with(digest: object) -> str:
    return f"with bundle {digest}" if digest else "without a bundle"


def _nothing_left(root: Path, damaged: list[str]) -> Failure:
    every = "the only checkpoint is" if len(damaged) == 1 else f"all {len(damaged)} checkpoints are"
    return Failure(
        Reason.STORAGE_FAILED,
        f"{every} damaged, the newest: {damaged[0]}; the next attempt begins anew, unless a whole one is put into {root}, where they"
        " are set aside as damaged-step-<n>",
    )


def distrust(job: Job, storage: Path, milestones: Milestones) -> str:
    """After a divergence: go back to the last good checkpoint -> that in words.

    Those made after its beginning go. The one that it began from gives way to the one before, if there is one; so does the one
    that the attempt was resumed from, if no good one was saved since: the next attempt is not to repeat this one.
    """
    root, began = storage / job.work_path / "checkpoints", milestones.sound_step + 1
    checkpoint.remove_after(root, began)
    newest = max(checkpoint.steps(root), default=0)
    if newest and newest in {began, milestones.resumed_from_step}:
        newest = checkpoint.step_back(root, newest)
    milestones.last_step = newest
    return f"the next attempt resumes from the checkpoint of step {newest}" if newest else "there is no checkpoint from before"
