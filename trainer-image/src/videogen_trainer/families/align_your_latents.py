"""Align-Your-Latents in the training loop (arXiv 2304.08818, equations 2 and 3): temporal layers learn in a frozen image model.

Latents are the means of the autoencoder's posterior, not samples of it: its spread is small against the noise that is added,
and so a clip's latents are the same in every epoch, process and attempt. Each sample knows its first 0, 1 or 2 frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from videogen_api.job import Job
from videogen_api.meta import ModelFamily
from videogen_api.recipe import AlignYourLatents
from videogen_api.training_run import Reason, Task
from videogen_models.align_your_latents import VideoUNet, consistency_term
from videogen_models.bundle import read_family
from videogen_models.image_backbone import ImageBackbone
from videogen_models.known_frames import LARGEST_CONTEXT, condition, draw_context, first_frames
from videogen_models.latent_scale import to_latents
from videogen_models.latent_video import AlignYourLatentsConfig, AlignYourLatentsModel, align_your_latents_config
from videogen_models.sampling import from_pixels
from videogen_models.schedule import TIMESTEPS
from videogen_models.sealed import CorruptError
from videogen_models.video_model import read_config
from videogen_trainer.data import Batch
from videogen_trainer.diffusion_loss import denoising_loss, with_offset
from videogen_trainer.distributed import World
from videogen_trainer.encoder_cache import EncoderCache
from videogen_trainer.failure import Failure
from videogen_trainer.families.learner import Learner
from videogen_trainer.families.origin import image_model
from videogen_trainer.families.text2video_zero import WITHOUT_TEXT, ImageLearner, captions_for, encoded_captions, encoder_cache_of
from videogen_trainer.randomness import sample_generator

_ENCODED_AT_ONCE = 16  # frames, to save memory


@dataclass(frozen=True, slots=True, kw_only=True)
class Draw:
    """Random numbers of one batch."""

    timestep: Tensor  # int64 [batch]
    context: list[int]  # how many first frames are known, 0 to 2
    without_text: list[bool]
    noise: Tensor  # [batch, frames, c, h, w], standard normal


def draw(seed: int, positions: Sequence[int], shape: Sequence[int], offset: float = 0.0) -> Draw:
    """Random numbers for the samples at `positions`; shape = (frames, c, h, w) of a clip's latents."""
    generators = [sample_generator(seed, position) for position in positions]
    most = min(LARGEST_CONTEXT, shape[0] - 1)
    return Draw(
        timestep=torch.stack([torch.randint(0, TIMESTEPS, (), generator=generator) for generator in generators]),
        context=[min(draw_context(1, generator)[0], most) for generator in generators],
        without_text=[bool(torch.rand((), generator=generator) < WITHOUT_TEXT) for generator in generators],
        noise=torch.stack([with_offset(torch.randn(*shape, generator=generator), offset, generator) for generator in generators]),
    )


def encoded(backbone: ImageBackbone, frames: Tensor) -> Tensor:
    """Frames [batch, frames, 3, height, width] in [-1, 1] -> latents [batch, frames, c, h, w]."""
    parts = frames.flatten(0, 1).split(_ENCODED_AT_ONCE)
    return torch.cat([to_latents(backbone.vae, part) for part in parts]).unflatten(0, frames.shape[:2])


@torch.no_grad()
def encoded_clips(backbone: ImageBackbone, batch: Batch, kept: EncoderCache) -> Tensor:
    """Latents [batch, frames, c, h, w] of whole clips on the CPU, each clip encoded once."""

    def latents(frames: Tensor) -> Tensor:
        return encoded(backbone, from_pixels(frames.to(backbone.unet.device)).unsqueeze(0))[0]

    return torch.stack([kept.get(name, partial(latents, frames)) for name, frames in zip(batch.names, batch.frames, strict=True)])


class AlignYourLatentsLearner(Learner):
    """The temporal layers learn, or in AlignCrossModal only how they attend to the text; those for interpolation rates, which no clip
    here has, do not.
    """

    model: AlignYourLatentsModel
    terms = ("denoising", "consistency")

    def __init__(self, job: Job, storage: Path, world: World) -> None:
        self._seed, self._device, loss = job.recipe.seed, world.device, job.recipe.loss
        self._offset = float(loss.noise_offset)
        self.model = initial_model(job, storage, world).to(world.device)
        video = self.model.requires_grad_(False).video
        video.trained("Text" if job.task is Task.ALIGN_CROSS_MODAL else "Temporal")
        video.temporal.rate.requires_grad_(False)
        weight = float((job.recipe.align_your_latents or AlignYourLatents()).consistency_weight)
        self.objective = VideoObjective(video, self.model.backbone.scheduler(1), weight, float(loss.snr_gamma) if loss.snr_gamma else None)
        self.cache = encoder_cache_of(job, storage, self.model.backbone)

    @torch.no_grad()
    def prepare(self, batch: Batch) -> tuple[Any, ...]:
        """Latents, encoded text, what is known of the clips, timesteps and noise."""
        backbone, count = self.model.backbone, batch.frames.shape[1]
        drawn = draw(self._seed, batch.positions, (count, *backbone.latent_shape), self._offset)
        captions = captions_for(batch, drawn.without_text)
        if kept := self.cache:
            latents = encoded_clips(backbone, batch, kept).to(self._device)
            text = encoded_captions(backbone, captions, kept).to(self._device)
        else:
            latents = encoded(backbone, from_pixels(batch.frames.to(self._device)))
            text = backbone.encode(captions)
        known = condition(latents, first_frames(drawn.context, count))
        return latents, text, known, drawn.timestep.to(self._device), drawn.noise.to(self._device)


class ImageModelLearner(ImageLearner):
    """Adapt: the U-Net of the image model learns from single frames, as the paper's Stable Diffusion does before it is frozen; the
    temporal layers stay as they are, and are new unless `initFrom` has some.
    """

    model: AlignYourLatentsModel

    def begin(self, job: Job, storage: Path, world: World) -> tuple[AlignYourLatentsModel, bool]:
        """The image model of `initFrom` or of `recipe.backbone`, with its temporal layers or new ones."""
        return initial_model(job, storage, world), False


class VideoObjective(nn.Module):
    """Equation 2 (3, where frames are known) and the weighted consistency term, as a module."""

    def __init__(self, video: VideoUNet, scheduler: Any, consistency: float, gamma: float | None = None) -> None:
        super().__init__()
        self.video, self.scheduler, self.consistency, self.gamma = video, scheduler, consistency, gamma

    def forward(self, clean: Tensor, text: Tensor, known: Tensor, timestep: Tensor, noise: Tensor, rate: Tensor | None = None) -> Tensor:
        """clean and noise [batch, frames, c, h, w], text [batch, length, width], known = c_S, timestep int64 [batch], for interpolation
        rate int64 [batch] -> [2].
        """
        noisy = self.scheduler.add_noise(clean, noise, timestep)
        predicted = self.video(noisy, timestep, text, known, rate).float()
        denoising = denoising_loss(self.scheduler, predicted, clean, noise, timestep, self.gamma)
        if self.consistency == 0:
            return torch.stack([denoising, torch.zeros_like(denoising)])
        return torch.stack([denoising, self.consistency * consistency_term(self.scheduler, predicted, clean, noise, timestep)])


def initial_model(job: Job, storage: Path, world: World) -> AlignYourLatentsModel:
    """The model before step 0. `initFrom` may be a model of this family, or one of Text2Video-Zero, whose image model it takes.

    Raises Failure: ArtifactInvalid, InvalidJob if the sizes do not fit.
    """
    config = align_your_latents_config(job.recipe)
    try:
        with image_model(job, storage, world, ModelFamily.ALIGN_YOUR_LATENTS, ModelFamily.TEXT2VIDEO_ZERO) as origin:
            earlier = _earlier(origin.bundle)
            torch.manual_seed(job.recipe.seed)  # the same temporal layers, whatever the image model took
            model = AlignYourLatentsModel(origin.backbone, _with_parts(config, earlier, job) if earlier else config)
            if earlier and origin.bundle:
                model.load_temporal(origin.bundle)
            elif job.task in {Task.FINE_TUNE, Task.ALIGN_CROSS_MODAL, Task.TRAIN_INTERPOLATION}:
                raise Failure(
                    Reason.INVALID_JOB,
                    f"initFrom is a model of family {ModelFamily.TEXT2VIDEO_ZERO}: it has no temporal layers, with which a {job.task} phase"
                    " starts; put a Train phase before it",
                )
    except CorruptError as error:
        raise Failure(Reason.ARTIFACT_INVALID, f"initFrom: {error}") from error
    except ValueError as error:
        raise Failure(Reason.INVALID_JOB, f"recipe: {error}") from error
    return model


def _earlier(bundle: Path | None) -> AlignYourLatentsConfig | None:
    """What the bundle says of its temporal layers, if it has some. Raises CorruptError."""
    if bundle is None or read_family(bundle) is not ModelFamily.ALIGN_YOUR_LATENTS:
        return None
    return read_config(bundle, AlignYourLatentsConfig)


def _with_parts(config: AlignYourLatentsConfig, theirs: AlignYourLatentsConfig, job: Job) -> AlignYourLatentsConfig:
    """The recipe's model with the parts that an earlier one has. Raises Failure(InvalidJob) if their sizes differ."""
    if theirs.temporal != config.temporal:
        raise Failure(
            Reason.INVALID_JOB,
            f"initFrom has temporal layers of size {theirs.temporal.wire()}, the recipe {config.temporal.wire()};"
            " architecture must be the same",
        )
    wanted = (job.recipe.align_your_latents or AlignYourLatents()).interpolations
    if wanted and job.task is not Task.TRAIN_INTERPOLATION and wanted > (theirs.interpolations or 0):
        raise Failure(
            Reason.INVALID_JOB,
            f"recipe.alignYourLatents.interpolations is {wanted}; initFrom has layers for {theirs.interpolations or 'none'},"
            " put a TrainInterpolation phase before it, or leave it out",
        )
    config = config.model_copy(update={"decoder": theirs.decoder})
    return config.interpolated(wanted or theirs.interpolations) if theirs.interpolations else config  # TrainInterpolation may raise it
