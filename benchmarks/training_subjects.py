"""What the peers' loops train: a family's networks and loss, and in lines of their own what goes into them, from the global generator."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from videogen_api.job import Job
from videogen_api.meta import ModelFamily
from videogen_models.image_backbone import ImageBackbone
from videogen_models.known_frames import condition, first_frames
from videogen_models.latent_scale import to_latents
from videogen_models.networks import ModelConfig, model_config
from videogen_models.noise import middle
from videogen_models.sampling import from_pixels
from videogen_models.schedule import TIMESTEPS
from videogen_models.text import tokenize
from videogen_models.videofusion import VideoFusionModel
from videogen_trainer.distributed import World
from videogen_trainer.families import learner_of
from videogen_trainer.families.align_your_latents import AlignYourLatentsLearner
from videogen_trainer.families.text2video_zero import Text2VideoZeroLearner
from videogen_trainer.objective import Draw, Objective

_WITHOUT_TEXT = 0.1


@dataclass(frozen=True, slots=True)
class Subject:
    """The loss as a module, and its inputs of frames uint8 [batch, frames, height, width, 3] and captions."""

    objective: nn.Module
    inputs: Callable[[Tensor, list[str]], tuple[Any, ...]]


def subject_of(job: Job, storage: Path) -> Subject:
    """The networks as the trainer has them before step 0."""
    if job.model.family is ModelFamily.VIDEOFUSION:
        torch.manual_seed(job.recipe.seed)
        config = model_config(job.recipe)
        return Subject(Objective(VideoFusionModel(config).train()), partial(_videofusion, config))
    learner = learner_of(job, storage, World())
    if isinstance(learner, AlignYourLatentsLearner):
        return Subject(learner.objective, partial(_align_your_latents, learner.model.backbone))
    assert isinstance(learner, Text2VideoZeroLearner)
    return Subject(learner.objective, partial(_text2video_zero, learner.model.backbone))


def _videofusion(config: ModelConfig, frames: Tensor, captions: list[str]) -> tuple[Any, ...]:
    batch, shape = len(frames), (3, config.resolution.height, config.resolution.width)
    others = torch.tensor([frame for frame in range(config.frames) if frame != middle(config.frames)])
    count = config.networks.residual_frames or len(others)
    chosen = torch.stack([others[torch.randperm(len(others))[:count]] for _ in range(batch)])
    timestep = torch.randint(0, TIMESTEPS, (batch,))
    drawn = Draw(
        timestep=timestep,
        frames=chosen,
        base=torch.randn(batch, *shape),
        residual=torch.randn(batch, count, *shape),
        chance=torch.rand(batch),
    )
    return from_pixels(frames), tokenize(captions, config.networks.text), drawn


@torch.no_grad()
def _align_your_latents(backbone: ImageBackbone, frames: Tensor, captions: list[str]) -> tuple[Any, ...]:
    """The autoencoder and the text encoder in every step, as diffusers' examples have them."""
    batch, count = frames.shape[:2]
    latents = to_latents(backbone.vae, from_pixels(frames).flatten(0, 1))
    clean = latents.reshape(batch, count, *latents.shape[1:])
    known = condition(clean, first_frames(torch.randint(0, 3, (batch,)).tolist(), count))
    return clean, backbone.encode(_dropped(captions)), known, torch.randint(0, TIMESTEPS, (batch,)), torch.randn_like(clean)


def _text2video_zero(backbone: ImageBackbone, frames: Tensor, captions: list[str]) -> tuple[Any, ...]:
    """One frame of each clip; the module encodes."""
    batch, count = frames.shape[:2]
    images = from_pixels(frames[torch.arange(batch), torch.randint(0, count, (batch,))])
    noise = torch.randn(batch, *backbone.latent_shape)
    return images, backbone.tokens(_dropped(captions)), torch.randint(0, TIMESTEPS, (batch,)), noise, torch.zeros_like(noise)


def _dropped(captions: list[str]) -> list[str]:
    kept = (torch.rand(len(captions)) >= _WITHOUT_TEXT).tolist()
    return [caption if keep else "" for caption, keep in zip(captions, kept, strict=True)]
