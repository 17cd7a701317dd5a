"""The times of a cron expression in a time zone, and the version that a cadence makes next. Pure."""

from __future__ import annotations

import zoneinfo
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache

from cronsim import CronSim, CronSimError

from videogen_api.fine_tune_cycle import Cadence

LARGEST = 9999  # of each number of a version (meta.VersionNumber)
FIRST = datetime(2000, 1, 1, tzinfo=UTC)  # cron knows no years: what has a time after this one has a next time for ever
REPEATED = timedelta(hours=4)  # more than clocks are put back by at once in any zone


class ZoneError(ValueError):
    """The time zone does not exist."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """Cron in five fields, as Debian's cron reads them: what a change of the clocks skips comes right after it, what it repeats comes once
    (https://manpages.debian.org/cron.8).
    """

    expression: str
    zone: zoneinfo.ZoneInfo

    def last(self, now: datetime) -> datetime | None:
        """The newest time up to now, in UTC; None if there was none. Costs the same however long ago that is."""
        local = now.astimezone(self.zone)
        if not local.fold and self._fits(local):
            return now.astimezone(UTC)
        # In an hour that is repeated what is later by the clock on the wall may have been: the search begins after that hour.
        begin = (now + REPEATED).astimezone(self.zone) if local.fold else local
        return next((one for one in self.times(begin, reverse=True) if one <= now), None)

    def next(self, now: datetime) -> datetime | None:
        """The first time after now, in UTC; None if no time fits the expression."""
        return _next(self, now)

    def _fits(self, moment: datetime) -> bool:
        """Whether a whole minute is one of the times; the reverse search begins before it."""
        if moment.second or moment.microsecond:
            return False
        before = datetime.fromtimestamp(moment.timestamp() - 1, self.zone)
        return next(CronSim(self.expression, before), None) == moment

    def times(self, moment: datetime, *, reverse: bool = False) -> Iterator[datetime]:
        """Those after a moment, or before it. In an hour that is repeated the first ones may lie on the wrong side of it: cronsim looks at
        the clock on the wall.
        """
        return (one.astimezone(UTC) for one in CronSim(self.expression, moment, reverse=reverse))


@lru_cache(maxsize=1024)
def _next(read: Schedule, now: datetime) -> datetime | None:
    """Remembered, because passes ask again and again for the time after the last one that is decided."""
    return next((one for one in read.times(now.astimezone(read.zone)) if one > now), None)


def schedule(expression: str, zone: str) -> Schedule:
    """A schedule that has a next time. Raises ValueError with what is wrong, and ZoneError if there is no such time zone."""
    try:
        read = Schedule(expression, zoneinfo.ZoneInfo(zone))
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        raise ZoneError(f"{zone!r} is no time zone; expected an IANA name, such as Asia/Kolkata or Etc/UTC") from None
    try:
        if read.next(FIRST) is None:
            raise ValueError(f"no time fits {expression!r}; correct it")
    except CronSimError as error:
        raise ValueError(
            f"{expression!r} is no schedule ({error}); expected minute, hour, day of the month, month and day of the week as cron has"
            " them, and a day that one of the months has, such as 0 3 1 * *"
        ) from None
    return read


def highest(versions: Iterable[str]) -> str:
    """The highest version; 0.0.0 of none."""
    return max(versions, key=_numbers, default="0.0.0")


def next_version(cadence: Cadence, known: Iterable[str], after: str | None = None) -> str:
    """The first free patch, minor or major of the version that a run begins from (None: of the highest one), so that what a slow
    cycle makes meanwhile stays higher than the patches of a fast one. Raises ValueError if there is none, or if the cadence makes none.
    """
    if cadence == Cadence.DAILY:
        raise ValueError("cadence Daily makes no versions; it is for cycles with a target")
    used = [_numbers(one) for one in known]
    major, minor, _ = base = _numbers(after) if after else max(used, default=(0, 0, 0))
    used.append(base)
    raised = {
        Cadence.WEEKLY: (major, minor, max(c for a, b, c in used if (a, b) == (major, minor)) + 1),
        Cadence.MONTHLY: (major, max(b for a, b, _ in used if a == major) + 1, 0),
        Cadence.QUARTERLY: (max(a for a, _, _ in used) + 1, 0, 0),
        Cadence.ANNUAL: (max(a for a, _, _ in used) + 1, 0, 0),
    }[cadence]
    if max(raised) > LARGEST:
        raise ValueError(f"a {cadence} cycle has no version after {'.'.join(map(str, max(used)))}; use another specialization")
    return ".".join(str(part) for part in raised)


@lru_cache(maxsize=8192)
def _numbers(version: str) -> tuple[int, int, int]:
    major, minor, patch = (int(part) for part in version.split("."))
    return major, minor, patch
