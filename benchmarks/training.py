"""A workload for the trainer: a storage with synthetic clips, the job that trains on them, and processes that do it."""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Iterator, Sequence
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import torch

from benchmarks import training_loops
from videogen_api.bundle import Manifest
from videogen_api.job import ArtifactReference, Job
from videogen_api.meta import ModelType
from videogen_api.recipe import Architecture, Resolution
from videogen_api.training_run import Split
from videogen_models.bundle import seal_bundle
from videogen_models.image_backbone import PRESETS, build_backbone
from videogen_models.text2video_zero import Text2VideoZeroModel, text2video_zero_config
from videogen_testing.control_plane import free_port
from videogen_trainer.dataset import Clip, write_dataset
from videogen_trainer.synthetic import synthetic_clip

FRAMES, SIDE = 8, 32
AUTOENCODER = [24, 48, 64]  # channels of its levels
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
    """A Tiny image model with random weights, for the families that begin with one.

    Its autoencoder has the share in the work that Stable Diffusion 1.5's has: encoding a frame takes 1.4 times the operations of the
    U-Net's forward pass (256 x 256: 1.5, 512 x 512: 1.4; counted by torch's FlopCounterMode), where Tiny's own takes half as many.
    """
    job = training_job("image-model", batch=8, steps=0, every=1, family=ModelType.TEXT2VIDEO_ZERO)
    torch.manual_seed(0)
    size = PRESETS[Architecture.TINY].model_copy(update={"autoencoder": AUTOENCODER})
    model = Text2VideoZeroModel(build_backbone(size, job.recipe.resolution), text2video_zero_config(job.recipe))
    path, digest = seal_bundle(storage, Manifest(model=job.model, recipe=job.recipe, step=0, files=[]), model.save)
    return ArtifactReference(path=path, digest=digest)


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
