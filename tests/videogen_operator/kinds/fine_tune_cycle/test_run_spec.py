"""A template is tried once, and again as soon as anything is different that its run follows from."""

from copy import deepcopy
from datetime import timedelta
from typing import Any

import pytest

from videogen_operator.kinds.fine_tune_cycle import run_spec
from videogen_operator.kinds.fine_tune_cycle.template import spec_of
from videogen_testing.cycle_simulation import TEMPLATE, Simulation, a_cycle


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Runs whose specs were made."""
    names: list[str] = []

    def seen(template: Any, model: Any, init_from: Any, values: Any) -> dict[str, Any]:
        names.append(values["run"])
        return spec_of(template, model, init_from, values)

    monkeypatch.setattr(run_spec, "spec_of", seen)
    monkeypatch.setattr(run_spec, "_passed", {})
    return names


def test_passes_that_see_the_same_try_once(tried: list[str]) -> None:
    cycle = Simulation(a_cycle())
    for _ in range(5):
        cycle.settle()
        cycle.now += timedelta(hours=1)
    assert tried == ["weekly-20260105-0300"], "with the name of the next run"


def test_a_template_that_is_edited_is_tried_again(tried: list[str]) -> None:
    cycle = Simulation(a_cycle())
    cycle.settle()
    broken = deepcopy(TEMPLATE)
    broken["recipe"]["steps"] = "many"
    for spec, wanted in ((broken, "TemplateInvalid"), (TEMPLATE, "Scheduled"), (broken, "TemplateInvalid")):
        cycle.edit(runTemplate={"spec": spec})
        cycle.settle()
        assert cycle.says()[1] == wanted


def test_stages_and_collect_are_tried_with_it(tried: list[str]) -> None:
    cycle = Simulation(a_cycle())
    cycle.settle()
    cycle.edit(stages=[{"name": "a", "owner": "ml", "startDay": 0, "days": 1, "phases": ["nowhere"]}])
    cycle.settle()
    assert cycle.says()[1] == "StagesInvalid"
    cycle.edit(stages=[], collect=[{"dataset": "other", "minimum": 1}])
    cycle.settle()
    assert cycle.says()[1] == "CollectInvalid"


def test_what_is_remembered_is_bounded(tried: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_spec, "REMEMBERED", 2)
    cycle = Simulation(a_cycle())
    for steps in range(1, 9):
        cycle.edit(runTemplate={"spec": TEMPLATE | {"recipe": TEMPLATE["recipe"] | {"steps": steps}}})
        cycle.settle()
    assert len(tried) == 8
    assert len(run_spec._passed) == 2
