"""Text over pictures is found, and textures, posts and windows are not taken for it: both with the rates that the documents state."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from videogen_api.curation import Filters, TextOverlayFilter
from videogen_models.video import encode_mp4
from videogen_testing.curation import curated, job
from videogen_trainer.curation.text_overlay import glance, text_percent, two_tones
from videogen_trainer.video_reading import read_frames

Frames = NDArray[np.uint8]
HEIGHT, WIDTH, FRAMES = 180, 320, 8
LIMIT = float(TextOverlayFilter().maximum_percent)
LINES = ("Landslide closes highway 7", "LIVE from the control room", "Helpline 1078", "Schools open on Monday")
rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH]


def smooth_noise(power: float, random: np.random.Generator) -> NDArray[np.float64]:
    """Noise whose spectrum falls like that of clouds and leaves."""
    way = np.hypot(np.fft.fftfreq(HEIGHT)[:, None], np.fft.fftfreq(WIDTH)[None])
    picture = np.fft.ifft2(np.fft.fft2(random.normal(size=(HEIGHT, WIDTH))) / np.maximum(way, 1 / WIDTH) ** power).real
    return np.asarray(255 * (picture - picture.min()) / np.ptp(picture))


def pile(random: np.random.Generator, count: int = 700) -> NDArray[np.float64]:
    """Many small rectangles, as leaves or a crowd have them."""
    picture = np.full((HEIGHT, WIDTH), 90.0)
    for _ in range(count):
        row, column, size = random.integers(HEIGHT), random.integers(WIDTH), random.integers(2, 7)
        picture[max(0, row - size) : row + size, max(0, column - size) : column + size] = random.uniform(0, 255)
    return picture


def grounds(random: np.random.Generator) -> dict[str, NDArray[np.float64]]:
    bricks = (rows % 14 < 2) | ((columns + 9 * (rows // 14 % 2)) % 22 < 2)
    posts = np.full((HEIGHT, WIDTH), 130.0)
    posts[90:118] = (columns[90:118] // 7 % 2) * 110 + 60
    return {
        "clouds": smooth_noise(1.5, random),
        "leaves": smooth_noise(1.0, random),
        "gravel": random.uniform(0, 255, (HEIGHT, WIDTH)),
        "crowd": pile(random),
        "bricks": np.where(bricks, 200.0, 90.0),
        "windows": np.where((rows % 26 < 13) & (columns % 22 < 11), 40.0, 190.0),
        "fence": (columns // 6 % 2) * 170.0 + 40,
        "chequer": ((rows // 9 + columns // 9) % 2) * 200.0 + 20,
        "posts": posts,
        "waves": 128 + 70 * np.sin(rows / 3.5 + 4 * np.sin(columns / 37)),
    }


def filmed(ground: NDArray[np.float64], pan: int, random: np.random.Generator) -> Frames:
    """The ground under a camera that stands still or pans, with its noise, uint8 [F, H, W, 3]."""
    moving = [np.roll(ground, pan * number, axis=1) + random.normal(0, 3, ground.shape) for number in range(FRAMES)]
    return np.repeat(np.clip(np.stack(moving), 0, 255).astype(np.uint8)[..., None], 3, axis=3)


def captioned(frames: Frames, line: str, style: int, random: np.random.Generator) -> Frames:
    """With a line of letters over each frame: outlined, in a box, or yellow with a thin outline."""
    size = int(HEIGHT * random.uniform(0.06, 0.1))
    place = (int(WIDTH * random.uniform(0.04, 0.15)), int(HEIGHT * random.choice([0.06, 0.8, 0.86])))
    font, drawn = ImageFont.load_default(size=size), []
    for frame in frames:
        draw = ImageDraw.Draw(image := Image.fromarray(frame))
        if style == 1:
            draw.rectangle((0, place[1] - 4, WIDTH, place[1] + int(1.3 * size)), fill=(15, 15, 80))
        fill, outline = [((255, 255, 255), 2), ((255, 255, 255), 0), ((255, 230, 40), 1)][style]
        draw.text(place, line, font=font, fill=fill, stroke_width=outline, stroke_fill=(0, 0, 0))
        drawn.append(np.asarray(image))
    return np.stack(drawn)


def score(frames: Frames | list[Frames]) -> float:
    return text_percent(tuple(glance(frame) for frame in frames))


def compressed(frames: Frames, folder: Path) -> list[Frames]:
    (folder / "a.mp4").write_bytes(encode_mp4(frames, 8))
    return list(read_frames(folder / "a.mp4"))


def clips(seed: int) -> Iterator[tuple[str, Frames, np.random.Generator]]:
    random = np.random.default_rng(seed)
    for pan in (0, 3):
        for name, ground in grounds(random).items():
            yield f"{name}, {'panned' if pan else 'still'}", filmed(ground, pan, random), random


def test_of_clips_without_text_none_in_twenty_and_of_clips_with_it_four_in_five_are_found(tmp_path: Path) -> None:
    """The rates that docs/datasets.md states. Grounds that stand still and are as rough as letters hide them."""
    false, missed, with_text = [], [], 0
    for name, frames, random in clips(seed=31):
        if (share := score(compressed(frames, tmp_path))) > LIMIT:
            false.append(f"{name}: {share}")
        for number in range(3):
            with_text += 1
            shown = captioned(frames, LINES[int(random.integers(len(LINES)))], number, random)
            if (share := score(compressed(shown, tmp_path))) <= LIMIT:
                missed.append(f"{name}, style {number}: {share}")
    print(f"\nfalse alarms {len(false)} of 20: {false}\nmissed {len(missed)} of {with_text}: {missed}")
    assert len(false) <= 1
    assert len(missed) <= with_text // 5


def test_text_that_moves_with_the_scene_is_no_overlay() -> None:
    random = np.random.default_rng(0)
    sign = captioned(filmed(np.full((HEIGHT, WIDTH), 90.0), 0, random), LINES[0], 1, random)
    panned = np.stack([np.roll(frame, 4 * number, axis=1) for number, frame in enumerate(sign)])
    assert score(sign) > LIMIT
    assert score(panned) <= LIMIT


def test_more_text_covers_more() -> None:
    random = np.random.default_rng(1)
    plain = filmed(smooth_noise(1.8, random), 3, random)
    one = captioned(plain, LINES[0], 1, np.random.default_rng(5))
    assert score(plain) == 0 < score(one) < score(np.concatenate([one[:, :90], one[:, 90:][:, ::-1], one[:, 90:]], axis=1)) < 100


@pytest.mark.parametrize("shape", [(1, 1, 3), (3, 500, 3), (500, 3, 3), (4, 4, 3)])
def test_pictures_of_any_size_have_an_answer(shape: tuple[int, int, int]) -> None:
    picture = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    assert 0 <= score([picture] * 3) <= 100


def test_two_tones_have_no_variance_within() -> None:
    assert two_tones(np.array([[10.0, 10, 200, 200]])) == (1.0, 190.0)
    assert two_tones(np.full((2, 2), 7.0)) == (0.0, 0.0)
    assert two_tones(np.arange(256.0)[None])[0] == pytest.approx(0.75, abs=0.01)  # of an even spread, by calculus


def test_a_clip_with_text_is_rejected_with_its_share_and_a_picture(tmp_path: Path) -> None:
    random = np.random.default_rng(3)
    plain = [filmed(smooth_noise(1.8, random), 3, random) for _ in range(3)]
    (tmp_path / "raw").mkdir()
    for name, frames in {"a": plain[0], "b": captioned(plain[1], LINES[1], 1, random), "c": plain[2]}.items():
        (tmp_path / f"raw/{name}.mp4").write_bytes(encode_mp4(frames, 8))
        (tmp_path / f"raw/{name}.txt").write_text(f"clip {name}")
    wanted = job(filters=Filters(text_overlay=TextOverlayFilter()), maximum_rejected_percent=40, held_out_percent=0)
    assert [record.caption for record in curated(tmp_path, wanted).records] == ["clip a", "clip c"]
    page = (tmp_path / "datasets/shapes/reports/v1.html").read_text()
    assert "Rejected: TextOverlay (1)" in page and "raw/b.mp4:0 has text over" in page
