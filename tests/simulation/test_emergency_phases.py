"""A run that makes templates and tries scenarios, in a closed loop."""

from typing import Any

import pytest

from videogen_api.evaluation import Metric, MetricResult, Verdict
from videogen_api.job import ArtifactReference, ExitCode, Report
from videogen_api.training_run import Reason
from videogen_testing.edits import SCENARIOS, TEMPLATES
from videogen_testing.run_simulation import RandomLife, Simulation
from videogen_testing.runs import DIGEST, EVALUATE, RELEASE, TRAIN, ended, trained

NEW = "sha256:" + "b" * 64
GATES = [
    {"metric": "ScenarioPassRatio", "operator": "GreaterThan", "threshold": "0.95"},
    {"metric": "GenerationSeconds", "operator": "LessThan", "threshold": "60"},
]


def succeed(sim: Simulation, report: Report) -> None:
    sim.settle()
    sim.set_pods(ended(0, report.model_dump_json(by_alias=True, exclude_none=True)))
    sim.settle()


def measured(ratio: str, seconds: str) -> Report:
    return Report(
        message="tried",
        results=[
            MetricResult(metric=Metric.SCENARIO_PASS_RATIO, value=ratio, samples=100),
            MetricResult(metric=Metric.GENERATION_SECONDS, value=seconds, samples=100),
        ],
    )


def templates_made() -> Report:
    path = f"bundles/pib-videogen-videofusion-v1.0.0-base/{'b' * 64}"
    return Report(message="50 of 50 templates of 10 types", artifact=ArtifactReference(path=path, digest=NEW))


def a_simulation(**scenarios: Any) -> Simulation:
    blocks = {"templates": {"variations": 2}}
    phases = [TRAIN, EVALUATE, TEMPLATES | blocks, SCENARIOS | {"gates": GATES, "scenarios": {"maximumSeconds": 30}} | scenarios, RELEASE]
    sim = Simulation(phases=phases)
    succeed(sim, trained())
    succeed(sim, Report(results=[MetricResult(metric=Metric.FVD, value="100", samples=128)]))
    return sim


def test_the_bundle_with_templates_is_tried_and_released() -> None:
    sim = a_simulation()
    assert sim.top() == ("Unknown", Reason.STARTING)
    asked = sim.files["run-templates-1"]
    assert asked.artifact and asked.artifact.digest == DIGEST
    assert asked.templates and asked.templates.variations == 2
    assert asked.init_from is None
    succeed(sim, templates_made())
    assert (made := sim.status().artifact) and made.digest == NEW
    asked = sim.files["run-scenarios-1"]
    assert asked.artifact and asked.artifact.digest == NEW
    assert asked.scenarios and asked.scenarios.maximum_seconds == 30
    succeed(sim, measured("0.98", "21.5"))
    assert sim.top() == ("True", Reason.COMPLETED)
    tried = sim.status().phases[3]
    assert (tried.message, [one.verdict for one in tried.results]) == ("2 of 2 gates passed", [Verdict.PASSED, Verdict.PASSED])
    (release,) = list(sim.world.list("ModelRelease"))
    assert release["spec"]["artifact"]["digest"] == NEW
    assert [gate["metric"] for gate in release["spec"]["gates"]] == ["FVD"], "those of the last Evaluate phase"


@pytest.mark.parametrize("ratio, seconds", [("0.95", "21.5"), ("1", "60")])
def test_scenarios_that_do_not_pass_their_gates_keep_the_bundle_from_being_released(ratio: str, seconds: str) -> None:
    sim = a_simulation()
    succeed(sim, templates_made())
    succeed(sim, measured(ratio, seconds))
    assert sim.top() == ("False", Reason.GATE_FAILED)
    assert sim.status().phases[3].message.startswith("1 of 2 gates passed: ")
    assert not sim.world.list("ModelRelease")


def test_a_type_without_a_template_ends_the_run_and_says_what_to_do() -> None:
    sim = a_simulation()
    report = Report(reason=Reason.TEMPLATES_REJECTED, message="flood: none of 5 videos of a type is good enough")
    sim.set_pods(ended(ExitCode.DATA_REJECTED, report.model_dump_json(by_alias=True, exclude_none=True)))
    sim.settle()
    assert sim.top() == ("False", Reason.TEMPLATES_REJECTED)
    assert "flood: none of 5 videos" in sim.status().phases[2].message
    assert sim.status().phases[2].message.endswith("lower templates.quality, raise attemptsPerTemplate, or train longer, in a new run")


@pytest.mark.parametrize("seed", range(10))
def test_whatever_happens_the_run_ends_and_the_rules_hold(seed: int) -> None:
    sim = RandomLife(seed, phases=[TRAIN, EVALUATE, TEMPLATES, SCENARIOS, RELEASE]).live()
    status, reason = sim.top()
    assert (status, reason) == ("True", Reason.COMPLETED) or reason in {Reason.ATTEMPTS_EXHAUSTED, Reason.STORAGE_FAILED}
