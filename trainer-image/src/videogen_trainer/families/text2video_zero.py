"""Text2Video-Zero in the training loop (arXiv 2303.13439): its image model learns from single frames of the clips.

The loss is that of the image model (Rombach et al., 2022, equation 2), || y - f(z_t, t, text) ||^2 with y the noise or the
velocity, of one frame of each clip. An image model that was given, by initFrom or recipe.backbone, learns in its U-Net alone.
A new one learns whole: its text encoder by the same loss; its autoencoder by |x - D(z)| + w KL(E(x) || N(0, I)), in the same
steps, and its latents are targets and inputs of the U-Net without a gradient, else they would become what is easy to denoise.
With 0 steps the bundle is the image model as it is.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from videogen_api.job import Job
from videogen_api.meta import ModelFamily
from videogen_api.training_run import Reason
from videogen_models.image_backbone import ImageBackbone
from videogen_models.latent_scale import scaled, to_latents
from videogen_models.latent_video import AlignYourLatentsModel
from videogen_models.sampling import from_pixels
from videogen_models.schedule import TIMESTEPS
from videogen_models.text2video_zero import Text2VideoZeroModel, text2video_zero_config
from videogen_trainer.data import Batch
from videogen_trainer.diffusion_loss import denoising_loss, with_offset
from videogen_trainer.distributed import World
from videogen_trainer.encoder_cache import EncoderCache, weights_digest
from videogen_trainer.failure import Failure
from videogen_trainer.families.learner import Learner
from videogen_trainer.families.origin import image_model
from videogen_trainer.randomness import sample_generator

WITHOUT_TEXT = 0.1  # share of samples that learn without their caption, for guidance (Ho and Salimans, 2022)
AnimatedModel = Text2VideoZeroModel | AlignYourLatentsModel  # both have an image model
_PRIOR_WEIGHT = 1e-3  # of KL, a mean over latents: it only keeps them near a variance of 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Draw:
    """Random numbers of one batch."""

    frame: Tensor  # int64 [batch], which frame of the clip
    timestep: Tensor  # int64 [batch]
    without_text: list[bool]
    noise: Tensor  # [batch, c, h, w], standard normal
    posterior: Tensor  # [batch, c, h, w], standard normal, for the autoencoder


def draw(seed: int, positions: Sequence[int], frames: int, shape: Sequence[int], offset: float = 0.0) -> Draw:
    """Random numbers for the samples at `positions`; shape = (c, h, w) of a latent."""
    samples = [_draw_one(sample_generator(seed, position), frames, shape, offset) for position in positions]
    frame, timestep, without, noise, posterior = (torch.stack(values) for values in zip(*samples, strict=True))
    return Draw(frame=frame, timestep=timestep, without_text=without.tolist(), noise=noise, posterior=posterior)


def _draw_one(
    generator: torch.Generator, frames: int, shape: Sequence[int], offset: float
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    frame = torch.randint(0, frames, (), generator=generator)
    timestep = torch.randint(0, TIMESTEPS, (), generator=generator)
    without = torch.rand((), generator=generator) < WITHOUT_TEXT
    noise, posterior = torch.randn(*shape, generator=generator), torch.randn(*shape, generator=generator)
    return frame, timestep, without, with_offset(noise, offset, generator), posterior


def captions_for(batch: Batch, without_text: Sequence[bool]) -> list[str]:
    """The captions, empty where the sample learns without."""
    return ["" if without else caption for caption, without in zip(batch.captions, without_text, strict=True)]


class ImageLearner(Learner):
    """The U-Net of a given image model learns, or all of a new one; nothing else of the model."""

    model: AnimatedModel

    @abstractmethod
    def begin(self, job: Job, storage: Path, world: World) -> tuple[AnimatedModel, bool]:
        """The model before step 0, and whether its image model is new. Raises Failure: ArtifactInvalid, InvalidJob."""

    def __init__(self, job: Job, storage: Path, world: World) -> None:
        self._seed, self._device, loss = job.recipe.seed, world.device, job.recipe.loss
        self._offset = float(loss.noise_offset)
        model, whole = self.begin(job, storage, world)
        self.model = model.to(world.device)
        self.model.requires_grad_(False)
        self.model.backbone.requires_grad_(whole)
        self.model.backbone.unet.requires_grad_(True)
        self.terms = ("denoising", "reconstruction") if whole else ("denoising",)
        self.cache = None if whole else encoder_cache_of(job, storage, self.model.backbone)
        gamma = float(loss.snr_gamma) if loss.snr_gamma else None
        if self.cache:
            self.objective = Denoising(self.model.backbone, gamma)
        else:
            self.objective = Adaptation(self.model.backbone, whole=whole, gamma=gamma)

    def prepare(self, batch: Batch) -> tuple[Any, ...]:
        """One frame of each clip in [-1, 1], tokens, and three of `Draw`'s tensors; of kept encodings, what `Denoising` takes."""
        backbone, clips = self.model.backbone, batch.frames
        drawn = draw(self._seed, batch.positions, clips.shape[1], backbone.latent_shape, self._offset)
        images = from_pixels(clips[torch.arange(len(clips)), drawn.frame])
        captions = captions_for(batch, drawn.without_text)
        if kept := self.cache:
            names = [f"{name}-{frame:03}" for name, frame in zip(batch.names, drawn.frame.tolist(), strict=True)]
            clean = torch.stack([kept.get(name, partial(self._latent, image)) for name, image in zip(names, images, strict=True)])
            inputs = (clean, encoded_captions(backbone, captions, kept), drawn.timestep, drawn.noise)
            return tuple(tensor.to(self._device) for tensor in inputs)
        tokens = backbone.tokens(captions)
        return tuple(tensor.to(self._device) for tensor in (images, tokens, drawn.timestep, drawn.noise, drawn.posterior))

    @torch.no_grad()
    def _latent(self, image: Tensor) -> Tensor:
        """An image [3, height, width] -> [c, h, w]."""
        return to_latents(self.model.backbone.vae, image.unsqueeze(0).to(self._device))[0]


def encoder_cache_of(job: Job, storage: Path, backbone: ImageBackbone) -> EncoderCache | None:
    """Where the encodings of a frozen autoencoder and text encoder are kept, if the recipe wants it."""
    if not job.recipe.cache_latents:
        return None
    settings = (backbone.vae.config.scaling_factor, backbone.vae.config.shift_factor)
    return EncoderCache(storage / job.work_path / "encodings", weights_digest(backbone.vae, backbone.text, settings=settings))


@torch.no_grad()
def encoded_captions(backbone: ImageBackbone, captions: Sequence[str], kept: EncoderCache) -> Tensor:
    """Captions -> [captions, length, width], each encoded alone, once."""
    return torch.stack([kept.text(caption, partial(_encoded_caption, backbone, caption)) for caption in captions])


def _encoded_caption(backbone: ImageBackbone, caption: str) -> Tensor:
    return backbone.encode([caption])[0]


class Denoising(nn.Module):
    """The image model's loss on latents and encoded text, as a module."""

    def __init__(self, backbone: ImageBackbone, gamma: float | None = None) -> None:
        super().__init__()
        self.unet = backbone.unet
        self.scheduler = backbone.scheduler(1)
        self.gamma = gamma

    def forward(self, clean: Tensor, text: Tensor, timestep: Tensor, noise: Tensor) -> Tensor:
        """clean and noise [batch, c, h, w], text [batch, length, width], timestep int64 [batch] -> [1]."""
        noisy = self.scheduler.add_noise(clean, noise, timestep)
        predicted = self.unet(noisy, timestep, encoder_hidden_states=text).sample.float()
        return torch.stack([denoising_loss(self.scheduler, predicted, clean, noise, timestep, self.gamma)])  # a view would alarm FSDP


class Text2VideoZeroLearner(ImageLearner):
    """All that this family has to learn is its image model, whatever the task."""

    model: Text2VideoZeroModel

    def begin(self, job: Job, storage: Path, world: World) -> tuple[Text2VideoZeroModel, bool]:
        """The image model of `initFrom`, of `recipe.backbone`, or a new one."""
        with image_model(job, storage, world, ModelFamily.TEXT2VIDEO_ZERO) as origin:
            backbone, is_new = origin.backbone, origin.is_new
        if is_new:
            backbone.vae.register_to_config(scaling_factor=1.0)  # the prior sees to it
        try:
            return Text2VideoZeroModel(backbone, text2video_zero_config(job.recipe)), is_new
        except ValueError as error:
            raise Failure(Reason.INVALID_JOB, f"recipe: {error}") from error


class Adaptation(nn.Module):
    """The losses of an image model as a module."""

    def __init__(self, backbone: ImageBackbone, *, whole: bool, gamma: float | None = None) -> None:
        super().__init__()
        self.backbone = backbone
        self.whole = whole
        self.denoising = Denoising(backbone, gamma)

    def forward(self, images: Tensor, tokens: Tensor, timestep: Tensor, noise: Tensor, posterior: Tensor) -> Tensor:
        """images [batch, 3, h, w] in [-1, 1], tokens int64 [batch, length], timestep int64 [batch], noises of latents -> [1] or [2]."""
        backbone = self.backbone
        with torch.set_grad_enabled(self.whole and torch.is_grad_enabled()):
            text = backbone.text(input_ids=tokens).last_hidden_state
            with _in_full(images):
                latent = backbone.vae.encode(images).latent_dist
        clean = scaled(backbone.vae, latent.mode()).detach()
        denoising: Tensor = self.denoising(clean, text, timestep, noise)
        if not self.whole:
            return denoising
        with _in_full(images):
            decoded = backbone.vae.decode(latent.mean + latent.std * posterior).sample
        prior = (latent.mean.square() + latent.var - 1 - latent.logvar).mean() / 2
        return torch.cat([denoising, ((images - decoded).abs().mean() + _PRIOR_WEIGHT * prior).unsqueeze(0)])


def _in_full(images: Tensor) -> AbstractContextManager[Any]:
    """32 bits, which autoencoders need."""
    return torch.autocast(images.device.type, enabled=False)
