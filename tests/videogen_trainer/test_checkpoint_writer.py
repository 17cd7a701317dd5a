"""Checkpoints in the background: a copy of the moment, one write at a time, errors told, nothing lost at the end."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from videogen_api.job import Job, Report
from videogen_api.training_run import Reason
from videogen_testing.attempted import WORK
from videogen_testing.patience import HANGS
from videogen_trainer import checkpoint, divergence, loop
from videogen_trainer.checkpoint_writer import CheckpointWriter
from videogen_trainer.distributed import World
from videogen_trainer.failure import Failure


class Gate:
    """Holds every write of a checkpoint until it is opened, like a slow disk."""

    def __init__(self, save: Callable[..., None]) -> None:
        self._save = save
        self.opened = threading.Event()
        self.begun = threading.Event()

    def __call__(self, *arguments: Any) -> None:
        self.begun.set()
        assert self.opened.wait(HANGS)
        self._save(*arguments)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    held = Gate(checkpoint.save)
    monkeypatch.setattr(checkpoint, "save", held)
    yield held
    held.opened.set()


def state(value: float) -> dict[str, dict[str, torch.Tensor]]:
    return {"model": {"w": torch.full((3,), value)}}


def test_a_checkpoint_holds_the_state_of_its_step_though_training_went_on(tmp_path: Path, gate: Gate) -> None:
    live = state(1.0)
    with CheckpointWriter(tmp_path, 3) as writer:
        writer.save(1, live, {})
        live["model"]["w"].fill_(99.0)
        assert gate.begun.wait(HANGS)
        assert (writer.poll(), checkpoint.steps(tmp_path)) == (0, [])
        gate.opened.set()
    assert (writer.published, checkpoint.newest_valid(tmp_path)) == (1, 1)
    assert checkpoint.load(tmp_path, 1)[0]["model"]["w"].tolist() == [1.0, 1.0, 1.0]


def test_the_next_checkpoint_waits_for_the_one_before(tmp_path: Path, gate: Gate) -> None:
    with CheckpointWriter(tmp_path, 3) as writer:
        writer.save(1, state(1.0), {})
        second = threading.Thread(target=writer.save, args=(2, state(2.0), {}))
        second.start()
        second.join(0.1)
        assert second.is_alive()
        gate.opened.set()
        second.join(60)
        assert writer.published == 1
    assert [checkpoint.load(tmp_path, step)[0]["model"]["w"][0].item() for step in (1, 2)] == [1.0, 2.0]


def test_a_state_that_grows_is_saved_whole(tmp_path: Path) -> None:
    with CheckpointWriter(tmp_path, 3) as writer:
        writer.save(0, state(0.0), {})  # before the first step there are no moments
        writer.save(1, state(1.0) | {"optimizer": {"w:step": torch.tensor(1.0)}}, {"skipped": 2})
    tensors, values = checkpoint.load(tmp_path, 1)
    assert (tensors["optimizer"]["w:step"].item(), values) == (1.0, {"step": 1, "skipped": 2})


@pytest.mark.parametrize("notice", [CheckpointWriter.wait, lambda writer: writer.save(2, state(2.0), {})], ids=["wait", "next save"])
def test_a_write_that_fails_is_told_once(tmp_path: Path, notice: Callable[[CheckpointWriter], None]) -> None:
    (tmp_path / "file").touch()
    with CheckpointWriter(tmp_path / "file", 3) as writer:
        writer.save(1, state(1.0), {})
        with pytest.raises(Failure, match="file/step-000000001 cannot be written"):
            notice(writer)
        assert writer.poll() == 0


def test_a_write_that_fails_at_the_end_is_told_too_but_not_in_place_of_another_error(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Failure, match="file/step-000000001 cannot be written"), CheckpointWriter(tmp_path / "file", 3) as writer:
        writer.save(1, state(1.0), {})
    with pytest.raises(KeyError, match="cause"), CheckpointWriter(tmp_path / "file", 3) as writer:
        writer.save(1, state(1.0), {})
        raise KeyError("cause")
    assert "the last checkpoint was not written" in caplog.text


def test_parts_are_published_by_the_first_process_when_all_have_written_theirs(tmp_path: Path) -> None:
    first, second = (CheckpointWriter(tmp_path, 3, world=World(rank=rank, size=2)) for rank in (0, 1))
    with first, second:
        for writer in (first, second):
            writer.save_shards(1, state(1.0), {})
            writer.wait()
        assert (first.written, second.written, checkpoint.steps(tmp_path)) == (1, 1, [])
        for written in (0.5, 1.0, 1.0):  # means over both processes: only one has written; both have; and are heard of again
            for writer in (first, second):
                writer.all_written(written)
            first.wait()
            assert checkpoint.steps(tmp_path) == ([1] if written == 1 else [])
        assert (first.published, second.published) == (1, 0)
    assert checkpoint.load(tmp_path, 1)[0]["model"]["w"].tolist() == [1.0] * 6


def test_the_next_parts_wait_until_the_checkpoint_before_is_safe(tmp_path: Path) -> None:
    with CheckpointWriter(tmp_path, 3) as writer:
        writer.save_shards(1, state(1.0), {})
        writer.save_shards(2, state(2.0), {})
        assert checkpoint.steps(tmp_path) == [1]
        writer.finish()
        assert checkpoint.steps(tmp_path) == [2, 1]


@pytest.mark.parametrize(("error", "kept"), [(Failure(Reason.DIVERGED, "told so"), [1]), (KeyError("of this process alone"), [])])
def test_parts_are_published_after_an_error_that_all_processes_have(tmp_path: Path, error: Exception, kept: list[int]) -> None:
    with pytest.raises(type(error)), CheckpointWriter(tmp_path, 3) as writer:
        writer.save_shards(1, state(1.0), {})
        raise error
    assert checkpoint.steps(tmp_path) == kept


def test_a_part_that_cannot_be_written_is_told_by_its_process(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with CheckpointWriter(tmp_path / "file", 3, world=World(rank=1, size=2)) as writer:
        writer.save_shards(1, state(1.0), {})
        with pytest.raises(Failure, match="file/step-000000001 cannot be written"):
            writer.wait()
        assert writer.written == 0


def _finish(rank: int, roots: Sequence[Path], error: Failure | None, found: Any) -> None:
    """One of two processes with a folder of its own: how it ends, and whether it can agree with the other then."""
    store = dist.FileStore(str(roots[0].parent / "store"), 2)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=2, timeout=timedelta(seconds=HANGS))
    world = World(rank=rank, size=2)
    try:
        with CheckpointWriter(roots[rank], 3, world=world) as writer:
            writer.save_shards(1, state(1.0), {})
            if error:
                raise error
            writer.finish()
    except Failure as failure:
        found[rank] = failure.message, world.from_leader("the first one's" if world.leads else None)
    dist.destroy_process_group()


@pytest.mark.parametrize("diverged", [False, True])
@pytest.mark.parametrize(
    "folder, said", [("file", "file/step-000000001 cannot be written"), ("elsewhere", "sums-00002-of-00002.json")], ids=["part", "whole"]
)
def test_what_one_process_cannot_write_ends_the_wait_of_all(tmp_path: Path, folder: str, said: str, diverged: bool) -> None:
    """The second one's folder is a file; or another one, so that the first misses its part."""
    (tmp_path / "file").touch()
    error = Failure(Reason.DIVERGED, "told so") if diverged else None
    with mp.Manager() as manager:
        found = manager.dict()
        mp.start_processes(_finish, ((tmp_path / "root", tmp_path / folder), error, found), nprocs=2, start_method="fork")
        ended = [found[rank] for rank in (0, 1)]
    assert all((message == "told so") if diverged else (said in message) for message, _ in ended), ended
    assert [agreed for _, agreed in ended] == ["the first one's"] * 2


def at_step(monkeypatch: pytest.MonkeyPatch, step: int, act: Callable[[], None]) -> None:
    """`act` when the losses of a step are known, before its update."""

    def judge(at: Any, *rest: Any, **named: Any) -> None:
        if at.step == step:
            act()
        divergence.judge(at, *rest, **named)

    monkeypatch.setattr(loop, "judge", judge)


def test_training_goes_on_while_a_checkpoint_is_written(
    train: Callable[..., Report], make_job: Callable[..., Job], storage: Path, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[int]] = []

    def look() -> None:
        assert gate.begun.wait(HANGS)
        seen.append(checkpoint.steps(storage / WORK / "checkpoints"))
        gate.opened.set()

    at_step(monkeypatch, 3, look)  # one step after that of the checkpoint
    report = train(make_job({"steps": 5}))
    assert (seen, report.reason, report.last_step) == ([[]], Reason.COMPLETED, 5)
    assert checkpoint.newest_valid(storage / WORK / "checkpoints") == 5


def test_asked_to_stop_it_ends_only_when_the_checkpoint_is_safe(
    train: Callable[..., Report], make_job: Callable[..., Job], storage: Path, gate: Gate
) -> None:
    timer = threading.Timer(0.3, gate.opened.set)
    timer.start()
    report = train(make_job({"steps": 100}), lambda: True)
    assert (report.reason, report.last_step) == (Reason.PREEMPTED, 1)
    assert checkpoint.newest_valid(storage / WORK / "checkpoints") == 1
    timer.join()


def test_what_diverges_while_a_checkpoint_is_written_keeps_that_checkpoint(
    train: Callable[..., Report], make_job: Callable[..., Job], storage: Path, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    def diverge() -> None:
        threading.Timer(0.3, gate.opened.set).start()
        raise loop.Failure(Reason.DIVERGED, "told so")

    at_step(monkeypatch, 2, diverge)
    report = train(make_job())
    assert (report.reason, report.last_step) == (Reason.DIVERGED, 2)
    assert checkpoint.steps(storage / WORK / "checkpoints") == [2]


def test_a_storage_that_fails_in_the_background_ends_the_attempt_and_claims_nothing(
    train: Callable[..., Report], make_job: Callable[..., Job], storage: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = storage / WORK / "checkpoints"

    def block() -> None:
        checkpoint.shutil.rmtree(root, ignore_errors=True)
        root.parent.mkdir(parents=True, exist_ok=True)
        root.touch()

    at_step(monkeypatch, 1, block)
    report = train(make_job({"steps": 1000}))
    assert (report.reason, report.last_step) == (Reason.STORAGE_FAILED, 0)
    assert "checkpoints/step-000000002 cannot be written" in report.message
