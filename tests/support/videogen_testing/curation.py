"""Curate jobs and the videos that they read."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from videogen_api.curation import Curate, Source
from videogen_api.job import Job
from videogen_api.meta import ModelFamily, ModelIdentity
from videogen_api.recipe import Recipe, Resolution
from videogen_api.training_run import DataReference, Task
from videogen_models.video import encode_mp4
from videogen_trainer.curate import run
from videogen_trainer.dataset import Dataset, open_dataset
from videogen_trainer.progress import ProgressReporter
from videogen_trainer.synthetic import synthetic_clip


def silent() -> ProgressReporter:
    return ProgressReporter(None, 0.0, lambda: 0.0, lambda: datetime(2026, 1, 1, tzinfo=UTC))


def job(version: str = "v1", frames: int = 8, side: int = 32, sources: tuple[str, ...] = ("raw",), **curate: Any) -> Job:
    return Job(
        contract="v1",
        run="demo",
        run_uid="12345678-0000",
        namespace="videos",
        phase="curation",
        attempt=1,
        task=Task.CURATE,
        model=ModelIdentity(family=ModelFamily.VIDEOFUSION, version="1.0.0"),
        recipe=Recipe(frames=frames, resolution=Resolution(height=side, width=side), global_batch_size=1, steps=1),
        work_path="runs/demo-12345678/curation",
        curate=Curate(dataset="shapes", version=version, sources=[Source(path=path) for path in sources], **curate),
    )


def curated(storage: Path, wanted: Job) -> Dataset:
    run(wanted, storage, silent())
    assert wanted.curate is not None
    return open_dataset(storage, DataReference(dataset="shapes", version=wanted.curate.version))


def write_video(path: Path, frames: int, *, height: int = 32, width: int = 32, caption: str | None = "a thing", seed: int = 0) -> None:
    """A video whose frames differ from each other and between seeds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    clip = synthetic_clip(seed, seed=9, frames=frames, height=height, width=width)
    path.write_bytes(encode_mp4(clip.frames, 8))
    if caption is not None:
        path.with_suffix(".txt").write_text(caption, encoding="utf-8")
