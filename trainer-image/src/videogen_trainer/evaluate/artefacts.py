"""Artefact rate: the share of frames that flicker, show blocks or are blown out more than real frames ever do.

Three measures of each frame, after classics of restoration and coding; none needs a reference picture or a network:

- flicker, in grey levels: mean spike detection index of Kokaram (Motion Picture Restoration, 1998), without motion compensation:
  how far a pixel leaves the range between the frame before and the one after. The first and the last frame have none.
- blocking: step across the borders of 8 x 8 blocks over the step elsewhere (Wang, Sheikh and Bovik, 2002), 1 if the grid cannot
  be seen. Decoders of latents and codecs leave such grids, in both directions and at every border; the edge of a thing is
  at few. So the median over the lines is taken, and of both directions the smaller ratio.
- saturation: share of values that are black or white to within one level.

A frame has an artefact if one measure is above its limit: the 99 % quantile of the real frames, or what the eye does not
mind (FLOORS) if that is more. So real frames score at most about 0.03, and a style of the data, black borders for one, is
none. Content that is wrong but smooth (a third hand) is not seen.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Clips = NDArray[np.uint8]

BLOCK = 8
QUANTILE = 0.99
FLOORS = np.array([1.0, 1.25, 0.01])  # flicker in grey levels, blocking as a ratio, saturation as a share
_ONE_LEVEL = 1.0  # added to both steps of the blocking ratio, so that a plain frame has 1


def measures(clips: Clips) -> Array:
    """Flicker, blocking and saturation [N, F, 3] of clips uint8 [N, F, H, W, 3]."""
    levels = clips.astype(np.float32)
    saturated = ((clips <= 1) | (clips >= 254)).mean(axis=(2, 3, 4))
    return np.stack([_flicker(levels), _blocking(levels), saturated], axis=-1).astype(np.float64)


def limits(real: Array) -> Array:
    """Limits [3] from the measures [M, 3] of all real frames."""
    return np.asarray(np.maximum(np.quantile(real, QUANTILE, axis=0), FLOORS))


def rates(generated: Array, above: Array) -> Array:
    """Share [N] of each clip's frames that have an artefact, from their measures [N, F, 3] and the limits [3]."""
    return np.asarray((generated > above).any(axis=-1).mean(axis=-1), dtype=np.float64)


def _flicker(levels: NDArray[np.float32]) -> NDArray[np.float32]:
    found = np.zeros(levels.shape[:2], np.float32)
    if levels.shape[1] > 2:
        before, frame, after = levels[:, :-2], levels[:, 1:-1], levels[:, 2:]
        beyond = np.maximum(frame - np.maximum(before, after), np.minimum(before, after) - frame)
        found[:, 1:-1] = beyond.clip(min=0).mean(axis=(2, 3, 4))
    return found


def _blocking(levels: NDArray[np.float32]) -> NDArray[np.float32]:
    grey = levels.mean(axis=-1)
    ratios = [_step_ratio(np.abs(np.diff(grey, axis=axis)).mean(axis=5 - axis)) for axis in (2, 3)]
    return np.asarray(np.minimum(*ratios))


def _step_ratio(steps: NDArray[np.float32]) -> NDArray[np.float32]:
    """Median step at the borders over the median elsewhere [N, F], of steps [N, F, lines] across the lines of one axis."""
    border = np.arange(1, steps.shape[-1] + 1) % BLOCK == 0
    if not border.any():
        return np.ones(steps.shape[:2], np.float32)
    return np.asarray((np.median(steps[..., border], axis=-1) + _ONE_LEVEL) / (np.median(steps[..., ~border], axis=-1) + _ONE_LEVEL))
