"""The learning rate as a pure function of the step, so that resuming needs no scheduler state."""

from __future__ import annotations

import math

from videogen_api.recipe import Recipe, Schedule, ScheduleType


def rate_factor(schedule: Schedule, step: int, steps: int) -> float:
    """Factor 0..1 of the peak rate for optimiser step `step` (0 .. steps - 1).

    Linear from 0 over the warm-up, then the type's decay, which reaches 0 at `steps`; a warm-up longer than the run never ends.
    """
    if step < schedule.warmup_steps:
        return step / schedule.warmup_steps
    done = (step - schedule.warmup_steps) / max(1, steps - schedule.warmup_steps)
    match schedule.type:
        case ScheduleType.COSINE:
            return 0.5 * (1 + math.cos(math.pi * done))
        case ScheduleType.LINEAR:
            return 1 - done
        case ScheduleType.CONSTANT:
            return 1.0


def learning_rates(recipe: Recipe, scale: float, step: int, slow: float = 1.0) -> tuple[float, float]:
    """Rates of (what learns `slow` times as fast, everything else) at a step; `scale` is the job's, smaller after a divergence."""
    rate = float(recipe.optimizer.learning_rate) * scale * rate_factor(recipe.schedule, step, recipe.steps)
    return rate * slow, rate
