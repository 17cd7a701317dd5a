"""How the error of a denoiser is weighted, and the noise that it is trained with; the options' names are diffusers'.

With SNR = alpha^_t / (1 - alpha^_t), an error of the clean clip x counts min(SNR, gamma) (Hang et al., 2023, arXiv 2303.09556).
The error of the noise is SNR times that of x, in the square, and the error of the velocity SNR + 1 times, so these count
min(SNR, gamma) / SNR and min(SNR, gamma) / (SNR + 1).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import mse_loss

from videogen_models.align_your_latents import target


def noise_weights(signal: Tensor, gamma: float) -> Tensor:
    """min(SNR, gamma) / SNR of squared errors of the noise; signal = alpha^_t, 0 to 1, of any shape -> as signal, 0 to 1."""
    return (gamma * (1 - signal) / signal).clamp(max=1)  # without signal the quotient is infinite, and the weight 1


def velocity_weights(signal: Tensor, gamma: float) -> Tensor:
    """min(SNR, gamma) / (SNR + 1) of squared errors of the velocity, as `noise_weights`; SNR + 1 = 1 / (1 - alpha^_t)."""
    return torch.minimum(signal, gamma * (1 - signal))


def denoising_loss(scheduler: Any, predicted: Tensor, clean: Tensor, noise: Tensor, timestep: Tensor, gamma: float | None = None) -> Tensor:
    """Mean squared error of what the U-Net predicts, noise or velocity, float32 []; with gamma (> 0) weighted by clip.

    predicted = f(z_t), z_t = scheduler.add_noise(clean, noise, timestep), each [batch, ...]; timestep int64 [batch].
    """
    wanted = target(scheduler, clean, noise, timestep)
    if gamma is None:
        return mse_loss(predicted, wanted)
    signal = scheduler.alphas_cumprod.to(timestep.device)[timestep]
    weights = (noise_weights if scheduler.config.prediction_type == "epsilon" else velocity_weights)(signal, gamma)
    return (weights * (predicted - wanted).square().flatten(1).mean(dim=1)).mean()


def with_offset(noise: Tensor, strength: float, generator: torch.Generator, *, each_frame: bool = False) -> Tensor:
    """noise + strength u, u ~ N(0, 1): one number for all pixels of a channel, else a model hardly learns to change how bright an
    image is as a whole (Guttenberg, 2023). noise [..., c, h, w]; all frames of a clip have u in common, or `each_frame` its own.

    Strength 0 leaves noise and generator as they are. Draw everything else from the generator before.
    """
    if strength == 0:
        return noise
    shape = noise.shape[:-2] if each_frame else noise.shape[-3:-2]
    return noise + strength * torch.randn(*shape, 1, 1, generator=generator)
