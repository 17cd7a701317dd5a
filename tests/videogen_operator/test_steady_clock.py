"""The clock of the plans: it follows the wall clock while that runs evenly, and neither leaps nor stands."""

import logging
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from itertools import pairwise

import pytest

from videogen_operator.steady_clock import SLEW, ServerClock, SteadyClock

START, DAY = datetime(2026, 11, 1, tzinfo=UTC), 86400.0


class Machine:
    """A machine whose clock somebody may set."""

    def __init__(self) -> None:
        self.seconds, self.set_by = 1000.0, 0.0
        self.clock = SteadyClock(lambda: START + timedelta(seconds=self.seconds - 1000.0 + self.set_by), lambda: self.seconds)
        self.clock()

    def after(self, seconds: float) -> float:
        """Seconds since the beginning that the clock says so much later."""
        self.seconds += seconds
        return (self.clock() - START).total_seconds()


def test_it_says_what_an_even_clock_says() -> None:
    machine = Machine()
    assert [machine.after(seconds) for seconds in (0.0, 1.0, 3600.0, 0.25)] == [0.0, 1.0, 3601.0, 3601.25]


def test_a_small_correction_is_followed_at_once() -> None:
    machine = Machine()
    machine.set_by = 0.5
    assert machine.after(60.0) == 60.5


@pytest.mark.parametrize("leap", [DAY, -DAY])
def test_a_leap_of_a_day_makes_no_hour_much_longer_or_shorter_and_is_made_good_in_time(leap: float) -> None:
    machine = Machine()
    machine.set_by = leap
    said = [0.0, *(machine.after(3600.0) for _ in range(24 * 21))]
    hours = [later - earlier for earlier, later in pairwise(said)]
    assert all(3600.0 * (1 - SLEW) - 1e-3 <= hour <= 3600.0 * (1 + SLEW) + 1e-3 for hour in hours)
    assert abs(said[-1] - (machine.seconds - 1000.0 + leap)) < 1e-3


def test_it_never_goes_back() -> None:
    machine = Machine()
    said = []
    for leap in (0.0, -DAY, DAY, -10.0, 3.0):
        machine.set_by = leap
        said += [machine.after(seconds) for seconds in (0.0, 0.1, 100.0)]
    assert said == sorted(said)


def test_a_leap_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    machine = Machine()
    machine.set_by = DAY
    with caplog.at_level(logging.WARNING):
        for _ in range(5):
            machine.after(1.0)
    assert [record.getMessage().partition(";")[0] for record in caplog.records] == ["the clock was set by +86400 s"]


@pytest.mark.parametrize("wrong", [DAY, -DAY, 61.0])
def test_a_machine_whose_clock_is_wrong_takes_the_servers_time(wrong: float, caplog: pytest.LogCaptureFixture) -> None:
    clock = ServerClock(lambda: START + timedelta(seconds=wrong))
    assert clock() == START + timedelta(seconds=wrong), "nobody has answered yet"
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            clock.hear(format_datetime(START, usegmt=True))
    assert clock() == START
    assert len(caplog.records) == 1


@pytest.mark.parametrize("date", [format_datetime(START - timedelta(seconds=59), usegmt=True), "", "soon", "Sun, 99 Nov 2026 00:00:00 GMT"])
def test_a_small_difference_and_what_is_no_date_change_nothing(date: str) -> None:
    clock = ServerClock(lambda: START)
    clock.hear(date)
    assert clock() == START
