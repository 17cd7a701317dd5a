"""How much signal is left at each of the 1000 timesteps of the diffusion, and which of them a sampler visits."""

from __future__ import annotations

import torch
from diffusers import DDIMScheduler
from torch import Tensor

TIMESTEPS = 1000


def signal_levels() -> Tensor:
    """alpha^_t, float32 [1000], falling from 0.9999 to 4e-5: the linear betas of Ho et al. (2020).

    They fit small frames in pixel space: the last level is so close to 0 that sampling may begin with pure noise.
    """
    scheduler = DDIMScheduler(num_train_timesteps=TIMESTEPS, beta_start=1e-4, beta_end=0.02, beta_schedule="linear")
    levels: Tensor = scheduler.alphas_cumprod
    return levels.to(torch.float32)


def sampling_timesteps(steps: int) -> list[int]:
    """`steps` timesteps (1..1000) from 999 down, evenly spaced, the last one first ("trailing", arXiv 2305.08891)."""
    if not 1 <= steps <= TIMESTEPS:
        raise ValueError(f"sampling steps are {steps}; accepted are 1 to {TIMESTEPS}")
    return [round(TIMESTEPS * (steps - number) / steps) - 1 for number in range(steps)]
