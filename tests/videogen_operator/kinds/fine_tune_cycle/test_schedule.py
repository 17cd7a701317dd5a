"""Cron in time zones, and the versions of cadences."""

from datetime import UTC, datetime, timedelta

import pytest

from videogen_api.fine_tune_cycle import Cadence
from videogen_operator.kinds.fine_tune_cycle.schedule import Schedule, ZoneError, next_version, schedule

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def times(read: Schedule, since: datetime, count: int) -> list[datetime]:
    found = [since]
    while len(found) <= count:
        following = read.next(found[-1])
        assert following is not None
        found.append(following)
    return found[1:]


@pytest.mark.parametrize(
    ("expression", "zone", "since", "expected"),
    [
        ("0 3 * * 1", "Asia/Kolkata", "2026-03-01T12:00", ["2026-03-01T21:30", "2026-03-08T21:30"]),  # no daylight saving
        ("30 2 * * *", "Europe/Berlin", "2026-03-28T12:00", ["2026-03-29T01:00", "2026-03-30T00:30"]),  # 2:30 is skipped
        ("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00", ["2026-10-25T00:30", "2026-10-26T01:30"]),  # 2:30 comes twice
        ("0 3 29 2 *", "Etc/UTC", "2026-03-01T12:00", ["2028-02-29T03:00", "2032-02-29T03:00"]),  # leap years
        ("0 3 31 * *", "Etc/UTC", "2026-03-01T12:00", ["2026-03-31T03:00", "2026-05-31T03:00"]),
        ("0 3 1 1,4,7,10 *", "Etc/UTC", "2026-03-01T12:00", ["2026-04-01T03:00", "2026-07-01T03:00"]),
    ],
)
def test_times_follow_the_clocks_of_the_zone(expression: str, zone: str, since: str, expected: list[str]) -> None:
    read = schedule(expression, zone)
    assert times(read, at(since), len(expected)) == [at(one) for one in expected]


@pytest.mark.parametrize("zone", ["Etc/UTC", "Asia/Kolkata", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe"])
@pytest.mark.parametrize("expression", ["*/20 * * * *", "30 2 * * *", "0 3 * * 1", "15 1 1,15 * *"])
def test_the_last_time_is_the_newest_one_that_is_not_later(expression: str, zone: str) -> None:
    read, moment = schedule(expression, zone), datetime(2025, 12, 30, tzinfo=UTC)
    known: datetime | None = None
    for _ in range(400):
        following = read.next(moment)
        assert following is not None
        assert following > moment
        assert read.last(following) == following, "a time is its own last time"
        assert read.last(following + timedelta(seconds=59)) == following
        if known is not None:
            assert read.last(following - timedelta(seconds=1)) == known, "nothing lies between two times"
        known, moment = following, following


@pytest.mark.parametrize("expression", ["0 3 30 2 *", "0 3 31 4,6,9,11 *"])
def test_a_schedule_that_never_fires_is_refused(expression: str) -> None:
    with pytest.raises(ValueError, match="a day that one of the months has"):
        schedule(expression, "Etc/UTC")


@pytest.mark.parametrize("expression", ["61 3 * * *", "0 3 * *", "a b c d e", "0 3 * * 9", "@daily", ""])
def test_what_is_no_cron_expression_is_refused_in_one_line(expression: str) -> None:
    with pytest.raises(ValueError, match="is no schedule") as raised:
        schedule(expression, "Etc/UTC")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("zone", ["Asia/Delhi", "../etc/passwd", "", "Asia", "Asia/Kolkata\0"])
def test_a_time_zone_that_does_not_exist_is_refused(zone: str) -> None:
    with pytest.raises(ZoneError, match="is no time zone"):
        schedule("0 3 * * *", zone)


@pytest.mark.parametrize(
    ("cadence", "known", "expected"),
    [
        (Cadence.WEEKLY, ["1.2.3", "1.10.0", "0.9.9"], "1.10.1"),
        (Cadence.MONTHLY, ["1.2.3"], "1.3.0"),
        (Cadence.QUARTERLY, ["1.2.3"], "2.0.0"),
        (Cadence.ANNUAL, ["1.2.3"], "2.0.0"),
        (Cadence.MONTHLY, [], "0.1.0"),
    ],
)
def test_the_cadence_says_which_number_is_raised(cadence: Cadence, known: list[str], expected: str) -> None:
    assert next_version(cadence, known) == expected


@pytest.mark.parametrize(
    ("cadence", "expected"),
    [(Cadence.WEEKLY, "1.0.4"), (Cadence.MONTHLY, "1.2.0"), (Cadence.QUARTERLY, "3.0.0"), (Cadence.ANNUAL, "3.0.0")],
)
def test_a_fast_cycle_stays_below_what_a_slow_one_makes_meanwhile(cadence: Cadence, expected: str) -> None:
    at_work = ["1.1.0", "2.0.0"]  # monthly and quarterly, of which 1.0.2 is the beginning
    assert next_version(cadence, ["1.0.2", "1.0.3", *at_work], after="1.0.2") == expected


def test_after_the_highest_number_there_is_no_version() -> None:
    with pytest.raises(ValueError, match=r"has no version after 1\.2\.9999"):
        next_version(Cadence.WEEKLY, ["1.2.9999"])
