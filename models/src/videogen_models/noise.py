"""VideoFusion's decomposed noise (Luo et al., CVPR 2023, arXiv 2303.08320, section 3.2).

A clip has N frames; its base frame is number floor(N/2). All frames share the base noise b; each has a residual r:

    eps^i = sqrt(lambda_i) b + sqrt(1 - lambda_i) r^i,    lambda_floor(N/2) = 1            (equations 6 and 7)

so lambda is a share of VARIANCE: every eps^i has variance 1, and two frames have covariance sqrt(lambda_i lambda_j).
Tensors are [batch, frames, channels, height, width]; those of one frame lack the second axis.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def middle(frames: int) -> int:
    """Number of the base frame, floor(N/2)."""
    return frames // 2


def frame_shares(frames: int, base_share: float, shares: Sequence[float] | None = None) -> Tensor:
    """lambda_i, float32 [frames]: `shares` (0..1, one a frame), or `base_share` everywhere; but 1 at the base frame.

    Raises ValueError for what is no share, for another number of them than frames, and for one of the base frame that is not 1.
    """
    wanted = [1.0 if frame == middle(frames) else base_share for frame in range(frames)] if shares is None else list(shares)
    if wrong := [share for share in (base_share, *wanted) if not 0.0 <= share <= 1.0]:
        raise ValueError(f"baseNoiseShare is {wrong[0]}; a share of variance lies between 0 and 1")
    if len(wanted) != frames or wanted[middle(frames)] != 1.0:
        raise ValueError(f"baseNoiseShares are {wanted}; expected are {frames}, and 1 for the base frame, number {middle(frames)}")
    return torch.tensor(wanted)


def mix(base: Tensor, residual: Tensor, shares: Tensor) -> Tensor:
    """sqrt(lambda_i) base + sqrt(1 - lambda_i) residual^i, for noise (equation 6) and for its predictions (equation 9).

    base [batch, c, h, w], residual [batch, frames, c, h, w], shares [frames] or [batch, frames] -> as residual.
    """
    shares = _over_pixels(shares, residual)
    return shares.sqrt() * base.unsqueeze(1) + (1 - shares).sqrt() * residual


def add_noise(clean: Tensor, noise: Tensor, signal: Tensor) -> Tensor:
    """z_t = sqrt(alpha^_t) x + sqrt(1 - alpha^_t) eps (equation 2); signal = alpha^_t [batch], x of any further shape."""
    signal = signal.reshape(-1, *[1] * (clean.dim() - 1))
    return signal.sqrt() * clean + (1 - signal).sqrt() * noise


def remove_base(noisy: Tensor, base: Tensor, signal: Tensor, shares: Tensor) -> Tensor:
    """z'_t^i = z_t^i - sqrt(lambda_i) sqrt(1 - alpha^_t) b: what the residual generator sees (equation 8).

    noisy [batch, frames, c, h, w], base [batch, c, h, w], signal = alpha^_t [batch], shares [frames] or [batch, frames].
    """
    weight = _over_pixels(shares, noisy).sqrt() * (1 - signal).sqrt().reshape(-1, 1, 1, 1, 1)
    return noisy - weight * base.unsqueeze(1)


def clip_noise(seeds: Sequence[int], shape: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Base noise [batch, c, h, w] and residual noise [batch, frames, c, h, w]; shape = (frames, c, h, w).

    Each clip draws from a generator of its own, so that it depends neither on its batch nor on the device.
    """
    base, residual = [], []
    for seed in seeds:
        generator = torch.Generator().manual_seed(seed)
        base.append(torch.randn(*shape[1:], generator=generator))
        residual.append(torch.randn(*shape, generator=generator))
    return torch.stack(base), torch.stack(residual)


def _over_pixels(shares: Tensor, like: Tensor) -> Tensor:
    shares = shares.to(device=like.device, dtype=torch.float32)
    return shares.reshape(-1, like.shape[1], 1, 1, 1)
