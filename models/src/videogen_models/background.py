"""Text2Video-Zero's background smoothing (arXiv 2303.13439, section 3.3.3): what is not foreground moves as one.

The paper finds the foreground with an in-house detector of salient objects that is not public; `salient` needs no weights,
and whoever has a better detector passes it in its place.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

Foreground = Callable[[Tensor], Tensor]  # frames [n, 3, H, W] in [-1, 1] -> float [n, 1, H, W], 1 at the foreground, else 0
_BLUR = 5
_DILATION = 5  # latent pixels, as the authors' code: what is hardly foreground is not smoothed either


def salient(frames: Tensor) -> Tensor:
    """Pixels whose blurred colour is unlike the frame's mean colour: frequency-tuned saliency (Achanta et al., CVPR 2009).

    frames [n, 3, H, W] -> float [n, 1, H, W] of 0 and 1: more than twice the mean distance, in RGB rather than Lab.
    """
    blurred = F.avg_pool2d(frames, _BLUR, stride=1, padding=_BLUR // 2, count_include_pad=False)
    distance = (blurred - frames.mean((2, 3), keepdim=True)).norm(dim=1, keepdim=True)
    return (distance > 2 * distance.mean((2, 3), keepdim=True)).to(frames.dtype)


@dataclass(frozen=True, slots=True, kw_only=True)
class Smoothing:
    """How the background is smoothed."""

    strength: float = 0.6  # alpha: 0 leaves all as it is, 1 makes the background frame 1's
    foreground: Foreground = salient

    def __post_init__(self) -> None:
        if not 0.0 <= self.strength <= 1.0:
            raise ValueError(f"the smoothing's strength is {self.strength}; accepted are 0 to 1, the paper has 0.6")


def latent_mask(mask: Tensor, size: tuple[int, int]) -> Tensor:
    """Foreground [n, 1, H, W] -> [n, 1, h, w] for size = (h, w): any foreground of a latent pixel counts, then it is widened."""
    return F.max_pool2d(F.adaptive_max_pool2d(mask, size), _DILATION, stride=1, padding=_DILATION // 2)


def smooth(latents: Tensor, warped: Tensor, foreground: Tensor, strength: float) -> Tensor:
    """x-^k = M^k x^k + (1 - M^k) (alpha W_k(x^1) + (1 - alpha) x^k): a convex combination on the background.

    latents x^k and warped W_k(x^1) [batch, frames, c, h, w], foreground M^k [batch, frames, 1, h, w], strength = alpha.
    """
    background = strength * warped + (1 - strength) * latents
    return foreground * latents + (1 - foreground) * background


def united(foreground: Tensor, warped: Tensor) -> Tensor:
    """M^k or W_k(M^1), as the authors' code: where frame 1's object comes to lie is no background either. Shapes are equal."""
    return torch.maximum(foreground, warped)
