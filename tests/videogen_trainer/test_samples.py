"""Videos to look at while training goes on."""

from __future__ import annotations

import logging
import shutil
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from pydantic import ValidationError

from videogen_api.job import Job
from videogen_api.meta import ModelFamily
from videogen_api.training_run import Reason
from videogen_models.bundle import load_model
from videogen_models.video import decode_mp4
from videogen_models.videofusion import VideoFusionModel
from videogen_testing.attempted import WORK, losses
from videogen_trainer import gathering, samples, tasks
from videogen_trainer.distributed import World
from videogen_trainer.families import learner_of
from videogen_trainer.progress import ProgressReporter
from videogen_trainer.sharding import shard
from videogen_trainer.state import new_state

WANTED = {"everySteps": 2, "prompts": ["a square moves right", "a dark square"], "samplingSteps": 2}


@pytest.mark.parametrize("family", list(ModelFamily))
def test_training_shows_its_prompts_at_intervals_and_learns_the_same(
    storage: Path, make_job: Callable[..., Job], silent: ProgressReporter, family: ModelFamily
) -> None:
    fields = {"model": {"family": family, "version": "1.0.0"}}
    own = {} if family is ModelFamily.VIDEOFUSION else {"videoFusion": None}
    shown = tasks.attempt(make_job(own | {"samples": WANTED}, **fields), storage, {}, silent, lambda: False)
    assert shown.reason is Reason.COMPLETED, shown.message
    folder, curve = storage / WORK / "samples", losses(storage)
    assert sorted(path.name for path in folder.iterdir()) == ["step-000000002", "step-000000004"]
    files = ["contact-sheet.png", "sample-00.mp4", "sample-00.txt", "sample-01.mp4", "sample-01.txt"]
    assert sorted(path.name for path in (folder / "step-000000004").iterdir()) == files
    assert decode_mp4((folder / "step-000000004/sample-01.mp4").read_bytes()).shape == (4, 16, 16, 3)
    assert (folder / "step-000000004/sample-01.txt").read_text() == "a dark square\n"
    shutil.rmtree(storage / "runs")
    plain = tasks.attempt(make_job(own, **fields), storage, {}, silent, lambda: False)
    assert losses(storage) == curve
    assert shown.artifact
    assert plain.artifact
    weights = [
        {path.name: path.read_bytes() for path in (storage / one.path).rglob("*.safetensors")} for one in (shown.artifact, plain.artifact)
    ]
    assert weights[0] == weights[1] != {}


def test_the_videos_are_those_of_the_weights_that_are_released(
    storage: Path, make_job: Callable[..., Job], silent: ProgressReporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[Any] = []
    monkeypatch.setattr(samples, "write_samples", lambda folder, clips, *_: written.append(clips))
    report = tasks.attempt(make_job({"samples": WANTED | {"everySteps": 4}}), storage, {}, silent, lambda: False)
    assert report.artifact
    released = load_model(storage / report.artifact.path).generate(WANTED["prompts"], [0, 1], 2)  # type: ignore[arg-type]
    assert np.array_equal(np.stack(written[0]), released)


def test_a_video_that_is_not_finite_is_left_out_and_training_goes_on(
    storage: Path,
    make_job: Callable[..., Job],
    silent: ProgressReporter,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(VideoFusionModel, "to_frames", lambda _, clean: clean * torch.nan)
    assert tasks.attempt(make_job({"samples": WANTED}), storage, {}, silent, lambda: False).reason is Reason.COMPLETED
    assert not (storage / WORK / "samples").exists()
    assert "no samples after step 2: 3072 of 3072 values of the generated frames are not finite" in caplog.text


def test_a_storage_that_takes_no_videos_ends_the_attempt(storage: Path, make_job: Callable[..., Job], silent: ProgressReporter) -> None:
    (storage / WORK).mkdir(parents=True)
    (storage / WORK / "samples").touch()
    assert tasks.attempt(make_job({"samples": WANTED}), storage, {}, silent, lambda: False).reason is Reason.STORAGE_FAILED


def test_asked_to_end_it_generates_no_more(storage: Path, make_job: Callable[..., Job], silent: ProgressReporter) -> None:
    asked: list[int] = []

    def stop() -> bool:
        asked.append(0)
        return len(asked) > 3  # after two steps, in the first video

    report = tasks.attempt(make_job({"samples": WANTED}), storage, {}, silent, stop)
    assert (report.reason, report.last_step) == (Reason.PREEMPTED, 3)
    assert not (storage / WORK / "samples").exists()
    assert tasks.attempt(make_job({"samples": WANTED}), storage, {}, silent, lambda: False).reason is Reason.COMPLETED


def from_the_second_video_on(act: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> None:
    """`act` in the middle of the second video of all, and of none after it."""
    generate, asked = VideoFusionModel.generate, list[str]()

    def limited(self: VideoFusionModel, captions: list[str], *rest: Any) -> Any:
        videos = generate(self, captions, *rest)
        asked.extend(captions)
        if len(asked) == 2:
            act()
        return videos

    monkeypatch.setattr(VideoFusionModel, "generate", limited)


def test_videos_for_which_memory_does_not_suffice_are_left_out_and_training_goes_on(
    storage: Path,
    make_job: Callable[..., Job],
    silent: ProgressReporter,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    from_the_second_video_on(lambda: torch.empty(2**60, dtype=torch.uint8), monkeypatch)
    with caplog.at_level(logging.WARNING):
        report = tasks.attempt(make_job({"samples": WANTED}), storage, {}, silent, lambda: False)
    assert (report.reason, report.last_step) == (Reason.COMPLETED, 4), report.message
    assert "step 2: no sample videos, for memory does not suffice" in caplog.text
    assert [path.name for path in (storage / WORK / "samples").iterdir()] == ["step-000000004"]
    curve = losses(storage)
    shutil.rmtree(storage / "runs")
    tasks.attempt(make_job(), storage, {}, silent, lambda: False)
    assert losses(storage) == curve


def test_another_error_of_a_video_ends_the_attempt(
    storage: Path, make_job: Callable[..., Job], silent: ProgressReporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    from_the_second_video_on(lambda: torch.ones(2) @ torch.ones(3), monkeypatch)
    assert tasks.attempt(make_job({"samples": WANTED}), storage, {}, silent, lambda: False).reason is Reason.TRAINER_FAILED


def test_without_memory_for_the_model_in_one_piece_shards_stay_and_there_are_no_videos(
    storage: Path, make_job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    job = make_job({"samples": WANTED})
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        learner = learner_of(job, storage, World())
        shard(learner.objective, torch.device("cpu"), 1)
        state = new_state(learner.learned(), learner.slow, job.recipe, torch.device("cpu"))
        with monkeypatch.context() as patched:
            patched.setattr(gathering, "learner_of", lambda *_: torch.empty(2**60, dtype=torch.uint8))
            assert samples.sample_while_training(state, learner, job, storage, World(), lambda: False) is None
        assert (
            samples.sample_while_training(state, learner, job, storage, World(), lambda: False) == storage / WORK / "samples/step-000000000"
        )
    finally:
        dist.destroy_process_group()


def test_a_model_in_one_piece_is_gone_before_the_memory_that_it_took_is_given_back(
    storage: Path, make_job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    job, models, left = make_job({"samples": WANTED}), list[weakref.ref[VideoFusionModel]](), list[bool]()

    def too_large(model: VideoFusionModel, *_: Any) -> None:
        models.append(weakref.ref(model))
        torch.empty(2**60, dtype=torch.uint8)

    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        learner = learner_of(job, storage, World())
        shard(learner.objective, torch.device("cpu"), 1)
        state = new_state(learner.learned(), learner.slow, job.recipe, torch.device("cpu"))
        monkeypatch.setattr(VideoFusionModel, "generate", too_large)
        monkeypatch.setattr(torch.cuda, "empty_cache", lambda: left.append(models[0]() is not None))
        assert samples.sample_while_training(state, learner, job, storage, World(), lambda: False) is None
        assert left == [False]
    finally:
        dist.destroy_process_group()


def test_weights_and_their_averages_change_places_without_a_copy(storage: Path, make_job: Callable[..., Job]) -> None:
    job = make_job()
    learner = learner_of(job, storage, World())
    state = new_state(learner.learned(), learner.slow, job.recipe, torch.device("cpu"))

    def places() -> list[list[int]]:
        return [[one.data_ptr() for one in kind] for kind in (state.learned.values(), state.ema.shadow_params)]

    before = places()
    state.exchange_averages()
    assert places() == before[::-1]
    state.exchange_averages()
    assert places() == before


@pytest.mark.parametrize("wrong", [{"everySteps": 0}, {"prompts": []}, {"prompts": [""]}, {"samplingSteps": 0}], ids=str)
def test_what_cannot_be_generated_is_refused(make_job: Callable[..., Job], wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        make_job({"samples": WANTED | wrong})
