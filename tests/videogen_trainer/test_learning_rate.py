"""The learning rate as a table, and against diffusers' own schedulers."""

from __future__ import annotations

import pytest
import torch
from diffusers.optimization import get_scheduler

from videogen_api.recipe import Optimizer, Recipe, Resolution, Schedule, ScheduleType
from videogen_trainer.learning_rate import learning_rates, rate_factor


@pytest.mark.parametrize(
    "kind, warmup, step, factor",
    [
        (ScheduleType.COSINE, 10, 0, 0.0),  # the warm-up begins at 0
        (ScheduleType.COSINE, 10, 5, 0.5),
        (ScheduleType.COSINE, 10, 10, 1.0),  # the peak comes after the warm-up
        (ScheduleType.COSINE, 10, 60, 0.5),  # halfway through the decay
        (ScheduleType.COSINE, 10, 110, 0.0),
        (ScheduleType.COSINE, 0, 0, 1.0),
        (ScheduleType.LINEAR, 10, 35, 0.75),
        (ScheduleType.LINEAR, 10, 110, 0.0),
        (ScheduleType.CONSTANT, 10, 5, 0.5),
        (ScheduleType.CONSTANT, 10, 109, 1.0),
        (ScheduleType.COSINE, 1000, 100, 0.1),  # a warm-up longer than the run
    ],
)
def test_factor_of_the_peak_rate_at_a_step_of_110(kind: ScheduleType, warmup: int, step: int, factor: float) -> None:
    assert rate_factor(Schedule(type=kind, warmup_steps=warmup), step, 110) == pytest.approx(factor, abs=1e-12)


@pytest.mark.parametrize(
    "kind, theirs",
    [(ScheduleType.COSINE, "cosine"), (ScheduleType.LINEAR, "linear"), (ScheduleType.CONSTANT, "constant_with_warmup")],
)
def test_the_schedules_are_those_of_diffusers(kind: ScheduleType, theirs: str) -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = get_scheduler(theirs, optimizer, num_warmup_steps=7, num_training_steps=40)
    schedule = Schedule(type=kind, warmup_steps=7)
    for step in range(40):
        assert rate_factor(schedule, step, 40) == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-12)
        optimizer.step()
        scheduler.step()


def test_the_base_generator_learns_at_its_share_and_a_divergence_slows_both() -> None:
    recipe = Recipe(
        resolution=Resolution(height=16, width=16),
        global_batch_size=1,
        steps=10,
        optimizer=Optimizer(learning_rate="2e-3"),
        schedule=Schedule(type=ScheduleType.CONSTANT),
    )
    assert learning_rates(recipe, 1.0, 5, 0.1) == pytest.approx((2e-4, 2e-3))
    assert learning_rates(recipe, 0.5, 5, 0.1) == pytest.approx((1e-4, 1e-3))
    assert learning_rates(recipe, 1.0, 5) == pytest.approx((2e-3, 2e-3))
