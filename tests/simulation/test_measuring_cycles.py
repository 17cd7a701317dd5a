"""Cycles that measure what serves: their runs in virtual time, whom a release believes, and what becomes of one that fails its gates."""

from copy import deepcopy
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from videogen_api.evaluation import Metric, MetricResult
from videogen_api.fine_tune_cycle import LABEL_CYCLE, LABEL_MEASURES, Outcome
from videogen_api.job import Report
from videogen_api.measurement import MEASUREMENTS
from videogen_api.training_run import Reason, Task, TrainingRunSpec
from videogen_operator.kinds.model_release import MODEL_RELEASE
from videogen_testing import cycle_simulation as cycles
from videogen_testing import service_simulation as services
from videogen_testing.releases import NAMESPACE, a_gate, a_release, a_result, a_run, digest_of, name_of
from videogen_testing.run_simulation import Simulation as RunSimulation
from videogen_testing.runs import EVALUATE, TRAIN, ended

MONDAYS = [datetime(2026, 1, day, 3, tzinfo=UTC) for day in (5, 12, 19)]
TEMPLATE = cycles.TEMPLATE | {"phases": [EVALUATE]}
OLD, NEW = "1.0.0", "1.1.0"


def measuring(name: str = "quality", **spec: Any) -> dict[str, Any]:
    """A weekly cycle that measures the service standard."""
    return cycles.a_cycle(name, target={"service": "standard"}, runTemplate={"spec": TEMPLATE}, **spec)


class Calendar(cycles.Simulation):
    """Where a version may have many runs that measure it."""

    def _check(self, run: Any) -> None:
        assert run["spec"]["model"]["version"], "a run has a version"
        self.created.append((self.now, run["metadata"]["name"], run["spec"]["model"]["version"]))


def test_each_scheduled_time_measures_the_release_that_is_stable_then() -> None:
    sim = Calendar(measuring(), cycles.a_release("1.4.2"))
    sim.until(MONDAYS[0] + timedelta(hours=2))
    sim.objects["ModelRelease", "pib-videogen-videofusion-v1.4.2-base"]["status"]["rollout"]["state"] = "Superseded"
    sim.put(cycles.a_release("1.5.0"))
    sim.until(MONDAYS[1] + timedelta(hours=2))
    assert sim.created == [(MONDAYS[0], "quality-20260105-0300", "1.4.2"), (MONDAYS[1], "quality-20260112-0300", "1.5.0")]
    run = sim.objects["TrainingRun", "quality-20260112-0300"]
    assert run["spec"]["initFrom"] == {"release": "pib-videogen-videofusion-v1.5.0-base"}
    assert run["metadata"]["labels"][LABEL_MEASURES] == "pib-videogen-videofusion-v1.5.0-base"
    assert {phase.task for phase in TrainingRunSpec.model_validate(run["spec"]).phases} == {Task.EVALUATE}
    status = sim.status("quality")
    assert [(past.outcome, past.release) for past in status.history] == [
        (Outcome.SUCCEEDED, "pib-videogen-videofusion-v1.4.2-base"),
        (Outcome.SUCCEEDED, "pib-videogen-videofusion-v1.5.0-base"),
    ]
    assert status.last_version is None, "it uses no version"
    assert sim.says("LastRunSucceeded", "quality")[2] == "run quality-20260112-0300 measured version 1.5.0"


def test_a_daily_cycle_measures_each_day() -> None:
    sim = Calendar(measuring(cadence="Daily"), cycles.a_release("1.4.2"))
    sim.until(cycles.START + timedelta(days=5))
    assert len(sim.created) == 5


def test_those_that_measure_and_those_that_train_are_not_in_each_others_way() -> None:
    sim = Calendar(measuring(precedence=90), measuring("speed", precedence=80), cycles.a_cycle(), cycles.a_release("1.4.2"))
    sim.until(MONDAYS[0] + timedelta(hours=2))
    versions = {name.partition("-")[0]: version for _, name, version in sim.created}
    assert versions == {"quality": "1.4.2", "speed": "1.4.2", "weekly": "1.4.3"}
    assert [past.outcome for past in sim.status("weekly").history] == [Outcome.SUCCEEDED]


@pytest.mark.parametrize(
    ("release", "words"),
    [
        (None, "spec.target names service standard, which has no stable release; waits for one"),
        (cycles.a_release("1.0.0", family="Text2VideoZero"), "is of family Text2VideoZero, not VideoFusion; name another"),
        (cycles.a_release("1.0.0", specialization="hindi"), "is videofusion, hindi, not videofusion, base; name another"),
    ],
)
def test_without_a_release_of_its_model_it_waits_and_says_so(release: dict[str, Any] | None, words: str) -> None:
    sim = Calendar(measuring(), *([release] if release else []))
    sim.until(MONDAYS[0] + timedelta(minutes=1))
    assert sim.created == []
    assert sim.says(cycle="quality")[:2] == ("False", "NoStableRelease")
    assert words in sim.says(cycle="quality")[2]


def test_what_measures_takes_nothing_from_a_run_before() -> None:
    def reused(labels: dict[str, str]) -> bool:
        first = RunSimulation(phases=[TRAIN, EVALUATE])
        first.put(first.run(), labels=labels)
        first.settle()
        return any(job.look_up for job in first.preflight_files.values())

    assert reused({}), "other runs look for what was computed before"
    assert not reused({LABEL_CYCLE: "quality", LABEL_MEASURES: name_of(OLD)})


# The release ------------------------------------------------------------------------------------------------------


def serving(**spec: Any) -> services.Simulation:
    """1.1.0 has taken over from 1.0.0, which stands by."""
    simulation = services.Simulation(a_release(OLD))
    simulation.until(OLD, "Stable")
    simulation.put(a_run(digest=digest_of(NEW), results=[a_result(value="150")], ended="True"))
    simulation.put(a_release(NEW, at=simulation.now, gates=[a_gate()], lineage={"run": "training"}, **spec))
    simulation.until(NEW, "Stable")
    simulation.tick(2)
    cycle = measuring() | {"status": {"history": [{"scheduledTime": "2026-11-02T03:00:00Z", "outcome": "Succeeded", "run": "quality-1"}]}}
    simulation.put(cycle | {"metadata": {"name": "quality", "namespace": NAMESPACE, "uid": "quality"}})
    return simulation


def a_measurement(
    simulation: services.Simulation, value: str = "900", name: str = "quality-1", *, samples: int = 100, ended: str = "True"
) -> dict[str, Any]:
    """The run of the cycle, which has measured FVD of 1.1.0 just now."""
    run = a_run(name, results=[a_result(value=value, samples=samples)], ended=ended)
    run["metadata"] |= {"generation": 1, "labels": {LABEL_CYCLE: "quality", LABEL_MEASURES: name_of(NEW)}}
    run["spec"] = {"initFrom": {"release": name_of(NEW)}}
    run["status"]["initFrom"] = {"release": name_of(NEW), "digest": digest_of(NEW)}
    run["status"]["phases"][1]["completionTime"] = simulation.now.strftime("%Y-%m-%dT%H:%M:%SZ")
    return run


def test_a_release_that_fails_its_gates_in_production_gives_the_traffic_back_and_is_not_quarantined() -> None:
    sim = serving()
    sim.put(a_measurement(sim))
    sim.settle()
    assert (sim.state(NEW), sim.weights()[OLD]) == ("RolledBack", 100)
    record = sim.status(NEW)["rollback"]
    assert (record["reason"], record["quarantined"]) == ("MeasurementFailed", False)
    assert record["message"].startswith("FVD is 900 and must be < 200, measured by run quality-1 of cycle quality; ")
    sim.tick(20)
    assert sim.quarantined() == {} or NEW not in sim.quarantined()


def test_one_that_passes_keeps_the_results_also_when_the_run_is_gone() -> None:
    sim = serving()
    sim.put(a_measurement(sim, "120"))
    sim.settle()
    sim.drop("TrainingRun", "quality-1")
    sim.tick(3)
    assert sim.state(NEW) == "Stable"
    (kept,) = sim.status(NEW)["measurements"]
    assert (kept["run"], kept["cycle"], kept["results"][0]["value"]) == ("quality-1", "quality", "120")
    told = {gauge.name: (labels, value) for gauge, labels, value in MODEL_RELEASE.samples(sim.releases()[NEW])}
    assert told["videogen_release_measured"] == ((NAMESPACE, "standard", name_of(NEW), "FVD", "", ""), 120)
    assert told["videogen_release_measured_time_seconds"][0][-1] == "quality"


def test_the_newest_measurement_counts_and_only_so_many_are_kept() -> None:
    sim = serving(rollback={"windowSeconds": 604800, "onMeasurement": False})
    for number in range(MEASUREMENTS + 3):
        sim.now += timedelta(hours=1)
        run = a_measurement(sim, str(900 - number), f"quality-{number}")
        cycle = deepcopy(sim.objects["FineTuneCycle", NAMESPACE, "quality"])
        cycle["status"]["history"][0]["run"] = f"quality-{number}"
        sim.put(cycle)
        sim.put(run)
        sim.settle()
    kept = sim.status(NEW)["measurements"]
    assert [one["run"] for one in kept] == [f"quality-{number}" for number in range(3, MEASUREMENTS + 3)]
    assert sim.state(NEW) == "Stable", "the release does not want to be judged by it"


def test_without_another_release_it_keeps_serving_and_says_that_it_fails() -> None:
    sim = serving()
    sim.remove(OLD)
    sim.tick(3)
    sim.put(a_measurement(sim))
    sim.tick(3)
    assert sim.state(NEW) == "Stable"
    said = sim.condition(NEW, "ChecksFailing")
    assert (said["status"], said["reason"]) == ("True", "MeasurementFailed")
    assert "FVD is 900 and must be < 200" in said["message"]


def test_tried_again_on_request_it_is_not_judged_by_what_was_measured_before() -> None:
    sim = serving()
    sim.put(a_measurement(sim))
    sim.settle()
    sim.tick(2)
    sim.request(NEW, "retry@1")
    sim.until(NEW, "Stable")
    sim.tick(10)
    assert sim.state(NEW) == "Stable"


def test_too_few_samples_are_no_verdict() -> None:
    sim = serving()
    sim.put(a_measurement(sim, samples=3))
    sim.tick(3)
    assert sim.state(NEW) == "Stable"


FORGED: dict[str, dict[str, Any]] = {
    "by a cycle that there is not": {"metadata": {"labels": {LABEL_CYCLE: "other", LABEL_MEASURES: name_of(NEW)}}},
    "by a name that the cycle does not know": {"metadata": {"name": "quality-2"}},
    "by a run that somebody has changed": {"metadata": {"generation": 2}},
    "of another bundle": {"status": {"initFrom": {"digest": digest_of("9.9.9")}}},
    "of another release": {"spec": {"initFrom": {"release": name_of(OLD)}}},
    "before its end": {"status": {"conditions": [{"type": "Succeeded", "status": "Unknown", "reason": "Evaluating"}]}},
}


@pytest.mark.parametrize("change", FORGED.values(), ids=FORGED.keys())
def test_a_result_that_nobody_vouches_for_counts_for_nothing(change: dict[str, Any]) -> None:
    sim = serving()
    run = a_measurement(sim)
    for part, values in change.items():
        run[part] |= values
    sim.put(run)
    sim.tick(3)
    assert sim.state(NEW) == "Stable"
    assert "measurements" not in sim.status(NEW) or sim.status(NEW)["measurements"] == []


@pytest.mark.parametrize("spec", [{"target": {"service": "other"}}, {"target": None}])
def test_a_cycle_that_measures_something_else_vouches_for_nothing(spec: dict[str, Any]) -> None:
    sim = serving()
    cycle = deepcopy(sim.objects["FineTuneCycle", NAMESPACE, "quality"])
    cycle["spec"] |= spec
    sim.put(cycle)
    sim.put(a_measurement(sim))
    sim.tick(3)
    assert sim.state(NEW) == "Stable"


def test_the_end_of_a_run_wakes_the_service_that_it_measures() -> None:
    sim = serving()
    run = a_measurement(sim)
    assert services.KEY in list(MODEL_RELEASE.keys(run, sim))


def test_a_run_measures_the_bundle_of_the_release_although_it_has_its_version() -> None:
    sim = RunSimulation(phases=[EVALUATE], initFrom={"release": name_of(OLD)}, model={"family": "VideoFusion", "version": OLD})
    artifact = {"claimName": "models", "path": "bundles/source", "digest": digest_of(OLD)}
    served = {"spec": {"artifact": artifact}, "status": {"rollout": {"promotedTime": "2026-10-01T00:00:00Z"}}}
    sim.put({"apiVersion": "v1", "kind": "ModelRelease", "metadata": {"name": name_of(OLD)}} | served, "models")
    sim.settle()
    (file,) = sim.files.values()
    assert file.artifact is not None
    assert (file.artifact.path, file.artifact.digest) == ("bundles/source", digest_of(OLD))
    results = [MetricResult(metric=Metric.FVD, value="100", samples=128)]
    sim.set_pods(ended(0, Report(results=results).model_dump_json(by_alias=True, exclude_none=True)))
    sim.settle()
    assert sim.top() == ("True", Reason.COMPLETED)
    assert sim.status().init_from is not None
    assert (sim.status().init_from.digest, sim.status().artifact, sim.status().release) == (digest_of(OLD), None, "")  # type: ignore[union-attr]
