"""Captions that are pipes, links that lead out of the storage, and texts without end."""

from __future__ import annotations

import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from videogen_api.curation import Source
from videogen_api.training_run import Reason
from videogen_testing.curation import curated, job, silent, write_video
from videogen_trainer.curate import run
from videogen_trainer.curation.rejection import Cause, Rejection
from videogen_trainer.curation.sources import find_videos
from videogen_trainer.curation.video import TEXT_BYTES
from videogen_trainer.failure import Failure


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    """A storage of five videos beside a file that is not its own."""
    (tmp_path / "token").write_text("a secret")
    for number, name in enumerate(("a", "b", "bad", "c", "d")):
        write_video(tmp_path / f"storage/raw/{name}.mp4", 8, seed=number)
    return tmp_path / "storage"


def a_pipe(storage: Path) -> None:
    (storage / "raw/bad.txt").unlink()
    os.mkfifo(storage / "raw/bad.txt")


def a_device(storage: Path) -> None:
    (storage / "raw/bad.txt").unlink()
    (storage / "raw/bad.txt").symlink_to("/dev/zero")


def a_secret(storage: Path) -> None:
    (storage / "raw/bad.txt").unlink()
    (storage / "raw/bad.txt").symlink_to("../../token")


def a_video_elsewhere(storage: Path) -> None:
    (storage / "raw/bad.mp4").rename(storage.parent / "elsewhere.mp4")
    (storage / "raw/bad.mp4").symlink_to(storage.parent / "elsewhere.mp4")


def a_flood(storage: Path) -> None:
    (storage / "raw/bad.txt").write_bytes(b"a b " * (TEXT_BYTES // 4) + b"c")


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (a_pipe, "1 CaptionMissing (the caption of raw/bad.mp4 cannot be read: it is no plain file; upload its text file again)"),
        (a_device, "1 CaptionMissing (the caption of raw/bad.mp4 cannot be read: it is no plain file; upload its text file again)"),
        (a_secret, "1 CaptionMissing (the caption of raw/bad.mp4 cannot be read: it is a link that leads out of the storage; "),
        (a_video_elsewhere, "1 VideoMissing (raw/bad.mp4 is a link that leads out of the storage; upload the video itself)"),
        (a_flood, "1 CaptionMissing (the caption of raw/bad.mp4 cannot be read: it has more than 16,777,216 bytes; "),
    ],
)
def test_what_is_no_plain_file_of_the_storage_is_rejected_by_name_and_the_others_are_the_version(
    storage: Path, harm: Callable[[Path], None], words: str
) -> None:
    harm(storage)
    report = run(job(), storage, silent())
    assert (report.datasets[0].clips, report.datasets[0].rejected) == (4, 1)
    assert words in report.message
    assert not [path for path in (storage / "datasets").rglob("*") if path.is_file() and b"a secret" in path.read_bytes()]


def test_links_to_files_of_the_same_storage_are_followed(storage: Path) -> None:
    (storage / "store").mkdir()
    for name in ("a.mp4", "a.txt"):
        (storage / "raw" / name).rename(storage / "store" / name)
        (storage / "raw" / name).symlink_to(f"../store/{name}")
    assert curated(storage, job()).records[0].source == "raw/a.mp4:0"


def test_a_storage_that_is_a_link_itself_holds_its_files(storage: Path) -> None:
    (storage.parent / "link").symlink_to(storage)
    assert len(curated(storage.parent / "link", job()).records) == 5


def a_folder(storage: Path) -> Source:
    (storage.parent / "raw").mkdir()
    write_video(storage.parent / "raw/x.mp4", 8)
    (storage / "linked").symlink_to(storage.parent / "raw")
    return Source(path="linked")


def a_table(storage: Path) -> Source:
    (storage.parent / "t.jsonl").write_text(json.dumps({"path": "a.mp4", "caption": "a secret"}))
    (storage / "raw/t.jsonl").symlink_to(storage.parent / "t.jsonl")
    return Source(path="raw", table="t.jsonl")


@pytest.mark.parametrize(
    ("make", "reason", "words"),
    [
        (a_folder, Reason.VIDEO_MISSING, "linked is a link that leads out of the storage; upload the videos below"),
        (a_table, Reason.TABLE_INVALID, "raw/t.jsonl cannot be read: it is a link that leads out of the storage"),
    ],
)
def test_a_source_that_lies_out_of_the_storage_is_not_read(
    storage: Path, make: Callable[[Path], Source], reason: Reason, words: str
) -> None:
    with pytest.raises(Failure, match=words) as caught:
        find_videos([make(storage)], storage, lambda rejection: None)
    assert caught.value.reason is reason


def test_a_shard_that_lies_out_of_the_storage_is_not_read(storage: Path) -> None:
    with tarfile.open(storage.parent / "s.tar", "w") as archive:
        for name in ("a.mp4", "a.txt"):
            archive.add(storage / "raw" / name, name)
    (storage / "raw/s.tar").symlink_to(storage.parent / "s.tar")
    rejected: list[Rejection] = []
    assert find_videos([Source(path="raw", shards="s.tar")], storage, rejected.append) == []
    assert [rejection.cause for rejection in rejected] == [Cause.SHARD_INVALID]
    assert "raw/s.tar cannot be read after 0 samples: it is a link that leads out of the storage" in rejected[0].why


def test_a_line_of_a_table_without_end_is_rejected_with_its_number_and_the_others_go_on(storage: Path) -> None:
    rows = [{"path": "a.mp4", "caption": "one"}, {"path": "b.mp4", "caption": "x" * 2 * TEXT_BYTES}, {"path": "c.mp4", "caption": "three"}]
    (storage / "raw/t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    rejected: list[Rejection] = []
    videos = find_videos([Source(path="raw", table="t.jsonl")], storage, rejected.append)
    assert [(video.name, video.caption) for video in videos] == [("raw/a.mp4", "one"), ("raw/c.mp4", "three")]
    assert [rejection.why for rejection in rejected] == [
        "raw/t.jsonl:2: the line has 16,777,216 bytes or more; shorten its caption or transcript"
    ]
