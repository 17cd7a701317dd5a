"""A storage with a dataset of emergencies and the bundle of an untrained Text2Video-Zero."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from videogen_api.job import ArtifactReference, Job, Report
from videogen_api.recipe import Resolution
from videogen_api.training_run import Reason, Split
from videogen_testing.attempted import Attempted
from videogen_trainer import tasks
from videogen_trainer.dataset import Clip, write_dataset
from videogen_trainer.progress import ProgressReporter

FRAMES, SIDE = 4, 16
RECIPE: dict[str, Any] = {
    "architecture": "Tiny",
    "frames": FRAMES,
    "resolution": {"height": SIDE, "width": SIDE},
    "globalBatchSize": 1,
    "steps": 0,
    "text2VideoZero": {"textGuidance": "1"},
}


def content(**fields: Any) -> dict[str, Any]:
    return {
        "contract": "v1",
        "run": "demo",
        "runUid": "01234567-89ab",
        "namespace": "models",
        "phase": "work",
        "attempt": 1,
        "model": {"family": "Text2VideoZero", "version": "1.0.0"},
        "recipe": RECIPE,
        "workPath": "runs/demo-01234567/work",
        "data": [{"reference": {"dataset": "emergencies", "version": "v1"}}],
    } | fields


def clips() -> Iterator[Clip]:
    """Squares: those of floods move by three pixels a frame, the others stand still."""
    for number in range(12):
        category, way = ("flood", 3) if number % 2 else (None, 0)
        frames = np.full((FRAMES, SIDE, SIDE, 3), 20, np.uint8)
        for frame in range(FRAMES):
            frames[frame, 4:10, frame * way : frame * way + 6] = (40 + 10 * number, 200, 60)
        yield Clip(frames=frames, caption="a red square moves right", split=Split.TRAIN, category=category, source=f"raw/{number}.mp4")


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ArtifactReference]:
    storage = tmp_path_factory.mktemp("prepared")
    write_dataset(storage, "emergencies", "v1", clips(), frames=FRAMES, resolution=Resolution(height=SIDE, width=SIDE))
    still = ProgressReporter(None, 5, clock=lambda: 0.0, now=lambda: datetime(2026, 1, 1, tzinfo=UTC))
    report = tasks.attempt(Job.model_validate(content(task="Train")), storage, {}, still, lambda: False)
    assert report.reason is Reason.COMPLETED, report.message
    assert report.artifact
    shutil.rmtree(storage / "runs")
    return storage, report.artifact


@pytest.fixture
def storage(prepared: tuple[Path, ArtifactReference], tmp_path: Path) -> Path:
    """A copy that the test may change."""
    return Path(shutil.copytree(prepared[0], tmp_path / "storage"))


@pytest.fixture(scope="session")
def artifact(prepared: tuple[Path, ArtifactReference]) -> ArtifactReference:
    return prepared[1]


@pytest.fixture(scope="session")
def emergency_job(artifact: ArtifactReference) -> Callable[..., Job]:
    """`emergency_job("BuildTemplates", templates={...})`."""
    return lambda task, **fields: Job.model_validate(content(task=task, artifact=artifact.wire()) | fields)


# Of tests with an `attempt_in` of their own: `attempt_in(storage, ...)` is one attempt at their task, with changes.


@pytest.fixture
def attempt(storage: Path, attempt_in: Callable[..., Report]) -> Callable[..., Report]:
    """The same in the test's storage."""
    return partial(attempt_in, storage)


@pytest.fixture(scope="module")
def once(
    prepared: tuple[Path, ArtifactReference], attempt_in: Callable[..., Report], tmp_path_factory: pytest.TempPathFactory
) -> Attempted:
    """Without changes; made once, tests that write work on copies."""
    torch.set_num_threads(1)
    storage = Path(shutil.copytree(prepared[0], tmp_path_factory.mktemp("once") / "storage"))
    return Attempted(storage, attempt_in(storage))


@pytest.fixture
def after(once: Attempted, tmp_path: Path) -> Path:
    """A copy of what it has left."""
    return Path(shutil.copytree(once.storage, tmp_path / "after"))
