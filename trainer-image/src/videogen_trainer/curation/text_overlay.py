"""Text that lies over a picture: captions, tickers that stand still, names of channels.

A line of letters is a band, much wider than high, of many upright strokes close together: dark-to-light edges and light-to-dark
edges take turns every few pixels, their two tones are far apart, it is quiet above and below, and all of it stays where it is
while the picture moves. (Features: Chen, Odobez and Bourlard, "Text detection and recognition in images and video frames",
Pattern Recognition 37, 2004, sections 3.1 and 3.2; the numbers here are our own.) Letters are not read: what has all of that is
taken for text, a still row of fence posts between sky and grass may be, and text that scrolls, is handwritten or is smaller than
about 2 % of the picture's height is not seen.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from videogen_trainer.video_reading import Picture

SIDE = 480  # pixels of a glance's longer side
LOOKS = 5  # glances of a clip that are compared
EDGE = 24  # of 255, between neighbours
WINDOW = 33  # pixels in which strokes must take turns
STROKES = 3  # dark-to-light and light-to-dark edges in a window
_HEIGHT = (0.015, 0.22)  # of a line, as shares of the picture's
_WIDE, _FILLED, _TONES, _CONTRAST, _QUIET = 1.8, 0.6, 0.6, 50.0, 0.35

Mask = NDArray[np.bool_]
Box = tuple[int, int, int, int]  # top, bottom, left, right


def glance(picture: Picture) -> Picture:
    """The picture [H, W, 3] in grey, uint8 [h, w], its longer side at most 480 pixels."""
    image = Image.fromarray(picture).convert("L")
    scale = SIDE / max(image.size)
    if scale < 1:
        image = image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))), Image.Resampling.BOX)
    return np.asarray(image, np.uint8)


def text_percent(glances: tuple[Picture, ...]) -> float:
    """Share of the picture, 0 .. 100, that boxes around lines of still text cover, of at least one glance uint8 [h, w]."""
    chosen = np.stack([glances[index] for index in sorted(set(np.linspace(0, len(glances) - 1, LOOKS).astype(int)))])
    rising, falling = _still_edges(chosen)
    middle = np.median(chosen, axis=0)
    covered = np.zeros(middle.shape, bool)
    for top, bottom, left, right in _bands(_strokes(rising) & _strokes(falling)):
        if _is_line((top, bottom, left, right), rising | falling, middle):
            covered[top:bottom, left:right] = True
    return round(100.0 * float(covered.mean()), 3)


def _still_edges(pictures: NDArray[np.uint8]) -> tuple[Mask, Mask]:
    """Where, in all of the pictures [n, h, w], it gets lighter, and darker, to the right: [h, w] each."""
    steps = np.diff(pictures.astype(np.int16), axis=2, append=pictures[:, :, -1:].astype(np.int16))
    return (steps >= EDGE).all(axis=0), (steps <= -EDGE).all(axis=0)


def _strokes(edges: Mask) -> Mask:
    """Where a window of one row has enough separate edges of one kind."""
    starts = edges & ~np.pad(edges, ((0, 0), (1, 0)))[:, :-1]
    sums = np.pad(np.cumsum(starts, axis=1), ((0, 0), (WINDOW // 2 + 1, WINDOW // 2)), mode="edge")
    sums[:, : WINDOW // 2 + 1] = 0
    return np.asarray(sums[:, WINDOW:] - sums[:, :-WINDOW] >= STROKES)


def _bands(mask: Mask) -> list[Box]:
    """Boxes around groups of set pixels of at least a line's size; groups are rows' runs that overlap those of the row above."""
    boxes: list[list[int]] = []
    counts: list[int] = []
    above: list[tuple[int, int, int]] = []
    joined: dict[int, int] = {}

    def root(group: int) -> int:
        while group in joined:
            group = joined[group]
        return group

    for row in range(mask.shape[0]):
        flips = np.flatnonzero(np.diff(np.pad(mask[row], 1).astype(np.int8)))
        runs: list[tuple[int, int, int]] = []
        for left, right in zip(flips[::2].tolist(), flips[1::2].tolist(), strict=True):
            touching = sorted({root(group) for start, end, group in above if start < right and left < end})
            if not touching:
                boxes.append([row, row + 1, left, right])
                counts.append(0)
                touching = [len(boxes) - 1]
            first = touching[0]
            for other in touching[1:]:
                joined[other] = first
                boxes[first] = [min(boxes[first][0], boxes[other][0]), row, *_span(boxes[first], boxes[other])]
                counts[first] += counts[other]
            boxes[first] = [boxes[first][0], row + 1, min(boxes[first][2], left), max(boxes[first][3], right)]
            counts[first] += right - left
            runs.append((left, right, first))
        above = runs
    return [
        (top, bottom, left, right)
        for group, (top, bottom, left, right) in enumerate(boxes)
        if group not in joined and counts[group] >= _FILLED * (bottom - top) * (right - left)
    ]


def _span(one: list[int], other: list[int]) -> tuple[int, int]:
    return min(one[2], other[2]), max(one[3], other[3])


def _is_line(box: Box, edges: Mask, picture: NDArray[np.float64]) -> bool:
    top, bottom, left, right = box
    height = bottom - top
    low, high = _HEIGHT
    if not max(4.0, low * len(picture)) <= height <= high * len(picture) or right - left < _WIDE * height:
        return False
    inside = float(edges[top:bottom, left:right].mean())
    margin = max(3, height // 3)
    around = [edges[max(0, top - margin) : max(0, top - 1), left:right], edges[bottom + 1 : bottom + margin, left:right]]
    if any(part.size and part.mean() > _QUIET * inside for part in around):
        return False
    share, contrast = two_tones(picture[top:bottom, left:right])
    return share >= _TONES and contrast >= _CONTRAST


def two_tones(picture: NDArray[np.float64]) -> tuple[float, float]:
    """How well two tones describe the pixels: share of the variance between them (Otsu, 1979, eq. 18), and their distance."""
    counts = np.bincount(picture.astype(np.uint8).ravel(), minlength=256).astype(np.float64)
    values, shares = np.arange(256.0), counts / counts.sum()
    below, mass = np.cumsum(shares), np.cumsum(shares * values)
    mean, variance = mass[-1], float((shares * values**2).sum() - mass[-1] ** 2)
    inner = (below > 0) & (below < 1)
    if variance <= 0 or not inner.any():
        return 0.0, 0.0
    between = np.zeros(256)
    between[inner] = (mean * below[inner] - mass[inner]) ** 2 / (below[inner] * (1 - below[inner]))
    best = int(between.argmax())
    dark, light = mass[best] / below[best], (mean - mass[best]) / (1 - below[best])
    return float(between[best] / variance), float(light - dark)
