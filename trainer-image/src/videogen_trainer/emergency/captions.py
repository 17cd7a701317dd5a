"""Captions that are written into videos so that they can be read: white on a dark box at the foot of the picture.

The contrast of text and box is that of WCAG 2.2 (success criterion 1.4.3, at least 4.5) whatever the picture shows, for the box
hides it. Small videos are enlarged by a whole factor first: letters of eight pixels are none.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont, features

from videogen_api.emergency import CaptionFont
from videogen_api.training_run import Reason
from videogen_models.sealed import sha256_of
from videogen_models.video import lacks
from videogen_trainer.failure import Failure

Frames = npt.NDArray[np.uint8]  # [frames, height, width, 3]

TEXT, BOX = (255, 255, 255), (16, 18, 24)
READABLE_SIDE, LONGEST_SIDE = 240, 1024  # pixels: small videos are enlarged to the first, none beyond the second
LARGEST, SMALLEST = 0.075, 0.045  # size of the letters, as a share of the shorter side
LEAST_PIXELS = 11
HIGHEST_BOX = 0.4  # of the picture
LINE, MARGIN = 1.3, 0.6  # as multiples of the letters' size
_SHAPED = range(0x0590, 0x10A0)  # Hebrew to Myanmar: letters change and move with their neighbours


@dataclass(frozen=True, slots=True)
class Lettering:
    """A font file's bytes; None is Pillow's own font, which has English letters only."""

    data: bytes | None = None

    def at(self, size: int, layout: ImageFont.Layout | None = None) -> ImageFont.FreeTypeFont:
        """The font with letters of `size` pixels."""
        if self.data is None:
            own = ImageFont.load_default(size)
            assert isinstance(own, ImageFont.FreeTypeFont), "Pillow without FreeType; its wheels have it"
            return own
        return ImageFont.truetype(io.BytesIO(self.data), size, layout_engine=layout)


def open_lettering(wanted: CaptionFont | None, storage: Path) -> Lettering:
    """The captions' font. Raises Failure(FontMissing) if it is not there, has another SHA-256, or is no font."""
    if wanted is None:
        return Lettering()
    path = storage / wanted.path
    if not path.is_file():
        raise _missing(f"there is no file {path}; put the font there or correct the path")
    if (found := sha256_of(path)) != wanted.sha256:
        raise _missing(f"{path} has the digest sha256:{found}, expected {wanted.digest}; restore the file or correct digest")
    lettering = Lettering(path.read_bytes())
    try:
        lettering.at(LEAST_PIXELS)
    except OSError as error:
        raise _missing(f"{path} is no TrueType or OpenType font: {error}") from error
    return lettering


def check_letters(caption: str, lettering: Lettering, where: str) -> None:
    """Raises Failure(FontMissing) if the font lacks a letter of the caption."""
    font = lettering.at(24, ImageFont.Layout.BASIC)
    for letter in caption:
        if lacks(font, letter):
            own = "the trainer's own has English letters only, name a font of yours" if lettering.data is None else "name another one"
            raise _missing(f"the font lacks {letter!r} (U+{ord(letter):04X}) of {where}; {own} in templates.captionFont", field="")


def check_script(caption: str, where: str) -> None:
    """Raises Failure(FontMissing) if this machine cannot put the caption's letters together."""
    if any(ord(letter) in _SHAPED for letter in caption) and not can_shape():
        raise _missing(
            f"{where} is in a script whose letters join, and this trainer has no FriBiDi for Pillow; put it into its image", field=""
        )


def can_shape() -> bool:
    """Whether Pillow can put together scripts whose letters change with their neighbours, such as Devanagari."""
    return bool(features.check("raqm")) and bool(features.check("fribidi"))


def enlarged_size(height: int, width: int) -> tuple[int, int]:
    """Height and width times the smallest whole factor that makes the shorter side long enough to read on."""
    factor = max(1, min(-(-READABLE_SIDE // min(height, width)), LONGEST_SIDE // max(height, width)))
    return height * factor, width * factor


def enlarged(frames: Frames) -> Frames:
    """The video in its `enlarged_size`."""
    height, width = enlarged_size(*frames.shape[1:3])
    if (height, width) == frames.shape[1:3]:
        return frames
    return np.stack([np.asarray(Image.fromarray(frame).resize((width, height), Image.Resampling.BICUBIC)) for frame in frames])


def captioned(frames: Frames, caption: str, lettering: Lettering | None = None) -> Frames:
    """The video `enlarged`, with its caption in the picture. Raises ValueError if the caption has no room."""
    large = enlarged(frames)
    strip = caption_box(caption, large.shape[2], large.shape[1], lettering or Lettering())
    return np.concatenate([large[:, : -strip.shape[0]], np.broadcast_to(strip, (len(large), *strip.shape))], axis=1)


def caption_box(caption: str, width: int, height: int, lettering: Lettering) -> Frames:
    """The box [rows, width, 3] with the caption, letters as large as there is room for. Raises ValueError if there is none."""
    smallest, largest = (max(LEAST_PIXELS, round(share * min(height, width))) for share in (SMALLEST, LARGEST))
    for size in range(largest, smallest - 1, -1):
        font, margin, line = lettering.at(size), round(MARGIN * size), round(LINE * size)
        lines = wrapped(caption, font, width - 2 * margin)
        rows = len(lines) * line + 2 * margin
        if lines and rows <= HIGHEST_BOX * height:
            return _drawn(lines, font, width, rows + rows % 2, margin, line)
    raise ValueError(
        f"the caption {caption!r} of {len(caption)} characters has no room in {width} x {height} pixels with letters of {smallest};"
        " shorten it, or use a larger recipe.resolution"
    )


def wrapped(caption: str, font: ImageFont.FreeTypeFont, width: int) -> list[str]:
    """The caption in lines of at most `width` pixels; empty if one of its words is longer."""
    lines: list[str] = []
    for word in caption.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and font.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines if all(font.getlength(line) <= width for line in lines) else []


def _drawn(lines: list[str], font: ImageFont.FreeTypeFont, width: int, rows: int, margin: int, line: int) -> Frames:
    picture = Image.new("RGB", (width, rows), BOX)
    draw = ImageDraw.Draw(picture)
    for number, text in enumerate(lines):
        draw.text((width / 2, margin + (number + 0.5) * line), text, fill=TEXT, font=font, anchor="mm")
    return np.asarray(picture)


def _missing(message: str, field: str = "templates.captionFont: ") -> Failure:
    return Failure(Reason.FONT_MISSING, f"{field}{message}")
