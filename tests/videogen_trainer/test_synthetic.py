"""Synthetic clips: the same for the same seed, every combination once a round, and files that decode to what was drawn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from videogen_models.video import decode_mp4
from videogen_trainer.synthetic import COMBINATIONS, SyntheticClip, synthetic_clip, write_folder


def clip(index: int, seed: int = 0, **size: int) -> SyntheticClip:
    return synthetic_clip(index, seed=seed, **{"frames": 8, "height": 32, "width": 32} | size)


def captioned(caption: str) -> SyntheticClip:
    return next(made for made in map(clip, range(len(COMBINATIONS))) if made.caption == caption)


def test_a_clip_depends_on_seed_and_index_alone() -> None:
    np.testing.assert_array_equal(clip(5).frames, clip(5).frames)
    assert not np.array_equal(clip(5).frames, clip(5, seed=1).frames)
    assert not np.array_equal(clip(5).frames, clip(5 + len(COMBINATIONS)).frames)


@pytest.mark.parametrize("round_", [0, 3])
def test_a_round_has_every_combination_once(round_: int) -> None:
    first = round_ * len(COMBINATIONS)
    captions = {clip(first + place).caption for place in range(len(COMBINATIONS))}
    assert len(captions) == len(COMBINATIONS) == 108


def centre(frame: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Centre (x, y) of what is brighter than the ground."""
    weight = np.abs(frame.astype(float) - frame[0, 0]).sum(-1)
    rows, columns = np.indices(weight.shape)
    return np.asarray([(weight * columns).sum() / weight.sum(), (weight * rows).sum() / weight.sum()])


@pytest.mark.parametrize(
    ("motion", "direction"),
    [
        ("moves left", (-1, 0)),
        ("moves right", (1, 0)),
        ("moves up", (0, -1)),
        ("moves down", (0, 1)),
        ("stays still", (0, 0)),
        ("grows", (0, 0)),
    ],
)
def test_the_shape_moves_as_the_caption_says(motion: str, direction: tuple[int, int]) -> None:
    frames = captioned(f"a blue circle {motion}").frames
    moved = centre(frames[-1]) - centre(frames[0])
    np.testing.assert_array_equal(np.sign(np.where(np.abs(moved) > 1, moved, 0)), direction)
    assert np.array_equal(frames[0], frames[-1]) is (motion == "stays still")


def test_a_growing_shape_covers_more_in_every_frame() -> None:
    frames = captioned("a white square grows").frames.astype(float)
    assert (np.diff(frames.mean(axis=(1, 2, 3))) > 0).all()


def test_the_colour_is_the_captions() -> None:
    frame = captioned("a red square stays still").frames[0]
    x, y = centre(frame).round().astype(int)
    assert frame[y, x, 0] > 200
    assert frame[y, x, 1:].max() < 80


@pytest.mark.parametrize(("height", "width"), [(16, 16), (48, 80)])
def test_any_size(height: int, width: int) -> None:
    assert clip(3, frames=5, height=height, width=width).frames.shape == (5, height, width, 3)


def test_the_folder_has_videos_and_captions(tmp_path: Path) -> None:
    write_folder(tmp_path, count=3, seed=2, frames=6, height=32, width=48)
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"clip-00000{n}.{kind}" for n in range(3) for kind in ("mp4", "txt")]
    made = synthetic_clip(1, seed=2, frames=6, height=32, width=48)
    assert (tmp_path / "clip-000001.txt").read_text() == made.caption + "\n"
    decoded = decode_mp4((tmp_path / "clip-000001.mp4").read_bytes())
    assert decoded.shape == made.frames.shape
    assert np.abs(decoded.astype(float) - made.frames).mean() < 5
