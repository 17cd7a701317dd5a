"""The simulated year of tests/simulation/test_cycle_year.py for 100 seeds. `make soak` runs it."""

import pytest

from videogen_testing.cycle_year import Year

SEEDS = 100


@pytest.mark.parametrize("seed", range(SEEDS))
def test_what_must_hold_after_every_step_holds(seed: int) -> None:
    year = Year(seed)
    year.live()
    assert len(year.created) > 20
