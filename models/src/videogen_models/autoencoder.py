"""The frozen autoencoder of an image model, for video models that work on its latents (Rombach et al., 2022).

In a bundle, and in an image model's folder, it is the folder `vae` in diffusers' layout. Latents are scaled to a variance of about 1.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL
from pydantic import Field
from torch import Tensor

from videogen_api.bundle import canonical_json
from videogen_api.meta import Observation
from videogen_api.recipe import Resolution
from videogen_models.backbone_folder import read_autoencoder
from videogen_models.latent_scale import from_latents, to_latents

FOLDER = "vae"
_ENCODED_AT_ONCE = 16  # frames, to save memory


class LatentSize(Observation):
    """Shape of an autoencoder's latents."""

    channels: int = Field(ge=1)
    factor: int = Field(ge=1)  # pixels of a frame for one latent, each way


def latent_size(vae: AutoencoderKL, resolution: Resolution) -> LatentSize:
    """Of this autoencoder. Raises ValueError if latents of frames of this size would not be whole."""
    factor = 2 ** (len(vae.config.block_out_channels) - 1)
    if resolution.height % factor or resolution.width % factor:
        raise ValueError(f"the resolution is {resolution.height} x {resolution.width}; this autoencoder needs multiples of {factor}")
    return LatentSize(channels=vae.config.latent_channels, factor=factor)


def load_autoencoder(folder: Path) -> AutoencoderKL:
    """The autoencoder of a bundle or of an image model's folder, float32, frozen. Raises CorruptError."""
    return read_autoencoder(folder / FOLDER).float().eval().requires_grad_(False)


def save_autoencoder(vae: AutoencoderKL, folder: Path) -> None:
    """Write it into a bundle: the same weights give the same bytes, wherever they came from."""
    vae.save_pretrained(folder / FOLDER, safe_serialization=True)
    path = folder / FOLDER / "config.json"
    content: dict[str, Any] = json.loads(path.read_bytes())
    path.write_bytes(canonical_json({key: value for key, value in content.items() if key != "_name_or_path"}))


@torch.no_grad()
def encode(vae: AutoencoderKL, frames: Tensor) -> Tensor:
    """Frames [batch, frames, 3, h, w] in [-1, 1] -> latents [batch, frames, c, h / factor, w / factor]."""
    parts = [to_latents(vae, part) for part in frames.flatten(0, 1).split(_ENCODED_AT_ONCE)]
    return torch.cat(parts).unflatten(0, frames.shape[:2])


@torch.no_grad()
def decode(vae: AutoencoderKL, latents: Tensor) -> Tensor:
    """Latents [batch, frames, c, h, w] -> frames float32, about in [-1, 1]; one by one, to save memory."""
    frames = [vae.decode(one).sample for one in from_latents(vae, latents.flatten(0, 1)).split(1)]
    return torch.cat(frames).float().unflatten(0, latents.shape[:2])
