"""Captioned synthetic clips: one coloured shape that moves on a dark ground, for tests, demos and the default extractors.

Every 108 consecutive indices hold each of the 3 shapes x 6 colours x 6 motions once, in an order that depends on the seed.
Clip `index` of `seed` is always the same, whatever else is made.

    python -m videogen_trainer.synthetic --out DIR --count N --frames 16 --height 32 --width 32 --seed 0
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

SHAPES = ("square", "circle", "triangle")
COLOURS = {
    "red": (230, 40, 40),
    "green": (40, 200, 60),
    "blue": (50, 80, 235),
    "yellow": (235, 220, 50),
    "purple": (180, 60, 220),
    "white": (240, 240, 240),
}
MOTIONS = ("moves left", "moves right", "moves up", "moves down", "stays still", "grows")
COMBINATIONS = tuple(product(range(len(SHAPES)), range(len(COLOURS)), range(len(MOTIONS))))
_DIRECTIONS = {0: (-1.0, 0.0), 1: (1.0, 0.0), 2: (0.0, -1.0), 3: (0.0, 1.0)}

Frames = NDArray[np.uint8]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SyntheticClip:
    """Frames uint8 [F, H, W, 3], the caption, and what is in it: indices into SHAPES, COLOURS and MOTIONS."""

    frames: Frames
    shape: int
    colour: int
    motion: int
    track: NDArray[np.float64]  # [F, 3]: centre x, centre y and radius, as shares of width and height

    @property
    def caption(self) -> str:
        """For example "a red square moves right"."""
        return f"a {tuple(COLOURS)[self.colour]} {SHAPES[self.shape]} {MOTIONS[self.motion]}"


def synthetic_clip(index: int, *, seed: int, frames: int, height: int, width: int) -> SyntheticClip:
    """Clip number `index` of the endless series of `seed`."""
    round_, place = divmod(index, len(COMBINATIONS))
    order = np.random.default_rng((seed, round_)).permutation(len(COMBINATIONS))
    shape, colour, motion = COMBINATIONS[order[place]]
    random = np.random.default_rng((seed, round_, place, 1))
    track = _track(motion, frames, random)
    ground = random.uniform(0, 70, size=3)
    paint = np.clip(np.array(tuple(COLOURS.values())[colour]) + random.normal(0, 8, size=3), 0, 255)
    coverage = _coverage(shape, track, height, width)[..., None]
    pictures = np.rint(ground + coverage * (paint - ground)).astype(np.uint8)
    return SyntheticClip(frames=pictures, shape=shape, colour=colour, motion=motion, track=track)


def _track(motion: int, frames: int, random: np.random.Generator) -> NDArray[np.float64]:
    """Centre and radius [F, 3] over the clip: half a frame of way, or from small to large."""
    time = np.linspace(-1.0, 1.0, frames)
    centre = random.uniform(0.35, 0.65, size=2)
    radius = np.full(frames, random.uniform(0.14, 0.2))
    if motion in _DIRECTIONS:
        direction = np.array(_DIRECTIONS[motion])
        centre = np.where(direction != 0.0, random.uniform(0.45, 0.55), centre)
        way = random.uniform(0.2, 0.28)
        centres = centre + way * time[:, None] * direction
    else:
        centres = np.repeat(centre[None], frames, axis=0)
    if MOTIONS[motion] == "grows":
        radius = np.linspace(random.uniform(0.06, 0.09), random.uniform(0.24, 0.3), frames)
    return np.concatenate([centres, radius[:, None]], axis=1)


def _coverage(shape: int, track: NDArray[np.float64], height: int, width: int) -> NDArray[np.float64]:
    """Share [F, H, W] of each pixel that the shape covers: a ramp of one pixel over its signed distance to the edge."""
    side = min(height, width)
    rows, columns = np.mgrid[0:height, 0:width] + 0.5
    right = columns - (track[:, 0] * width)[:, None, None]
    down = rows - (track[:, 1] * height)[:, None, None]
    radius = (track[:, 2] * side)[:, None, None]
    match SHAPES[shape]:
        case "square":
            outside = np.maximum(np.abs(right), np.abs(down)) - radius
        case "circle":
            outside = np.hypot(right, down) - radius
        case _:  # a triangle with its tip up: two slopes of 2 : 1 and a base
            slopes = (2.0 * np.abs(right) - down - radius) / np.sqrt(5.0)
            outside = np.maximum(slopes, down - radius)
    return np.asarray(np.clip(0.5 - outside, 0.0, 1.0))


def write_folder(out: Path, *, count: int, seed: int, frames: int, height: int, width: int, frame_rate: int = 8) -> None:
    """Write `clip-<index>.mp4` and `clip-<index>.txt` for indices below `count`; existing files are replaced."""
    from videogen_models.video import encode_mp4

    out.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        clip = synthetic_clip(index, seed=seed, frames=frames, height=height, width=width)
        name = f"clip-{index:06d}"
        (out / f"{name}.mp4").write_bytes(encode_mp4(clip.frames, frame_rate))
        (out / f"{name}.txt").write_text(clip.caption + "\n", encoding="utf-8")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Write captioned synthetic clips: name.mp4 and name.txt.")
    parser.add_argument("--out", type=Path, required=True, help="folder, made if it does not exist")
    for option, default in {"count": 108, "frames": 16, "height": 32, "width": 32, "seed": 0}.items():
        parser.add_argument(f"--{option}", type=int, default=default)
    arguments = parser.parse_args()
    write_folder(
        arguments.out,
        count=arguments.count,
        seed=arguments.seed,
        frames=arguments.frames,
        height=arguments.height,
        width=arguments.width,
    )
    print(f"{arguments.count} clips of {arguments.frames} x {arguments.height} x {arguments.width} in {arguments.out}")


if __name__ == "__main__":
    main()
