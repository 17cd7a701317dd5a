"""TrainInterpolation and FineTuneDecoder: what each adds to a bundle, what it leaves alone, and that its losses fall."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import torch

from videogen_api.evaluation import Metric
from videogen_api.job import ArtifactReference, Job, Report
from videogen_api.recipe import Resolution
from videogen_api.training_run import Reason, Split
from videogen_models.bundle import load_model, verify_bundle
from videogen_models.latent_video import DECODER, INTERPOLATION, TEMPORAL
from videogen_models.video_model import CONFIG
from videogen_testing.attempted import artifact
from videogen_testing.ranks import train_in
from videogen_testing.stopping import StopAfter
from videogen_trainer import checkpoint, tasks
from videogen_trainer.data import Batches, open_mixture
from videogen_trainer.dataset import Clip, write_dataset
from videogen_trainer.distributed import World
from videogen_trainer.families import learner_of
from videogen_trainer.families.interpolation import draw
from videogen_trainer.progress import ProgressReporter
from videogen_trainer.synthetic import synthetic_clip

Train = Callable[..., Report]
MakeJob = Callable[..., Job]
SIDE = 16
SHARED = "runs/learned"
FAST = {1: 5, 2: 17}  # frames of a clip that teaches so many interpolations


@dataclass(frozen=True)
class Learned:
    """A storage with a bundle that each of the tasks has made of the trained one, in three steps."""

    folder: Path
    trained: ArtifactReference
    taught: dict[int, ArtifactReference]  # by the interpolations
    decoding: ArtifactReference


@pytest.fixture(scope="module")
def learned(begun: Any, part_job: MakeJob, tmp_path_factory: pytest.TempPathFactory) -> Learned:
    """Made once; tests work on copies."""
    torch.set_num_threads(1)
    folder = Path(shutil.copytree(begun.folder, tmp_path_factory.mktemp("learned"), dirs_exist_ok=True))

    def bundle(task: str, work: str, recipe: dict[str, Any] | None = None, **fields: Any) -> ArtifactReference:
        return artifact(attempt(part_job(task, begun.trained, recipe, workPath=f"{SHARED}/{work}", **fields), folder))

    taught = {times: bundle("TrainInterpolation", f"taught-{times}", interpolations(times), **of_fast(times)) for times in FAST}
    return Learned(folder, begun.trained, taught, bundle("FineTuneDecoder", "decoding"))


@pytest.fixture
def storage(learned: Learned, tmp_path: Path) -> Path:
    """Datasets `squares` and `fast`, whose version v<n> teaches n interpolations, and the bundles of `learned`."""
    return Path(shutil.copytree(learned.folder, tmp_path / "storage"))


@pytest.fixture
def trained(learned: Learned) -> ArtifactReference:
    return learned.trained


@pytest.fixture(scope="module")
def part_job(make_job: MakeJob) -> MakeJob:
    def make(task: str, after: ArtifactReference | None = None, recipe: dict[str, Any] | None = None, **fields: Any) -> Job:
        model = {"family": "AlignYourLatents", "version": "1.0.0"}
        begin = {"initFrom": after} if after else {}
        values = {"videoFusion": None, "steps": 3} | (recipe or {})
        return make_job(values, task=task, model=model, **({"workPath": f"runs/a/{task}"} | begin | fields))

    return make


def attempt(job: Job, storage: Path, stop: Callable[[], bool] = lambda: False) -> Report:
    tasks.check(job)
    silent = ProgressReporter(None, 5, clock=lambda: 0.0, now=lambda: datetime(2026, 1, 1, tzinfo=UTC))
    return tasks.attempt(job, storage, {}, silent, stop)


@pytest.fixture
def train(storage: Path) -> Train:
    return lambda job, stop=lambda: False: attempt(job, storage, stop)


def of_fast(times: int) -> dict[str, Any]:
    return {"data": [{"reference": {"dataset": "fast", "version": f"v{times}"}}]}


def interpolations(times: int, **recipe: Any) -> dict[str, Any]:
    return {"alignYourLatents": {"interpolations": times}} | recipe


def changed(storage: Path, one: ArtifactReference, other: ArtifactReference) -> set[str]:
    files = {entry.path: entry.sha256 for entry in verify_bundle(storage / one.path).files}
    others = {entry.path: entry.sha256 for entry in verify_bundle(storage / other.path).files}
    return {path for path in files.keys() | others.keys() if files.get(path) != others.get(path)}


def curve(storage: Path, work: str) -> list[dict[str, float]]:
    return [json.loads(line) for line in (storage / work / "curve.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("times, frames, frame_rate", [(1, 13, 32), (2, 49, 128)])
def test_interpolation_is_learned_beside_the_other_layers_and_used_from_then_on(
    train: Train, part_job: MakeJob, storage: Path, learned: Learned, times: int, frames: int, frame_rate: int
) -> None:
    trained, taught = learned.trained, learned.taught[times]
    assert changed(storage, trained, taught) == {INTERPOLATION, CONFIG}
    tuned = artifact(train(part_job("FineTune", taught)))
    assert changed(storage, taught, tuned) == {TEMPORAL}
    model, before = load_model(storage / tuned.path), load_model(storage / trained.path)
    assert (model.config.frames, model.config.frame_rate) == (frames, frame_rate)
    assert model.generate(["x"], [1], 1).shape == (1, frames, SIDE, SIDE, 3)
    assert before.generate(["x"], [1], 1).shape == (1, 4, SIDE, SIDE, 3)


def test_an_interpolated_clip_is_evaluated_against_clips_of_its_own_length_alone(
    train: Train, part_job: MakeJob, storage: Path, learned: Learned
) -> None:
    taught = learned.taught[1]
    made = [synthetic_clip(number, seed=3, frames=13, height=SIDE, width=SIDE) for number in range(3)]
    clips = [Clip(frames=clip.frames, caption=clip.caption, split=Split.HELD_OUT) for clip in made]
    write_dataset(storage, "squares", "long", clips, frames=13, resolution=Resolution(height=SIDE, width=SIDE))
    reports = {}
    for version in ("v1", "long"):
        data = [{"reference": {"dataset": "squares", "version": version, "split": "HeldOut"}}]
        reports[version] = train(part_job("Evaluate", artifact=taught, data=data, evaluate={"samples": 2, "samplingSteps": 1}))
    assert reports["v1"].reason is Reason.INVALID_JOB
    assert "squares v1 has 4 frames of 16 x 16, the model generates 13 frames of 16 x 16" in reports["v1"].message
    assert reports["long"].reason is Reason.COMPLETED, reports["long"].message
    assert {(result.metric, result.frames) for result in reports["long"].results} == {
        (metric, 13) for metric in set(Metric) - {Metric.SCENARIO_PASS_RATIO, Metric.LANGUAGE_SCORE}
    }


def test_the_slow_rate_sees_every_fourth_frame_and_the_fast_one_five_in_a_row() -> None:
    drawn = draw(0, range(400), 17, (4, 2, 2))
    assert set(drawn.rate.tolist()) == {0, 1}
    slow, quick = drawn.frames[drawn.rate == 0], drawn.frames[drawn.rate == 1]
    assert torch.equal(slow, torch.tensor([0, 4, 8, 12, 16]).expand(len(slow), -1))
    assert (quick.diff(dim=1) == 1).all()
    assert set(quick[:, 0].tolist()) == set(range(13))


def test_with_one_interpolation_there_is_one_rate_and_all_five_frames_are_seen() -> None:
    drawn = draw(0, range(20), 5, (4, 2, 2))
    assert not drawn.rate.any()
    assert torch.equal(drawn.frames, torch.arange(5).expand(20, -1))
    assert torch.equal(drawn.noise[5:], draw(0, range(5, 20), 5, (4, 2, 2)).noise)  # whatever its batch


def test_only_the_frames_between_are_unknown(part_job: MakeJob, storage: Path, trained: ArtifactReference) -> None:
    job = part_job("TrainInterpolation", trained, interpolations(2), **of_fast(2))
    learner = learner_of(job, storage, World())
    batches = Batches(open_mixture(storage, job), job.recipe, 0, 1)
    latents, _, known, _, _, rate = learner.prepare(batches.get(0, 0))
    batches.close()
    assert known[0, :, -1, 0, 0].tolist() == [1, 0, 0, 0, 1]
    assert torch.equal(known[:, [0, 4], :-1], latents[:, [0, 4]])
    assert rate.shape == (4,)


@pytest.mark.parametrize("task", ["TrainInterpolation", "FineTuneDecoder"])
def test_every_parameter_that_learns_takes_part_in_a_step(part_job: MakeJob, storage: Path, trained: ArtifactReference, task: str) -> None:
    more = of_fast(2) if task == "TrainInterpolation" else {}
    job = part_job(task, trained, interpolations(2) if more else {}, **more)
    learner = learner_of(job, storage, World())
    batches = Batches(open_mixture(storage, job), job.recipe, 0, 1)
    learner.objective(*learner.prepare(batches.get(0, 0))).sum().backward()
    batches.close()
    assert [name for name, parameter in learner.learned().items() if parameter.grad is None] == []


@pytest.mark.parametrize("frames, times", [(4, None), (4, 1), (17, 1), (5, 2)])
def test_clips_of_another_length_are_refused_with_the_length_that_is_wanted(
    train: Train, part_job: MakeJob, storage: Path, trained: ArtifactReference, frames: int, times: int | None
) -> None:
    data = {4: {}, 5: of_fast(1), 17: of_fast(2)}[frames]
    report = train(part_job("TrainInterpolation", trained, interpolations(times) if times else {}, **data))
    assert report.reason is Reason.INVALID_JOB
    assert f"has {frames} frames of 16 x 16, the recipe {FAST[times or 1]} of" in report.message
    assert "TrainInterpolation: of 5 frames with a quarter of the frameStride" in report.message


def test_more_interpolations_than_were_learned_are_refused(train: Train, part_job: MakeJob, learned: Learned) -> None:
    for begun, found in ((learned.taught[1], "1"), (learned.trained, "none")):
        report = train(part_job("FineTune", begun, interpolations(2)))
        assert report.reason is Reason.INVALID_JOB
        assert f"interpolations is 2; initFrom has layers for {found}, put a TrainInterpolation phase before it" in report.message


def test_interpolation_may_be_learned_on_at_both_rates(train: Train, part_job: MakeJob, storage: Path, learned: Learned) -> None:
    once = learned.taught[1]
    twice = artifact(train(part_job("TrainInterpolation", once, interpolations(2), workPath="runs/b", **of_fast(2))))
    assert changed(storage, once, twice) == {INTERPOLATION, CONFIG}
    assert load_model(storage / twice.path).config.frames == 49
    learner = learner_of(part_job("TrainInterpolation", once, interpolations(2), **of_fast(2)), storage, World())
    begun, earlier = learner.model.state_dict(), load_model(storage / once.path).state_dict()
    assert [name for name in earlier if not torch.equal(begun[name], earlier[name])] == []


def test_a_decoder_is_learned_beside_the_image_models_which_keeps_its_bytes_and_used_from_then_on(
    train: Train, part_job: MakeJob, storage: Path, learned: Learned
) -> None:
    trained, decoding = learned.trained, learned.decoding
    assert changed(storage, trained, decoding) == {DECODER, CONFIG}
    tuned = artifact(train(part_job("FineTune", decoding)))
    assert changed(storage, decoding, tuned) == {TEMPORAL}
    on = artifact(train(part_job("FineTuneDecoder", tuned, workPath="runs/b")))
    assert changed(storage, tuned, on) == {DECODER}
    clips = [load_model(storage / bundle.path).generate(["x"], [1], 2) for bundle in (trained, decoding)]
    assert (clips[0] != clips[1]).any()


LEARNED = {
    "Train": {"video.temporal"},
    "FineTune": {"video.temporal"},
    "AlignCrossModal": {"video.temporal"},
    "Adapt": {"backbone.unet"},
    "TrainInterpolation": {"between.temporal"},
    "FineTuneDecoder": {"decoder.temporal", "discriminator.layers"},
}


def test_of_a_model_that_has_all_parts_each_task_learns_its_own_alone(
    train: Train, part_job: MakeJob, storage: Path, learned: Learned
) -> None:
    whole = artifact(train(part_job("FineTuneDecoder", learned.taught[1], {"steps": 1})))
    found = {}
    for task in LEARNED:
        learner = learner_of(part_job(task, whole), storage, World())
        found[task] = {".".join(name.split(".")[:2]) for name in learner.learned()}
        inside = {name for name, parameter in learner.objective.named_parameters() if parameter.requires_grad}
        assert len(inside) == len(learner.learned()), task  # nothing else would wait for its gradient
    assert found == LEARNED


def test_the_discriminator_is_in_checkpoints_and_in_no_bundle(learned: Learned) -> None:
    tensors, _ = checkpoint.load(learned.folder / SHARED / "decoding/checkpoints", 3)
    assert {name.split(".")[0] for name in tensors["model"]} == {"decoder", "discriminator"}
    assert not [path for path in (learned.folder / learned.decoding.path).rglob("*") if "discriminator" in path.name]


def test_the_reconstruction_gets_better(train: Train, part_job: MakeJob, storage: Path, trained: ArtifactReference) -> None:
    recipe = {"steps": 20, "optimizer": {"learningRate": "3e-3"}, "checkpoints": {"everySteps": 20}}
    train(part_job("FineTuneDecoder", trained, recipe))
    lines = curve(storage, "runs/a/FineTuneDecoder")
    assert lines[0].keys() == {"step", "loss", "gradient", "rate", "reconstruction", "adversarial", "discriminator"}
    assert sum(line["reconstruction"] for line in lines[-4:]) < 0.9 * sum(line["reconstruction"] for line in lines[:4])


def test_the_error_of_the_frames_between_falls(train: Train, part_job: MakeJob, storage: Path, trained: ArtifactReference) -> None:
    recipe = interpolations(1, steps=24, optimizer={"learningRate": "5e-3"}, checkpoints={"everySteps": 24})
    train(part_job("TrainInterpolation", trained, recipe, **of_fast(1)))
    lines = curve(storage, "runs/a/TrainInterpolation")
    assert sum(line["loss"] for line in lines[-6:]) < 0.8 * sum(line["loss"] for line in lines[:6])


def test_two_processes_learn_what_one_learns_of_a_decoder(
    train: Train, part_job: MakeJob, storage: Path, trained: ArtifactReference
) -> None:
    """Only nearly the same: each process weighs its own clips' adversarial loss by their gradients."""
    job = part_job("FineTuneDecoder", trained, {"steps": 4})
    report = train_in(2, job.model_copy(update={"processes_per_worker": 2}), storage)
    assert (report.reason, report.last_step) == (Reason.COMPLETED, 4), report.message
    train(job.model_copy(update={"work_path": "runs/alone"}))
    together, alone = ([line["reconstruction"] for line in curve(storage, work)] for work in (job.work_path, "runs/alone"))
    assert together[0] == pytest.approx(alone[0], rel=1e-5)
    assert together == pytest.approx(alone, rel=0.02)


@pytest.mark.parametrize("task", ["TrainInterpolation", "FineTuneDecoder"])
def test_stopped_and_resumed_is_the_same_to_the_bit_as_never_stopped(train: Train, part_job: MakeJob, learned: Learned, task: str) -> None:
    more = of_fast(1) if task == "TrainInterpolation" else {}
    whole = learned.taught[1] if more else learned.decoding
    job = part_job(task, learned.trained, interpolations(1) if more else {}, **more)
    assert (stopped := train(job, StopAfter(2))).reason is Reason.PREEMPTED, stopped.message
    resumed = train(job)
    assert resumed.resumed_from_step == 2
    assert artifact(resumed).digest == whole.digest
