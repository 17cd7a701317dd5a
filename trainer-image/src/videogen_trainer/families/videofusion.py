"""VideoFusion in the training loop; its loss is in `objective`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from videogen_api.job import Job
from videogen_api.meta import ModelFamily
from videogen_api.recipe import Space, VideoFusion
from videogen_api.training_run import Reason, Task
from videogen_models.autoencoder import latent_size
from videogen_models.bundle import load_weights, read_config, read_family
from videogen_models.networks import model_config
from videogen_models.sampling import from_pixels
from videogen_models.sealed import CorruptError
from videogen_models.text import tokenize
from videogen_models.videofusion import VideoFusionModel
from videogen_trainer.data import Batch
from videogen_trainer.distributed import World
from videogen_trainer.failure import Failure
from videogen_trainer.families.learner import Learner
from videogen_trainer.families.origin import autoencoder, initial_bundle
from videogen_trainer.families.text2video_zero import WITHOUT_TEXT, captions_for
from videogen_trainer.objective import Objective, draw


class VideoFusionLearner(Learner):
    """All networks learn but the autoencoder; the base generator, if it is pretrained, more slowly."""

    model: VideoFusionModel
    terms = ("base", "residual")
    slow = "base."

    def __init__(self, job: Job, storage: Path, world: World) -> None:
        self._seed, self._device, loss = job.recipe.seed, world.device, job.recipe.loss
        self._offset = float(loss.noise_offset)
        model, is_new = initial_model(job, storage, world)
        self.model = model.to(world.device).train().requires_grad_(True)
        self.slow_scale = base_scale(job.recipe.fusion, is_new=is_new)
        if self.model.vae is not None:
            self.model.vae.eval().requires_grad_(False)
        self.objective = Objective(self.model, float(loss.snr_gamma) if loss.snr_gamma else None)

    def prepare(self, batch: Batch) -> tuple[Any, ...]:
        """Frames as the generators see them, tokens, random numbers."""
        networks = self.model.config.networks
        drawn = draw(self._seed, batch.positions, self.model.frame_shape, networks.residual_frames, self._offset).to(self._device)
        guided = self.model.config.text_guidance is not None
        captions = captions_for(batch, (drawn.chance < WITHOUT_TEXT).tolist()) if guided else batch.captions
        clean = self.model.to_space(from_pixels(batch.frames.to(self._device)))
        return clean, tokenize(captions, networks.text).to(self._device), drawn


def base_scale(settings: VideoFusion, *, is_new: bool) -> float:
    """The base generator's share of the learning rate: the recipe's, else as in the paper a small one if it is pretrained."""
    return float(settings.base_learning_rate_scale or ("1" if is_new else "0.1"))


def initial_model(job: Job, storage: Path, world: World) -> tuple[VideoFusionModel, bool]:
    """The model before step 0, and whether its generators are new: drawn from the recipe's seed, instead of those of `initFrom`.

    In space Latent `initFrom` may also be an image-based model, of which it takes the autoencoder alone.

    Raises Failure: ArtifactInvalid if that bundle is damaged, InvalidJob if it is of another size or family.
    """
    latent = job.recipe.fusion.space is Space.LATENT
    accepted = (
        (ModelFamily.VIDEOFUSION, ModelFamily.TEXT2VIDEO_ZERO, ModelFamily.ALIGN_YOUR_LATENTS) if latent else (ModelFamily.VIDEOFUSION,)
    )
    try:
        with initial_bundle(job, storage, *accepted) as folder:
            weights = folder if folder and read_family(folder) is ModelFamily.VIDEOFUSION else None
            if weights:
                _check_space(weights, latent=latent)
            elif folder and job.task is Task.FINE_TUNE:
                raise Failure(
                    Reason.INVALID_JOB,
                    f"initFrom is a model of family {read_family(folder)}: it has an autoencoder and no generators, with which a {job.task}"
                    " phase starts; put a Train phase before it",
                )
            vae = autoencoder(job, storage, world, folder) if latent else None
            torch.manual_seed(job.recipe.seed)
            model = VideoFusionModel(model_config(job.recipe, latent_size(vae, job.recipe.resolution) if vae is not None else None), vae)
            if weights:
                _check_size(model, weights)
                load_weights(model, weights)
    except CorruptError as error:
        raise Failure(Reason.ARTIFACT_INVALID, f"initFrom: {error}") from error
    except ValueError as error:
        raise Failure(Reason.INVALID_JOB, f"recipe: {error}") from error
    return model, weights is None


def _check_space(folder: Path, *, latent: bool) -> None:
    if (read_config(folder).latent is not None) != latent:
        mine, theirs = (Space.LATENT, Space.PIXEL) if latent else (Space.PIXEL, Space.LATENT)
        raise Failure(
            Reason.INVALID_JOB,
            f"initFrom: {folder.name} works in space {theirs}, the recipe says recipe.videoFusion.space {mine}; they must be the same",
        )


def _check_size(model: VideoFusionModel, folder: Path) -> None:
    mine, theirs = model.config, read_config(folder)
    if (mine.networks, mine.frames) != (theirs.networks, theirs.frames):
        raise Failure(
            Reason.INVALID_JOB,
            f"initFrom: {folder.name} has {theirs.frames} frames and networks {theirs.networks.base.widths}, the recipe"
            f" {mine.frames} frames and networks {mine.networks.base.widths}; frames and architecture must be the same",
        )
