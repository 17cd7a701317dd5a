"""Checkpoints that nobody needs go, beside a later phase's work, and nothing else does."""

import logging
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from videogen_api.job import Job, Report
from videogen_trainer.cleaning import Cleaning, remove

DONE = "runs/old-12345678/train"
KEPT = (
    f"{DONE}/curve.jsonl",
    f"{DONE}/samples/step-000000004/a.mp4",
    f"{DONE}/tensorboard/events",
    "runs/old-12345678/next/checkpoints/step-000000001/state.json",
    "bundles/checkpoints/abc/manifest.json",
    "datasets/clips/abc/manifest.json",
)
GOING = (f"{DONE}/checkpoints/step-000000004/model.safetensors", f"{DONE}/trials/0.65/checkpoints/step-000000002/state.json")


@pytest.fixture
def filled(tmp_path: Path) -> Path:
    for name in (*KEPT, *GOING):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    return tmp_path


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_only_the_checkpoints_of_the_phases_that_are_done_go(filled: Path) -> None:
    remove(filled, [DONE, "runs/old-12345678/never-was"])
    assert files(filled) == set(KEPT)
    remove(filled, [DONE])
    assert files(filled) == set(KEPT), "it can be repeated"


@pytest.mark.parametrize("linked", ["checkpoints", "."], ids=["the folder is a link", "the phase's folder is a link"])
def test_a_link_leads_it_nowhere(filled: Path, linked: str) -> None:
    elsewhere = filled / "bundles" if linked == "checkpoints" else filled / "runs/old-12345678/train"
    path = filled / "runs/linked"
    path.mkdir() if linked == "checkpoints" else path.symlink_to(elsewhere)
    if linked == "checkpoints":
        (path / "checkpoints").symlink_to(elsewhere)
    remove(filled, ["runs/linked"])
    assert files(filled) == {*KEPT, *GOING}


def test_what_cannot_be_removed_is_told_and_fails_nothing(
    filled: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    unlink = os.unlink

    def full(path: str, *, dir_fd: int | None = None) -> None:
        if path == "model.safetensors":
            raise OSError(28, "No space left on device")  # as file systems say that copy on write
        unlink(path, dir_fd=dir_fd)

    monkeypatch.setattr(os, "unlink", full)
    with caplog.at_level(logging.WARNING):
        remove(filled, [DONE])
    assert files(filled) == {*KEPT, GOING[0]}
    assert [record.getMessage().partition(" stays")[0] for record in caplog.records] == [str(filled / DONE / "checkpoints")]


def test_it_is_done_when_it_was_waited_for(filled: Path) -> None:
    Cleaning(filled, [DONE]).finish()
    assert files(filled) == set(KEPT)


def test_an_attempt_of_a_later_phase_removes_them(train: Callable[..., Report], make_job: Callable[..., Job], storage: Path) -> None:
    for name in (*KEPT, *GOING):
        (storage / name).parent.mkdir(parents=True, exist_ok=True)
        (storage / name).write_text("x")
    report = train(make_job(finished=[DONE]))
    assert report.artifact is not None
    assert set(KEPT) <= files(storage)
    assert not set(GOING) & files(storage)
