"""Sums of where a phase's time went, over its attempts.

What the current attempt has added is what its `progress` says: both are written together, so that new values can take the
place of old ones. Nothing else must be remembered of ended attempts.
"""

from __future__ import annotations

from decimal import Decimal

from pydantic import ValidationError

from videogen_api.goodput import TimeSpent, share_of
from videogen_api.job import Goodput
from videogen_api.progress import Progress
from videogen_api.training_run import PhaseStatus

NOTHING = Goodput(wall_seconds="0", productive_seconds="0", data_wait_seconds="0", checkpoint_pause_seconds="0")
MOST_SECONDS = Decimal(999999999)  # that the API server takes, whatever pods tell
MOST_STEPS = 10**9


def told_by(progress: Progress | None) -> Goodput | None:
    """What an attempt tells of its time while it runs; None if it tells nothing, or something else."""
    metrics = {metric.name: metric.value for metric in progress.metrics} if progress else {}
    try:
        return Goodput.model_validate({"wallSeconds": "0", **metrics})
    except ValidationError:
        return None


def spent(phase: PhaseStatus, newest: Goodput | None, elapsed_seconds: float) -> dict[str, object]:
    """Changes of a status whose current attempt has spent `newest`, `elapsed_seconds` after the phase began; None: nothing is known."""
    if newest is None and phase.time_spent is None:
        return {}
    counted = (told_by(phase.progress) if phase.time_spent else None) or NOTHING
    sums, newest = phase.time_spent or TimeSpent(), newest or NOTHING
    wall = _seconds(Decimal(elapsed_seconds))
    productive = _replaced(sums.productive_seconds, counted.productive_seconds, newest.productive_seconds)
    waited = _replaced(sums.data_wait_seconds, counted.data_wait_seconds, newest.data_wait_seconds)
    told = TimeSpent(
        wall_seconds=wall,
        productive_seconds=productive,
        data_wait_seconds=waited,
        data_wait_share=share_of(waited, wall),
        checkpoint_pause_seconds=_replaced(
            sums.checkpoint_pause_seconds, counted.checkpoint_pause_seconds, newest.checkpoint_pause_seconds
        ),
        repeated_steps=min(MOST_STEPS, max(0, sums.repeated_steps - counted.repeated_steps) + newest.repeated_steps),
    )
    return {"time_spent": told, "goodput": share_of(productive, wall)}


def _replaced(total: str, old: str, new: str) -> str:
    return _seconds(max(Decimal(0), Decimal(total) - Decimal(old)) + Decimal(new))


def _seconds(value: Decimal) -> str:
    return f"{min(MOST_SECONDS, max(Decimal(0), value)):.3f}"
