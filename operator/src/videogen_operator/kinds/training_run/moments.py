"""Times in a status against the clock of now, which may be another one, or have been set since they were written."""

from __future__ import annotations

from datetime import datetime


def seconds_since(then: str | datetime, now: datetime) -> float:
    """Seconds since a moment, never less than 0.

    A moment in the future is of a clock that is ahead of ours, or from before ours was set back. It has been, so it counts as
    long ago as it lies ahead: a wait for a few seconds then lasts a few seconds too long, and not a day.
    """
    moment = datetime.fromisoformat(then) if isinstance(then, str) else then
    return abs((now - moment).total_seconds())


def seconds_until(moment: str | None, now: datetime, longest: float) -> float:
    """Seconds from now to a timestamp that lay at most `longest` ahead when it was written; 0 or less once it has passed, without one,
    and if it lies further ahead, because the clock was set back since.
    """
    if moment is None:
        return 0.0
    left = (datetime.fromisoformat(moment) - now).total_seconds()
    return left if left <= longest else 0.0
