"""A full disk in training and what follows it: one reason, with the file named, and what is finished is kept."""

from __future__ import annotations

import errno
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors import SafetensorError

from videogen_api.job import ExitCode, Job
from videogen_api.recipe import Resolution
from videogen_api.training_run import Reason, Split
from videogen_testing.attempted import WORK
from videogen_testing.full_disk import limited
from videogen_trainer import tasks
from videogen_trainer.curve import Curve
from videogen_trainer.dataset import Clip, write_dataset, writing
from videogen_trainer.failure import Failure
from videogen_trainer.progress import ProgressReporter
from videogen_trainer.samples import write_samples


def test_a_disk_that_is_full_in_a_checkpoint_is_told_with_its_file_and_the_next_attempt_goes_on(
    storage: Path, make_job: Callable[..., Job], silent: ProgressReporter
) -> None:
    code, report = limited(make_job(), storage, 500_000)
    assert (code, report.reason) == (ExitCode.STORAGE_FAILED, Reason.STORAGE_FAILED)
    assert f"{WORK}/checkpoints/step-000000002/model.safetensors cannot be written: " in report.message
    assert "File too large" in report.message or "os error 27" in report.message
    assert "make room on the volume" in report.message
    assert tasks.attempt(make_job(attempt=2), storage, {}, silent, lambda: False).reason is Reason.COMPLETED


def test_a_bundle_that_cannot_be_written_is_told_with_its_folder_and_its_checkpoint_is_kept(
    storage: Path, make_job: Callable[..., Job], silent: ProgressReporter
) -> None:
    (storage / "bundles").touch()
    report = tasks.attempt(make_job({"steps": 1}), storage, {}, silent, lambda: False)
    assert (report.reason, report.last_step) == (Reason.STORAGE_FAILED, 1)
    assert f"{storage}/bundles cannot be written: " in report.message


def refused(path: Path, act: Callable[[], object]) -> None:
    with pytest.raises(Failure, match=f"{path} cannot be written: ") as caught:
        act()
    assert caught.value.reason is Reason.STORAGE_FAILED


@pytest.mark.parametrize(
    "error, remedy",
    [
        (OSError(errno.ENOSPC, "No space left on device"), "make room on the volume"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "make room on the volume"),
        (SafetensorError("Error while serializing: I/O error: File too large (os error 27)"), "make room on the volume"),
        (PermissionError(errno.EACCES, "Permission denied"), "let the trainer's user write there"),
        (OSError(errno.EROFS, "Read-only file system"), "let the trainer's user write there"),
        (NotADirectoryError(errno.ENOTDIR, "Not a directory"), "move away what is in its place"),
        (SafetensorError("Error while serializing: I/O error: Is a directory (os error 21)"), "move away what is in its place"),
        (OSError(errno.EIO, "Input/output error"), "see to the volume"),
        (OSError("no number"), "see to the volume"),
        (SafetensorError("InvalidHeader"), "see to the volume"),
    ],
    ids=str,
)
def test_what_to_do_depends_on_what_the_system_says(tmp_path: Path, error: Exception, remedy: str) -> None:
    with pytest.raises(Failure, match=f"{re.escape(str(error))}; {remedy}, what is finished is kept"), writing(tmp_path):
        raise error


def test_a_curve_that_takes_no_more_is_named(tmp_path: Path) -> None:
    curve = Curve(path := tmp_path / "curve.jsonl", 0, lambda: 0.0)
    curve.add(step=1, loss=1.0)
    path.unlink()
    path.mkdir()
    refused(path, curve.flush)
    refused(path, lambda: Curve(path, 0, lambda: 0.0))


def test_a_sample_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "sample-00.mp4").mkdir()
    clip = np.zeros((4, 16, 16, 3), np.uint8)
    refused(tmp_path / "sample-00.mp4", lambda: write_samples(tmp_path, [clip], ["dark"], 8))


def test_a_versions_name_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "datasets/dark").mkdir(parents=True)
    (tmp_path / "datasets/dark/versions").touch()
    clips = [Clip(frames=np.zeros((2, 16, 16, 3), np.uint8), caption="dark", split=Split.TRAIN)]
    path = tmp_path / "datasets/dark/versions/v1.json"
    refused(path, lambda: write_dataset(tmp_path, "dark", "v1", clips, frames=2, resolution=Resolution(height=16, width=16)))
