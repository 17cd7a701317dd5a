"""Runs of several training phases: what each job is told, and what the next phase begins with."""

import re
from typing import Any

import pytest
import yaml

from videogen_api.evaluation import Metric, MetricResult
from videogen_api.job import ArtifactReference, Job, Report
from videogen_api.training_run import TRAINING, Reason, Task
from videogen_operator.kinds.training_run.failure_policy import is_complete
from videogen_operator.kinds.training_run.status import DOING
from videogen_testing.control_plane import ROOT
from videogen_testing.run_simulation import Simulation
from videogen_testing.runs import DIGEST, TRAIN, a_run, ended, running, trained

DATA = {"data": [{"dataset": "clips", "version": "1"}]}
SCHEDULE: list[dict[str, Any]] = [
    TRAIN,
    {"name": "align", "task": "AlignCrossModal", "train": {"steps": 30}} | DATA,
    {"name": "fine-tune", "task": "FineTune", "train": {"steps": 5, "warmupSteps": 2}} | DATA,
    {"name": "validate", "task": "Evaluate", "data": [{"dataset": "clips", "version": "1", "split": "HeldOut"}]},
]
MODEL = {"family": "AlignYourLatents", "version": "1.0.0"}


def digest_of(number: int) -> str:
    return f"sha256:{number:064x}"


def success(job: Job, number: int) -> Report:
    measured = Report(results=[MetricResult(metric=Metric.FVD, value="100", samples=128)])
    return measured if job.task is Task.EVALUATE else trained(job.recipe.steps, digest_of(number))


def lived(phases: list[dict[str, Any]], **changes: Any) -> tuple[list[Job], list[tuple[str, str]], Simulation]:
    """The jobs of a run in which all goes well, in order, and what it says while each of them runs; `changes` of its recipe."""
    sim, said = Simulation(phases=phases, model=MODEL, recipe=a_run()["spec"]["recipe"] | changes), []
    for number, _ in enumerate(phases):
        sim.settle()
        sim.set_pods(running())
        sim.settle()
        said.append(sim.top())
        job = sim.files[sim.current_job()["metadata"]["name"]]
        sim.set_pods(ended(0, success(job, number).model_dump_json(by_alias=True, exclude_none=True)))
    sim.settle()
    return list(sim.files.values()), said, sim


def test_each_phase_begins_with_the_bundle_of_the_one_before_and_the_last_is_measured() -> None:
    jobs, _, sim = lived(SCHEDULE)
    assert [job.init_from.digest if job.init_from else None for job in jobs] == [None, digest_of(0), digest_of(1), None]
    assert [job.artifact.digest if job.artifact else None for job in jobs] == [None, None, None, digest_of(2)]
    made = sim.status().artifact
    assert made
    assert made.digest == digest_of(2)
    assert sim.top() == ("True", Reason.COMPLETED)


def test_each_job_has_the_recipe_of_its_phase() -> None:
    jobs, _, _ = lived(SCHEDULE)
    assert [job.recipe.steps for job in jobs] == [100, 30, 5, 100]
    assert [job.recipe.schedule.warmup_steps for job in jobs] == [0, 0, 2, 0]
    assert [job.recipe.optimizer.learning_rate for job in jobs] == ["1e-5", "1e-5", "1e-6", "1e-5"]


def test_clips_are_interpolated_only_from_the_phase_on_that_learns_it() -> None:
    slow, again = {"name": "slow", "task": "FineTune"} | DATA, {"name": "again", "task": "FineTune"} | DATA
    interpolate, decode = {"name": "closer", "task": "TrainInterpolation"} | DATA, {"name": "decode", "task": "FineTuneDecoder"} | DATA
    jobs, _, _ = lived([TRAIN, slow, interpolate, decode, again], alignYourLatents={"interpolations": 1, "textGuidance": "2"})
    found = [job.recipe.align_your_latents for job in jobs]
    assert [latents and latents.interpolations for latents in found] == [None, None, 1, 1, 1]
    assert {latents.text_guidance for latents in found if latents} == {"2"}


def test_without_a_phase_that_learns_it_clips_are_interpolated_as_the_recipe_says() -> None:
    jobs, _, _ = lived([TRAIN], alignYourLatents={"interpolations": 1})
    assert jobs[0].recipe.align_your_latents
    assert jobs[0].recipe.align_your_latents.interpolations == 1


def test_the_run_says_what_it_is_doing() -> None:
    _, said, _ = lived(SCHEDULE)
    reasons = [Reason.TRAINING, Reason.ALIGNING, Reason.FINE_TUNING, Reason.EVALUATING]
    assert said == [("Unknown", reason) for reason in reasons]


def test_every_task_has_a_reason_of_its_own() -> None:
    assert DOING.keys() == set(Task)
    assert len(set(DOING.values())) == len(Task)


def test_an_alert_tells_of_every_training_task_that_stands_still() -> None:
    groups = yaml.safe_load((ROOT / "charts/videogen/files/rules.yaml").read_text())["groups"]
    (rule,) = (rule["expr"] for group in groups for rule in group["rules"] if rule["alert"] == "VideogenTrainingStalled")
    (reasons,) = re.findall(r'reason=~"([^"]+)"', rule)
    assert set(reasons.split("|")) == {DOING[task] for task in TRAINING}


@pytest.mark.parametrize("task", TRAINING)
def test_a_training_task_is_done_only_with_a_bundle(task: Task) -> None:
    assert is_complete(Report(artifact=ArtifactReference(path="x", digest=DIGEST)), task)
    assert not is_complete(Report(last_step=100), task)
