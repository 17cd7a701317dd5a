"""Which clips a step sees: a pure function of (seed, step), whatever the number of processes, so that it resumes exactly.

Sample p of a run (p = 0, 1, 2, ...) is number p mod n of epoch p div n, and each epoch is a permutation of its own of all
n clips. Step s sees samples s * batch .. (s + 1) * batch - 1: exactly the global batch, each clip once an epoch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from videogen_api.job import Job
from videogen_api.pinned import ResolvedDataset
from videogen_api.recipe import Recipe
from videogen_api.training_run import Reason, Task
from videogen_models.known_frames import SPACING
from videogen_trainer.dataset import Check, Dataset, check_alone, open_dataset
from videogen_trainer.failure import Failure


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """The clips of one dataset that take part."""

    dataset: Dataset
    numbers: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Mixture:
    """The clips of all parts, numbered through."""

    parts: tuple[Part, ...]

    def __len__(self) -> int:
        return sum(len(part.numbers) for part in self.parts)

    def clip(self, number: int) -> tuple[npt.NDArray[np.uint8], str]:
        """Frames, uint8 [frames, height, width, 3], and caption."""
        dataset, index = self._place(number)
        return dataset.frames(index), dataset.records[index].caption

    def name(self, number: int) -> str:
        """What identifies the clip's content: 16 digits of its dataset's digest, and its number in it."""
        dataset, index = self._place(number)
        return f"{dataset.resolved.digest.removeprefix('sha256:')[:16]}-{index:08}"

    def _place(self, number: int) -> tuple[Dataset, int]:
        for part in self.parts:
            if number < len(part.numbers):
                return part.dataset, part.numbers[number]
            number -= len(part.numbers)
        raise IndexError(number)

    @property
    def resolved(self) -> list[ResolvedDataset]:
        """Which versions were read, and how many clips of each."""
        return [part.dataset.resolved.model_copy(update={"clips": len(part.numbers)}) for part in self.parts]


def open_mixture(storage: Path, job: Job, *, check: Check = check_alone) -> Mixture:
    """Open the job's datasets; `check`: see `open_dataset`.

    Raises Failure: DatasetNotFound, DatasetCorrupt, DatasetTooSmall, InvalidJob.
    """
    parts = []
    for index, data in enumerate(job.data):
        dataset = open_dataset(storage, data.reference, data.digest, check=check)
        _check_shape(dataset, job, f"data[{index}]")
        available = dataset.part(data.reference.split)
        parts.append(Part(dataset=dataset, numbers=choose(available, data.reference.samples, job.recipe.seed, dataset.resolved.digest)))
    mixture = Mixture(tuple(parts))
    if len(mixture) < job.recipe.global_batch_size:
        found = ", ".join(f"{part.dataset.resolved.dataset} {len(part.numbers)}" for part in mixture.parts) or "no dataset"
        raise Failure(
            Reason.DATASET_TOO_SMALL,
            f"data: {len(mixture)} clips ({found}), recipe.globalBatchSize is {job.recipe.global_batch_size};"
            " add data or make the batch smaller",
        )
    return mixture


def clip_frames(job: Job) -> int:
    """How many frames the clips of a job's datasets must have: the recipe's; to learn one interpolation 5, to learn two 17."""
    if job.task is not Task.TRAIN_INTERPOLATION:
        return job.recipe.frames
    latents = job.recipe.align_your_latents
    return 1 + SPACING ** ((latents and latents.interpolations) or 1)


def _check_shape(dataset: Dataset, job: Job, field: str) -> None:
    manifest, resolution, frames = dataset.manifest, job.recipe.resolution, clip_frames(job)
    closer = _CLOSER if job.task is Task.TRAIN_INTERPOLATION else ""
    if (manifest.frames, manifest.resolution) != (frames, resolution):
        raise Failure(
            Reason.INVALID_JOB,
            f"{field}: dataset {dataset.resolved.dataset} {dataset.resolved.version} has {manifest.frames} frames of"
            f" {manifest.resolution.height} x {manifest.resolution.width}, the recipe {frames} of"
            f" {resolution.height} x {resolution.width}; curate a version for this recipe{closer}",
        )


_CLOSER = " and task TrainInterpolation: of 5 frames with a quarter of the frameStride, or of 17 with a sixteenth for interpolations: 2"


def choose(available: Sequence[int], samples: int | None, seed: int, digest: str) -> tuple[int, ...]:
    """At most `samples` of the clips, at random, the same ones for the same seed and dataset; in the dataset's order."""
    if samples is None or samples >= len(available):
        return tuple(available)
    order = torch.randperm(len(available), generator=_generator("choose", seed, digest)).tolist()
    return tuple(sorted(available[number] for number in order[:samples]))


def _generator(*key: object) -> torch.Generator:
    digest = hashlib.blake2b("/".join(map(str, key)).encode(), digest_size=7).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "big"))


def positions(step: int, part: int, *, batch: int, parts: int, rank: int, processes: int) -> range:
    """Samples of one process in accumulation part `part` of a step; over all parts and ranks, the step's batch exactly."""
    share = batch // (parts * processes)
    start = step * batch + (part * processes + rank) * share
    return range(start, start + share)


class Sampler:
    """Sample -> clip. Keeps the newest epoch's permutation."""

    def __init__(self, clips: int, seed: int) -> None:
        self._clips = clips
        self._seed = seed
        self._epochs: dict[int, list[int]] = {}

    def clip(self, position: int) -> int:
        """Number of the clip that sample `position` is."""
        epoch, index = divmod(position, self._clips)
        if epoch not in self._epochs:
            order: list[int] = torch.randperm(self._clips, generator=_generator("epoch", self._seed, epoch)).tolist()
            self._epochs = {number: kept for number, kept in self._epochs.items() if number == epoch - 1} | {epoch: order}
        return self._epochs[epoch][index]


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """One process' share of one accumulation part."""

    frames: Tensor  # uint8 [batch, frames, height, width, 3]
    captions: list[str]
    positions: range
    names: list[str] = field(default_factory=list)  # of the clips' content

    def pieces(self, clips: int) -> list[Batch]:
        """The batch in pieces of at most so many clips, which together are the batch."""
        if clips >= len(self.positions):
            return [self]
        starts = range(0, len(self.positions), clips)
        return [self._between(start, start + clips) for start in starts]

    def _between(self, start: int, end: int) -> Batch:
        return Batch(
            frames=self.frames[start:end],
            captions=self.captions[start:end],
            positions=self.positions[start:end],
            names=self.names[start:end],
        )


class Batches:
    """Reads batches, one ahead of the loop."""

    def __init__(self, mixture: Mixture, recipe: Recipe, rank: int, processes: int) -> None:
        self._mixture = mixture
        self._recipe = recipe
        self._rank = rank
        self._processes = processes
        self._sampler = Sampler(len(mixture), recipe.seed)
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="read-clips")
        self._ahead: tuple[tuple[int, int], Future[Batch]] | None = None

    def get(self, step: int, part: int) -> Batch:
        """The batch of an accumulation part (0 .. gradientAccumulationSteps - 1) of a step."""
        ahead, self._ahead = self._ahead, None
        batch = ahead[1].result() if ahead and ahead[0] == (step, part) else self._read(step, part)
        following = (step, part + 1) if part + 1 < self._recipe.gradient_accumulation_steps else (step + 1, 0)
        self._ahead = (following, self._reader.submit(self._read, *following))
        return batch

    def close(self) -> None:
        """Stop reading ahead."""
        self._reader.shutdown(wait=True, cancel_futures=True)

    def _read(self, step: int, part: int) -> Batch:
        recipe = self._recipe
        where = positions(
            step,
            part,
            batch=recipe.global_batch_size,
            parts=recipe.gradient_accumulation_steps,
            rank=self._rank,
            processes=self._processes,
        )
        numbers = [self._sampler.clip(position) for position in where]
        clips = [self._mixture.clip(number) for number in numbers]
        frames = torch.from_numpy(np.stack([frames for frames, _ in clips]))
        names = [self._mixture.name(number) for number in numbers]
        return Batch(frames=frames, captions=[caption for _, caption in clips], positions=where, names=names)
