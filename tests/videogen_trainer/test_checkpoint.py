"""Checkpoints: whole or not at all, verified, the newest kept."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from videogen_models.sealed import staging
from videogen_trainer import checkpoint
from videogen_trainer.failure import Failure


def save(root: Path, step: int, keep_last: int = 3) -> Path:
    checkpoint.save(root, step, {"model": {"w": torch.full((3,), float(step))}}, {"skipped": 0}, keep_last)
    return checkpoint.folder_of(root, step)


def test_a_checkpoint_comes_back(tmp_path: Path) -> None:
    save(tmp_path, 7)
    tensors, state = checkpoint.load(tmp_path, 7)
    assert torch.equal(tensors["model"]["w"], torch.full((3,), 7.0))
    assert ("w" in tensors["model"], "other" in tensors["model"], len(tensors["model"])) == (True, False, 1)
    assert state == {"step": 7, "skipped": 0}


def test_the_newest_are_kept(tmp_path: Path) -> None:
    for step in (1, 2, 10, 11):
        save(tmp_path, step, keep_last=2)
    assert checkpoint.steps(tmp_path) == [11, 10]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-000000010", "step-000000011"]


PARTS = [  # of four processes: rows of `w`, of which there are fewer than processes, and `alpha`, which is whole
    {"model": {"w": torch.full((2, 3), 1.0), "alpha": torch.tensor(0.5)}},
    {"model": {"w": torch.full((2, 3), 2.0)}},
    {"model": {"w": torch.full((1, 3), 3.0)}},
    {"model": {"w": torch.zeros(0, 3)}},
]
WHOLE = torch.tensor([1.0, 1.0, 2.0, 2.0, 3.0]).unsqueeze(1).expand(5, 3)


def save_in_parts(root: Path, step: int) -> Path:
    for rank, tensors in enumerate(PARTS):
        checkpoint.save_part(root, step, tensors, rank, len(PARTS))
    checkpoint.seal(root, step, {"skipped": 0}, len(PARTS), 3)
    return checkpoint.folder_of(root, step)


def test_parts_of_several_processes_come_back_whole(tmp_path: Path) -> None:
    folder = save_in_parts(tmp_path, 7)
    tensors, state = checkpoint.load(tmp_path, 7)
    assert {name: tensor.tolist() for name, tensor in tensors["model"].items()} == {"w": WHOLE.tolist(), "alpha": 0.5}
    assert state == {"step": 7, "skipped": 0}
    parts = [f"model-0000{number}-of-00004.safetensors" for number in (1, 2, 3, 4)]
    assert sorted(path.name for path in folder.iterdir()) == ["manifest.json", *parts, "state.json"]
    assert checkpoint.newest_valid(tmp_path) == 7
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]


def test_parts_are_no_checkpoint_before_they_are_sealed(tmp_path: Path) -> None:
    save(tmp_path, 1)
    for rank in (0, 1, 3):
        checkpoint.save_part(tmp_path, 2, PARTS[rank], rank, 4)
    assert checkpoint.steps(tmp_path) == [1]
    with pytest.raises(Failure, match=r"step-000000002 cannot be written: .*sums-00003-of-00004\.json"):
        checkpoint.seal(tmp_path, 2, {}, 4, 3)
    assert checkpoint.steps(tmp_path) == [1]
    checkpoint.remove_unfinished(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["step-000000001"]


def test_a_damaged_part_falls_back_to_the_checkpoint_before(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    save(tmp_path, 1)
    part = save_in_parts(tmp_path, 2) / "model-00003-of-00004.safetensors"
    part.write_bytes(part.read_bytes()[:-1] + b"\x01")
    assert checkpoint.newest_valid(tmp_path) == 1
    assert f"{part} has SHA-256" in caplog.text


def test_what_was_read_outlives_the_checkpoint(tmp_path: Path) -> None:
    folder = save(tmp_path, 7)
    tensor = checkpoint.load(tmp_path, 7)[0]["model"]["w"]
    (folder / "model.safetensors").write_bytes(bytes((folder / "model.safetensors").stat().st_size))
    assert tensor.tolist() == [7.0, 7.0, 7.0]


@pytest.mark.parametrize(
    "harm",
    [
        lambda folder: (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:-1]),
        lambda folder: (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:-1] + b"\x01"),
        lambda folder: (folder / "model.safetensors").unlink(),
        lambda folder: (folder / "state.json").write_text("{}"),
        lambda folder: (folder / "manifest.json").unlink(),
        lambda folder: (folder / "manifest.json").write_text("["),
    ],
    ids=["cut short", "changed", "missing", "changed state", "no manifest", "broken manifest"],
)
def test_a_damaged_checkpoint_falls_back_to_the_one_before(
    tmp_path: Path, harm: Callable[[Path], object], caplog: pytest.LogCaptureFixture
) -> None:
    save(tmp_path, 1)
    harm(save(tmp_path, 2))
    with caplog.at_level(logging.WARNING):
        assert checkpoint.newest_valid(tmp_path) == 1
    assert "checkpoint of step 2 is damaged" in caplog.text


def test_going_back_needs_a_valid_checkpoint_to_go_back_to(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        save(tmp_path, step)
    (checkpoint.folder_of(tmp_path, 2) / "manifest.json").unlink()
    assert checkpoint.step_back(tmp_path, 3) == 1
    assert checkpoint.newest_valid(tmp_path) == 1
    assert checkpoint.step_back(tmp_path, 1) == 1
    assert checkpoint.newest_valid(tmp_path) == 1


def test_the_best_are_kept_beside_the_newest(tmp_path: Path) -> None:
    """Losses fall, then grow slowly: what the newest hold is the growth."""
    for step, loss in enumerate((9.0, 2.0, 1.0, 1.5, 3.0, 5.0), start=1):
        levels = {"levels": {"loss": {"mean": loss}}}
        checkpoint.save(tmp_path, step, {"model": {"w": torch.zeros(3)}}, levels, 2, None, 1)
    assert checkpoint.steps(tmp_path) == [6, 5, 3]
    assert checkpoint.step_back(tmp_path, 6) == 5
    assert checkpoint.step_back(tmp_path, 5) == 3


def test_a_checkpoint_that_does_not_tell_its_loss_is_not_the_best(tmp_path: Path) -> None:
    save(tmp_path, 1)
    for step in (2, 3, 4):
        checkpoint.save(tmp_path, step, {"model": {"w": torch.zeros(3)}}, {"levels": {"loss": {"mean": float(step)}}}, 1, None, 1)
    assert checkpoint.steps(tmp_path) == [4, 2]


def test_damaged_checkpoints_do_not_push_out_those_that_are_made_after_them(tmp_path: Path) -> None:
    save(tmp_path, 1)
    for step in (8, 9):
        (save(tmp_path, step) / "model.safetensors").write_bytes(b"")
    newest, damaged = checkpoint.resumable(tmp_path)
    assert newest == 1
    assert ["step-000000009" in damaged[0], "step-000000008" in damaged[1], len(damaged)] == [True, True, 2]
    assert sorted(path.name for path in tmp_path.glob("damaged-*")) == ["damaged-step-000000008", "damaged-step-000000009"]
    save(tmp_path, 2, keep_last=1)
    assert (checkpoint.steps(tmp_path), len(list(tmp_path.glob("damaged-*")))) == ([2], 2)
    save(tmp_path, 8, keep_last=1)  # as far as one of them: that one's work is done again
    assert [path.name for path in tmp_path.glob("damaged-*")] == ["damaged-step-000000009"]


def test_a_damaged_checkpoint_gives_way_when_its_step_comes_again(tmp_path: Path) -> None:
    (save(tmp_path, 2) / "model.safetensors").write_bytes(b"")
    save(tmp_path, 2)
    assert checkpoint.newest_valid(tmp_path) == 2


def test_what_a_killed_writer_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    save(tmp_path, 1)
    writer = staging(tmp_path)
    (writer.__enter__() / "model.safetensors").write_bytes(b"x" * 100)  # and then it is killed
    checkpoint.remove_unfinished(tmp_path)
    checkpoint.remove_unfinished(tmp_path / "absent")
    assert [path.name for path in tmp_path.iterdir()] == ["step-000000001"]


def test_what_a_killed_writer_left_is_no_checkpoint(tmp_path: Path) -> None:
    (tmp_path / ".staging-x").mkdir()
    (tmp_path / ".staging-x" / "model.safetensors").touch()
    (tmp_path / "step-junk").mkdir()
    assert checkpoint.newest_valid(tmp_path) is None
    assert checkpoint.newest_valid(tmp_path / "absent") is None
