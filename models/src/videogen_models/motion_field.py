"""Text2Video-Zero's motion of latent codes (Khachatryan et al., ICCV 2023, arXiv 2303.13439, section 3.3.1, Algorithm 1).

Frame k = 1..m of a clip is frame 1 moved by the global translation

    delta^k = lambda (k - 1) delta,    delta = (delta_x, delta_y),

in pixels of a 512 x 512 frame: the paper's lambda of 12 is 2.3 % of the height and width at any resolution.
"""

from __future__ import annotations

import torch
from torch import Tensor

GRID = 512  # pixels of the paper's frames, each way


def translations(frames: int, strength: float, direction: tuple[float, float], size: tuple[int, int]) -> Tensor:
    """delta^k as whole latent pixels, int64 [frames, 2] of (rows, columns); direction = (delta_x, delta_y), size = (h, w).

    To the nearest, halves downwards: the same as the authors' sampling of a 512 x 512 field, for every whole flow.
    """
    per_frame = strength * torch.tensor([direction[1] * size[0], direction[0] * size[1]], dtype=torch.float64) / GRID
    flow = torch.arange(frames, dtype=torch.float64).unsqueeze(1) * per_frame
    return (flow - 0.5).ceil().to(torch.int64)


def warp(latent: Tensor, shifts: Tensor) -> Tensor:
    """x~^k = W_k(x^1): latent [batch, c, h, w], shifts int64 [frames, 2] of (rows, columns) -> [batch, frames, c, h, w].

    x~^k[y, x] = x^1[y + rows, x + columns]. What comes in over the border is the latent mirrored at it, so that it has
    the statistics of a latent, which padding with a constant would not have.
    """
    height, width = latent.shape[-2:]
    shifts = shifts.to(latent.device)
    rows = mirrored(torch.arange(height, device=latent.device) + shifts[:, :1], height)
    columns = mirrored(torch.arange(width, device=latent.device) + shifts[:, 1:], width)
    return latent[:, :, rows.unsqueeze(2), columns.unsqueeze(1)].transpose(1, 2)


def mirrored(index: Tensor, length: int) -> Tensor:
    """Any index -> one of 0..length-1; beyond the border the edge is repeated and the way goes back: length -> length - 1."""
    folded = index % (2 * length)
    return torch.minimum(folded, 2 * length - 1 - folded)
