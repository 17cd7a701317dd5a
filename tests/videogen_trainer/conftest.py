"""A storage with a small dataset, and jobs that train on it in seconds."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from videogen_api.job import ArtifactReference, Job, Report
from videogen_api.recipe import Resolution
from videogen_api.training_run import Split
from videogen_testing import kernels
from videogen_testing.forks import Fork, forked_by
from videogen_testing.patience import HANGS
from videogen_trainer import tasks
from videogen_trainer.dataset import Clip, write_dataset
from videogen_trainer.progress import ProgressReporter

FRAMES, SIDE = 4, 16
RECIPE: dict[str, Any] = {
    "architecture": "Tiny",
    "frames": FRAMES,
    "resolution": {"height": SIDE, "width": SIDE},
    "globalBatchSize": 4,
    "steps": 4,
    "optimizer": {"learningRate": "1e-3"},
    "schedule": {"warmupSteps": 1},
    "checkpoints": {"everySteps": 2, "keepLast": 2},
    "videoFusion": {"baseLearningRateScale": "1"},
}


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def square_clips(count: int, *, frames: int = FRAMES, side: int = SIDE) -> list[Clip]:
    """Clips of a square that moves right; every fourth is held out."""
    clips = []
    for number in range(count):
        pixels = np.full((frames, side, side, 3), 20, np.uint8)
        for frame in range(frames):
            pixels[frame, 4:10, (number + 2 * frame) % (side - 6) :][:, :6] = (40 + 20 * (number % 10), 200, 60)
        split = Split.HELD_OUT if number % 4 == 3 else Split.TRAIN
        clips.append(Clip(frames=pixels, caption=f"square {number} moves right", split=split, source=f"raw/{number}.mp4#0"))
    return clips


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    write_dataset(tmp_path, "squares", "v1", square_clips(16), frames=FRAMES, resolution=Resolution(height=SIDE, width=SIDE))
    return tmp_path


@pytest.fixture(scope="session")
def squares(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, for fixtures that are made once; tests work on copies."""
    folder = tmp_path_factory.mktemp("squares")
    write_dataset(folder, "squares", "v1", square_clips(16), frames=FRAMES, resolution=Resolution(height=SIDE, width=SIDE))
    return folder


def a_job(recipe: dict[str, Any] | None = None, **fields: Any) -> Job:
    content: dict[str, Any] = {
        "contract": "v1",
        "run": "demo",
        "runUid": "01234567-89ab",
        "namespace": "models",
        "phase": "train",
        "attempt": 1,
        "task": "Train",
        "model": {"family": "VideoFusion", "version": "1.0.0"},
        "recipe": RECIPE | (recipe or {}),
        "workPath": "runs/demo-01234567/train",
        "data": [{"reference": {"dataset": "squares", "version": "v1"}}],
    }
    return Job.model_validate(content | fields)


@pytest.fixture(scope="session")
def make_job() -> Callable[..., Job]:
    """`make_job(recipe={...}, **fields)`: the job with these fields of recipe and job replaced."""
    return a_job


def silent_reporter() -> ProgressReporter:
    return ProgressReporter(None, 5, clock=lambda: 0.0, now=lambda: datetime(2026, 1, 1, tzinfo=UTC))


@pytest.fixture
def silent() -> ProgressReporter:
    return silent_reporter()


@pytest.fixture
def train(storage: Path, silent: ProgressReporter) -> Callable[..., Report]:
    """`train(job, stop)`: an attempt in this process."""

    def run(job: Job, stop: Callable[[], bool] = lambda: False) -> Report:
        return tasks.attempt(job, storage, {}, silent, stop)

    return run


FAST = {1: 5, 2: 17}  # frames of clips that teach so many interpolations


@dataclass(frozen=True)
class Begun:
    """A storage with trained models to resume from."""

    folder: Path
    image: ArtifactReference  # of Text2VideoZero, in no steps
    trained: ArtifactReference  # of AlignYourLatents


@pytest.fixture(scope="session")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Begun:
    """Made once; tests work on copies."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("begun")
    write_dataset(folder, "squares", "v1", square_clips(16), frames=FRAMES, resolution=Resolution(height=SIDE, width=SIDE))
    for times, frames in FAST.items():
        clips = square_clips(8, frames=frames, side=SIDE)
        write_dataset(folder, "fast", f"v{times}", clips, frames=frames, resolution=Resolution(height=SIDE, width=SIDE))

    def bundle(family: str, **recipe: Any) -> ArtifactReference:
        job = a_job({"videoFusion": None} | recipe, model={"family": family, "version": "1.0.0"}, workPath=f"runs/begun/{family}")
        report = tasks.attempt(job, folder, {}, silent_reporter(), lambda: False)
        assert report.artifact, report.message
        return report.artifact

    image = bundle("Text2VideoZero", steps=0, seed=5)
    return Begun(folder, image, bundle("AlignYourLatents", steps=3))


@pytest.fixture
def image(begun: Begun) -> ArtifactReference:
    """A bundle of an image model of random weights, of Text2Video-Zero; in copies of what `begun` has."""
    return begun.image


@pytest.fixture
def trained(begun: Begun) -> ArtifactReference:
    """A bundle of Align-Your-Latents, in three steps; in the same."""
    return begun.trained


class Trainer:
    """A real process of the trainer, forked (`videogen_testing.forks`) or in a fresh interpreter, as in a pod."""

    def __init__(
        self, job: Job, storage: Path, name: str, environment: dict[str, str] | None, program: tuple[str, ...], *, fresh: bool
    ) -> None:
        self.message = storage / f"{name}.termination"
        self.log = storage / f"{name}.log"
        path = storage / f"{name}.job.json"
        path.write_text(json.dumps(job.model_dump(mode="json", by_alias=True, exclude_none=True)))
        variables = kernels.environment() | {"VIDEOGEN_TERMINATION_MESSAGE_PATH": str(self.message)}
        start: Any = subprocess.Popen if fresh else Fork
        with self.log.open("wb") as log:
            self.process = start(
                [sys.executable, *program, "--job", str(path), "--storage", str(storage)],
                env=variables | (environment or {}),
                stdout=log.fileno(),
                stderr=log.fileno(),
            )

    def workers(self) -> list[int]:
        """The processes that its agent has started, and that have not ended."""
        if isinstance(self.process, Fork):
            return forked_by(self.process.pid)
        if self.process.poll() is not None:
            return []
        return [int(child) for child in Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()]

    def wait(self) -> tuple[int, Report]:
        """The exit code and the Report in the termination message."""
        code = self.process.wait(timeout=HANGS)
        assert self.message.is_file(), self.log.read_text()
        return code, Report.model_validate_json(self.message.read_bytes())

    def end(self) -> None:
        """Leave no process behind."""
        workers = self.workers()
        self.process.kill()
        for worker in workers:
            with contextlib.suppress(ProcessLookupError):
                os.kill(worker, signal.SIGKILL)
        self.process.wait()


@pytest.fixture
def start_trainer(storage: Path) -> Iterator[Callable[..., Trainer]]:
    started: list[Trainer] = []

    def start(
        job: Job,
        name: str = "trainer",
        environment: dict[str, str] | None = None,
        program: tuple[str, ...] = ("-m", "videogen_trainer"),
        *,
        fresh: bool = False,
    ) -> Trainer:
        started.append(Trainer(job, storage, name, environment, program, fresh=fresh))
        return started[-1]

    yield start
    for trainer in started:
        trainer.end()
