"""Guidance of VideoFusion by the text, from recipe to bundle: who learns without a caption, and what the bundle says."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from videogen_api.job import Job
from videogen_api.training_run import Reason
from videogen_models.text import tokenize
from videogen_testing.attempted import losses
from videogen_trainer import tasks
from videogen_trainer.data import Batch
from videogen_trainer.distributed import World
from videogen_trainer.families import learner_of
from videogen_trainer.objective import Draw
from videogen_trainer.progress import ProgressReporter

COUNT = 400


def prepared(job: Job, storage: Path) -> tuple[Tensor, list[Tensor], Draw]:
    """The tokens of a batch, those of its captions and of none, and its random numbers."""
    learner = learner_of(job, storage, World())
    captions = [f"square {number}" for number in range(COUNT)]
    batch = Batch(frames=torch.zeros(COUNT, 4, 16, 16, 3, dtype=torch.uint8), captions=captions, positions=range(COUNT))
    _, tokens, drawn = learner.prepare(batch)
    size: Any = learner.model.config
    return tokens, [tokenize(captions, size.networks.text), tokenize([""], size.networks.text)], drawn


def block(guidance: str) -> dict[str, Any]:
    return {"videoFusion": {"baseLearningRateScale": "1", "textGuidance": guidance}}


@pytest.mark.parametrize("guidance", ["1", "1.0"])
def test_without_guidance_every_sample_learns_with_its_caption(make_job: Callable[..., Job], storage: Path, guidance: str) -> None:
    tokens, (with_caption, _), _ = prepared(make_job(block(guidance)), storage)
    assert torch.equal(tokens, with_caption)


def test_with_guidance_one_sample_in_ten_learns_without(make_job: Callable[..., Job], storage: Path) -> None:
    tokens, (with_caption, without), drawn = prepared(make_job(block("2.5")), storage)
    empty = (tokens == without).all(dim=1)
    assert empty.sum().item() == pytest.approx(0.1 * COUNT, abs=20)
    assert torch.equal(tokens[~empty], with_caption[~empty])
    assert torch.equal(empty, drawn.chance < 0.1)


@pytest.mark.parametrize("guidance, told", [("1", None), ("2.5", 2.5)])
def test_the_bundle_says_how_its_clips_are_guided(
    make_job: Callable[..., Job], storage: Path, silent: ProgressReporter, guidance: str, told: float | None
) -> None:
    report = tasks.attempt(make_job(block(guidance) | {"steps": 1}), storage, {}, silent, lambda: False)
    assert report.reason is Reason.COMPLETED and report.artifact, report.message
    assert json.loads((storage / report.artifact.path / "model.json").read_bytes()).get("textGuidance") == told


def test_a_share_for_each_frame_is_trained_with_and_stands_in_the_bundle(
    make_job: Callable[..., Job], storage: Path, silent: ProgressReporter
) -> None:
    shares = ["0.5", "0.6", "1", "0.6"]
    job = make_job({"videoFusion": {"baseLearningRateScale": "1", "baseScenario": "Experimental", "baseNoiseShares": shares}, "steps": 2})
    tasks.check(job)
    report = tasks.attempt(job, storage, {}, silent, lambda: False)
    assert report.artifact, report.message
    assert json.loads((storage / report.artifact.path / "model.json").read_bytes())["baseNoiseShares"] == [0.5, 0.6, 1.0, 0.6]
    other = tasks.attempt(make_job({"steps": 2}, workPath="runs/even/train"), storage, {}, silent, lambda: False)
    assert other.artifact
    assert losses(storage) != pytest.approx(losses(storage, "runs/even/train"), rel=1e-5)  # rounding is a hundred times less
