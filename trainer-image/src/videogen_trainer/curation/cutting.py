"""Cutting a video into clips: back to back within a scene and within one side of the split.

HeldOut or Train. Clips of one video are alike, so neighbours must not be on both sides, yet a few videos must still
fill both, and long clips must fit. So a video is cut in time into blocks: of 64 frames at first, of 128 after 256 frames, of
256 after 512, and so on up to `LONGEST_CLIP`. A block is HeldOut by the hash of the video file's bytes and the block's place:
not of its name, its place in the folder, the version, the clips or other videos, so a frame that was held out once stays held out
in every version made from that file with that share, at any resolution, length of clips and stride. A clip lies in one block, or
in neighbours of one side.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from videogen_api.curation import LONGEST_CLIP, Curate
from videogen_api.recipe import Recipe
from videogen_api.training_run import Split
from videogen_trainer.curation.text_overlay import glance
from videogen_trainer.video_reading import Footage, Picture, fit, read_timed_frames

SHORTEST_BLOCK = 64  # frames
_SHORTEST, _LONGEST = SHORTEST_BLOCK.bit_length() - 1, LONGEST_CLIP.bit_length() - 1  # as powers of two
_REDUCED = (32, 18)  # width and height of the pictures in which cuts are sought


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Cut:
    """A clip as it was cut: frames uint8 [F, H, W, 3], number of its first frame, and the time of each frame in seconds.

    `glances` are its whole pictures, grey and reduced, if text is sought in them: what `fit` cuts off may hold some.
    """

    frames: NDArray[np.uint8]
    start: int
    split: Split
    times: tuple[float | None, ...]
    glances: tuple[Picture, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class _Taken:
    time: float | None
    frame: Picture
    glance: Picture | None


def _cut(taken: list[_Taken], start: int, split: Split) -> Cut:
    return Cut(
        frames=np.stack([each.frame for each in taken]),
        start=start,
        split=split,
        times=tuple(each.time for each in taken),
        glances=tuple(each.glance for each in taken if each.glance is not None),
    )


def split_of(digest: str, block: int, held_out_percent: int) -> Split:
    """Side of a block of the video file with this SHA-256 (hex). A larger share keeps all that a smaller one holds out."""
    place = int.from_bytes(hashlib.sha256(f"{digest}:{block}".encode()).digest()[:8], "big") % 100
    return Split.HELD_OUT if place < held_out_percent else Split.TRAIN


def block_of(frame: int) -> int:
    """The block that holds this frame, by its first frame / 64: a block is about half as long as what lies before it."""
    length = 1 << min(max(frame.bit_length() - 2, _SHORTEST), _LONGEST)
    return frame // length * length >> _SHORTEST


def cuts_of(path: Footage, digest: str, curate: Curate, recipe: Recipe) -> Iterator[Cut]:
    """Clips of one video, back to back, at most `maximum_clips_per_video`; after the last one the file is read no further.

    A clip spans (frames - 1) x stride + 1 frames of the video; what is left before a change of sides, a cut between
    scenes or the end is dropped. Raises Failure(VideoUnreadable).
    """
    scenes = Scenes(curate.scene_cuts.threshold if curate.scene_cuts else None)
    taken: list[_Taken] = []
    start, side, made = 0, None, 0
    for number, (time, picture) in enumerate(read_timed_frames(path)):
        now = split_of(digest, block_of(number), curate.held_out_percent)
        if scenes.ends_before(picture) or now is not side or not taken:
            start, side, taken = number, now, []
        if (number - start) % curate.frame_stride:
            continue
        seen = glance(picture) if curate.filters.text_overlay else None
        taken.append(_Taken(time, fit(picture, recipe.resolution), seen))
        if len(taken) == recipe.frames:
            yield _cut(taken, start, now)
            made, taken = made + 1, []
        if made == curate.maximum_clips_per_video:
            return


class Scenes:
    """Finds cuts: two frames that follow each other and whose reduced pictures differ by at least the threshold on average."""

    def __init__(self, threshold: int | None) -> None:
        self._threshold = threshold
        self._before: NDArray[np.int16] | None = None

    def ends_before(self, picture: Picture) -> bool:
        """Whether this frame begins a new scene; the first one does not. Without a threshold nothing is looked at."""
        if self._threshold is None:
            return False
        reduced = np.asarray(Image.fromarray(picture).resize(_REDUCED, Image.Resampling.BOX), np.int16)
        before, self._before = self._before, reduced
        return before is not None and int(np.abs(reduced - before).sum()) >= self._threshold * reduced.size
