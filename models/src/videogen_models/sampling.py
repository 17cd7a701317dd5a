"""DDIM sampling (Song et al., 2021, arXiv 2010.02502) with VideoFusion's decomposed noise; eta = 0."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from videogen_models.noise import clip_noise, mix
from videogen_models.schedule import sampling_timesteps
from videogen_models.video_model import OnStep

if TYPE_CHECKING:
    from videogen_models.videofusion import VideoFusionModel


def ddim_step(noisy: Tensor, noise: Tensor, signal: Tensor, next_signal: Tensor, limit: float = 1.0) -> Tensor:
    """One step with eta = 0 (equation 12), from alpha^ = `signal` to `next_signal`.

    The predicted frames are kept in [-limit, limit], infinite for latents, and the noise made to agree with them: at the first
    steps, where hardly any signal is left, a small error of the noise would else be an enormous one of the frames.
    """
    clean = ((noisy - (1 - signal).sqrt() * noise) / signal.sqrt()).clamp(-limit, limit)
    noise = (noisy - signal.sqrt() * clean) / (1 - signal).sqrt()
    return next_signal.sqrt() * clean + (1 - next_signal).sqrt() * noise


@torch.inference_mode()
def denoise(model: VideoFusionModel, noisy: Tensor, captions: Sequence[str], steps: int, on_step: OnStep | None = None) -> Tensor:
    """From z_T [batch, frames, c, height, width] to clean frames of the same shape, latents where the model works in them."""
    timesteps, guidance = sampling_timesteps(steps), model.config.text_guidance
    text = model.encode(captions if guidance is None else [""] * len(captions) + list(captions))
    finished = torch.ones((), device=noisy.device)
    for done, (now, later) in enumerate(pairwise([*timesteps, -1])):
        if on_step:
            on_step(done, steps)
        timestep = torch.full((len(captions),), now, device=noisy.device)
        noise = model.predict_noise(noisy, timestep, text) if guidance is None else model.guided_noise(noisy, timestep, text, guidance)
        noisy = ddim_step(noisy, noise, model.signal[now], model.signal[later] if later >= 0 else finished, model.limit)
    return noisy


def sample(
    model: VideoFusionModel, captions: Sequence[str], seeds: Sequence[int], steps: int, on_step: OnStep | None = None
) -> npt.NDArray[np.uint8]:
    """Videos, uint8 [batch, frames, height, width, 3], one for each pair of caption and seed (0 .. 2**63 - 1).

    Noise is drawn per clip on the CPU, so a clip depends on its own caption and seed only. `on_step` is called before
    each of the `steps` (1..1000) denoising steps and cancels by raising. Raises ValueError for numbers out of range,
    FloatingPointError for frames that are not finite.
    """
    if len(captions) != len(seeds):
        raise ValueError(f"{len(captions)} captions and {len(seeds)} seeds; each clip needs one of both")
    base, residual = clip_noise(seeds, model.frame_shape)
    noisy = mix(base, residual, model.shares.cpu()).to(model.signal.device)
    return to_pixels(model.to_frames(denoise(model, noisy, captions, steps, on_step)))


def to_pixels(frames: Tensor) -> npt.NDArray[np.uint8]:
    """[..., 3, h, w] in [-1, 1] -> uint8 [..., h, w, 3]; values outside are clipped.

    Raises FloatingPointError if any is not finite: 8 bits would make a black pixel of it.
    """
    if not bool((finite := frames.isfinite()).all()):
        found = f"{finite.numel() - int(finite.sum())} of {finite.numel()} values of the generated frames are not finite"
        raise FloatingPointError(f"{found}; the model's weights diverged or are damaged, train it again with a smaller learning rate")
    scaled = ((frames.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    return scaled.movedim(-3, -1).cpu().numpy()


def from_pixels(frames: Tensor) -> Tensor:
    """uint8 [..., h, w, 3] -> float32 [..., 3, h, w] in [-1, 1]."""
    return frames.movedim(-1, -3).to(torch.float32) / 127.5 - 1
