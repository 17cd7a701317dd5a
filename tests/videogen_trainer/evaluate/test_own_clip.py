"""What a CLIP of the user's own costs an evaluation: no more than its batches of clips need."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from videogen_api.bundle import Manifest
from videogen_api.evaluation import Metric
from videogen_api.job import ArtifactReference, Job
from videogen_api.training_run import Reason
from videogen_models.bundle import write_bundle
from videogen_models.networks import model_config
from videogen_models.videofusion import VideoFusionModel
from videogen_testing.own_clip import clip_folder, own_clip
from videogen_trainer import tasks
from videogen_trainer.evaluate import timing
from videogen_trainer.evaluate.clip import Clip
from videogen_trainer.progress import ProgressReporter

DATA = [{"reference": {"dataset": "squares", "version": "v1", "split": split}} for split in ("HeldOut", "Train")]


def evaluation(make_job: Callable[..., Job], storage: Path, samples: int) -> Job:
    """So many clips against 16 real ones, each with a caption of its own; judged by a CLIP too."""
    recipe = make_job().recipe
    torch.manual_seed(0)
    config = model_config(recipe)
    manifest = Manifest(model=make_job().model, recipe=recipe, step=1, files=[])
    path, digest = write_bundle(storage, manifest, config, VideoFusionModel(config).state_dict())
    evaluate = {"samples": samples, "samplingSteps": 1, "extractors": [own_clip(clip_folder(storage / "clip")).wire()]}
    artifact = ArtifactReference(path=path, digest=digest).wire()
    return make_job(task="Evaluate", phase="judge", workPath="runs/demo-01234567/judge", data=DATA, artifact=artifact, evaluate=evaluate)


def room_for(captions: int, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """More captions at once run out of memory -> the captions of each pass."""
    embed, passes = Clip.captions, list[list[str]]()

    def limited(self: Clip, texts: list[str]) -> Tensor:
        passes.append(texts)
        if len(texts) > captions:
            torch.empty(2**60, dtype=torch.uint8)  # the error that PyTorch's allocator really raises
        return embed(self, texts)

    monkeypatch.setattr(Clip, "captions", limited)
    return passes


def test_only_the_captions_of_generated_clips_are_embedded_and_no_more_at_once_than_clips(
    storage: Path, make_job: Callable[..., Job], silent: ProgressReporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timing, "ALONE", 1)
    passes = room_for(100, monkeypatch)
    report = tasks.attempt(evaluation(make_job, storage, 10), storage, {}, silent, lambda: False)
    assert report.reason is Reason.COMPLETED, report.message
    _loading, *measured = passes
    assert max(len(texts) for texts in measured) == 8
    assert len({text for texts in measured for text in texts}) == 10


def test_captions_that_do_not_fit_into_memory_are_halved_with_their_clips(
    storage: Path, make_job: Callable[..., Job], silent: ProgressReporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timing, "ALONE", 1)
    job = evaluation(make_job, storage, 20)
    scores = []
    for room in (100, 2):
        with monkeypatch.context() as memory:
            passes = room_for(room, memory)
            report = tasks.attempt(job, storage, {}, silent, lambda: False)
            assert report.reason is Reason.COMPLETED, report.message
            scores.append([float(one.value) for one in report.results if one.metric is not Metric.GENERATION_SECONDS])
    _loading, *measured = passes
    assert [len(texts) for texts in measured[:4]] == [8, 4, 2, 1], "tried before anything is measured"
    assert scores[1] == pytest.approx(scores[0], rel=1e-3, abs=1e-4)
