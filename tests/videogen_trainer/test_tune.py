"""Task Tune, whole: trials that train and are judged, interrupted and gone on with, and the choice among them."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from videogen_api.evaluation import Metric
from videogen_api.job import Job, Report
from videogen_api.recipe import Resolution
from videogen_api.training_run import Reason, Split
from videogen_testing.mlflow_server import mlflow_server
from videogen_testing.stopping import StopAfter
from videogen_trainer import tasks, tune
from videogen_trainer.dataset import Clip, write_dataset
from videogen_trainer.failure import Failure
from videogen_trainer.progress import ProgressReporter
from videogen_trainer.synthetic import synthetic_clip
from videogen_trainer.tracking import mlflow_address

WORK = "runs/demo-01234567/tune"
VALUES = ["0.65", "0.75"]
TUNE = {"parameter": "BaseNoiseShare", "values": VALUES, "steps": 3, "objective": "FVD", "samples": 4, "samplingSteps": 2}
DATA = [{"reference": {"dataset": "squares", "version": "v1", "split": split}} for split in Split]
Make = Callable[..., Job]


class Heard(ProgressReporter):
    """Remembers what is reported."""

    def __init__(self) -> None:
        super().__init__(None, 5, clock=lambda: 0.0, now=lambda: datetime(2026, 1, 1, tzinfo=UTC))
        self.parts: list[tuple[int, int]] = []
        self.metrics: list[Mapping[str, object]] = []

    def report(self, done: int, total: int, metrics: Mapping[str, object], *, final: bool = False) -> None:
        self.parts.append((done, total))
        self.metrics.append(metrics)


def attempt(job: Job, storage: Path, stop: Callable[[], bool] = lambda: False, progress: ProgressReporter | None = None) -> Report:
    tasks.check(job)
    return tasks.attempt(job, storage, {}, progress or Heard(), stop)


@pytest.fixture(scope="module")
def tuning(make_job: Make) -> Make:
    """A Tune job; `tune={...}` replaces fields of its block."""

    def make(recipe: dict[str, Any] | None = None, tune: Mapping[str, Any] | None = None, **fields: Any) -> Job:
        content = {"task": "Tune", "phase": "tune", "workPath": WORK, "data": DATA, "tune": TUNE | dict(tune or {})}
        return make_job({"checkpoints": {"everySteps": 1}, **(recipe or {})}, **(content | fields))

    return make


@dataclass(frozen=True)
class Searched:
    """A search that nothing interrupted, and what it left."""

    storage: Path
    report: Report
    heard: Heard


@pytest.fixture(scope="module")
def searched(tuning: Make, tmp_path_factory: pytest.TempPathFactory) -> Searched:
    torch.set_num_threads(1)
    storage, heard = tmp_path_factory.mktemp("searched"), Heard()
    made = [synthetic_clip(number, seed=3, frames=4, height=16, width=16) for number in range(12)]
    clips = [
        Clip(frames=clip.frames, caption=clip.caption, split=Split.HELD_OUT if number % 3 == 2 else Split.TRAIN)
        for number, clip in enumerate(made)
    ]
    write_dataset(storage, "squares", "v1", clips, frames=4, resolution=Resolution(height=16, width=16))
    return Searched(storage, attempt(tuning(), storage, progress=heard), heard)


@pytest.fixture
def storage(searched: Searched, tmp_path: Path) -> Path:
    """The same data, and nothing searched yet."""
    shutil.copytree(searched.storage / "datasets", tmp_path / "datasets")
    return tmp_path


@pytest.fixture
def after(searched: Searched, storage: Path) -> Path:
    """The same data and what the search has left."""
    shutil.copytree(searched.storage / "runs", storage / "runs")
    return storage


def test_every_value_is_tried_and_one_is_chosen(searched: Searched) -> None:
    report = searched.report
    assert report.reason is Reason.COMPLETED, report.message
    assert [trial.value for trial in report.trials] == VALUES
    assert len({trial.result for trial in report.trials}) == len(VALUES)
    for trial in report.trials:
        assert trial.metric is Metric.FVD and trial.low and trial.result and trial.high
        assert float(trial.low) <= float(trial.result) <= float(trial.high)
    (chosen,) = (trial for trial in report.trials if trial.chosen)
    assert report.message.startswith(f"chosen is baseNoiseShare {chosen.value}: ")
    assert [(one.dataset, one.clips) for one in report.datasets] == [("squares", 8), ("squares", 4)]
    assert (report.resumed_from_step, report.last_step) == (0, 6)
    assert report.goodput


def test_what_is_of_use_of_a_trial_stays_and_its_weights_go(searched: Searched) -> None:
    kept = sorted(path.name for path in (searched.storage / WORK / "trials/0.75").iterdir())
    assert kept == ["curve.jsonl", "curve.reached", "evaluation", "result.json", "tensorboard"]
    assert (searched.storage / WORK / "trials/0.75/evaluation/samples/contact-sheet.png").is_file()
    assert not list((searched.storage / "bundles").rglob("*.safetensors"))


@pytest.mark.parametrize("value", VALUES)
def test_event_files_have_every_step_of_a_trial_and_beside_them_its_results(searched: Searched, value: str) -> None:
    folder = searched.storage / WORK / "trials" / value
    training, judging = (EventAccumulator(str(one / "tensorboard")).Reload() for one in (folder, folder / "evaluation"))
    assert [event.step for event in training.Scalars("loss/total")] == [1, 2, 3]
    (told,) = judging.Scalars("FVD/video-classifier")
    result = next(trial.result for trial in searched.report.trials if trial.value == value)
    assert told.value == pytest.approx(float(str(result)), rel=1e-6)


def test_each_trial_has_runs_of_mlflow_of_its_own(tuning: Make, storage: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mlflow_address, "LOOPBACK_IS_REFUSED", False)
    with mlflow_server(tmp_path / "server") as server:
        report = attempt(tuning(tracking={"mlflow": {"uri": server.uri}}), storage)
        assert report.reason is Reason.COMPLETED, report.message
        found = {run.info.run_name: run for run in server.runs()}
        trials = [f"demo-01234567/tune/trials/{value}" for value in VALUES]
        assert found.keys() == {name for trial in trials for name in (trial, f"{trial}/evaluation")}
        for trial, value in zip(trials, VALUES, strict=True):
            assert found[trial].data.params["videoFusion.baseNoiseShare"] == value
            assert [step for step, _ in server.history(found[trial], "loss/total")] == [1, 2, 3]
            assert len(server.history(found[f"{trial}/evaluation"], "FVD/video-classifier")) == 1


def test_progress_rises_over_all_trials_and_counts_their_steps_together(searched: Searched) -> None:
    heard = searched.heard
    assert heard.parts == sorted(heard.parts)
    assert heard.parts[-1] == (2 * (3 + 4), 2 * (3 + 4))
    assert {metrics["steps"] for metrics in heard.metrics} == {6}
    steps = [int(str(metrics["step"])) for metrics in heard.metrics]
    assert steps == sorted(steps) and set(steps) == set(range(1, 7))
    assert heard.metrics[-1]["trial"] == "2 of 2, baseNoiseShare 0.75"
    assert all(len(metrics) <= 16 for metrics in heard.metrics), "the status takes 16"


def test_a_trial_is_a_train_phase_of_its_share_judged_by_an_evaluate_phase(searched: Searched, make_job: Make, storage: Path) -> None:
    recipe = {"steps": 3, "schedule": {"warmupSteps": 0}, "checkpoints": {"everySteps": 1}}  # 1 of 4 steps, of 3: less than one
    shares = {"videoFusion": {"baseLearningRateScale": "1", "baseNoiseShare": "0.65", "residualNoiseShare": "0.35"}}
    trained = attempt(make_job(recipe | shares), storage)
    assert trained.artifact
    evaluate = {"samples": 4, "samplingSteps": 2}
    job = make_job(task="Evaluate", workPath="runs/x/judge", data=DATA[1:], artifact=trained.artifact.wire(), evaluate=evaluate)
    judged = next(one for one in attempt(job, storage).results if one.metric is Metric.FVD)
    trial = searched.report.trials[0]
    assert (trial.result, trial.low, trial.high) == (judged.value, judged.low, judged.high)


@pytest.mark.parametrize("asked", [2, 5, 14])  # in training and in judging of the first trial, in training of the second one
def test_an_interrupted_search_goes_on_where_it_was_and_ends_the_same(
    searched: Searched, tuning: Make, storage: Path, monkeypatch: pytest.MonkeyPatch, asked: int
) -> None:
    first = attempt(tuning(), storage, StopAfter(asked))
    assert first.reason is Reason.PREEMPTED, first.message
    assert first.last_step > 0
    done = sorted(path.parent.name for path in (storage / WORK).rglob("result.json"))
    begun: list[str] = []
    train = tune.train
    monkeypatch.setattr(tune, "train", lambda job, *rest: (begun.append(job.recipe.fusion.base_share), train(job, *rest))[1])
    second = attempt(tuning(attempt=2), storage)
    assert begun == [value for value in VALUES if value not in done]
    assert second.resumed_from_step == first.last_step
    whole = searched.report
    assert (second.trials, second.message, second.datasets) == (whole.trials, whole.message, whole.datasets)


def test_a_search_that_is_done_only_tells_again(searched: Searched, tuning: Make, after: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(tune, "train")
    again = attempt(tuning(attempt=2), after)
    assert (again.trials, again.message, again.resumed_from_step) == (searched.report.trials, searched.report.message, 6)


def test_a_damaged_result_is_found_again(searched: Searched, tuning: Make, after: Path) -> None:
    path = after / WORK / "trials/0.75/result.json"
    path.write_bytes(path.read_bytes()[:-20])
    assert attempt(tuning(attempt=2), after).trials == searched.report.trials
    assert tune.Record.model_validate_json(path.read_bytes()).trial.value == "0.75"


@pytest.mark.parametrize("other", [{"samples": 5}, {"samplingSteps": 3}, {"objective": "ArtefactRate"}, {"steps": 2}])
def test_a_result_of_another_search_is_not_taken_for_ones_own(tuning: Make, after: Path, other: dict[str, Any]) -> None:
    path = after / WORK / "trials/0.75" / tune.RESULT

    def known(job: Job) -> bool:
        assert job.tune
        return tune.known_record(path, tune.made_from(tune.training_job(job, job.tune, "0.75"), job, job.tune)) is not None

    assert known(tuning(attempt=9))
    assert known(tuning(tune={"values": ["0.75", "0.80"]})), "which others there are is nothing to a trial"
    assert not known(tuning(tune=other))
    assert not known(tuning({"seed": 5}))
    assert not known(tuning(learningRateScale="0.5"))


def test_a_trial_that_diverges_is_out_of_the_race(searched: Searched, tuning: Make, storage: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train = tune.train

    def diverges_at_065(job: Job, *rest: Any) -> Report:
        if job.recipe.fusion.base_share == "0.65":
            raise Failure(Reason.DIVERGED, "step 1: loss nan")
        return train(job, *rest)

    monkeypatch.setattr(tune, "train", diverges_at_065)
    report = attempt(tuning(), storage)
    assert report.reason is Reason.COMPLETED
    assert [(trial.value, trial.result, trial.chosen) for trial in report.trials] == [
        ("0.65", None, False),
        ("0.75", searched.report.trials[1].result, True),
    ]
    assert report.message.endswith("; 0.65 diverged")


def test_if_every_trial_diverges_the_next_attempt_begins_anew_at_a_smaller_rate(tuning: Make, storage: Path) -> None:
    job = tuning({"optimizer": {"learningRate": "1e30", "gradientClipNorm": "0"}})
    report = attempt(job, storage)
    assert (report.reason, "every trial diverged" in report.message) == (Reason.DIVERGED, True), report.message
    attempt(job.model_copy(update={"learning_rate_scale": "0.5"}), storage)
    assert {path.name for path in (storage / WORK / "trials").iterdir()} == {"0.65", "0.75", "0.65-rate-0.5", "0.75-rate-0.5"}


def test_clips_to_be_judged_by_of_another_length_end_the_search_before_a_trial(tuning: Make, storage: Path) -> None:
    made = [synthetic_clip(number, seed=3, frames=6, height=16, width=16) for number in range(3)]
    clips = [Clip(frames=clip.frames, caption=clip.caption, split=Split.HELD_OUT) for clip in made]
    write_dataset(storage, "squares", "v2", clips, frames=6, resolution=Resolution(height=16, width=16))
    other = {"reference": {"dataset": "squares", "version": "v2", "split": "HeldOut"}}
    report = attempt(tuning(data=[DATA[0], other]), storage)
    assert report.reason is Reason.INVALID_JOB
    assert "squares v2 has 6 frames of 16 x 16, the model generates 4 frames of 16 x 16" in report.message
    assert not (storage / WORK).exists()


def test_the_user_may_judge_by_a_network_of_their_own(tuning: Make) -> None:
    extractor = {"name": "i3d", "architecture": "I3D", "path": "x.safetensors", "digest": "sha256:" + "0" * 64}
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
    assert (recipe.fusion.base_share, recipe.fusion.residual_noise_share) == ("0.65", "0.35")
    assert recipe.seed == job.recipe.seed and recipe.fusion.base_learning_rate_scale == "1"


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "no block": ({"tune": None}, "tune is missing"),
    "nothing to learn from": ({"data": DATA[1:]}, "data has no split Train"),
    "nothing to be judged by": ({"data": DATA[:1]}, "data has no split HeldOut"),
    "another family": ({"model": {"family": "Text2VideoZero", "version": "1.0.0"}}, "is for models of family VideoFusion|Tune searches"),
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
    "a value outside the scenario": ({"baseScenario": "HighDetail"}, "tune.values has 0.75; each must lie in 0.60-0.70"),
    "a recipe outside its scenario": ({"baseScenario": "TextHeavy"}, "baseNoiseShare is 0.70; .*0.75-0.85, the range of baseScenario"),
    "shares that do not add up": ({"baseNoiseShare": "0.7", "residualNoiseShare": "0.4"}, "is 0.7 and residualNoiseShare 0.4; .*add up"),
    "a share for each frame": ({"baseNoiseShares": ["0.7", "0.7", "1", "0.7"]}, "baseNoiseShares is set; Tune searches one share"),
    "shares of other frames": ({"baseNoiseShares": ["0.7", "1"]}, "has 2 shares; recipe.frames is 4"),
}


@pytest.mark.parametrize("name", BAD_SHARES)
def test_a_recipe_is_refused_for(tuning: Make, name: str) -> None:
    block, message = BAD_SHARES[name]
    with pytest.raises(Failure, match=message):
        tasks.check(tuning({"videoFusion": block}))


def test_two_processes_find_what_one_does(searched: Searched, tuning: Make, start_trainer: Callable[..., Any]) -> None:
    code, together = start_trainer(tuning(processesPerWorker=2)).wait()
    assert code == 0, together.message
    for one, other in zip(searched.report.trials, together.trials, strict=True):
        assert float(str(other.result)) == pytest.approx(float(str(one.result)), rel=1e-2)
