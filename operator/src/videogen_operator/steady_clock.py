"""A wall clock that does not leap: what plans take for now.

Deadlines, back-offs and windows are differences of wall times, because they outlive the process. A clock that is set by a day, by a
broken time server or by the repair of one, would end them all at once or freeze them for a day. So a leap is followed slowly, as
time daemons slew (RFC 5905, section 11.3); within a process no second is much longer or shorter than a second.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

SLEW = 0.05  # seconds of correction in a second: a day is made good in 20
TOLD_SECONDS = 60.0  # a difference that is worth a line in the log
log = logging.getLogger(__name__)


def wall() -> datetime:
    """The machine's clock."""
    return datetime.now(UTC)


def monotonic() -> float:
    """Seconds that nobody sets, those of a sleeping machine among them."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class SteadyClock:
    """Call it for the time: the wall clock's while that runs evenly, and never before what it said last."""

    def __init__(self, wall: Callable[[], datetime] = wall, monotonic: Callable[[], float] = monotonic) -> None:
        self._wall, self._monotonic = wall, monotonic
        self._now, self._seconds = wall(), monotonic()
        self._leapt = False

    def __call__(self) -> datetime:
        seconds = self._monotonic()
        elapsed = max(0.0, seconds - self._seconds)
        expected = self._now + timedelta(seconds=elapsed)
        difference = (self._wall() - expected).total_seconds()
        correction = max(-SLEW * elapsed, min(SLEW * elapsed, difference))
        self._now, self._seconds = expected + timedelta(seconds=correction), seconds
        self._tell(difference)
        return self._now

    def _tell(self, difference: float) -> None:
        leapt = abs(difference) > TOLD_SECONDS
        if leapt and not self._leapt:
            said = "the clock was set by %+.0f s; it is followed by %g s in a second, until a restart takes it as it is"
            log.warning(said, difference, SLEW)
        self._leapt = leapt
