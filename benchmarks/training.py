"""A workload for the trainer: a storage with synthetic clips, the job that trains on them, and processes that do it."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import wait
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import torch

from benchmarks import training_loops
from benchmarks.processes import cpu_seconds
from videogen_api.bundle import Manifest
from videogen_api.job import ArtifactReference, Job
from videogen_api.meta import ModelFamily
from videogen_api.recipe import Architecture, Resolution
from videogen_api.training_run import Split
from videogen_models.bundle import seal_bundle
from videogen_models.image_backbone import PRESETS, build_backbone
from videogen_models.text2video_zero import Text2VideoZeroModel, text2video_zero_config
from videogen_testing.control_plane import free_port
from videogen_testing.patience import HANGS
from videogen_trainer.dataset import Clip, write_dataset
from videogen_trainer.synthetic import synthetic_clip

FRAMES, SIDE = 8, 32
LOOK_SECONDS = 0.02  # between two looks at the CPU time of processes
AUTOENCODER = [24, 48, 64]  # channels of its levels


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
    family: ModelFamily = ModelFamily.VIDEOFUSION,
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
        "model": {"family": family.value, "version": "1.0.0"},
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
    job = training_job("image-model", batch=8, steps=0, every=1, family=ModelFamily.TEXT2VIDEO_ZERO)
    torch.manual_seed(0)
    size = PRESETS[Architecture.TINY].model_copy(update={"autoencoder": AUTOENCODER})
    model = Text2VideoZeroModel(build_backbone(size, job.recipe.resolution), text2video_zero_config(job.recipe))
    path, digest = seal_bundle(storage, Manifest(model=job.model, recipe=job.recipe, step=0, files=[]), model.save)
    return ArtifactReference(path=path, digest=digest)


@dataclass(frozen=True, slots=True)
class Measured:
    """What a loop's processes have measured, rank 0's first, and when each of its turns began and ended, by time.perf_counter."""

    ranks: list[dict[str, Any]]
    turns: list[tuple[float, float]]


def run_in_turns(loops: Mapping[str, tuple[str, Job]], storage: Path, seconds: float = 2.0) -> dict[str, Measured]:
    """Run loops of `training_loops` with their jobs, in turns of so much CPU time: what else the machine does falls on all alike.

    A loop's processes are stopped between its turns. Raises RuntimeError with the end of a process' output if it fails.
    """
    waiting = {name: Ranks(name, loop, job, storage) for name, (loop, job) in loops.items()}
    measured: dict[str, Measured] = {}
    try:
        while waiting:
            for name, ranks in list(waiting.items()):
                if ranks.take_turn(seconds):
                    measured[name] = waiting.pop(name).measured()
    finally:
        for ranks in waiting.values():
            ranks.kill()
    return measured


class Ranks:
    """The processes of a loop, as many as its job says, one thread each.

    They are forked from a process that has imported all and done nothing: imports take longer than some of the loops.
    """

    def __init__(self, name: str, loop: str, job: Job, storage: Path) -> None:
        self._name, self._loop, self._storage = name, loop, storage
        self._outputs = [storage / f"measured-{name}-{rank}.json" for rank in range(job.processes_per_worker)]
        self._job = storage / f"job-{name}.json"
        self._job.write_text(json.dumps(job.wire()), encoding="utf-8")
        self._processes: list[ForkServerProcess] = []
        self._turns: list[tuple[float, float]] = []

    def take_turn(self, seconds: float) -> bool:
        """Let each work for so much CPU time -> whether they are done. Raises RuntimeError if one has failed."""
        begun = time.perf_counter()
        if self._processes:
            self._signal(signal.SIGCONT)
        else:
            self._start()
        # CPU time, because on a busy machine a turn of wall time may be shorter than a step.
        until = self._cpu_seconds() + seconds * len(self._processes)
        while (alive := self._alive()) and self._cpu_seconds() < until and time.perf_counter() < begun + HANGS:
            wait([process.sentinel for process in alive], LOOK_SECONDS)
            self._check()
        self._signal(signal.SIGSTOP)
        self._turns.append((begun, time.perf_counter()))
        return not self._alive()

    def measured(self) -> Measured:
        """When they are done."""
        return Measured([json.loads(output.read_bytes()) for output in self._outputs], self._turns)

    def kill(self) -> None:
        """End them, wherever they are."""
        for process in self._processes:
            process.kill()

    def _start(self) -> None:
        os.environ["OMP_NUM_THREADS"] = "1"  # also of the process that they are forked from
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([training_loops.__name__])
        size, group = len(self._outputs), {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
        for rank, output in enumerate(self._outputs):
            variables = group | {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(size)} if size > 1 else {}
            arguments = (self._loop, self._job, self._storage, variables, output)
            self._processes.append(context.Process(target=training_loops.run, args=arguments))
            self._processes[-1].start()

    def _alive(self) -> list[ForkServerProcess]:
        return [process for process in self._processes if process.exitcode is None]

    def _cpu_seconds(self) -> float:
        used = 0.0
        for process in self._alive():
            assert process.pid, "it was started"
            with suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
                used += cpu_seconds(process.pid)
        return used

    def _signal(self, number: signal.Signals) -> None:
        for process in self._alive():
            assert process.pid, "it was started"
            with suppress(ProcessLookupError):
                os.kill(process.pid, number)

    def _check(self) -> None:
        for process, output in zip(self._processes, self._outputs, strict=True):
            if process.exitcode:
                said = output.with_suffix(".log").read_text(encoding="utf-8")
                raise RuntimeError(f"{self._name} ended with {process.exitcode}: {said[-1500:]}")


def middle(values: Sequence[float]) -> float:
    """The median; of an even number, the lower one of the two."""
    return sorted(values)[(len(values) - 1) // 2]
