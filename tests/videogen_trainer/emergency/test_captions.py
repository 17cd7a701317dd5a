"""Captions can be read: measured on the decoded file, and what cannot be drawn is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import ImageFont

from videogen_api.emergency import CaptionFont
from videogen_api.training_run import Reason
from videogen_models.sealed import sha256_of
from videogen_models.video import decode_mp4, encode_mp4
from videogen_trainer.emergency import captions
from videogen_trainer.emergency.captions import (
    Lettering,
    caption_box,
    captioned,
    check_letters,
    check_script,
    enlarged_size,
    open_lettering,
    wrapped,
)
from videogen_trainer.emergency.catalogue import TYPES
from videogen_trainer.failure import Failure

LONG = "Severe cyclonic storm: do not go to sea, keep away from the shore, listen to All India Radio for instructions"
Picture = NDArray[np.uint8]


def noise(height: int, width: int, frames: int = 3) -> Picture:
    return np.random.default_rng(0).integers(0, 256, (frames, height, width, 3), dtype=np.uint8)


def luminance(colours: Picture) -> NDArray[np.float64]:
    """Relative luminance (WCAG 2.2, definition) of sRGB colours [..., 3]."""
    shares = colours / 255.0
    linear = np.where(shares <= 0.04045, shares / 12.92, ((shares + 0.055) / 1.055) ** 2.4)
    return np.asarray(linear @ np.array([0.2126, 0.7152, 0.0722]))


def contrast(lighter: float, darker: float) -> float:
    return (lighter + 0.05) / (darker + 0.05)


@pytest.mark.parametrize("size", [(16, 16), (32, 64), (64, 32), (256, 256), (576, 1024)])
@pytest.mark.parametrize("caption", [TYPES[0].caption, LONG], ids=["short", "long"])
@pytest.mark.parametrize("ground", [255, None], ids=["white", "noise"])
def test_text_has_the_contrast_of_wcag_in_the_decoded_video_and_lies_inside_the_frame(
    size: tuple[int, int], caption: str, ground: int | None
) -> None:
    clip = noise(*size, frames=1) if ground is None else np.full((1, *size, 3), ground, np.uint8)
    shown = captioned(clip, caption)
    height, width = shown.shape[1:3]
    rows = len(caption_box(caption, width, height, Lettering()))
    ink = (shown[0, -rows:] != captions.BOX).any(axis=-1)
    where_rows, where_columns = np.nonzero(ink.any(axis=1))[0], np.nonzero(ink.any(axis=0))[0]
    assert rows <= 0.4 * height
    assert where_rows[0] >= 3 and where_rows[-1] < rows - 3
    assert where_columns[0] >= 3 and where_columns[-1] < width - 3
    decoded = decode_mp4(encode_mp4(shown, 8))[0, -rows:]
    strokes = (shown[0, -rows:] == captions.TEXT).all(axis=-1)
    text, box = (float(np.median(luminance(decoded[mask]))) for mask in (strokes, ~ink))
    assert strokes.sum() > 20 * len(caption.split())
    assert contrast(text, box) >= 4.5
    assert contrast(float(np.quantile(luminance(decoded[strokes]), 0.1)), box) >= 4.5, "nine of ten pixels of the strokes"


@pytest.mark.parametrize("size", [(240, 240), (256, 512), (1024, 576)])
def test_letters_are_large_and_no_word_is_lost(size: tuple[int, int]) -> None:
    for kind in TYPES:
        font = Lettering().at(round(0.075 * min(size)))
        lines = wrapped(kind.caption, font, size[1] - 40)
        assert " ".join(lines) == kind.caption
        assert all(font.getlength(line) <= size[1] - 40 for line in lines)
    box = caption_box("H", size[1], size[0], Lettering())
    rows = np.nonzero((box == captions.TEXT).all(axis=-1).any(axis=1))[0]
    assert rows[-1] - rows[0] + 1 >= 0.05 * min(size), "a capital letter has a twentieth of the shorter side"


ENLARGED = [((16, 16), (240, 240)), ((32, 32), (256, 256)), ((16, 24), (240, 360)), ((240, 8), (960, 32)), ((256, 256), (256, 256))]


@pytest.mark.parametrize("small, large", ENLARGED)
def test_small_videos_are_enlarged_by_a_whole_factor(small: tuple[int, int], large: tuple[int, int]) -> None:
    assert enlarged_size(*small) == large
    assert captions.enlarged(noise(*small)).shape == (3, *large, 3)


def test_the_picture_above_the_caption_is_the_video() -> None:
    clip = noise(256, 256)
    shown = captioned(clip, "Flood")
    rows = len(caption_box("Flood", 256, 256, Lettering()))
    assert np.array_equal(shown[:, :-rows], clip[:, :-rows])
    assert all(np.array_equal(frame[-rows:], shown[0, -rows:]) for frame in shown)


@pytest.mark.parametrize("caption", ["W" * 60, " ".join(["stay"] * 32)])
def test_a_caption_without_room_is_refused(caption: str) -> None:
    with pytest.raises(ValueError, match="has no room in 240 x 64 pixels with letters of 11; shorten it"):
        caption_box(caption, 240, 64, Lettering())


@pytest.mark.parametrize("caption, letter", [("बाढ़", "U+092C"), ("Überflutung", "U+00DC"), ("₹ 500", "U+20B9")])
def test_letters_that_the_own_font_lacks_are_named(caption: str, letter: str) -> None:
    with pytest.raises(Failure, match="the font lacks") as caught:
        check_letters(caption, Lettering(), "the caption of flood")
    assert letter in caught.value.message
    assert "name a font of yours in templates.captionFont" in caught.value.message


def test_all_captions_that_are_brought_along_can_be_drawn() -> None:
    for kind in TYPES:
        check_letters(kind.caption, Lettering(), kind.category)
        caption_box(kind.caption, 240, 240, Lettering())


@pytest.mark.parametrize("caption", ["बाढ़: ऊँचे स्थान पर जाएँ", "flood (سیلاب)"])
def test_a_script_whose_letters_join_needs_a_machine_that_can_join_them(caption: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(captions, "can_shape", lambda: True)
    check_script(caption, "x")
    monkeypatch.setattr(captions, "can_shape", lambda: False)
    check_script("Überflutung: ₹ 500", "x")
    with pytest.raises(Failure, match="no FriBiDi for Pillow") as caught:
        check_script(caption, "x")
    assert caught.value.reason is Reason.FONT_MISSING


def own_font(storage: Path) -> CaptionFont:
    """Pillow's own font as a file of the user's."""
    data = Lettering().at(10).font_bytes
    (storage / "fonts").mkdir()
    (storage / "fonts/own.ttf").write_bytes(data)
    return CaptionFont(path="fonts/own.ttf", digest="sha256:" + sha256_of(storage / "fonts/own.ttf"))


def test_a_font_of_the_users_own_is_used(tmp_path: Path) -> None:
    lettering = open_lettering(own_font(tmp_path), tmp_path)
    assert lettering.data is not None
    drawn = lettering.at(20, ImageFont.Layout.BASIC).getmask("Flood")
    assert bytes(drawn) == bytes(Lettering().at(20).getmask("Flood"))
    assert (caption_box("Flood", 240, 240, lettering) == captions.TEXT).all(axis=-1).sum() > 50
    with pytest.raises(Failure, match=r"name another one in templates\.captionFont"):
        check_letters("बाढ़", lettering, "x")


def test_a_font_that_is_missing_changed_or_none_is_refused(tmp_path: Path) -> None:
    wanted = own_font(tmp_path)
    with pytest.raises(Failure, match="there is no file") as caught:
        open_lettering(wanted.model_copy(update={"path": "fonts/absent.ttf"}), tmp_path)
    assert caught.value.reason is Reason.FONT_MISSING
    (tmp_path / "fonts/own.ttf").write_bytes(b"x" * 100)
    with pytest.raises(Failure, match=r"templates\.captionFont: .* has the digest sha256:.*, expected"):
        open_lettering(wanted, tmp_path)
    with pytest.raises(Failure, match="is no TrueType or OpenType font"):
        open_lettering(wanted.model_copy(update={"digest": "sha256:" + sha256_of(tmp_path / "fonts/own.ttf")}), tmp_path)
