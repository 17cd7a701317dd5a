"""A workload for the trainer: a storage with synthetic clips, the job that trains on them, and processes that do it."""

from __future__ import annotations

import json
import multiprocessing
import os
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

from benchmarks import training_loops
from videogen_api.job import ArtifactReference, Job
from videogen_api.meta import ModelType
from videogen_api.recipe import Resolution
from videogen_api.training_run import Split
from videogen_testing.control_plane import free_port
from videogen_trainer import tasks
from videogen_trainer.dataset import Clip, write_dataset
from videogen_trainer.progress import ProgressReporter
from videogen_trainer.synthetic import synthetic_clip

FRAMES, SIDE = 8, 32
_LIMIT_SECONDS = 900


def fill(storage: Path, clips: int = 64) -> None:
    """Write the dataset "shapes", version "1"."""
    write_dataset(storage, "shapes", "1", _clips(clips), frames=FRAMES, resolution=Resolution(height=SIDE, width=SIDE))


def _clips(count: int) -> Iterator[Clip]:
    for number in range(count):
        made = synthetic_clip(number, seed=0, frames=FRAMES, height=SIDE, width=SIDE)
        yield Clip(frames=made.frames, caption=made.caption, split=Split.TRAIN, source=f"raw/{number}.mp4#0")


def training_job(
    work: str,
    *,
    batch: int,
    steps: int,
    every: int,
    processes: int = 1,
    architecture: str = "Tiny",
    family: ModelType = ModelType.VIDEOFUSION,
    init_from: ArtifactReference | None = None,
) -> Job:
    """Training of a family on those clips, in FP32, below `runs/<work>`."""
    recipe: dict[str, Any] = {
        "architecture": architecture,
        "frames": FRAMES,
        "resolution": {"height": SIDE, "width": SIDE},
        "globalBatchSize": batch,
        "steps": steps,
        "optimizer": {"learningRate": "1e-4"},
        "checkpoints": {"everySteps": every, "keepLast": 2},
    }
    content = {
        "contract": "v1",
        "run": "benchmark",
        "runUid": "01234567-89ab",
        "namespace": "models",
        "phase": "train",
        "attempt": 1,
        "task": "Train",
        "model": {"type": family.value, "version": "1.0.0"},
        "recipe": recipe,
        "initFrom": init_from.wire() if init_from else None,
        "workPath": f"runs/{work}",
        "data": [{"reference": {"dataset": "shapes", "version": "1"}}],
        "processesPerWorker": processes,
        "progressIntervalSeconds": 1,
    }
    return Job.model_validate(content)


def image_model(storage: Path) -> ArtifactReference:
    """A Tiny image model with random weights, for the families that begin with one."""
    job = training_job("image-model", batch=8, steps=0, every=1, family=ModelType.TEXT2VIDEO_ZERO)
    silent = ProgressReporter(None, 3600, time.monotonic, lambda: datetime.now(UTC))
    report = tasks.attempt(job, storage, {}, silent, lambda: False)
    if not report.artifact:
        raise RuntimeError(f"no image model: {report.message}")
    return report.artifact


def write_job(job: Job, path: Path) -> Path:
    """The job file of a job."""
    path.write_text(json.dumps(job.wire()), encoding="utf-8")
    return path


def run_ranks(loop: str, job: Job, storage: Path) -> list[dict[str, Any]]:
    """Run a loop of `training_loops` in as many processes as the job says, one thread each -> what each has measured.

    They are forked from a process that has imported all and done nothing: imports take longer than some of the loops.
    Raises RuntimeError with the end of its output if one fails.
    """
    path, port, size = write_job(job, storage / "job.json"), str(free_port()), job.processes_per_worker
    ranks = [_started(loop, path, storage, rank, size, port) for rank in range(size)]
    for rank, process in enumerate(ranks):
        process.join(_LIMIT_SECONDS)
        if process.exitcode:
            process.kill()
            output = _output(storage, rank).with_suffix(".log").read_text(encoding="utf-8")
            raise RuntimeError(f"{loop} ended with {process.exitcode}: {output[-1500:]}")
    return [json.loads(_output(storage, rank).read_bytes()) for rank in range(size)]


def _output(storage: Path, rank: int) -> Path:
    return storage / f"measured-{rank}.json"


def _started(loop: str, path: Path, storage: Path, rank: int, size: int, port: str) -> ForkServerProcess:
    os.environ["OMP_NUM_THREADS"] = "1"  # also of the process that they are forked from
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([training_loops.__name__])
    group = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    variables = group if size > 1 else {}
    process = context.Process(target=training_loops.run, args=(loop, path, storage, variables, _output(storage, rank)))
    process.start()
    return process


def middle(values: Sequence[float]) -> float:
    """The median; of an even number, the lower one of the two."""
    return sorted(values)[(len(values) - 1) // 2]
