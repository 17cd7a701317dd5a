"""Reports between two writes of a run's status: no pass for them, and Prometheus is told all the same."""

from typing import Any

from prometheus_client import CollectorRegistry, generate_latest

from videogen_operator.exporter import WorldCollector
from videogen_operator.kinds.training_run import TRAINING_RUN
from videogen_testing.run_simulation import KEY, Simulation
from videogen_testing.runs import TRAIN, ended, running


def at(second: int, step: int) -> dict[str, Any]:
    metrics = [{"name": "step", "value": str(step)}, {"name": "loss", "value": "0.5"}]
    return {"progressPercentage": step, "metrics": metrics, "lastUpdatedTime": f"2026-11-01T00:00:{second:02}Z"}


def a_trainer(**run: Any) -> tuple[Simulation, str]:
    sim = Simulation(**run)
    sim.settle()
    sim.set_pods(running())
    sim.settle()
    return sim, sim.pods()[0]["metadata"]["uid"]


def is_news(sim: Simulation, report: dict[str, Any]) -> bool:
    return TRAINING_RUN.is_news(sim.world, sim.pods()[0], report)


def told(sim: Simulation) -> str:
    registry = CollectorRegistry()
    registry.register(WorldCollector(sim.world, [TRAINING_RUN], lambda: (frozenset([KEY]), sim.progress)))
    return generate_latest(registry).decode()


def step(sim: Simulation) -> str:
    summary = sim.status().summary
    return summary.step if summary else ""


def test_only_a_report_that_would_be_written_wakes_the_run() -> None:
    sim, uid = a_trainer()
    assert is_news(sim, at(0, 1))
    sim.progress = {uid: at(0, 1)}
    sim.settle()
    written = sim.run()["metadata"]["resourceVersion"]
    for second in (5, 10):
        sim.progress = {uid: at(second, second)}
        assert not is_news(sim, sim.progress[uid])
        sim.settle()
        assert sim.run()["metadata"]["resourceVersion"] == written
    sim.progress = {uid: at(15, 15)}
    assert is_news(sim, sim.progress[uid])
    sim.settle()
    assert step(sim) == "15"


def test_prometheus_is_told_of_each_report() -> None:
    sim, uid = a_trainer()
    sim.progress = {uid: at(0, 1)}
    sim.settle()
    sim.progress = {uid: at(5, 7)}
    assert step(sim) == "1"
    assert 'videogen_training_metric{metric="step",namespace="models",phase="train",run="run"} 7.0' in told(sim)


def test_a_pod_that_is_none_of_the_attempt_tells_prometheus_nothing() -> None:
    sim, uid = a_trainer()
    sim.progress = {uid: at(0, 1)}
    sim.settle()
    stranger = sim.pods()[0]
    sim.put(stranger, name="run-train-1-master-1", uid="stranger")
    sim.progress["stranger"] = at(9, 99)
    assert 'metric="step",namespace="models",phase="train",run="run"} 1.0' in told(sim)


def test_what_an_attempt_told_is_over_with_it() -> None:
    sim, uid = a_trainer(phases=[TRAIN])
    sim.progress = {uid: at(0, 1)}
    sim.settle()
    sim.set_pods(ended(1))
    sim.settle()
    assert sim.status().phases[0].attempts
    sim.progress = {uid: at(5, 7)}
    sim.step(400)
    sim.settle()
    assert sim.status().phases[0].job_name == "run-train-2"
    assert "} 7.0" not in told(sim)


def test_a_status_of_another_version_gets_its_pass() -> None:
    sim, _ = a_trainer()
    sim.put(sim.run() | {"status": {"phases": [{"name": "train", "progress": {"lastUpdatedTime": 7}}]}})
    assert is_news(sim, at(0, 1))
