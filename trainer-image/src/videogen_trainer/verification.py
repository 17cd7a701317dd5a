"""The sums of a dataset's files, checked by all processes of a job, each its share; what ends one of them ends all, by one reason.

Every attempt checks every file again. A note in the work path of what was checked before would save it, but sizes and times of change
say nothing of bytes that the disk lost since, and nothing may be trained on these.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import torch

from videogen_api.bundle import BundleFile
from videogen_api.training_run import Reason
from videogen_models.sealed import CorruptError, check_listing, verify_file
from videogen_trainer.dataset import SUFFIXES, Check
from videogen_trainer.distributed import World, portions
from videogen_trainer.failure import Failure

T = TypeVar("T")
ROUND_BYTES = 2 << 30  # of each process between two agreements: minutes on slow storage, far below the process group's time-out
THREADS = 4  # of a process; hashlib lets others work, and storage answers several readers faster than one


class AgreedFailure(Failure):
    """A failure that all processes have raised together."""


def together(world: World, work: Callable[[Check], T]) -> T:
    """What `work` returns, called in every process with a check of files that all processes share.

    `work` must call it for the same folders in the same order everywhere. Raises in all processes the Failure that ended it in the first
    of those in which it did: as itself there, with its reason and message elsewhere.
    """
    try:
        done = work(lambda what, folder, files: _verify(world, what, folder, files))
    except AgreedFailure:
        raise
    except Failure as failure:
        agree(world, failure)
        raise
    agree(world, None)
    return done


def agree(world: World, failure: Failure | None) -> None:
    """Called by all processes: raises AgreedFailure in all if one of them has a failure, the first one's."""
    if world.size > 1:
        flags = torch.zeros(world.size, device=world.device)
        flags[world.rank] = float(failure is not None)
        failed = [rank for rank, share in enumerate(world.mean(flags)) if share > 0]
        if failed:
            told = world.from_rank(failed[0], [failure.reason.value, failure.message] if failure else None)
            assert isinstance(told, list)
            raise AgreedFailure(Reason(told[0]), told[1])
    elif failure:
        raise AgreedFailure(failure.reason, failure.message)


def _verify(world: World, what: str, folder: Path, files: Sequence[BundleFile]) -> None:
    with ThreadPoolExecutor(THREADS) as pool:
        for part in portions(files, lambda file: file.size, world.size * ROUND_BYTES):
            errors = pool.map(lambda file: _error(folder, file), part[world.rank :: world.size])
            agree(world, next((_corrupt(what, error) for error in errors if error), None))
    try:
        if world.leads:
            check_listing(folder, files)
    except CorruptError as error:
        agree(world, _corrupt(what, error))
    agree(world, None)


def _error(folder: Path, file: BundleFile) -> CorruptError | None:
    try:
        verify_file(folder, file, SUFFIXES)
    except CorruptError as error:
        return error
    return None


def _corrupt(what: str, error: CorruptError) -> Failure:
    return Failure(Reason.DATASET_CORRUPT, f"{what}: {error}")
