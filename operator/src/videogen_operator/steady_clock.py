"""The API server's time, and a clock that follows it without leaps: what plans take for now.

Deadlines, back-offs and windows are differences of wall times, because they outlive the process. A clock that is set by a day, by a
broken time server or by the repair of one, would end them all at once or freeze them for a day. So a leap is followed slowly, as
time daemons slew (RFC 5905, section 11.3); within a process no second is much longer or shorter than a second. A process that starts
asks no clock of its machine's alone: its deadlines began by times that others wrote.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

SLEW = 0.05  # seconds of correction in a second: a day is made good in 20
TOLD_SECONDS = 60.0  # a difference that is worth a line in the log; one between two machines that is smaller is none
log = logging.getLogger(__name__)


def wall() -> datetime:
    """The machine's clock."""
    return datetime.now(UTC)


def monotonic() -> float:
    """Seconds that nobody sets, those of a sleeping machine among them."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class ServerClock:
    """Call it for the API server's time; the machine's own until the API server has answered, and where they agree to the minute."""

    def __init__(self, wall: Callable[[], datetime] = wall) -> None:
        self._wall, self._ahead, self._heard = wall, timedelta(0), ""

    def hear(self, date: str) -> None:
        """Header Date of an answer (RFC 9110, section 6.6.1); what is none is ignored."""
        if date == self._heard:
            return
        self._heard = date
        try:
            ahead = self._wall() - parsedate_to_datetime(date).astimezone(UTC)
        except ValueError:
            return
        ahead = ahead if abs(ahead.total_seconds()) > TOLD_SECONDS else timedelta(0)
        if bool(ahead) != bool(self._ahead):
            log.warning("the machine's clock is %+.0f s ahead of the API server's, whose time counts", ahead.total_seconds())
        self._ahead = ahead

    def __call__(self) -> datetime:
        return self._wall() - self._ahead


class SteadyClock:
    """Call it for the time: the wall clock's while that runs evenly, and never before what it said last. Its first call sets it."""

    def __init__(self, wall: Callable[[], datetime], monotonic: Callable[[], float] = monotonic) -> None:
        self._wall, self._monotonic = wall, monotonic
        self._now: datetime | None = None
        self._seconds = 0.0
        self._leapt = False

    def __call__(self) -> datetime:
        seconds = self._monotonic()
        if self._now is None:
            self._now, self._seconds = self._wall(), seconds
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
