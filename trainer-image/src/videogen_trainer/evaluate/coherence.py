"""Temporal coherence of clips, in [0, 1]: smooth change scores high, flicker and cuts score low, and freezing does not pay.

    coherence = mean over neighbouring frames of max(0, cos(e_f, e_{f+1}))  ×  min(1, motion / (¼ motion of the reference))

The first factor is the usual frame consistency over embeddings e. Alone it is won by a still picture, so the second is
a floor of motion: the reference is the real clip with the same caption, and a clip loses only if it moves less than a
quarter as much. A caption of something that stands still ("a red square stays still") therefore costs nothing.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from videogen_trainer.evaluate.clip_score import unit

MOTION_FLOOR = 0.25  # of the reference's motion
STILL = 1e-4  # motion that counts as none: a fortieth of a grey level, for rounding of uint8 frames

GRID = 8


def motion(clips: NDArray[np.uint8]) -> NDArray[np.float64]:
    """How far the pictures of clips uint8 [N, F, H, W, 3] depart from the clip's mean picture, [N] in shares of full brightness.

    Mean absolute deviation of the means of 8 x 8 cells over a quarter of the clip: what moves, or changes for longer than
    that, counts in full, the flicker of single pixels and frames hardly. Zero for a still clip.
    """
    cells = _cell_means(_cell_means(clips.astype(np.float64), 2), 3)
    window = max(1, clips.shape[1] // 4)
    smooth = np.lib.stride_tricks.sliding_window_view(cells, window, axis=1).mean(axis=-1)
    return np.asarray(np.abs(smooth - smooth.mean(axis=1, keepdims=True)).mean(axis=(1, 2, 3, 4)) / 255.0)


def _cell_means(values: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
    size = values.shape[axis]
    starts = np.arange(min(GRID, size)) * size // min(GRID, size)
    counts = np.diff([*starts, size]).reshape([-1 if place == axis else 1 for place in range(values.ndim)])
    return np.asarray(np.add.reduceat(values, starts, axis=axis) / counts)


def steadiness(embeddings: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean cosine [N] of neighbouring frames, each at least 0, from their embeddings [N, F, E].

    Raises ValueError with fewer than 2 frames.
    """
    if embeddings.shape[1] < 2:
        raise ValueError(f"{embeddings.shape[1]} frame; coherence compares neighbouring frames and needs at least 2")
    frames = unit(embeddings)
    return np.asarray((frames[:, 1:] * frames[:, :-1]).sum(axis=-1).clip(0.0, 1.0).mean(axis=1))


def coherence(steady: NDArray[np.float64], moved: NDArray[np.float64], reference_moved: NDArray[np.float64]) -> NDArray[np.float64]:
    """Coherence [N] of clips from their `steadiness` [N] and the `motion` [N] of the clips and of their references."""
    floor = MOTION_FLOOR * reference_moved
    liveliness = np.where(floor > STILL, np.minimum(1.0, moved / np.maximum(floor, STILL)), 1.0)
    return np.asarray(steady * liveliness, dtype=np.float64)
