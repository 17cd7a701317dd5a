"""One process of one loop that does a job: the trainer's own, a plain one, and one of accelerate.

The networks, the loss, the clips, the batch, AdamW, the clipping of gradients, the cosine and the moving average are the same in
all. `plain` is what one writes with PyTorch alone; `accelerate` has the shape of diffusers' training examples: both encode the clips of the
latent families in every step. What is measured: {"ends": when each step was done, in s, "cpu": s of CPU time until then, "losses", "peak":
resident bytes, "waited": s for data, ours only}.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from accelerate import Accelerator
from diffusers.training_utils import EMAModel
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from benchmarks.training_subjects import Subject, subject_of
from videogen_api.job import Job
from videogen_api.training_run import Reason
from videogen_trainer import tasks
from videogen_trainer.data import Mixture, open_mixture
from videogen_trainer.dataset import check_alone, unchecked
from videogen_trainer.learning_rate import rate_factor
from videogen_trainer.progress import ProgressReporter

Batch = tuple[Tensor, list[str]]


class Steps:
    """When each step was done, by which loss."""

    def __init__(self) -> None:
        self._done: list[tuple[float, float, float]] = []

    def done(self, loss: float) -> None:
        """Now one is."""
        self._done.append((time.perf_counter(), time.process_time(), loss))

    def measured(self) -> dict[str, Any]:
        """As a process tells it."""
        return {name: [step[place] for step in self._done] for place, name in enumerate(("ends", "cpu", "losses"))}


class Stopwatch(ProgressReporter):
    """Notes when each step is done."""

    def __init__(self) -> None:
        super().__init__(None, 3600, time.monotonic, lambda: datetime.now(UTC))
        self.steps = Steps()

    def report(self, done: int, total: int, metrics: Mapping[str, object], *, final: bool = False) -> None:
        """A step is done."""
        self.steps.done(float(str(metrics["loss"])))
        super().report(done, total, metrics, final=final)


def ours(job: Job, storage: Path) -> dict[str, Any]:
    """The trainer, as it is."""
    stopwatch = Stopwatch()
    report = tasks.attempt(job, storage, os.environ, stopwatch, lambda: False)
    if report.reason is not Reason.COMPLETED or not report.goodput:
        raise SystemExit(f"the trainer ended with {report.reason.value}: {report.message}")
    return stopwatch.steps.measured() | {"waited": float(report.goodput.data_wait_seconds)}


class Clips(Dataset[tuple[Tensor, str]]):
    """The clips of a mixture, as a map-style dataset."""

    def __init__(self, mixture: Mixture) -> None:
        self._mixture = mixture

    def __len__(self) -> int:
        return len(self._mixture)

    def __getitem__(self, number: int) -> tuple[Tensor, str]:
        frames, caption = self._mixture.clip(number)
        return torch.from_numpy(frames), caption


def loader_of(job: Job, storage: Path, size: int, rank: int, *, split: bool) -> DataLoader[tuple[Tensor, str]]:
    """A shuffling loader without workers, the examples' default; `split` gives each rank its share."""
    clips = Clips(open_mixture(storage, job, check=check_alone if rank == 0 else unchecked))
    sampler: DistributedSampler[tuple[Tensor, str]] | None = DistributedSampler(clips, size, rank) if split and size > 1 else None
    batch = job.recipe.global_batch_size // size
    return DataLoader(clips, batch, shuffle=sampler is None, sampler=sampler, drop_last=True, collate_fn=_collate)


def _collate(items: list[tuple[Tensor, str]]) -> Batch:
    return torch.stack([frames for frames, _ in items]), [caption for _, caption in items]


def forever(loader: DataLoader[tuple[Tensor, str]]) -> Iterator[Batch]:
    """Epoch after epoch."""
    while True:
        yield from loader


def made(job: Job, subject: Subject) -> tuple[list[Tensor], torch.optim.AdamW, LambdaLR, EMAModel]:
    """What every loop makes of what learns, with the libraries' defaults."""
    recipe = job.recipe
    learned: list[Tensor] = [parameter for parameter in subject.objective.parameters() if parameter.requires_grad]
    rate, decay = float(recipe.optimizer.learning_rate), float(recipe.optimizer.weight_decay)
    optimizer = torch.optim.AdamW(learned, lr=rate, weight_decay=decay)
    schedule = LambdaLR(optimizer, lambda step: rate_factor(recipe.schedule, step, recipe.steps))
    return learned, optimizer, schedule, EMAModel(learned, decay=float(recipe.ema_decay))


def plain(job: Job, storage: Path) -> dict[str, Any]:
    """PyTorch alone; DistributedDataParallel for several processes."""
    recipe = job.recipe
    rank, size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    if size > 1:
        dist.init_process_group("gloo")
    subject = subject_of(job, storage)
    learned, optimizer, schedule, ema = made(job, subject)
    module = DistributedDataParallel(subject.objective) if size > 1 else subject.objective
    batches, steps = forever(loader_of(job, storage, size, rank, split=True)), Steps()
    for _ in range(recipe.steps):
        losses = module(*subject.inputs(*next(batches)))
        loss = losses.sum()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learned, float(recipe.optimizer.gradient_clip_norm))
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        ema.step(learned)
        shown = loss.detach()
        if size > 1:
            dist.all_reduce(shown)
        steps.done(float(shown) / size)
    return steps.measured()


def accelerate(job: Job, storage: Path) -> dict[str, Any]:
    """diffusers' examples: Accelerator prepares everything, the loss is gathered, the average moves when gradients were synchronised."""
    recipe = job.recipe
    accelerator = Accelerator(gradient_accumulation_steps=recipe.gradient_accumulation_steps, mixed_precision="no", cpu=True)
    subject = subject_of(job, storage)
    learned, optimizer, schedule, ema = made(job, subject)
    loader = loader_of(job, storage, accelerator.num_processes, accelerator.process_index, split=False)
    module, optimizer, loader, schedule = accelerator.prepare(subject.objective, optimizer, loader, schedule)
    batches, steps = forever(loader), Steps()
    for _ in range(recipe.steps):
        frames, captions = next(batches)
        with accelerator.accumulate(module):
            losses = module(*subject.inputs(frames, captions))
            loss = losses.sum()
            seen = accelerator.gather(loss.repeat(len(frames))).mean().item()
            accelerator.backward(loss)
            if accelerator.sync_gradients:
                accelerator.clip_grad_norm_(learned, float(recipe.optimizer.gradient_clip_norm))
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
        if accelerator.sync_gradients:
            ema.step(learned)
        steps.done(seen)
    return steps.measured()


LOOPS: dict[str, Callable[[Job, Path], dict[str, Any]]] = {"ours": ours, "plain": plain, "accelerate": accelerate}


def run(loop: str, path: Path, storage: Path, variables: Mapping[str, str], output: Path) -> None:
    """Do it, in a process of its own, and write what was measured; what it prints goes beside it, as .log."""
    with output.with_suffix(".log").open("wb") as log:
        os.dup2(log.fileno(), sys.stdout.fileno())
        os.dup2(log.fileno(), sys.stderr.fileno())
    os.environ.update(variables)
    torch.set_num_threads(1)
    measured = LOOPS[loop](tasks.read_job(path), storage)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    output.write_text(json.dumps({"peak": peak} | measured), encoding="utf-8")
    os._exit(0)  # gloo's clean-up waits for peers that have gone
