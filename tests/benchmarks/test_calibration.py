"""The fault of the rollback benchmark is one on every machine."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
from benchmarks.calibration import OVER, UNDER, fault


def machine(step: float, overhead: float, noise: tuple[float, ...] = (0.0,)) -> Callable[[int], float]:
    """Seconds of a video with so many steps, on a machine of this speed."""
    more = itertools.cycle(noise)
    return lambda steps: overhead + step * steps + next(more)


MACHINES = {
    "a slow one": machine(0.15, 0.2),
    "this one": machine(0.027, 0.01),
    "one on which twelve steps took less than the old limit of 0.1 s": machine(0.007, 0.005),
    "a very fast one": machine(0.0005, 0.002),
    "one that others use": machine(0.02, 0.01, (0.0, 0.05, 0.0, 0.2, 0.01, 0.0, 0.03)),
}


@pytest.mark.parametrize("seconds_of", MACHINES.values(), ids=MACHINES)
def test_a_slow_video_takes_five_limits_and_a_fast_one_half_of_one(seconds_of: Callable[[int], float]) -> None:
    found = fault(seconds_of)
    assert min(seconds_of(found.steps) for _ in range(7)) >= OVER * found.limit
    assert found.fast * UNDER <= found.limit + 1e-4
    assert 1 < found.steps <= 1000


def test_a_machine_on_which_steps_cost_nothing_is_named() -> None:
    with pytest.raises(ValueError, match=r"a video of 1000 steps takes 0\.030 s, one of 1 0\.030 s; no fault can be made"):
        fault(lambda _: 0.03)
