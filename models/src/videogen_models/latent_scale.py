"""Latents as the networks see them: what the autoencoder encodes, shifted and scaled to a variance of about 1 (diffusers' convention).

Whoever encodes or decodes does it by these, so that both sides always agree.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


@torch.no_grad()
def to_latents(vae: Any, images: Tensor) -> Tensor:
    """z = E(x) of an AutoencoderKL: images [n, 3, h, w] in [-1, 1] -> the posterior's mean, scaled, [n, c, h / f, w / f]."""
    return scaled(vae, vae.encode(images).latent_dist.mode())


def scaled(vae: Any, encoded: Tensor) -> Tensor:
    """What the encoder gives -> latents, of its shape."""
    return (encoded - (vae.config.shift_factor or 0.0)) * vae.config.scaling_factor


def from_latents(vae: Any, latents: Tensor) -> Tensor:
    """What the decoder takes, of the shape of `latents`: the inverse of `scaled`."""
    return latents / vae.config.scaling_factor + (vae.config.shift_factor or 0.0)
