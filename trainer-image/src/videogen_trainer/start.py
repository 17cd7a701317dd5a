"""What training starts from: new weights, those of another bundle, or the newest checkpoint."""

from __future__ import annotations

import logging
from pathlib import Path

import torch

from videogen_api.job import Job
from videogen_api.training_run import Reason
from videogen_models.bundle import load_weights, read_config, verify_bundle
from videogen_models.networks import model_config
from videogen_models.sealed import CorruptError
from videogen_models.videofusion import VideoFusionModel
from videogen_trainer import checkpoint
from videogen_trainer.distributed import World
from videogen_trainer.failure import Failure
from videogen_trainer.report import Milestones
from videogen_trainer.state import TrainState, is_same_recipe

_LOG = logging.getLogger(__name__)


def initial_model(job: Job, storage: Path, world: World) -> VideoFusionModel:
    """The model before step 0: weights drawn from the recipe's seed, or those of `initFrom`.

    Raises Failure: ArtifactInvalid if that bundle is damaged, InvalidJob if it is of another size.
    """
    torch.manual_seed(job.recipe.seed)
    model = VideoFusionModel(model_config(job.recipe))
    if job.init_from is None:
        return model
    folder = storage / job.init_from.path
    try:
        if world.leads:
            verify_bundle(folder, job.init_from.digest)
        world.from_leader(None)
        _check_size(model, folder)
        load_weights(model, folder)
    except CorruptError as error:
        raise Failure(Reason.ARTIFACT_INVALID, f"initFrom: {error}") from error
    return model


def _check_size(model: VideoFusionModel, folder: Path) -> None:
    mine, theirs = model.config, read_config(folder)
    if (mine.networks, mine.frames) != (theirs.networks, theirs.frames):
        raise Failure(
            Reason.INVALID_JOB,
            f"initFrom: {folder.name} has {theirs.frames} frames and networks {theirs.networks.base.widths}, the recipe"
            f" {mine.frames} frames and networks {mine.networks.base.widths}; frames and architecture must be the same",
        )


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
