"""CLIP score, temporal coherence and the bootstrap, on vectors whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from videogen_api.evaluation import Normalization
from videogen_trainer.evaluate.bootstrap import interval
from videogen_trainer.evaluate.clip_score import normalized, similarities
from videogen_trainer.evaluate.coherence import coherence, motion, steadiness
from videogen_trainer.synthetic import synthetic_clip

Array = NDArray[np.float64]


def at_angle(degrees: float) -> Array:
    return np.array([np.cos(np.radians(degrees)), np.sin(np.radians(degrees))])


@pytest.mark.parametrize(
    ("degrees", "raw", "clip_score_25"),
    [
        pytest.param([0], 1.0, 2.5, id="the same direction"),
        pytest.param([60], 0.5, 1.25, id="60 degrees"),
        pytest.param([90], 0.0, 0.0, id="a right angle"),
        pytest.param([180], -1.0, 0.0, id="the opposite: Raw is negative, ClipScore25 stops at 0"),
        pytest.param([0, 60], 0.75, 1.875, id="two frames: the mean of their cosines"),
        pytest.param([0, 180], 0.0, 0.0, id="the mean is taken before it is cut at 0"),
    ],
)
def test_clip_score(degrees: list[float], raw: float, clip_score_25: float) -> None:
    clips = np.stack([at_angle(angle) for angle in degrees])[None] * 7.0
    cosines = similarities(clips, at_angle(0)[None] * 0.1)
    assert normalized(cosines, Normalization.RAW)[0] == pytest.approx(raw, abs=1e-12)
    assert normalized(cosines, Normalization.CLIP_SCORE_25)[0] == pytest.approx(clip_score_25, abs=1e-12)


def test_an_embedding_without_a_direction_is_refused() -> None:
    with pytest.raises(ValueError, match="zero or not finite"):
        similarities(np.zeros((1, 1, 2)), np.ones((1, 2)))


def test_clips_and_captions_must_be_as_many() -> None:
    with pytest.raises(ValueError, match="do not match"):
        similarities(np.ones((3, 1, 2)), np.ones((2, 2)))


FRAMES = 12
STEADY = np.stack([at_angle(5 * frame) for frame in range(FRAMES)])[None]
FROZEN = np.repeat(STEADY[:, :1], FRAMES, axis=1)
SHUFFLED = STEADY[:, np.random.default_rng(0).permutation(FRAMES)]


@pytest.mark.parametrize(
    ("frames", "moved", "reference", "expected"),
    [
        pytest.param(STEADY, 0.02, 0.02, np.cos(np.radians(5)), id="steady change that moves as the reference does"),
        pytest.param(STEADY, 0.005, 0.02, np.cos(np.radians(5)), id="a quarter of the reference's motion is enough"),
        pytest.param(STEADY, 0.0025, 0.02, np.cos(np.radians(5)) / 2, id="half of that floor costs half"),
        pytest.param(FROZEN, 0.0, 0.02, 0.0, id="frozen, though the reference moves"),
        pytest.param(FROZEN, 0.0, 0.0, 1.0, id="still, as is the reference"),
        pytest.param(STEADY * np.resize([1.0, -1.0], FRAMES)[:, None], 0.5, 0.02, 0.0, id="turns over at each frame"),
    ],
)
def test_coherence(frames: Array, moved: float, reference: float, expected: float) -> None:
    assert coherence(steadiness(frames), np.array([moved]), np.array([reference]))[0] == pytest.approx(expected, abs=1e-12)


def test_shuffled_frames_are_less_coherent_than_the_same_in_order() -> None:
    one = np.ones(1)
    assert coherence(steadiness(SHUFFLED), one, one)[0] < coherence(steadiness(STEADY), one, one)[0] - 0.05


def test_one_frame_has_no_coherence() -> None:
    with pytest.raises(ValueError, match="at least 2"):
        steadiness(np.ones((1, 1, 4)))


def test_motion_sees_a_moving_shape_and_hardly_the_flicker_of_pixels() -> None:
    clips = {clip.caption: clip.frames for clip in (synthetic_clip(n, seed=0, frames=16, height=32, width=32) for n in range(108))}
    moving, still = clips["a red square moves right"], clips["a red square stays still"]
    noise = np.random.default_rng(0).normal(0, 5, still.shape)
    flickering = np.clip(still + noise, 0, 255).astype(np.uint8)
    assert motion(still[None])[0] == 0.0
    assert motion(flickering[None])[0] < 0.1 * motion(moving[None])[0]


@pytest.mark.parametrize(("height", "width"), [(32, 32), (40, 56), (5, 7)])
def test_motion_of_one_white_frame_between_two_black_ones(height: int, width: int) -> None:
    """The mean picture is a third bright, so the deviations are 1/3, 2/3 and 1/3."""
    frames = np.zeros((1, 3, height, width, 3), np.uint8)
    frames[:, 1] = 255
    assert motion(frames)[0] == pytest.approx(4 / 9)


def test_the_interval_is_the_same_for_the_same_seed_and_holds_the_estimate() -> None:
    values = np.random.default_rng(0).standard_normal(50)
    first = interval(lambda drawn: float(values[drawn].mean()), 50, seed=3)
    assert first == interval(lambda drawn: float(values[drawn].mean()), 50, seed=3)
    assert first != interval(lambda drawn: float(values[drawn].mean()), 50, seed=4)
    assert first[0] < values.mean() < first[1]


def test_it_covers_the_true_mean_about_19_times_of_20() -> None:
    random = np.random.default_rng(0)
    covered = 0
    for trial in range(200):
        values = random.standard_normal(40)
        low, high = interval(lambda drawn, values=values: float(values[drawn].mean()), 40, seed=trial, resamples=120)
        covered += low < 0.0 < high
    assert 178 <= covered <= 198


def test_it_narrows_as_one_over_the_root_of_n() -> None:
    random = np.random.default_rng(1)
    widths = []
    for count in (100, 1600):
        values = random.standard_normal(count)
        low, high = interval(lambda drawn, values=values: float(values[drawn].mean()), count, seed=0)
        widths.append(high - low)
    assert widths[0] / widths[1] == pytest.approx(4.0, rel=0.35)
