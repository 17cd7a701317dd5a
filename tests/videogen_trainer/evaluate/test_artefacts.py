"""Artefacts: each measure sees its own fault and none other, and the rate is that of the frames that have one."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from videogen_api.evaluation import Metric
from videogen_trainer.evaluate import measure
from videogen_trainer.evaluate.artefacts import FLOORS, limits, measures, rates
from videogen_trainer.synthetic import synthetic_clip

Clips = NDArray[np.uint8]
FLICKER, BLOCKING, SATURATION = range(3)


def real(count: int = 108, start: int = 0) -> Clips:
    return np.stack([synthetic_clip(start + n, seed=0, frames=8, height=32, width=32).frames for n in range(count)])


def flashing(clips: Clips) -> Clips:
    """Every third frame is 10 levels brighter."""
    brighter = clips.astype(int)
    brighter[:, 1::3] += 10
    return brighter.clip(0, 255).astype(np.uint8)


def blocked(clips: Clips) -> Clips:
    """8 x 8 blocks of alternating brightness, 16 levels apart."""
    grid = (np.indices((32, 32)) // 8).sum(axis=0) % 2 * 16
    return (clips.clip(10, 240) + grid[:, :, None]).astype(np.uint8)


def blown_out(clips: Clips) -> Clips:
    """Three eighths of every frame are white."""
    white = clips.copy()
    white[:, :, :, :12] = 255
    return white


def share_above(clips: Clips, which: int) -> float:
    return float((measures(clips) > limits(measures(real()).reshape(-1, 3)))[..., which].mean())


@pytest.mark.parametrize(
    "spoil, expected",
    [
        pytest.param(flashing, {FLICKER: 2 / 8}, id="flicker: two of the three flashes, for the last frame has only one neighbour"),
        pytest.param(blocked, {BLOCKING: 1.0}, id="blocks"),
        pytest.param(blown_out, {SATURATION: 1.0}, id="saturation"),
        pytest.param(lambda clips: clips, {}, id="as they are"),
    ],
)
def test_each_measure_sees_its_own_fault(spoil: object, expected: dict[int, float]) -> None:
    assert callable(spoil)
    others = real(24, start=200)
    for which in (FLICKER, BLOCKING, SATURATION):
        assert share_above(spoil(others), which) == pytest.approx(expected.get(which, 0.0), abs=0.1)


def test_a_pixel_that_leaves_the_range_of_its_neighbours_in_time_counts_by_how_far() -> None:
    clip = np.full((1, 5, 16, 16, 3), 100, np.uint8)
    clip[0, 2] = 108
    assert measures(clip)[0, :, FLICKER].tolist() == [0, 0, 8, 0, 0]


def test_a_change_that_stays_is_no_flicker() -> None:
    clip = np.full((1, 6, 16, 16, 3), 100, np.uint8)
    clip[0, 3:] = 200
    assert measures(clip)[0, :, FLICKER].max() == 0


@pytest.mark.parametrize(
    "rows, columns, expected",
    [
        pytest.param(6, 12, 7.0, id="in both directions: (6 + 1) / (0 + 1), the fainter"),
        pytest.param(0, 12, 1.0, id="stripes are no grid"),
    ],
)
def test_blocking_is_the_step_at_the_borders_over_the_step_elsewhere(rows: int, columns: int, expected: float) -> None:
    stairs = np.repeat([0, 1, 0, 1], 8)
    frame = 100 + rows * stairs[:, None] + columns * stairs
    clips = np.broadcast_to(frame[:, :, None], (1, 3, 32, 32, 3)).astype(np.uint8)
    assert measures(clips)[0, :, BLOCKING] == pytest.approx(expected)


def test_a_thing_whose_edge_lies_on_the_grid_is_no_block() -> None:
    frame = np.full((32, 32), 100)
    frame[8:24, 8:32] = 200
    clips = np.broadcast_to(frame[:, :, None], (1, 3, 32, 32, 3)).astype(np.uint8)
    assert measures(clips)[0, :, BLOCKING] == pytest.approx(1.0)


@pytest.mark.parametrize("side", [5, 8], ids=["smaller than a block", "one block"])
def test_a_frame_without_a_block_border_has_no_blocking(side: int) -> None:
    clips = np.random.default_rng(0).integers(0, 255, (1, 2, side, side, 3)).astype(np.uint8)
    assert measures(clips)[0, :, BLOCKING].tolist() == [1, 1]


def test_a_style_of_the_data_is_no_artefact() -> None:
    """Real clips with black borders: generated ones may have them too, and none may be whiter than them."""
    bordered = real()
    bordered[:, :, :6] = 0
    above = limits(measures(bordered).reshape(-1, 3))
    assert rates(measures(bordered), above).mean() <= 3 * 9 / 864  # 3 measures, and 9 of 864 frames are the first above 1 %
    assert rates(measures(blown_out(bordered)), above).mean() > 0.9


def test_real_frames_that_are_perfect_do_not_make_rounding_an_artefact() -> None:
    plain = np.full((2, 4, 16, 16, 3), 100, np.uint8)
    assert limits(measures(plain).reshape(-1, 3)).tolist() == FLOORS.tolist()
    rounded = plain.copy()
    rounded[:, 1] += 1
    assert rates(measures(rounded), limits(measures(plain).reshape(-1, 3))).tolist() == [0, 0]


def test_the_result_is_the_share_of_frames_with_its_interval_and_what_real_frames_have() -> None:
    of_real = measures(real()).reshape(-1, 3)
    half = np.concatenate([real(24, start=300), blown_out(real(24, start=324))])
    result = measure.artefact_rate(of_real, measures(half), seed=0)
    assert result.metric is Metric.ARTEFACT_RATE
    assert float(result.value) == pytest.approx(0.5, abs=0.03)
    assert result.low is not None and result.high is not None
    assert 0.3 < float(result.low) < float(result.value) < float(result.high) < 0.7
    assert result.samples == 48
    assert result.message.startswith("real frames: 0.0")
