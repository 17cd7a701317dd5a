"""Clips that look alike, by a difference hash of their first, middle and last frame, and colours where the hash says nothing.

Difference hash (N. Krawetz, "Kind of like that", hackerfactor.com, 2013): a picture is reduced to 9 x 8, and a bit says
whether a value is larger than its left neighbour. Here for red, green and blue, and larger by more than 4 of 255, so that
the noise of compression on an even ground says nothing: 3 frames x 3 x 64 = 576 bits. Scaling, re-encoding and small
changes of brightness turn few of them. The difference of two hashes is their Hamming distance as a share of the bits that
either of them has set: a small thing on an even ground sets few bits, and another thing there would differ by few of 576.

Fog, sea and sky set next to none, whatever they look like. Where two clips have fewer than 10 bits set between them, the mean colours of
the 8 rows of the same three pictures are compared too: 72 values, and those count that differ by more than 8 of 255,
which re-encoding and scaling hardly ever cause.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

BITS = 576
_WORDS = BITS // 64
_ONE, _TWO, _FOUR, _SHIFT = (np.uint64(number) for number in (1, 2, 4, 56))
_PAIRS, _FOURS, _EIGHTS, _SUM = (np.uint64(int(byte * 8, 16)) for byte in ("55", "33", "0f", "01"))
_MARGIN, _COLOUR_MARGIN = 4, 8  # of 255
_COLOURS = 72  # 3 pictures x 8 rows x red, green and blue
_FEW = 10  # bits that say too little of two clips


@dataclass(frozen=True, slots=True, eq=False)
class Look:
    """What of a clip is compared: its hash, uint64 [9], and the mean colours of its rows, uint8 [72]."""

    hash: NDArray[np.uint64]
    colours: NDArray[np.uint8]


def look_of(frames: NDArray[np.uint8]) -> Look:
    """The look of frames uint8 [F, H, W, 3]."""
    chosen = (frames[0], frames[len(frames) // 2], frames[-1])
    reduced = np.stack([np.asarray(Image.fromarray(frame).resize((9, 8), Image.Resampling.BOX), np.int16) for frame in chosen])
    bits = reduced[:, :, 1:] > reduced[:, :, :-1] + _MARGIN
    return Look(np.packbits(bits).view(np.uint64), reduced.mean(axis=2).round().astype(np.uint8).ravel())


def difference_percent(hashes: NDArray[np.uint64], own: NDArray[np.uint64]) -> NDArray[np.float64]:
    """Differences, 0 .. 100, float [n], of hashes [n, 9] from one hash [9]; 0 where neither has a bit set."""
    distances = bits_of(hashes ^ own)
    either = (bits_of(hashes) + bits_of(own[None]) + distances) // 2
    return 100.0 * distances / np.maximum(either, 1)


def colour_percent(colours: NDArray[np.uint8], own: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Shares of the values, 0 .. 100, float [n], that differ by more than 8 of 255 in colours [n, 72] and in one's [72]."""
    return np.asarray(100.0 * (np.abs(colours.astype(np.int16) - own) > _COLOUR_MARGIN).mean(axis=1))


def bits_of(hashes: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Bits that are set in each of hashes [n, 9], int64 [n]. Source: Warren, Hacker's Delight, figure 5-2."""
    pairs = hashes - ((hashes >> _ONE) & _PAIRS)
    fours = (pairs & _FOURS) + ((pairs >> _TWO) & _FOURS)
    eights = (fours + (fours >> _FOUR)) & _EIGHTS
    return np.asarray(((eights * _SUM) >> _SHIFT).sum(axis=1, dtype=np.int64))


class Duplicates:
    """Looks of the clips that were kept: 152 bytes each, and a comparison with those that have about as many bits set."""

    def __init__(self, maximum_difference_percent: int) -> None:
        self._maximum = maximum_difference_percent
        self._hashes = np.zeros((1024, _WORDS), np.uint64)
        self._bits = np.zeros(1024, np.int64)
        self._colours = np.zeros((1024, _COLOURS), np.uint8)
        self._names: list[str] = []

    def like(self, own: Look) -> tuple[str, float] | None:
        """The nearest kept clip within the difference, the first one of several, and its difference in percent."""
        bits, known = bits_of(own.hash[None]), self._bits[: len(self._names)]
        # Hashes differ in at least as many bits as one has more than the other, and have at most the sum of both set.
        near = np.flatnonzero(100 * np.abs(known - bits) <= self._maximum * (known + bits))
        if not near.size:
            return None
        percents = difference_percent(self._hashes[near], own.hash)
        plain = bits_of(self._hashes[near] | own.hash) < _FEW
        percents[plain] = np.maximum(percents[plain], colour_percent(self._colours[near[plain]], own.colours))
        best = int(percents.argmin())
        return (self._names[near[best]], float(percents[best])) if percents[best] <= self._maximum else None

    def keep(self, own: Look, name: str) -> None:
        """Remember a clip that was kept."""
        if len(self._names) == len(self._hashes):
            self._hashes = np.concatenate([self._hashes, np.zeros_like(self._hashes)])
            self._bits = np.concatenate([self._bits, np.zeros_like(self._bits)])
            self._colours = np.concatenate([self._colours, np.zeros_like(self._colours)])
        self._hashes[len(self._names)] = own.hash
        self._bits[len(self._names)] = bits_of(own.hash[None])[0]
        self._colours[len(self._names)] = own.colours
        self._names.append(name)
