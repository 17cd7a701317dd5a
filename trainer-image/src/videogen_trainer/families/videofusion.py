"""VideoFusion in the training loop; its loss is in `objective`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from videogen_api.job import Job
from videogen_api.meta import ModelType
from videogen_api.training_run import Reason
from videogen_models.bundle import load_weights, read_config
from videogen_models.networks import model_config
from videogen_models.sampling import from_pixels
from videogen_models.sealed import CorruptError
from videogen_models.text import tokenize
from videogen_models.videofusion import VideoFusionModel
from videogen_trainer.data import Batch
from videogen_trainer.distributed import World
from videogen_trainer.failure import Failure
from videogen_trainer.families.learner import Learner
from videogen_trainer.families.origin import initial_bundle
from videogen_trainer.objective import Objective, draw


class VideoFusionLearner(Learner):
    """All networks learn, the base generator more slowly."""

    model: VideoFusionModel
    terms = ("base", "residual")
    slow = "base."

    def __init__(self, job: Job, storage: Path, world: World) -> None:
        self._seed, self._device, loss = job.recipe.seed, world.device, job.recipe.loss
        self._offset = float(loss.noise_offset)
        self.model = initial_model(job, storage, world).to(world.device).train().requires_grad_(True)
        self.objective = Objective(self.model, float(loss.snr_gamma) if loss.snr_gamma else None)

    def prepare(self, batch: Batch) -> tuple[Any, ...]:
        """Frames in [-1, 1], tokens, random numbers."""
        networks = self.model.config.networks
        drawn = draw(self._seed, batch.positions, self.model.frame_shape, networks.residual_frames, self._offset).to(self._device)
        return from_pixels(batch.frames.to(self._device)), tokenize(batch.captions, networks.text).to(self._device), drawn


def initial_model(job: Job, storage: Path, world: World) -> VideoFusionModel:
    """The model before step 0: weights drawn from the recipe's seed, or those of `initFrom`.

    Raises Failure: ArtifactInvalid if that bundle is damaged, InvalidJob if it is of another size or family.
    """
    torch.manual_seed(job.recipe.seed)
    model = VideoFusionModel(model_config(job.recipe))
    if (folder := initial_bundle(job, storage, world, ModelType.VIDEOFUSION)) is None:
        return model
    try:
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
