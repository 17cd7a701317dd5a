"""Runs that start from the weights of others: when they begin, what they pin, and what is said when they cannot begin."""

from typing import Any

import pytest

from videogen_api.job import ExitCode, Report
from videogen_api.meta import ANNOTATION_REQUEST
from videogen_api.training_run import Reason
from videogen_operator.kinds.training_run import TRAINING_RUN
from videogen_testing.run_simulation import KEY, Simulation
from videogen_testing.runs import EVALUATE, RELEASE, TRAIN, a_run, ended, trained

FIRST, SECOND = "sha256:" + "1" * 64, "sha256:" + "2" * 64
SOURCE_RELEASE = "pib-videogen-videofusion-v0.9.0-base"


def text(report: Report) -> str:
    return report.model_dump_json(by_alias=True, exclude_none=True)


def run_with(name: str, succeeded: str, digest: str | None = FIRST, **spec: Any) -> dict[str, Any]:
    """Another run, whose condition Succeeded has that status."""
    status: dict[str, Any] = {"conditions": [{"type": "Succeeded", "status": succeeded, "reason": "Any"}]}
    if digest:
        status["artifact"] = {"path": "bundles/source", "digest": digest}
    return a_run(name, **spec) | {"status": status}


def release_with(digest: str) -> dict[str, Any]:
    artifact = {"claimName": "models", "path": "bundles/source", "digest": digest}
    release = {"apiVersion": "v1", "kind": "ModelRelease", "metadata": {"name": SOURCE_RELEASE}, "spec": {"artifact": artifact}}
    return release | {"status": {"rollout": {"state": "Stable", "promotedTime": "2026-10-01T00:00:00Z"}}}


def message(sim: Simulation) -> str:
    return next(one.message for one in sim.status().conditions if one.type == "Succeeded")


@pytest.mark.parametrize(
    "succeeded, words",
    [("Unknown", "has not succeeded yet; waits for its end"), ("False", "has failed; retry it, or suspend this run and name another")],
    ids=["a run that works, with a bundle of an earlier phase", "a run that failed its gates after it had made a bundle"],
)
def test_a_bundle_of_a_run_that_has_not_succeeded_is_nobodys_beginning(succeeded: str, words: str) -> None:
    sim = Simulation(initFrom={"run": "source"})
    sim.put(run_with("source", succeeded), "models")
    sim.settle()
    assert (sim.top(), sim.jobs()) == (("Unknown", Reason.INIT_FROM_NOT_READY), ())
    assert message(sim) == f"train: spec.initFrom names TrainingRun source, which {words}"
    sim.put(run_with("source", "True"), "models")
    assert KEY in list(TRAINING_RUN.keys(sim.world.get("TrainingRun", "models", "source") or {}, sim.world)), "its end wakes those who wait"
    sim.settle()
    assert sim.files["run-train-1"].init_from is not None


@pytest.mark.parametrize("shown", ["GateFailed", "RolledBack", "Canary", "Withdrawn", None])
def test_a_release_that_serves_nobody_is_nobodys_beginning(shown: str | None) -> None:
    sim = Simulation(initFrom={"release": SOURCE_RELEASE})
    status = {"summary": {"status": shown}, "rollout": {}} if shown else {}
    sim.put(release_with(FIRST) | {"status": status}, "models")
    sim.settle()
    assert sim.top() == ("Unknown", Reason.INIT_FROM_NOT_READY)
    assert f"does not serve its service and was not replaced there ({shown or 'new'})" in message(sim)
    sim.put(release_with(FIRST), "models")
    sim.settle()
    assert sim.status().init_from


@pytest.mark.parametrize("kind", ["run", "release"])
def test_all_attempts_begin_with_the_weights_that_were_found_first(kind: str) -> None:
    name = "source" if kind == "run" else SOURCE_RELEASE
    sim = Simulation(initFrom={kind: name})
    sim.put(run_with("source", "True") if kind == "run" else release_with(FIRST), "models")
    sim.settle()
    pinned = sim.status().init_from
    assert pinned and (pinned.run or pinned.release, pinned.digest, pinned.message) == (name, FIRST, "")
    sim.put(run_with("source", "True", SECOND) if kind == "run" else release_with(SECOND), "models")
    sim.set_pods(ended(ExitCode.PREEMPTED, text(Report(reason=Reason.PREEMPTED, last_step=4))))
    sim.settle()
    sim.step(400)
    sim.settle()
    again = sim.status().init_from
    assert again and again.digest == FIRST
    assert again.message == (
        f"{'TrainingRun' if kind == 'run' else 'ModelRelease'} {name} has another bundle now, {SECOND}; this run keeps {FIRST}, with"
        " which it began; make a new run to start from the other one"
    )
    sim.world.remove(sim.world.get("TrainingRun" if kind == "run" else "ModelRelease", "models", name) or {})
    sim.set_pods(ended(ExitCode.DATA_REJECTED, text(Report(reason=Reason.DATASET_TOO_SMALL))))
    sim.settle()
    sim.annotate(ANNOTATION_REQUEST, "retry@1")
    sim.settle()
    attempts = [sim.files[f"run-train-{number}"].init_from for number in (1, 2, 3)]
    assert {one.digest for one in attempts if one} == {FIRST} and None not in attempts


def test_the_digest_is_written_before_a_job_has_it() -> None:
    sim = Simulation(initFrom={"run": "source"})
    sim.put(run_with("source", "True"), "models")
    plan = sim.step()
    assert (plan.create, plan.requeue_after) == ((), 0.0)
    assert sim.status().init_from
    assert [made["metadata"]["name"] for made in sim.step().create][-1] == "run-train-0", "the preflight looks at them, too"
    assert (sim.step().create, sim.status().phases[0].begun) == ((), True), "that the phase begins is written before its job is made, too"
    assert sim.step().create


def test_what_a_later_phase_begins_with_is_the_runs_own_bundle() -> None:
    sim = Simulation(initFrom={"run": "source"}, phases=[TRAIN, EVALUATE])
    sim.put(run_with("source", "True"), "models")
    sim.settle()
    sim.set_pods(ended(0, text(trained())))
    sim.settle()
    judged = sim.files["run-validate-1"].artifact
    assert judged and judged.digest == trained().artifact.digest  # type: ignore[union-attr]


CIRCLES: list[tuple[str, dict[str, Any], list[dict[str, Any]], str]] = [
    ("itself", {"initFrom": {"run": "run"}}, [], "run starts from run"),
    ("two", {"initFrom": {"run": "b"}}, [a_run("b", initFrom={"run": "run"})], "run starts from b, b starts from run"),
    (
        "a circle of others",
        {"initFrom": {"run": "b"}},
        [a_run("b", initFrom={"run": "c"}), a_run("c", initFrom={"run": "b"})],
        "b starts from c, c starts from b",
    ),
    (
        "by way of a release that the other run would make",
        {"initFrom": {"release": SOURCE_RELEASE}},
        [a_run("b", model={"family": "VideoFusion", "version": "0.9.0"}, phases=[TRAIN, EVALUATE, RELEASE], initFrom={"run": "run"})],
        "run starts from b, b starts from run",
    ),
    (
        "by way of its own release",
        {"initFrom": {"release": "pib-videogen-videofusion-v1.0.0-base"}, "phases": [TRAIN, EVALUATE, RELEASE]},
        [],
        "run starts from run",
    ),
]


@pytest.mark.parametrize("spec, others, words", [row[1:] for row in CIRCLES], ids=[row[0] for row in CIRCLES])
def test_runs_that_wait_for_each_other_in_a_circle_are_told_so(spec: Any, others: Any, words: str) -> None:
    sim = Simulation(**spec)
    for other in others:
        sim.put(other, "models")
    sim.settle()
    assert (sim.top(), sim.jobs()) == (("Unknown", Reason.INIT_FROM_LOOP), ())
    assert f"leads in a circle ({words}), so none of them can begin; delete one" in message(sim)


def test_a_circle_that_is_broken_lets_the_run_begin() -> None:
    sim = Simulation(initFrom={"run": "b"})
    sim.put(a_run("b", initFrom={"run": "run"}), "models")
    sim.settle()
    sim.world.remove(sim.world.get("TrainingRun", "models", "b") or {})
    sim.put(run_with("b", "True"), "models", uid="another")
    sim.settle()
    assert sim.top() == ("Unknown", Reason.STARTING)
