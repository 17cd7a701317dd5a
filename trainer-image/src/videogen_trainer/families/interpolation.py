"""TrainInterpolation: layers that put three frames between two (arXiv 2304.08818, section 3.3).

They begin as a copy of the layers that draw clips, which stay as they are, and learn from five frames of which the first and the last
are known. One model learns both rates, T -> 4T and 4T -> 16T, which it is told: with `interpolations: 2` clips have 17 frames at 16
times the model's frame rate, and a sample is either every fourth of them or five in a row; with 1 they are the five at 4 times.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from videogen_api.job import Job
from videogen_api.recipe import AlignYourLatents
from videogen_models.known_frames import SPACING, condition, key_frames
from videogen_models.latent_video import AlignYourLatentsModel
from videogen_models.sampling import from_pixels
from videogen_models.schedule import TIMESTEPS
from videogen_trainer.data import Batch
from videogen_trainer.diffusion_loss import with_offset
from videogen_trainer.distributed import World
from videogen_trainer.families.align_your_latents import VideoObjective, encoded, encoded_clips, initial_model
from videogen_trainer.families.learner import Learner
from videogen_trainer.families.text2video_zero import WITHOUT_TEXT, captions_for, encoded_captions, encoder_cache_of
from videogen_trainer.randomness import sample_generator

_SEEN = SPACING + 1  # frames


@dataclass(frozen=True, slots=True, kw_only=True)
class Draw:
    """Random numbers of one batch."""

    rate: Tensor  # int64 [batch], 0 or 1
    frames: Tensor  # int64 [batch, 5], which of the clip's
    timestep: Tensor  # int64 [batch]
    without_text: list[bool]
    noise: Tensor  # [batch, 5, c, h, w], standard normal


def draw(seed: int, positions: Sequence[int], frames: int, shape: Sequence[int], offset: float = 0.0) -> Draw:
    """Random numbers for the samples at `positions`, of clips of 5 or 17 frames; shape = (c, h, w) of a latent."""
    samples = [_draw_one(sample_generator(seed, position), frames, shape, offset) for position in positions]
    rate, chosen, timestep, without, noise = (torch.stack(values) for values in zip(*samples, strict=True))
    return Draw(rate=rate, frames=chosen, timestep=timestep, without_text=without.tolist(), noise=noise)


def _draw_one(
    generator: torch.Generator, frames: int, shape: Sequence[int], offset: float
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    strides = {_SEEN: [1], SPACING * SPACING + 1: [SPACING, 1]}[frames]  # of rate 0 and, where it is learned, rate 1
    rate = torch.randint(0, len(strides), (), generator=generator)
    stride = strides[int(rate)]
    first = torch.randint(0, frames - SPACING * stride, (), generator=generator)
    timestep = torch.randint(0, TIMESTEPS, (), generator=generator)
    without = torch.rand((), generator=generator) < WITHOUT_TEXT
    noise = torch.randn(_SEEN, *shape, generator=generator)
    return rate, first + stride * torch.arange(_SEEN), timestep, without, with_offset(noise, offset, generator)


class InterpolationLearner(Learner):
    """The layers for interpolation learn, and nothing else."""

    model: AlignYourLatentsModel
    terms = ("denoising", "consistency")

    def __init__(self, job: Job, storage: Path, world: World) -> None:
        self._seed, self._device, loss = job.recipe.seed, world.device, job.recipe.loss
        self._offset = float(loss.noise_offset)
        wanted = job.recipe.align_your_latents or AlignYourLatents()
        self.model = initial_model(job, storage, world)
        begun = self.model.between or self.model.video
        self.model.interpolate_by(begun.temporal, wanted.interpolations or 1)
        self.model.to(world.device).requires_grad_(False)
        assert self.model.between is not None
        self.model.between.trained()
        scheduler = self.model.backbone.scheduler(1)
        gamma = float(loss.snr_gamma) if loss.snr_gamma else None
        self.objective = VideoObjective(self.model.between, scheduler, float(wanted.consistency_weight), gamma)
        self.cache = encoder_cache_of(job, storage, self.model.backbone)

    @torch.no_grad()
    def prepare(self, batch: Batch) -> tuple[Any, ...]:
        """Latents, encoded text, what is known of the clips, timesteps, noise and rates."""
        backbone = self.model.backbone
        drawn = draw(self._seed, batch.positions, batch.frames.shape[1], backbone.latent_shape, self._offset)
        rows, captions = torch.arange(len(batch.frames)).unsqueeze(1), captions_for(batch, drawn.without_text)
        if kept := self.cache:
            latents = encoded_clips(backbone, batch, kept)[rows, drawn.frames].to(self._device)
            text = encoded_captions(backbone, captions, kept).to(self._device)
        else:
            latents = encoded(backbone, from_pixels(batch.frames[rows, drawn.frames].to(self._device)))
            text = backbone.encode(captions)
        known = condition(latents, key_frames(len(latents), _SEEN))
        return latents, text, known, *(tensor.to(self._device) for tensor in (drawn.timestep, drawn.noise, drawn.rate))
