"""Task Tune, whole: trials that train and are judged, interrupted and gone on with, and the choice among them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from videogen_api.evaluation import Metric
from videogen_api.job import Job, Report
from videogen_api.training_run import Reason, Split
from videogen_trainer import tasks, tune
from videogen_trainer.failure import Failure
from videogen_trainer.progress import ProgressReporter

WORK = "runs/demo-01234567/tune"
VALUES = ["0.65", "0.70", "0.75"]
TUNE = {"parameter": "BaseNoiseShare", "values": VALUES, "steps": 3, "objective": "FVD", "samples": 4, "samplingSteps": 2}
DATA = [{"reference": {"dataset": "squares", "version": "v1", "split": split}} for split in Split]
Make = Callable[..., Job]
Attempt = Callable[..., Report]


@pytest.fixture
def tuning(make_job: Make) -> Make:
    """A Tune job; `tune={...}` replaces fields of its block."""

    def make(recipe: dict[str, Any] | None = None, tune: Mapping[str, Any] | None = None, **fields: Any) -> Job:
        content = {"task": "Tune", "phase": "tune", "workPath": WORK, "data": DATA, "tune": TUNE | dict(tune or {})}
        return make_job({"checkpoints": {"everySteps": 1}, **(recipe or {})}, **(content | fields))

    return make


@pytest.fixture
def attempt(storage: Path, silent: ProgressReporter) -> Attempt:
    def run(job: Job, stop: Callable[[], bool] = lambda: False, progress: ProgressReporter = silent) -> Report:
        tasks.check(job)
        return tasks.attempt(job, storage, {}, progress, stop)

    return run


class StopAfter:
    """Asks to stop at the n-th question."""

    def __init__(self, count: int) -> None:
        self.left = count

    def __call__(self) -> bool:
        self.left -= 1
        return self.left <= 0


class Heard(ProgressReporter):
    """Remembers what is reported."""

    def __init__(self) -> None:
        super().__init__(None, 5, clock=lambda: 0.0, now=lambda: datetime(2026, 1, 1, tzinfo=UTC))
        self.parts: list[tuple[int, int]] = []
        self.metrics: list[Mapping[str, object]] = []

    def report(self, done: int, total: int, metrics: Mapping[str, object], *, final: bool = False) -> None:
        self.parts.append((done, total))
        self.metrics.append(metrics)


def test_every_value_is_tried_and_one_is_chosen(attempt: Attempt, tuning: Make, storage: Path) -> None:
    report = attempt(tuning())
    assert report.reason is Reason.COMPLETED, report.message
    assert [trial.value for trial in report.trials] == VALUES
    assert len({trial.result for trial in report.trials}) == 3
    for trial in report.trials:
        assert trial.metric is Metric.FVD and trial.low and trial.result and trial.high
        assert float(trial.low) <= float(trial.result) <= float(trial.high)
    (chosen,) = (trial for trial in report.trials if trial.chosen)
    assert report.message.startswith(f"chosen is baseNoiseShare {chosen.value}: ")
    assert [(one.dataset, one.clips) for one in report.datasets] == [("squares", 12), ("squares", 4)]
    assert (report.resumed_from_step, report.last_step) == (0, 9)
    assert report.goodput


def test_what_is_of_use_of_a_trial_stays_and_its_weights_go(attempt: Attempt, tuning: Make, storage: Path) -> None:
    attempt(tuning())
    kept = sorted(path.name for path in (storage / WORK / "trials/0.70").iterdir())
    assert kept == ["curve.jsonl", "curve.reached", "result.json", "samples"]
    assert not list((storage / "bundles").rglob("*.safetensors"))


def test_a_trial_is_a_train_phase_of_its_share_judged_by_an_evaluate_phase(
    attempt: Attempt, tuning: Make, make_job: Make, storage: Path
) -> None:
    found = {trial.value: trial.result for trial in attempt(tuning()).trials}
    recipe = {"steps": 3, "schedule": {"warmupSteps": 0}, "checkpoints": {"everySteps": 1}}  # 1 of 4 steps, of 3: less than one
    shares = {"videoFusion": {"baseLearningRateScale": "1", "baseNoiseShare": "0.65", "residualNoiseShare": "0.35"}}
    trained = attempt(make_job(recipe | shares))
    assert trained.artifact
    evaluate = {"samples": 4, "samplingSteps": 2}
    judged = attempt(make_job(task="Evaluate", workPath="runs/x/judge", data=DATA[1:], artifact=trained.artifact.wire(), evaluate=evaluate))
    assert found["0.65"] == next(one.value for one in judged.results if one.metric is Metric.FVD)


@pytest.mark.parametrize("asked", [2, 5, 8, 12])  # in training and in judging, of the first and of the second trial
def test_an_interrupted_search_goes_on_where_it_was_and_ends_the_same(
    attempt: Attempt, tuning: Make, storage: Path, monkeypatch: pytest.MonkeyPatch, asked: int
) -> None:
    first = attempt(tuning(), StopAfter(asked))
    assert first.reason is Reason.PREEMPTED, first.message
    assert first.last_step > 0
    done = sorted(path.parent.name for path in (storage / WORK).rglob("result.json"))
    begun: list[str] = []
    train = tune.train
    monkeypatch.setattr(tune, "train", lambda job, *rest: (begun.append(job.recipe.video_fusion.base_noise_share), train(job, *rest))[1])
    second = attempt(tuning(attempt=2))
    assert begun == [value for value in VALUES if value not in done]
    assert second.resumed_from_step == first.last_step
    monkeypatch.undo()
    whole = attempt(tuning(workPath="runs/whole/tune"))
    assert second.trials == whole.trials
    assert second.message == whole.message
    assert second.datasets == whole.datasets


def test_a_search_that_is_done_only_tells_again(attempt: Attempt, tuning: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    first = attempt(tuning())
    monkeypatch.delattr(tune, "train")
    second = attempt(tuning(attempt=2))
    assert (second.trials, second.message, second.resumed_from_step) == (first.trials, first.message, 9)


def test_a_damaged_result_is_found_again(attempt: Attempt, tuning: Make, storage: Path) -> None:
    first = attempt(tuning())
    path = storage / WORK / "trials/0.70/result.json"
    path.write_bytes(path.read_bytes()[:-20])
    assert attempt(tuning(attempt=2)).trials == first.trials
    assert tune.Record.model_validate_json(path.read_bytes()).trial.value == "0.70"


def test_a_result_of_another_search_is_not_taken_for_ones_own(attempt: Attempt, tuning: Make) -> None:
    first = attempt(tuning())
    other = attempt(tuning(tune={"samples": 5}))
    assert [trial.result for trial in first.trials] != [trial.result for trial in other.trials]


def test_a_trial_that_diverges_is_out_of_the_race(attempt: Attempt, tuning: Make, monkeypatch: pytest.MonkeyPatch, storage: Path) -> None:
    train = tune.train

    def diverges_at_070(job: Job, *rest: Any) -> Report:
        if job.recipe.video_fusion.base_noise_share == "0.70":
            raise Failure(Reason.DIVERGED, "step 1: loss nan")
        return train(job, *rest)

    monkeypatch.setattr(tune, "train", diverges_at_070)
    report = attempt(tuning())
    assert report.reason is Reason.COMPLETED
    assert [trial.result is None for trial in report.trials] == [False, True, False]
    assert report.message.endswith("; 0.70 diverged")
    assert not report.trials[1].chosen


def test_if_every_trial_diverges_the_next_attempt_begins_anew_at_a_smaller_rate(attempt: Attempt, tuning: Make, storage: Path) -> None:
    job = tuning({"optimizer": {"learningRate": "1e30", "gradientClipNorm": "0"}}, tune={"values": VALUES[:2]})
    report = attempt(job)
    assert (report.reason, "every trial diverged" in report.message) == (Reason.DIVERGED, True), report.message
    attempt(job.model_copy(update={"learning_rate_scale": "0.5"}))
    assert {path.name for path in (storage / WORK / "trials").iterdir()} == {"0.65", "0.70", "0.65-rate-0.5", "0.70-rate-0.5"}


def test_progress_rises_over_all_trials_and_counts_their_steps_together(attempt: Attempt, tuning: Make) -> None:
    heard = Heard()
    attempt(tuning(), progress=heard)
    assert heard.parts == sorted(heard.parts)
    assert heard.parts[-1] == (3 * (3 + 4), 3 * (3 + 4))
    assert {metrics["steps"] for metrics in heard.metrics} == {9}
    steps = [int(str(metrics["step"])) for metrics in heard.metrics]
    assert steps == sorted(steps) and set(steps) == set(range(1, 10))
    assert heard.metrics[-1]["trial"] == "3 of 3, baseNoiseShare 0.75"
    assert all(len(metrics) <= 16 for metrics in heard.metrics), "the status takes 16"


def test_the_user_may_judge_by_a_network_of_their_own(tuning: Make) -> None:
    extractor = {"name": "i3d", "architecture": "I3D", "path": "x.safetensors", "sha256": "0" * 64}
    wanted = tuning(tune={"extractor": extractor}).tune
    assert wanted
    results = [
        {"metric": metric, "value": value, "samples": 4, "extractor": name}
        for metric, value, name in (("FVD", "1", "video-classifier"), ("CLIPScore", "2", "i3d"), ("FVD", "3", "i3d"))
    ]
    measured = [tune.MetricResult.model_validate(result) for result in results]
    assert tune.trial_of("0.70", wanted, measured).result == "3"
    own = tuning().tune
    assert own and tune.trial_of("0.70", own, measured).result == "1"


def test_the_schedule_is_shortened_in_proportion(tuning: Make) -> None:
    job = tuning({"steps": 1000, "schedule": {"warmupSteps": 50}, "samples": {"everySteps": 1, "prompts": ["x"]}}, tune={"steps": 100})
    assert job.tune
    recipe = tune.trial_recipe(job.recipe, job.tune, "0.65")
    assert (recipe.steps, recipe.schedule.warmup_steps, recipe.samples) == (100, 5, None)
    assert (recipe.video_fusion.base_noise_share, recipe.video_fusion.residual_noise_share) == ("0.65", "0.35")
    assert recipe.seed == job.recipe.seed and recipe.video_fusion.base_learning_rate_scale == "1"


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "no block": ({"tune": None}, "tune is missing"),
    "nothing to learn from": ({"data": DATA[1:]}, "data has no split Train"),
    "nothing to be judged by": ({"data": DATA[:1]}, "data has no split HeldOut"),
    "another family": ({"model": {"type": "text2video-zero", "version": "1.0.0"}}, "is for models of type videofusion|Tune searches"),
    "a batch that the processes cannot share": ({"workers": 3}, r"globalBatchSize is 4; .* 3 x 1 x 1 = 3"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_job_is_refused_for(make_job: Make, name: str) -> None:
    fields, message = BAD[name]
    content = {"task": "Tune", "workPath": WORK, "data": DATA, "tune": TUNE} | fields
    with pytest.raises(Failure, match=message) as caught:
        tasks.check(make_job(**content))
    assert caught.value.reason is Reason.INVALID_JOB


BAD_SHARES: dict[str, tuple[dict[str, Any], str]] = {
    "a value outside the profile": ({"contentProfile": "HighDetail"}, "tune.values has 0.75; .*HighDetail 0.60-0.70"),
    "a recipe outside its profile": ({"contentProfile": "TextHeavy"}, "baseNoiseShare is 0.70; .*TextHeavy 0.75-0.85"),
    "a share for each frame": ({"baseNoiseShares": ["0.7", "0.7", "1", "0.7"]}, "baseNoiseShares is set; Tune searches one share"),
    "shares of other frames": ({"baseNoiseShares": ["0.7", "1"]}, "has 2 shares; recipe.frames is 4"),
}


@pytest.mark.parametrize("name", BAD_SHARES)
def test_a_recipe_is_refused_for(tuning: Make, name: str) -> None:
    block, message = BAD_SHARES[name]
    with pytest.raises(Failure, match=message):
        tasks.check(tuning({"videoFusion": block}))


@pytest.mark.timeout(170)  # each process imports torch, diffusers and transformers: seconds on a busy core
def test_two_processes_find_what_one_does(attempt: Attempt, tuning: Make, start_trainer: Callable[..., Any]) -> None:
    job = tuning(tune={"values": VALUES[:2], "steps": 2})
    code, together = start_trainer(job.model_copy(update={"processes_per_worker": 2, "work_path": "runs/two/tune"})).wait()
    assert code == 0, together.message
    for one, other in zip(attempt(job).trials, together.trials, strict=True):
        assert float(other.result) == pytest.approx(float(str(one.result)), rel=1e-2)
    assert json.loads(together.model_dump_json())["goodput"]
