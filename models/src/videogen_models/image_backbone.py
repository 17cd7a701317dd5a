"""The image model that Text2Video-Zero animates: latent diffusion from text (Rombach et al., CVPR 2022), in diffusers' parts.

Built from sizes alone, with random weights, or loaded from a folder in diffusers' layout (`backbone_folder`): the code is
the same. The preset Paper has Stable Diffusion 1.5's sizes, which the paper uses.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from pydantic import Field
from torch import Tensor, nn

from videogen_api.bundle import canonical_json
from videogen_api.meta import Observation
from videogen_api.recipe import Architecture, Resolution
from videogen_models.cross_frame import CrossFrameAttention
from videogen_models.latent_scale import from_latents
from videogen_models.text import TextEncoder, TextSize, tokenize

# Stable Diffusion's noise: it leaves 0.5 % of signal at the last step, and the sampler visits 981, 961, .. 1 of 50 steps.
SCHEDULE = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "epsilon",
    "set_alpha_to_one": False,
    "steps_offset": 1,
    "timestep_spacing": "leading",
}
HASHED = "HashedWords"


class BackboneSize(Observation):
    """Sizes of the three networks."""

    widths: list[int] = Field(min_length=1)  # the U-Net's channels of each level, full resolution first
    attention: list[bool]  # which levels have transformer blocks; the innermost block always does
    layers: int = Field(ge=1)  # residual blocks of a level
    heads: int = Field(ge=1)  # of attention, at every level
    groups: int = Field(ge=1)  # of group normalisation
    autoencoder: list[int] = Field(min_length=1)  # channels of each level; each but the first halves the frame
    autoencoder_layers: int = Field(ge=1)
    latent_channels: int = Field(default=4, ge=1)
    text: TextSize


PRESETS = {
    Architecture.TINY: BackboneSize(
        widths=[32, 64],
        attention=[True, True],
        layers=1,
        heads=4,
        groups=8,
        autoencoder=[16, 32, 32],
        autoencoder_layers=1,
        text=TextSize(vocabulary=4096, length=16, width=64, layers=2, heads=4),
    ),
    Architecture.SMALL: BackboneSize(
        widths=[96, 192, 288],
        attention=[True, True, True],
        layers=2,
        heads=4,
        groups=32,
        autoencoder=[64, 128, 128, 128],
        autoencoder_layers=2,
        text=TextSize(vocabulary=16384, length=32, width=256, layers=4, heads=4),
    ),
    Architecture.PAPER: BackboneSize(
        widths=[320, 640, 1280, 1280],
        attention=[True, True, True, False],
        layers=2,
        heads=8,
        groups=32,
        autoencoder=[128, 256, 512, 512],
        autoencoder_layers=2,
        text=TextSize(vocabulary=49408, length=77, width=768, layers=12, heads=12),
    ),
}


class Tokens(Protocol):
    """Captions to numbers, and the files that say how."""

    def __call__(self, captions: Sequence[str]) -> Tensor:
        """int64 [captions, length]."""

    def save_pretrained(self, folder: Path) -> Any:
        """Write what is needed to make it again."""


@dataclass(frozen=True, slots=True)
class HashedWords:
    """Words hashed into a fixed vocabulary (`videogen_models.text`), which needs no download."""

    size: TextSize

    def __call__(self, captions: Sequence[str]) -> Tensor:
        return tokenize(captions, self.size)

    def save_pretrained(self, folder: Path) -> None:
        """`tokenizer_config.json`; the sizes are the text encoder's."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "tokenizer_config.json").write_bytes(canonical_json({"tokenizer_class": HASHED}))


class ImageBackbone(nn.Module):
    """U-Net, autoencoder and text encoder, with the schedule of the noise that they were trained on."""

    def __init__(self, unet: Any, vae: Any, text: Any, tokens: Tokens, schedule: Mapping[str, Any]) -> None:
        """diffusers' UNet2DConditionModel and AutoencoderKL, transformers' CLIPTextModel, and its tokens."""
        super().__init__()
        self.unet = unet
        self.vae = vae
        self.text = text
        self.tokens: Tokens = tokens
        self.schedule = dict(schedule)
        self.unet.set_attn_processor(CrossFrameAttention())

    @property
    def factor(self) -> int:
        """Pixels of a frame for one of its latent, each way."""
        return int(2 ** (len(self.vae.config.block_out_channels) - 1))

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of a frame's latent, at the U-Net's own resolution."""
        size = self.unet.config.sample_size
        height, width = (size, size) if isinstance(size, int) else size
        return (int(self.unet.config.in_channels), int(height), int(width))

    def scheduler(self, steps: int) -> Any:
        """A DDIM sampler of `steps` steps. Latents are not limited to [-1, 1], and must not be clipped to it."""
        scheduler = DDIMScheduler.from_config(self.schedule, clip_sample=False, thresholding=False)
        scheduler.set_timesteps(steps)
        return scheduler

    def encode(self, captions: Sequence[str]) -> Tensor:
        """Captions -> [captions, length, width]."""
        hidden: Tensor = self.text(input_ids=self.tokens(captions).to(self.unet.device)).last_hidden_state
        return hidden.to(self.unet.dtype)

    def resize(self, resolution: Resolution) -> None:
        """Draw frames of this size; no weight depends on it. Raises ValueError if latents would not be whole."""
        deepest = self.factor * 2 ** (len(self.unet.config.block_out_channels) - 1)
        if resolution.height % deepest or resolution.width % deepest:
            raise ValueError(f"the resolution is {resolution.height} x {resolution.width}; this image model needs multiples of {deepest}")
        self.unet.register_to_config(sample_size=(resolution.height // self.factor, resolution.width // self.factor))

    def decode(self, latents: Tensor) -> Tensor:
        """Latents [n, c, h, w] -> frames float32 [n, 3, factor * h, factor * w], about [-1, 1]; one by one, to save memory."""
        encoded = from_latents(self.vae, latents).to(self.vae.dtype)
        return torch.cat([self.vae.decode(one).sample for one in encoded.split(1)]).to(torch.float32)


def build_backbone(size: BackboneSize, resolution: Resolution) -> ImageBackbone:
    """A model with random weights; draws from torch's global generator. Raises ValueError if latents would not be whole."""
    factor = 2 ** (len(size.autoencoder) - 1) * 2 ** (len(size.widths) - 1)
    if resolution.height % factor or resolution.width % factor:
        raise ValueError(f"the resolution is {resolution.height} x {resolution.width}; this model needs multiples of {factor}")
    text = TextEncoder(size.text).transformer
    return ImageBackbone(_unet(size, resolution), _autoencoder(size), text, HashedWords(size.text), SCHEDULE)


def _unet(size: BackboneSize, resolution: Resolution) -> nn.Module:
    factor = 2 ** (len(size.autoencoder) - 1)
    unet: nn.Module = UNet2DConditionModel(
        sample_size=(resolution.height // factor, resolution.width // factor),
        in_channels=size.latent_channels,
        out_channels=size.latent_channels,
        block_out_channels=tuple(size.widths),
        layers_per_block=size.layers,
        down_block_types=tuple("CrossAttnDownBlock2D" if attends else "DownBlock2D" for attends in size.attention),
        up_block_types=tuple("CrossAttnUpBlock2D" if attends else "UpBlock2D" for attends in reversed(size.attention)),
        cross_attention_dim=size.text.width,
        attention_head_dim=size.heads,  # diffusers takes the number of heads here
        norm_num_groups=size.groups,
    )
    return unet


def _autoencoder(size: BackboneSize) -> nn.Module:
    levels = len(size.autoencoder)
    vae: nn.Module = AutoencoderKL(
        block_out_channels=tuple(size.autoencoder),
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        layers_per_block=size.autoencoder_layers,
        latent_channels=size.latent_channels,
        norm_num_groups=size.groups,
    )
    return vae
