"""Frames to files and back: H.264 in mp4, and a contact sheet. Frames are uint8 [frames, height, width, 3], RGB."""

from __future__ import annotations

import bisect
import io
import math
import re
import unicodedata
from collections.abc import Sequence
from fractions import Fraction

import av
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

Frames = npt.NDArray[np.uint8]
# With x264's look-ahead, equal small clips gave several files; zerolatency switches it off.
X264 = {"preset": "veryfast", "tune": "zerolatency"}
_DRAWN = 10_000  # letters of a text of which some may have room in a line; Pillow measures no more than a million


def encode_mp4(frames: Frames, frame_rate: int, *, quality: int = 18) -> bytes:
    """mp4 (H.264, yuv420p).

    yuv420p has no odd sizes: an odd last row or column is repeated. `quality` is x264's CRF, 0 (lossless) .. 51.
    Raises ValueError if `frames` is not uint8 [frames >= 1, height, width, 3].
    """
    if frames.ndim != 4 or frames.shape[0] < 1 or frames.shape[3] != 3 or frames.dtype != np.uint8:
        raise ValueError(f"frames are {frames.dtype} {frames.shape}, expected uint8 [frames, height, width, 3]")
    height, width = frames.shape[1:3]
    frames = np.pad(frames, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=Fraction(frame_rate), options=X264 | {"crf": str(quality)})
        stream.height, stream.width, stream.pix_fmt, stream.thread_count = frames.shape[1], frames.shape[2], "yuv420p", 1
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return buffer.getvalue()


def decode_mp4(data: bytes) -> Frames:
    """All frames of a video as `encode_mp4` writes it: no other format and decoder is reached. Raises ValueError if it cannot be decoded or
    has none.
    """
    try:
        with av.open(io.BytesIO(data), format="mp4") as container:
            if (codec := container.streams.video[0].codec_context.name) != "h264":
                raise ValueError(f"the video's pictures are in {codec}; expected h264")
            frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    except (av.FFmpegError, IndexError) as error:
        raise ValueError(f"the video cannot be decoded: {error}") from error
    if not frames:
        raise ValueError("the video has no frames")
    return np.stack(frames).astype(np.uint8, copy=False)


def contact_sheet(clips: Sequence[Frames], captions: Sequence[str], *, columns: int = 8, scale: int = 2) -> bytes:
    """PNG with one row a clip: its caption above `columns` frames at even distances, enlarged `scale` times.

    An ellipsis stands for letters that Pillow's own font lacks (it has those of ASCII), and for what the row has no room for.
    """
    if not clips or len(clips) != len(captions):
        raise ValueError(f"{len(clips)} clips and {len(captions)} captions; a contact sheet needs as many of both, at least one")
    margin, line = 6, 14
    height, width = (scale * size + margin for size in clips[0].shape[1:3])
    columns = min(columns, *(len(clip) for clip in clips))
    sheet = Image.new("RGB", (columns * width + margin, len(clips) * (height + line) + margin), (24, 26, 30))
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default()
    for row, (clip, caption) in enumerate(zip(clips, captions, strict=True)):
        top = margin + row * (height + line)
        draw.text((margin, top), _in_a_line(caption, font, sheet.width - 2 * margin), fill=(220, 220, 220), font=font)
        for column, number in enumerate(np.linspace(0, len(clip) - 1, columns).round().astype(int)):
            frame = Image.fromarray(clip[number]).resize((width - margin, height - margin), Image.Resampling.NEAREST)
            sheet.paste(frame, (margin + column * width, top + line))
    buffer = io.BytesIO()
    sheet.save(buffer, format="PNG")
    return buffer.getvalue()


def lacks(font: ImageFont.FreeTypeFont, letter: str) -> bool:
    """Whether the font, laid out without shaping, has nothing to draw for this letter though there is something to see."""
    if letter.isspace() or unicodedata.category(letter) == "Cf":
        return False
    return bytes(font.getmask(letter)) == bytes(font.getmask("\uffff"))  # no font has that one: it is drawn as a missing letter is


def _in_a_line(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    assert isinstance(font, ImageFont.FreeTypeFont), "Pillow without FreeType; its wheels have it"
    text = "".join(letter for letter in text[:_DRAWN] if unicodedata.category(letter) != "Cf")  # such as joiners: they have no shape
    absent = {letter for letter in set(text) if lacks(font, letter)}
    drawable = "".join("\0" if letter in absent else letter for letter in text)
    line = " ".join(re.sub("\0[\0\\s]*\0|\0", "\u2026", drawable).split())
    if font.getlength(line) <= width:
        return line
    return line[: bisect.bisect(range(1, len(line)), width, key=lambda end: math.ceil(font.getlength(line[:end] + "\u2026")))] + "\u2026"
