"""A dataset's files are checked by all processes together: each file once, none left out, and what one finds ends all."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch.distributed as dist
import torch.multiprocessing as mp

from videogen_api.recipe import Resolution
from videogen_api.training_run import DataReference, Reason, Split
from videogen_models import sealed
from videogen_testing.patience import HANGS
from videogen_trainer import dataset, verification
from videogen_trainer.dataset import Clip, open_dataset, write_dataset
from videogen_trainer.distributed import World, portions
from videogen_trainer.failure import Failure
from videogen_trainer.verification import together

REFERENCE = DataReference(dataset="d", version="v1")
FILES = 9  # of clips, and the index
PROCESSES = 2


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of a dataset with a clip in each file, 768 bytes and a header."""
    monkeypatch.setattr(dataset, "SHARD_BYTES", 1)
    clips = [Clip(frames=np.full((1, 16, 16, 3), number, np.uint8), caption="", split=Split.TRAIN) for number in range(FILES)]
    made = write_dataset(tmp_path, "d", "v1", clips, frames=1, resolution=Resolution(height=16, width=16))
    return dataset.dataset_folder(tmp_path, "d", made.digest)


@pytest.fixture
def port() -> Iterator[int]:
    """A port that nobody else is given during the test: bound and not listened on, so that torch, which also reuses addresses, may."""
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(("", 0))
        yield int(held.getsockname()[1])


def _open(rank: int, port: int, storage: Path, found: Any, seconds: float, limit: float, before: Callable[[int], None]) -> None:
    """One of several processes: which files it has read, and how it ended."""
    address, at_most = f"tcp://127.0.0.1:{port}", timedelta(seconds=limit)
    dist.init_process_group("gloo", init_method=address, rank=rank, world_size=PROCESSES, timeout=at_most)
    read, sum_of = [], sealed.sha256_of
    verification.ROUND_BYTES = 1000  # a file of clips for each process

    def slowly(path: Path) -> str:
        read.append(path.name)
        time.sleep(seconds)
        return sum_of(path)

    sealed.sha256_of = slowly
    try:
        before(rank)
        opened = together(World(rank=rank, size=PROCESSES), lambda check: open_dataset(storage, REFERENCE, check=check))
        found[rank] = read, None, len(opened.records)
    except Failure as failure:
        found[rank] = read, failure.reason, failure.message
    dist.destroy_process_group()


def opened(
    storage: Path, port: int, seconds: float = 0.0, limit: float = HANGS, before: Callable[[int], None] = lambda _: None
) -> dict[int, Any]:
    """What each process found; a file takes so many seconds to read, and one process waits for another as long as the limit says."""
    with mp.Manager() as manager:
        found = manager.dict()
        mp.start_processes(_open, (port, storage, found, seconds, limit, before), nprocs=PROCESSES, start_method="fork")
        return dict(found)


def test_each_file_is_read_by_one_process_and_all_may_take_longer_than_one_may_wait(folder: Path, tmp_path: Path, port: int) -> None:
    """10 files of 5 s, in two processes: 25 s or more. The process group gives up after 20, four times what one file takes."""
    found = opened(tmp_path, port, seconds=5, limit=20)
    assert [found[rank][1:] for rank in range(PROCESSES)] == [(None, FILES)] * PROCESSES
    read = [found[rank][0] for rank in range(PROCESSES)]
    assert sorted(read[0] + read[1]) == sorted({path.name for path in folder.iterdir()} - {"manifest.json"})
    assert all(4 <= len(names) <= 6 for names in read)


@pytest.mark.parametrize("number", [0, 1, FILES - 1])
def test_a_damaged_file_ends_all_processes_by_the_same_reason_and_is_named(number: int, folder: Path, tmp_path: Path, port: int) -> None:
    path = folder / f"clips-{number:05}.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    (_, reason, message), other = opened(tmp_path, port).values()
    assert reason is Reason.DATASET_CORRUPT
    assert f"dataset d v1: {path} has SHA-256" in message
    assert other[1:] == (reason, message)


def test_a_file_that_the_manifest_does_not_list_ends_all(folder: Path, tmp_path: Path, port: int) -> None:
    (folder / "more.json").write_text("{}")
    for _, reason, message in opened(tmp_path, port).values():
        assert reason is Reason.DATASET_CORRUPT
        assert "more.json is not in the manifest" in message


def test_what_only_one_process_cannot_open_ends_all(folder: Path, tmp_path: Path, port: int) -> None:
    """As on a node that sees the storage as it was."""

    def blind(rank: int) -> None:
        if rank == 1:
            dataset.MANIFEST = "gone.json"

    assert folder.is_dir()
    for _, reason, message in opened(tmp_path, port, before=blind).values():
        assert reason is Reason.DATASET_NOT_FOUND
        assert "has no gone.json" in message


def test_portions_keep_every_item_and_the_order_and_their_size() -> None:
    assert list(portions([5, 5, 1, 30, 2, 2, 2, 4], int, 10)) == [[5, 5], [1], [30], [2, 2, 2, 4]]
    assert list(portions([], int, 10)) == []


def test_alone_a_damaged_file_is_named_too(folder: Path, tmp_path: Path) -> None:
    (folder / "clips-00003.safetensors").write_bytes(b"")
    with pytest.raises(Failure, match=r"dataset d v1: .*clips-00003.safetensors has SHA-256") as caught:
        together(World(), lambda check: open_dataset(tmp_path, REFERENCE, check=check))
    assert caught.value.reason is Reason.DATASET_CORRUPT
