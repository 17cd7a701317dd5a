"""Goodput: the share of a training's time that brought it nearer to its end."""

from __future__ import annotations

from pydantic import Field

from videogen_api.meta import Observation, PositiveDecimal
from videogen_api.noise_shares import Share


def share_of(seconds: str, wall_seconds: str) -> str:
    """Some of all seconds as a share, 0.00 to 1.00, rounded down; 0.00 of none."""
    wall = float(wall_seconds)
    return f"{int(100 * min(1.0, float(seconds) / wall)) / 100 if wall else 0.0:.2f}"


class TimeSpent(Observation):
    """Where the time of a training or Tune phase went, over all its attempts, as of the newest report."""

    wall_seconds: PositiveDecimal = Field(
        default="0",
        description="Time since the first attempt was created, with scheduling, starts, back-off and lost work; without suspensions.",
    )
    productive_seconds: PositiveDecimal = Field(
        default="0", description="In training steps that no attempt had done before, without waiting for data."
    )
    data_wait_seconds: PositiveDecimal = Field(default="0", description="Waiting for the next batch.")
    data_wait_share: Share = Field(default="0.00", description="dataWaitSeconds of wallSeconds.")
    checkpoint_pause_seconds: PositiveDecimal = Field(default="0", description="Training stood still while its state was copied or saved.")
    repeated_steps: int = Field(
        default=0, ge=0, le=10**9, description="Steps that were lost: done again, because an attempt ended after its last checkpoint."
    )
