"""The training loop, in this process: resuming, divergence, precision, weights to start from."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from videogen_api.bundle import Manifest
from videogen_api.job import Job, Report
from videogen_api.recipe import Resolution
from videogen_api.training_run import Reason, Split
from videogen_models.bundle import load_model, verify_bundle
from videogen_models.sampling import sample
from videogen_models.video import decode_mp4
from videogen_testing.attempted import WORK, Attempted, artifact, curve
from videogen_testing.curation import silent
from videogen_testing.layer_types import computed_in
from videogen_testing.stopping import StopAfter
from videogen_trainer import checkpoint, divergence, tasks
from videogen_trainer.dataset import Clip, write_dataset
from videogen_trainer.explosion import Level
from videogen_trainer.sample import main as sample_command

GoneOn = Callable[[int], None]


@pytest.fixture(scope="module")
def trained(squares: Path, make_job: Callable[..., Job], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Attempted]:
    """`trained(stop_after)`: each made once; tests that write work on copies."""

    @cache
    def make(stop_after: int = 100) -> Attempted:
        torch.set_num_threads(1)
        folder = Path(shutil.copytree(squares, tmp_path_factory.mktemp("trained") / "storage"))
        return Attempted(folder, tasks.attempt(make_job(), folder, {}, silent(), StopAfter(stop_after)))

    return make


@pytest.fixture
def whole(trained: Callable[..., Attempted]) -> Attempted:
    """An attempt that nothing interrupted."""
    return trained()


@pytest.fixture
def gone_on(storage: Path, trained: Callable[..., Attempted]) -> GoneOn:
    """`gone_on(2)`: the test's storage becomes what an attempt has left that was asked to stop after step 2."""

    def go_on(steps: int) -> None:
        shutil.copytree(trained(steps).storage, storage, dirs_exist_ok=True)

    return go_on


@pytest.fixture
def after(whole: Attempted, storage: Path) -> Path:
    """The same data and what the attempt has left."""
    return Path(shutil.copytree(whole.storage, storage, dirs_exist_ok=True))


def test_training_ends_with_a_bundle_that_generates(whole: Attempted, make_job: Callable[..., Job]) -> None:
    storage, report = whole.storage, whole.report
    assert (report.reason, report.last_step, report.resumed_from_step) == (Reason.COMPLETED, 4, 0)
    assert [(one.dataset, one.version, one.clips) for one in report.datasets] == [("squares", "v1", 12)]
    folder = storage / artifact(report).path
    manifest = verify_bundle(folder, artifact(report).digest)
    assert (manifest.step, manifest.run, manifest.recipe, manifest.datasets) == (4, "demo", make_job().recipe, report.datasets)
    assert sample(load_model(folder), ["square"], [1], 2).shape == (1, 4, 16, 16, 3)
    assert [line["step"] for line in curve(storage)] == [1, 2, 3, 4]


def test_the_sample_command_writes_a_video_of_a_bundle(whole: Attempted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = artifact(whole.report).path
    arguments = ["sample", "--storage", str(whole.storage), "--prompt", "a square", "--steps", "2", "--out", str(tmp_path / "x.mp4")]
    monkeypatch.setattr("sys.argv", [*arguments, "--bundle", path])
    sample_command()
    assert decode_mp4((tmp_path / "x.mp4").read_bytes()).shape == (4, 16, 16, 3)
    monkeypatch.setattr("sys.argv", [*arguments, "--bundle", "bundles/none"])
    with pytest.raises(SystemExit, match="is no bundle"):
        sample_command()


def test_the_loss_falls(train: Callable[..., Report], make_job: Callable[..., Job], storage: Path) -> None:
    train(make_job({"steps": 16, "optimizer": {"learningRate": "2e-3"}, "checkpoints": {"everySteps": 16}}))
    losses = [line["loss"] for line in curve(storage)]
    assert sum(losses[-4:]) < 0.5 * sum(losses[:4])


def test_stopped_and_resumed_is_the_same_to_the_bit_as_never_stopped(
    train: Callable[..., Report],
    make_job: Callable[..., Job],
    storage: Path,
    whole: Attempted,
    trained: Callable[..., Attempted],
    gone_on: GoneOn,
) -> None:
    stopped = trained(3).report  # step 3 has no checkpoint of its own
    assert (stopped.reason, stopped.last_step) == (Reason.PREEMPTED, 3)
    gone_on(3)
    resumed = train(make_job())
    assert resumed.resumed_from_step == 3
    assert artifact(resumed) == artifact(whole.report)
    assert curve(storage) == curve(whole.storage)
    assert [line["step"] for line in curve(storage)] == [1, 2, 3, 4]


def test_a_damaged_checkpoint_costs_its_steps_and_nothing_else(
    train: Callable[..., Report], make_job: Callable[..., Job], whole: Attempted, after: Path
) -> None:
    newest = checkpoint.folder_of(after / WORK / "checkpoints", 4) / "optimizer.safetensors"
    newest.write_bytes(newest.read_bytes()[:-8] + b"\x00" * 8)
    again = train(make_job())
    assert again.resumed_from_step == 2
    told = "4 steps on 12 clips; went on from step 2, for the newest checkpoint is damaged: "
    assert again.message.startswith(told) and "step-000000004/optimizer.safetensors has SHA-256" in again.message
    assert artifact(again) == artifact(whole.report)
    assert [line["step"] for line in curve(after)] == [1, 2, 3, 4]
    assert checkpoint.newest_valid(after / WORK / "checkpoints") == 4


def test_if_every_checkpoint_is_damaged_that_is_told_before_the_run_begins_anew(
    train: Callable[..., Report], make_job: Callable[..., Job], whole: Attempted, after: Path
) -> None:
    root = after / WORK / "checkpoints"
    for step in (2, 4):
        (checkpoint.folder_of(root, step) / "model.safetensors").write_bytes(b"")
    report = train(make_job())
    assert (report.reason, report.last_step) == (Reason.STORAGE_FAILED, 0)
    assert report.message.startswith("all 2 checkpoints are damaged, the newest: ")
    assert "step-000000004/model.safetensors" in report.message and "the next attempt begins anew" in report.message
    again = train(make_job(attempt=2))
    assert (again.reason, again.resumed_from_step, artifact(again)) == (Reason.COMPLETED, 0, artifact(whole.report))
    assert not list(root.glob("damaged-*"))


def test_a_run_that_is_done_only_names_its_bundle_again(
    train: Callable[..., Report], make_job: Callable[..., Job], whole: Attempted, after: Path
) -> None:
    second = train(make_job(attempt=2))
    assert second.resumed_from_step == 4
    assert artifact(second) == artifact(whole.report)


def test_accumulated_batches_learn_what_one_batch_learns(
    train: Callable[..., Report], make_job: Callable[..., Job], storage: Path, whole: Attempted
) -> None:
    assert train(make_job({"gradientAccumulationSteps": 4})).reason is Reason.COMPLETED
    in_parts, at_once = ([line["loss"] for line in curve(place)] for place in (storage, whole.storage))
    assert in_parts == pytest.approx(at_once, rel=1e-4)


@pytest.mark.parametrize("precision, half, tolerance", [("BF16", torch.bfloat16, 0.05), ("FP16", torch.float16, 0.01)])
def test_mixed_precision_learns_what_full_precision_learns(
    train: Callable[..., Report], make_job: Callable[..., Job], storage: Path, precision: str, half: torch.dtype, tolerance: float
) -> None:
    curves = []
    for kind in ("FP32", precision):
        with computed_in() as types:
            report = train(make_job({"precision": kind, "steps": 2, "globalBatchSize": 2}))
        assert (half in types) == (kind == precision)
        curves.append([line["loss"] for line in curve(storage)])
        weights = load_model(storage / artifact(report).path).state_dict()
        assert {tensor.dtype for tensor in weights.values()} == {torch.float32}
        shutil.rmtree(storage / "runs")
    assert curves[1] == pytest.approx(curves[0], rel=tolerance)


def test_a_rate_that_is_far_too_high_is_told_as_divergence(
    train: Callable[..., Report], make_job: Callable[..., Job], storage: Path
) -> None:
    recipe = {"optimizer": {"learningRate": "900000000", "gradientClipNorm": "0"}, "schedule": {"type": "Constant"}, "steps": 30}
    report = train(make_job(recipe))
    assert report.reason is Reason.DIVERGED
    assert "smaller recipe.optimizer.learningRate" in report.message
    assert report.artifact is None
    for step in checkpoint.steps(storage / WORK / "checkpoints"):
        tensors, _ = checkpoint.load(storage / WORK / "checkpoints", step)
        assert all(tensor.isfinite().all() for tensor in tensors["model"].values())


def test_weights_that_are_no_numbers_are_never_saved(train: Callable[..., Report], make_job: Callable[..., Job], storage: Path) -> None:
    optimizer = {"learningRate": "1e45", "gradientClipNorm": "1"}
    recipe = {"optimizer": optimizer, "schedule": {"type": "Constant"}, "steps": 1, "checkpoints": {"everySteps": 1}}
    report = train(make_job(recipe))
    assert report.reason is Reason.DIVERGED
    assert "is not finite any more" in report.message
    assert not (storage / "bundles").exists()
    assert checkpoint.steps(storage / WORK / "checkpoints") == []


@pytest.mark.parametrize(
    "values, harmed",
    [([1.0, 2.0], None), ([3e38, 3e38], None), ([1.0, math.inf], "b"), ([math.inf, -math.inf], "b"), ([math.nan, 1.0], "b")],
    ids=["finite", "a sum that overflows", "inf", "both infs", "nan"],
)
def test_any_value_that_is_not_finite_is_found(values: list[float], harmed: str | None) -> None:
    assert divergence._harmed({"a": torch.ones(3), "b": torch.tensor(values), "step": torch.tensor(1.0)}) == harmed
    assert divergence._harmed({}) is None


def explode(root: Path, step: int) -> None:
    """Weights that are finite, and so large that the next loss is not: as they are in the middle of an explosion."""
    tensors, values = checkpoint.load(root, step)
    tensors["model"] = {name: tensor * 1e18 for name, tensor in tensors["model"].items()}
    checkpoint.save(root, step, tensors, values, keep_last=2)


def test_what_diverges_again_from_a_checkpoint_goes_back_to_the_one_before(
    train: Callable[..., Report], make_job: Callable[..., Job], storage: Path, gone_on: GoneOn
) -> None:
    root = storage / WORK / "checkpoints"
    gone_on(3)
    explode(root, 3)
    again = train(make_job())
    assert (again.reason, again.resumed_from_step, again.last_step) == (Reason.DIVERGED, 3, 2)
    assert checkpoint.steps(root) == [2]
    report = train(make_job())
    assert (report.reason, report.resumed_from_step, report.last_step) == (Reason.COMPLETED, 2, 4)


def test_the_only_checkpoint_is_kept(train: Callable[..., Report], make_job: Callable[..., Job], storage: Path, gone_on: GoneOn) -> None:
    root = storage / WORK / "checkpoints"
    gone_on(2)
    explode(root, 2)
    assert (train(make_job()).reason, checkpoint.steps(root)) == (Reason.DIVERGED, [2])


class State:
    """What `judge` looks at."""

    step = 7
    skipped = 0
    sound_step = 6
    is_suspect = False

    def __init__(self) -> None:
        self.levels = {"loss": Level(), "gradient norm": Level()}

    class optimizer:  # noqa: N801
        param_groups = ({"lr": 1e-4}, {"lr": 1e-3})


@pytest.mark.parametrize(
    "precision, loss, gradient, skipped, diverged",
    [
        ("FP32", 1.0, 2.0, 0, False),
        ("FP32", math.nan, 2.0, 0, True),
        ("FP32", 1.0, math.inf, 0, True),
        ("BF16", 1.0, math.nan, 0, True),
        ("FP16", 1.0, math.inf, 0, False),
        ("FP16", 1.0, math.inf, 29, False),
        ("FP16", 1.0, math.inf, 30, True),
        ("FP16", math.inf, math.inf, 0, True),
    ],
)
def test_when_training_has_diverged(
    make_job: Callable[..., Job], precision: str, loss: float, gradient: float, skipped: int, diverged: bool
) -> None:
    state: Any = State()
    state.skipped = skipped
    recipe = make_job({"precision": precision}).recipe
    if diverged:
        with pytest.raises(divergence.Failure) as caught:
            divergence.judge(state, recipe, loss, gradient)
        assert caught.value.reason is Reason.DIVERGED
    else:
        divergence.judge(state, recipe, loss, gradient)
        assert state.skipped == (skipped + 1 if math.isinf(gradient) else 0)
        assert state.levels["gradient norm"].count == (0 if math.isinf(gradient) else 1)  # what is left out is no measure


def test_training_goes_on_from_the_weights_of_a_bundle(
    train: Callable[..., Report], make_job: Callable[..., Job], whole: Attempted, after: Path
) -> None:
    first = artifact(whole.report)
    job = make_job({"steps": 1, "schedule": {"warmupSteps": 5}, "seed": 5}, initFrom=first, workPath="runs/next/train")
    second = artifact(train(job))
    weights = [load_model(after / reference.path).state_dict() for reference in (first, second)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])  # the first step's rate is 0
    manifest = Manifest.model_validate_json((after / second.path / "manifest.json").read_bytes())
    assert manifest.init_from == first.digest
    assert second.digest != first.digest


def harm_digest(job: Job) -> Job:
    assert job.init_from
    return job.model_copy(update={"init_from": job.init_from.model_copy(update={"digest": "sha256:" + "0" * 64})})


def test_a_bundle_to_start_from_is_verified_and_must_fit(
    train: Callable[..., Report], make_job: Callable[..., Job], whole: Attempted, after: Path
) -> None:
    first = artifact(whole.report)
    job = make_job({"steps": 1}, initFrom=first, workPath="runs/next/train")
    wrong = train(harm_digest(job))
    assert (wrong.reason, "expected sha256:000" in wrong.message) == (Reason.ARTIFACT_INVALID, True)
    data = (after / first.path / "text.safetensors").read_bytes()
    (after / first.path / "text.safetensors").write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert train(job).reason is Reason.ARTIFACT_INVALID


def test_a_bundle_of_another_clip_length_is_no_start(
    train: Callable[..., Report], make_job: Callable[..., Job], whole: Attempted, after: Path
) -> None:
    first = artifact(whole.report)
    clips = [Clip(frames=np.zeros((2, 16, 16, 3), np.uint8), caption="dark", split=Split.TRAIN)] * 4
    write_dataset(after, "short", "v1", clips, frames=2, resolution=Resolution(height=16, width=16))
    data = [{"reference": {"dataset": "short", "version": "v1"}}]
    report = train(make_job({"frames": 2}, initFrom=first, data=data, workPath="runs/a/b"))
    assert report.reason is Reason.INVALID_JOB
    assert "frames and architecture must be the same" in report.message


def test_training_goes_on_with_the_weights_that_it_began_with_or_not_at_all(
    train: Callable[..., Report], make_job: Callable[..., Job], whole: Attempted, after: Path
) -> None:
    first = artifact(whole.report)
    report = train(make_job(initFrom=first))
    said = f"step-000000004 is of training that began without a bundle, and this job begins with bundle {first.digest}; make a new run"
    assert (report.reason, said in report.message, "\n" in report.message) == (Reason.INVALID_JOB, True, False)
    begun = train(make_job(initFrom=first, workPath="runs/a/b"), StopAfter(3))
    assert (begun.reason, begun.last_step) == (Reason.PREEMPTED, 3)
    report = train(make_job(workPath="runs/a/b"))
    assert (report.reason, f"began with bundle {first.digest}, and this job begins without a" in report.message) == (
        Reason.INVALID_JOB,
        True,
    )
    again = train(make_job(initFrom=first, workPath="runs/a/b"))
    assert (again.reason, again.resumed_from_step) == (Reason.COMPLETED, 3)


def saved_by(storage: Path, recipe: object) -> None:
    """The newest checkpoint, as an image wrote it that knew this recipe."""
    root = storage / WORK / "checkpoints"
    tensors, values = checkpoint.load(root, 2)
    checkpoint.save(root, 2, tensors, values | {"recipe": recipe}, keep_last=2)


def test_a_recipe_field_that_is_new_in_this_image_keeps_running_runs_alive(
    train: Callable[..., Report], make_job: Callable[..., Job], storage: Path, gone_on: GoneOn
) -> None:
    job = make_job()
    gone_on(2)
    older = job.recipe.wire()
    del older["emaDecay"], older["optimizer"]["weightDecay"]
    saved_by(storage, older)
    again = train(job)
    assert (again.reason, again.resumed_from_step) == (Reason.COMPLETED, 2)


@pytest.mark.parametrize("unread", ["0" * 64, {"fieldOfAnotherImage": 1}, None], ids=["no recipe", "an unknown field", "nothing"])
def test_a_checkpoint_whose_recipe_cannot_be_read_is_not_resumed(
    train: Callable[..., Report], make_job: Callable[..., Job], storage: Path, gone_on: GoneOn, unread: object
) -> None:
    gone_on(2)
    saved_by(storage, unread)
    assert train(make_job()).reason is Reason.INVALID_JOB


def test_an_attempt_removes_what_its_run_left_unfinished_and_no_other_runs(
    train: Callable[..., Report], make_job: Callable[..., Job], storage: Path
) -> None:
    own, others = storage / WORK / "checkpoints/.staging-x", storage / "runs/other-01234567/train/checkpoints/.staging-x"
    for folder in (own, others):
        folder.mkdir(parents=True)
        (folder / "model.safetensors").touch()
    assert train(make_job({"steps": 1})).reason is Reason.COMPLETED
    assert (own.exists(), others.exists()) == (False, True)


def test_another_recipe_does_not_resume_these_checkpoints(train: Callable[..., Report], make_job: Callable[..., Job], after: Path) -> None:
    report = train(make_job({"seed": 9}))
    assert report.reason is Reason.INVALID_JOB
    assert "another recipe" in report.message
