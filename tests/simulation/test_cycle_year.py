"""A year of all cycles of two models, with failures, outages, crashes and people: what must hold at every step holds."""

from datetime import UTC, datetime

import pytest

from videogen_operator.conditions import timestamp
from videogen_testing.cycle_year import Year


@pytest.mark.parametrize("seed", range(3))
def test_each_time_has_one_run_or_one_reason_and_no_version_comes_twice(seed: int) -> None:
    year = Year(seed)
    year.live()  # which looks after every step
    assert len(year.created) > 20
    assert year.ends > 90, "of weekly, monthly, quarterly and annual cycles of two models"


def test_the_same_seed_makes_the_same_year() -> None:
    first, second = Year(7), Year(7)
    first.live()
    second.live()
    assert first.created == second.created
    assert timestamp(first.now) == timestamp(second.now)
    assert datetime(2026, 12, 1, tzinfo=UTC) < first.now
