"""A workload for the trainer: a storage with synthetic clips, the job that trains on them, and processes that do it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from videogen_api.job import Job
from videogen_api.recipe import Resolution
from videogen_api.training_run import Split
from videogen_testing.control_plane import free_port
from videogen_trainer.dataset import Clip, write_dataset
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


def training_job(work: str, *, batch: int, steps: int, every: int, processes: int = 1, architecture: str = "Tiny") -> Job:
    """Training of VideoFusion on those clips, in FP32, below `runs/<work>`."""
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
        "model": {"type": "videofusion", "version": "1.0.0"},
        "recipe": recipe,
        "workPath": f"runs/{work}",
        "data": [{"reference": {"dataset": "shapes", "version": "1"}}],
        "processesPerWorker": processes,
        "progressIntervalSeconds": 1,
    }
    return Job.model_validate(content)


def write_job(job: Job, path: Path) -> Path:
    """The job file of a job."""
    path.write_text(json.dumps(job.wire()), encoding="utf-8")
    return path


def run_ranks(loop: str, job: Job, storage: Path) -> list[dict[str, Any]]:
    """Run a loop of `training_loops` in as many processes as the job says, one thread each -> what each has measured.

    Raises RuntimeError with the end of its output if one fails.
    """
    path, port = write_job(job, storage / "job.json"), str(free_port())
    size = job.processes_per_worker
    ranks = [_start(loop, path, storage, {"RANK": str(rank), "LOCAL_RANK": str(rank)}, size, port) for rank in range(size)]
    ends = [rank.communicate(timeout=_LIMIT_SECONDS)[0] for rank in ranks]
    for rank, output in zip(ranks, ends, strict=True):
        if rank.returncode:
            raise RuntimeError(f"{loop} ended with {rank.returncode}: {output[-1500:]}")
    return [json.loads(output.splitlines()[-1]) for output in ends]


def _start(loop: str, path: Path, storage: Path, names: dict[str, str], size: int, port: str) -> subprocess.Popen[str]:
    world = names | {"WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port} if size > 1 else {}
    return subprocess.Popen(
        [sys.executable, "-m", "benchmarks.training_loops", loop, str(path), str(storage)],
        env=os.environ | {"OMP_NUM_THREADS": "1"} | world,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def middle(values: Sequence[float]) -> float:
    """The median; of an even number, the lower one of the two."""
    return sorted(values)[(len(values) - 1) // 2]
