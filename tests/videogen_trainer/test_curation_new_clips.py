"""New clips of a dataset version: what counts as new, and what happens with too few."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from videogen_api.curation import NewClips, NewClipsFound, WhenBelow
from videogen_api.job import ExitCode, Report
from videogen_api.training_run import Reason
from videogen_testing.curation import curated, job, silent, write_video
from videogen_trainer.curate import run
from videogen_trainer.dataset_versions import version_file
from videogen_trainer.failure import Failure
from videogen_trainer.report import exit_code, to_bytes

PARTS = "runs/demo-12345678/curation/parts"


def since(previous: str | None, minimum: int = 0, when_below: WhenBelow = WhenBelow.FAIL) -> NewClips:
    return NewClips(previous=previous, minimum=minimum, when_below=when_below)


def collect(storage: Path, version: str, **changes: Any) -> Report:
    return run(job(version, **{"held_out_percent": 0, "new_clips": since("v1")} | changes), storage, silent())


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    """Version v1 of three videos, of which one gives two clips."""
    for name, frames in (("a", 8), ("b", 8), ("c", 16)):
        write_video(tmp_path / f"raw/{name}.mp4", frames, seed=ord(name))
    assert len(curated(tmp_path, job("v1", held_out_percent=0)).records) == 4
    return tmp_path


def test_the_clips_of_videos_that_were_added_are_new(storage: Path) -> None:
    write_video(storage / "raw/d.mp4", 16, seed=7)
    report = collect(storage, "v2")
    assert report.new_clips == NewClipsFound(found=2, previous="v1")
    assert "; 2 new clips since v1" in report.message
    assert Report.model_validate_json(to_bytes(report)).new_clips == report.new_clips


def test_another_name_caption_or_order_makes_no_clip_new(storage: Path) -> None:
    (storage / "raw/a.mp4").rename(storage / "raw/z.mp4")
    (storage / "raw/a.txt").rename(storage / "raw/z.txt")
    (storage / "raw/b.txt").write_text("another caption")
    assert collect(storage, "v2").new_clips == NewClipsFound(found=0, previous="v1")


def test_a_video_that_lies_there_twice_counts_once(storage: Path) -> None:
    for name in ("d", "e"):
        write_video(storage / f"raw/{name}.mp4", 8, seed=7)
    report = collect(storage, "v2")
    assert (report.datasets[0].clips, report.new_clips) == (6, NewClipsFound(found=1, previous="v1"))


def test_without_a_previous_version_all_clips_are_new(storage: Path) -> None:
    report = collect(storage, "v2", new_clips=since(None, minimum=4))
    assert (report.reason, report.new_clips) == (Reason.COMPLETED, NewClipsFound(found=4, minimum=4))


def test_nothing_is_counted_unless_it_is_asked_for(storage: Path) -> None:
    assert collect(storage, "v2", new_clips=None).new_clips is None


def test_with_too_few_new_clips_nothing_is_published_and_the_page_says_why(storage: Path) -> None:
    write_video(storage / "raw/d.mp4", 8, seed=7)
    report = collect(storage, "v2", new_clips=since("v1", minimum=2))
    assert (report.reason, exit_code(report)) == (Reason.TOO_FEW_NEW_CLIPS, ExitCode.DATA_REJECTED)
    assert report.new_clips == NewClipsFound(found=1, minimum=2, previous="v1")
    assert report.message.startswith("curate.newClips.minimum: 1 new clips since v1 among 5 clips of 4 videos, 2 are needed")
    assert report.datasets == []
    assert not version_file(storage, "shapes", "v2").exists()
    assert "Not published: 1 new clips since v1" in (storage / "datasets/shapes/reports/v2.html").read_text()
    assert not (storage / PARTS).exists()


def test_too_few_new_clips_are_said_before_too_few_clips(storage: Path) -> None:
    report = collect(storage, "v2", new_clips=since("v1", minimum=2), minimum_clips=100)
    assert report.reason is Reason.TOO_FEW_NEW_CLIPS


def test_the_parent_does_not_take_the_place_of_a_version_that_needs_new_clips(storage: Path) -> None:
    write_video(storage / "raw/d.mp4", 8, seed=7)
    rejected = {"parent": "v1", "minimum_clips": 100}
    with pytest.raises(Failure) as caught:
        collect(storage, "v2", new_clips=since("v1", minimum=1), **rejected)
    assert caught.value.reason is Reason.DATASET_TOO_SMALL
    assert collect(storage, "v2", **rejected).datasets[0].in_place_of == "v2", "nothing is needed"


def test_a_phase_that_waits_decodes_only_what_was_added_and_then_makes_the_same_version(
    storage: Path, caplog: pytest.LogCaptureFixture
) -> None:
    wanted = since("v1", minimum=2, when_below=WhenBelow.WAIT)
    write_video(storage / "raw/d.mp4", 8, seed=7)
    assert collect(storage, "v2", new_clips=wanted).reason is Reason.TOO_FEW_NEW_CLIPS
    write_video(storage / "raw/e.mp4", 8, seed=8)
    with caplog.at_level(logging.INFO):
        done = collect(storage, "v2", new_clips=wanted)
    assert "decoded 1 of 5 videos" in caplog.messages
    assert done.new_clips == NewClipsFound(found=2, minimum=2, previous="v1")
    assert not (storage / PARTS).exists()
    assert done.datasets[0].digest == collect(storage, "v3", new_clips=None).datasets[0].digest, "counting changes no dataset"


def test_a_phase_that_waits_reads_the_clips_of_the_other_version_once(storage: Path) -> None:
    wanted = since("v1", minimum=1, when_below=WhenBelow.WAIT)
    first = collect(storage, "v2", new_clips=wanted)
    (shard,) = storage.glob("datasets/shapes/*/clips-*.safetensors")
    shard.unlink()
    assert collect(storage, "v2", new_clips=wanted) == first


def test_a_damaged_previous_version_makes_nothing_new(storage: Path) -> None:
    (shard,) = storage.glob("datasets/shapes/*/clips-*.safetensors")
    data = shard.read_bytes()
    shard.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(Failure, match=r"clips-00000\.safetensors") as caught:
        collect(storage, "v2")
    assert caught.value.reason is Reason.DATASET_CORRUPT


@pytest.mark.parametrize(
    ("changes", "reason", "words"),
    [
        ({"new_clips": since("v0")}, Reason.DATASET_NOT_FOUND, "dataset shapes has no version 'v0'; the storage has v1"),
        ({"frames": 4}, Reason.INVALID_JOB, "have 8 frames of 32 x 32, the recipe asks for 4 of 32 x 32"),
        ({"side": 16}, Reason.INVALID_JOB, "have 8 frames of 32 x 32, the recipe asks for 8 of 16 x 16"),
    ],
)
def test_a_version_that_nothing_can_be_compared_with_is_refused(storage: Path, changes: dict[str, Any], reason: Reason, words: str) -> None:
    with pytest.raises(Failure) as caught:
        collect(storage, "v2", **changes)
    assert (caught.value.reason, words in caught.value.message) == (reason, True)
