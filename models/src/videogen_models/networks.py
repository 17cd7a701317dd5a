"""The two generators of VideoFusion: diffusers' 2D U-Nets on patches of pixels, and their sizes.

The paper starts from a pretrained image model of about 2 billion parameters that is not public and has a residual
generator of about 0.5 billion; the preset Paper has the residual generator's size and a base of Stable Diffusion's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from diffusers import UNet2DConditionModel
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import pixel_shuffle, pixel_unshuffle

from videogen_api.meta import Observation
from videogen_api.recipe import Architecture, Recipe, Resolution
from videogen_models.autoencoder import LatentSize
from videogen_models.text import TextSize

CHANNELS = 3  # red, green, blue; frames that are no latents
_SMALLEST_NOISE = 1e-3  # with a base share of 1 the other frames have no noise of their own to predict

# What a training step measures the error of. Noise: the paper's objective; the U-Nets predict the velocity (Salimans and Ho,
# 2022), so that no capacity is spent on passing noise through. Frame: the U-Nets predict the clean frame, which small ones
# learn in a fraction of the steps (Li and He, 2025), and its error counts. Either way a generator returns its noise estimate.
Target = Literal["Noise", "Frame"]


class GeneratorSize(Observation):
    """Size of one U-Net."""

    patch: int = Field(ge=1)  # the U-Net works on squares of patch x patch pixels
    widths: list[int] = Field(min_length=1)  # channels of each level, full resolution first
    attention: list[bool]  # which levels attend to the text; the innermost block always does
    layers: int = Field(ge=1)  # residual blocks of a level
    head_width: int = Field(ge=1)
    groups: int = Field(ge=1)  # of group normalisation
    checkpointing: bool = False  # recompute activations in the backward pass to save memory


class Preset(Observation):
    """Sizes of all networks of an architecture."""

    text: TextSize
    base: GeneratorSize
    residual: GeneratorSize
    target: Target
    residual_frames: int | None = None  # frames, drawn at random, that a training step computes the residual of; None: all


class ModelConfig(Observation):
    """All that is needed to build a VideoFusion model; `model.json` of a bundle."""

    frames: int
    resolution: Resolution
    frame_rate: int
    base_noise_share: float
    base_noise_shares: list[float] | None = None  # of each frame; None: base_noise_share, but 1 of the base frame
    text_guidance: float | None = None  # None: without
    networks: Preset
    latent: LatentSize | None = None  # of the bundle's autoencoder, in whose latents the model works; None: in pixels

    @property
    def frame_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of what the generators see as a frame."""
        height, width = self.resolution.height, self.resolution.width
        if self.latent is None:
            return CHANNELS, height, width
        return self.latent.channels, height // self.latent.factor, width // self.latent.factor


def _unet(patch: int, widths: list[int], attention: list[bool], layers: int, head_width: int, groups: int, **more: bool) -> GeneratorSize:
    return GeneratorSize(patch=patch, widths=widths, attention=attention, layers=layers, head_width=head_width, groups=groups, **more)


PRESETS = {
    Architecture.TINY: Preset(
        text=TextSize(vocabulary=4096, length=16, width=64, layers=2, heads=4),
        base=_unet(2, [32, 80], [False, False], 1, 8, 8),
        residual=_unet(2, [32, 80], [False, False], 1, 8, 8),
        target="Frame",
        residual_frames=2,
    ),
    Architecture.SMALL: Preset(
        text=TextSize(vocabulary=16384, length=32, width=256, layers=4, heads=4),
        base=_unet(2, [96, 192, 288], [False, True, True], 2, 32, 32),
        residual=_unet(2, [96, 192, 288], [False, True, True], 2, 32, 32),
        target="Frame",
    ),
    Architecture.PAPER: Preset(
        text=TextSize(vocabulary=49408, length=77, width=768, layers=12, heads=12),
        base=_unet(4, [320, 640, 1280, 1280], [True, True, True, False], 2, 64, 32, checkpointing=True),
        residual=_unet(4, [256, 512, 960, 960], [True, True, True, False], 2, 64, 32, checkpointing=True),
        target="Noise",
    ),
}


def model_config(recipe: Recipe, latent: LatentSize | None = None) -> ModelConfig:
    """The model that a recipe describes; in space Latent with the size of its autoencoder's latents."""
    wanted = recipe.fusion
    guidance = float(wanted.text_guidance)
    return ModelConfig(
        frames=recipe.frames,
        resolution=recipe.resolution,
        frame_rate=recipe.frame_rate,
        base_noise_share=float(wanted.base_share),
        base_noise_shares=[float(share) for share in wanted.base_noise_shares] if wanted.base_noise_shares else None,
        text_guidance=None if guidance == 1 else guidance,
        networks=_of_latents(PRESETS[recipe.architecture]) if latent else PRESETS[recipe.architecture],
        latent=latent,
    )


def _of_latents(preset: Preset) -> Preset:
    """Latents are patches already."""
    base, residual = (size.model_copy(update={"patch": 1}) for size in (preset.base, preset.residual))
    return preset.model_copy(update={"base": base, "residual": residual})


@dataclass(frozen=True, slots=True)
class Scales:
    """How much signal and how much noise a noisy image has, each float [batch]."""

    signal: Tensor
    noise: Tensor

    @property
    def norm(self) -> Tensor:
        """Root of the summed squares: the standard deviation of the noisy image, if the signal's is 1."""
        return (self.signal**2 + self.noise**2).sqrt()


class Generator(nn.Module):
    """A noise predictor for single images; with `frames` it is also told the number of the image's frame and sees the
    clip's base frame.
    """

    def __init__(
        self, size: GeneratorSize, text_width: int, shape: tuple[int, int, int], target: Target, frames: int | None = None
    ) -> None:
        """shape = channels, height and width of an image."""
        super().__init__()
        channels, height, width = shape
        self.patch = size.patch
        self.target = target
        down = ["CrossAttnDownBlock2D" if attends else "DownBlock2D" for attends in size.attention]
        up = ["CrossAttnUpBlock2D" if attends else "UpBlock2D" for attends in reversed(size.attention)]
        self.unet = UNet2DConditionModel(
            sample_size=(height // size.patch, width // size.patch),
            in_channels=(2 if frames else 1) * channels * size.patch**2,
            out_channels=channels * size.patch**2,
            block_out_channels=tuple(size.widths),
            layers_per_block=size.layers,
            down_block_types=tuple(down),
            up_block_types=tuple(up),
            mid_block_type="UNetMidBlock2DCrossAttn",
            cross_attention_dim=text_width,
            attention_head_dim=[width // size.head_width for width in size.widths],  # diffusers takes the number of heads here
            norm_num_groups=size.groups,
            num_class_embeds=frames,
            addition_embed_type="text",  # a summary of the caption reaches every block; attention only some of them
            addition_embed_type_num_heads=4,
        )
        if size.checkpointing:
            self.unet.enable_gradient_checkpointing()

    def forward(
        self,
        noisy: Tensor,
        scales: Scales,
        timestep: Tensor,
        text: Tensor,
        frame: Tensor | None = None,
        still: Tensor | None = None,
    ) -> Tensor:
        """Predicted noise n^ of noisy = signal * x + noise * n, float32, as noisy.

        noisy [batch, c, height, width], timestep int64 [batch], text [batch, length, width]; only for a generator with
        `frames`: frame int64 [batch], still [batch, c, height, width]. The U-Net sees its input with variance 1.
        """
        signal, noise, norm = (scale.reshape(-1, 1, 1, 1) for scale in (scales.signal, scales.noise, scales.norm))
        seen = [noisy / norm] if still is None else [noisy / norm, still]
        patches = pixel_unshuffle(torch.cat(seen, dim=1), self.patch)
        output = pixel_shuffle(self.unet(patches, timestep, text, class_labels=frame).sample, self.patch).to(torch.float32)
        if self.target == "Frame":  # x^ = output
            return (noisy - signal * output) / noise.clamp(min=_SMALLEST_NOISE)
        return (noise * noisy + signal * norm * output) / norm**2  # v^ = output, v = (signal * n - noise * x) / norm
