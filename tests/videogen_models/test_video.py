"""Frames to mp4 and PNG."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from videogen_models.video import contact_sheet, decode_mp4, encode_mp4


def moving_bar(frames: int, height: int, width: int) -> np.ndarray:
    video = np.full((frames, height, width, 3), 30, np.uint8)
    for number, frame in enumerate(video):
        frame[:, number * 2 : number * 2 + 8] = (200, 60, 40)
    return video


@pytest.mark.parametrize("height, width", [(32, 32), (31, 33), (16, 48), (17, 16)])
def test_a_video_comes_back_as_it_was(height: int, width: int) -> None:
    video = moving_bar(6, height, width)
    decoded = decode_mp4(encode_mp4(video, 8))
    assert decoded.shape == (6, height + height % 2, width + width % 2, 3)
    luma = np.array([0.299, 0.587, 0.114])  # yuv420p keeps brightness at full resolution, colour at half
    assert np.abs((decoded[:, :height, :width] - video.astype(float)) @ luma).mean() < 4


def test_a_video_is_the_same_bytes_each_time() -> None:
    video = moving_bar(4, 16, 16)
    assert encode_mp4(video, 8) == encode_mp4(video, 8)


@pytest.mark.parametrize(
    "frames", [np.zeros((0, 16, 16, 3), np.uint8), np.zeros((2, 16, 16), np.uint8), np.zeros((2, 16, 16, 3), np.float32)]
)
def test_what_is_no_video_is_refused(frames: np.ndarray) -> None:
    with pytest.raises(ValueError, match="expected uint8"):
        encode_mp4(frames, 8)


@pytest.mark.parametrize("data", [b"", b"no video at all", encode_mp4(moving_bar(4, 16, 16), 8)[:200]])
def test_what_cannot_be_decoded_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="video"):
        decode_mp4(data)


@pytest.mark.parametrize(("frames", "size"), [(8, 32), (16, 64), (4, 16)])
def test_equal_frames_always_give_the_same_file(frames: int, size: int) -> None:
    video = moving_bar(frames, size, size)
    assert len({encode_mp4(video.copy(), 8) for _ in range(40)}) == 1


def test_a_contact_sheet_shows_the_frames_of_each_clip() -> None:
    clips = [np.full((8, 16, 16, 3), colour, np.uint8) for colour in (50, 250)]
    image = Image.open(io.BytesIO(contact_sheet(clips, ["dark", "light"], columns=4, scale=2)))
    pixels = np.asarray(image)
    assert image.size[0] > 4 * 32
    assert (pixels == 50).all(axis=2).sum() == 4 * 32 * 32
    assert (pixels == 250).all(axis=2).sum() == 4 * 32 * 32


def test_a_contact_sheet_needs_a_caption_for_each_clip() -> None:
    with pytest.raises(ValueError, match="1 clips and 0 captions"):
        contact_sheet([np.zeros((2, 8, 8, 3), np.uint8)], [])


@pytest.mark.parametrize(
    ("caption", "shown"),
    [
        ("a red square", "a red square"),
        ("two\nlines\tand a tab", "two lines and a tab"),
        ("\ufeffa soft\u00ad, joined\u200d and turned\u202e square", "a soft, joined and turned square"),
        ("sch\u00f6n", "sch\u2026n"),
        ("long " * 300_000, "long " * 100),
        ("sample-03 \u092c\u093e\u0922\u093c \u092e\u0947\u0902 2026", "sample-03 \u2026 2026"),
    ],
)
def test_a_caption_is_written_in_one_line_of_what_the_font_has(caption: str, shown: str) -> None:
    clips = [np.full((4, 16, 16, 3), 50, np.uint8)]
    assert contact_sheet(clips, [caption], columns=4, scale=1) == contact_sheet(clips, [shown], columns=4, scale=1)


def test_a_caption_ends_with_the_row_and_is_cut_no_shorter() -> None:
    clips = [np.full((4, 16, 16, 3), 50, np.uint8)]
    sheet = np.asarray(Image.open(io.BytesIO(contact_sheet(clips, ["no room " * 40], columns=4, scale=1))))
    lit = np.flatnonzero((sheet > 100).any(axis=(0, 2)))
    assert sheet.shape[1] - 6 - 10 < lit.max() < sheet.shape[1] - 6  # a margin, and the width of a letter
