"""Values of a phase in place of the recipe's: what is given counts, what is absent is the recipe's."""

from decimal import Decimal
from typing import Any

import pytest
from pydantic import TypeAdapter

from videogen_api.meta import PositiveDecimal
from videogen_api.phase_training import PHASE_RULES
from videogen_api.recipe import Recipe
from videogen_api.training_run import TRAINING, Phase, Task

RECIPE = Recipe.model_validate(
    {
        "architecture": "Tiny",
        "resolution": {"height": 16, "width": 16},
        "globalBatchSize": 4,
        "steps": 80000,
        "optimizer": {"learningRate": "5e-6", "weightDecay": "0.1"},
        "schedule": {"type": "Linear", "warmupSteps": 2000},
    }
)


def recipe_of(task: Task, train: dict[str, Any] | None = None) -> Recipe:
    phase = {"name": "phase", "task": task} | ({} if train is None else {"train": train})
    return Phase.model_validate(phase).recipe_of(RECIPE)


@pytest.mark.parametrize("task", [task for task in Task if task is not Task.FINE_TUNE])
def test_without_values_of_its_own_a_phase_has_the_recipe(task: Task) -> None:
    assert recipe_of(task) == RECIPE
    assert recipe_of(task, {}) == RECIPE


def test_a_value_takes_the_place_of_the_recipes_and_nothing_else_changes() -> None:
    changed = recipe_of(Task.TRAIN, {"steps": 5000, "learningRate": "1e-6", "warmupSteps": 0}).wire()
    expected = RECIPE.wire() | {"steps": 5000}
    expected["optimizer"] = RECIPE.optimizer.wire() | {"learningRate": "1e-6"}
    expected["schedule"] = RECIPE.schedule.wire() | {"warmupSteps": 0}
    assert changed == expected


def test_no_steps_are_a_value() -> None:
    assert recipe_of(Task.ADAPT, {"steps": 0}).steps == 0


@pytest.mark.parametrize("train", [None, {}, {"steps": 5000}])
def test_fine_tuning_learns_at_a_tenth_of_the_rate_unless_told_otherwise(train: dict[str, Any] | None) -> None:
    assert recipe_of(Task.FINE_TUNE, train).optimizer.learning_rate == "5e-7"
    assert recipe_of(Task.FINE_TUNE, {"learningRate": "5e-6"}).optimizer.learning_rate == "5e-6"


@pytest.mark.parametrize(
    "rate", ["1", "5e-6", "0.002", "0", "0.0", "123456789.123456789", "999999999.999999999e91", "1e-98", "1e-99", "7e-3"]
)
def test_a_tenth_of_every_rate_is_a_rate_that_the_api_accepts(rate: str) -> None:
    recipe = RECIPE.model_copy(update={"optimizer": RECIPE.optimizer.model_copy(update={"learning_rate": rate})})
    found = Phase(name="phase", task=Task.FINE_TUNE).recipe_of(recipe).optimizer.learning_rate
    assert TypeAdapter(PositiveDecimal).validate_python(found) == found
    assert float(found) == pytest.approx(float(Decimal(rate) / 10), rel=1e-9, abs=1e-98)


def test_a_rate_beyond_all_measure_stays_what_it_is() -> None:
    recipe = RECIPE.model_copy(update={"optimizer": RECIPE.optimizer.model_copy(update={"learning_rate": "999999999.9e99"})})
    assert Phase(name="phase", task=Task.FINE_TUNE).recipe_of(recipe).optimizer.learning_rate == "999999999.9e99"


def test_a_phases_recipe_is_one_that_the_api_accepts() -> None:
    made = recipe_of(Task.FINE_TUNE, {"steps": 10, "warmupSteps": 3})
    assert Recipe.model_validate(made.wire()) == made


def test_every_training_task_is_named_by_the_rules() -> None:
    rules = " ".join(rule for rule, _, _ in PHASE_RULES)
    assert [task for task in TRAINING if f"'{task.value}'" not in rules] == []
    assert all(rule.count("(") == rule.count(")") for rule, _, _ in PHASE_RULES)
