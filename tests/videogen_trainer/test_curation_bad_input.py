"""Bad input and bad luck: files of every wrong kind, made on the spot, and a disk that is full."""

from __future__ import annotations

import io
import os
import shutil
import struct
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from videogen_api.curation import Source
from videogen_api.job import ExitCode
from videogen_api.training_run import DataReference, Reason
from videogen_testing.curation import curated, job, silent, write_video
from videogen_testing.full_disk import limited
from videogen_testing.patience import HANGS
from videogen_trainer.curate import run
from videogen_trainer.curation import shards
from videogen_trainer.curation.examine import Wanted, examine
from videogen_trainer.curation.rejection import Cause, Rejection
from videogen_trainer.curation.sources import find_videos
from videogen_trainer.dataset import open_dataset
from videogen_trainer.failure import Failure
from videogen_trainer.video_reading import read_frames, seconds_of


def jpeg_video(path: Path, width: int, height: int, *, frames: int = 4, said: tuple[int, int] | None = None) -> None:
    """An mp4 of grey JPEG pictures; `said` is what the pictures say that their width and height are."""
    Image.new("L", (width, height), 128).save(buffer := io.BytesIO(), "JPEG")
    data = bytearray(buffer.getvalue())
    if said:
        start = data.index(b"\xff\xc0") + 5  # JPEG, ITU-T T.81, B.2.2: the frame header has height and width after its precision
        data[start : start + 4] = struct.pack(">HH", said[1], said[0])
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=8)
        stream.width, stream.height, stream.pix_fmt = *(said or (width, height)), "yuvj420p"
        for number in range(frames):
            packet = av.Packet(bytes(data))
            packet.stream, packet.pts, packet.dts, packet.time_base = stream, number, number, Fraction(1, 8)
            container.mux(packet)
    path.with_suffix(".txt").write_text("a grey wall")


def huge(storage: Path) -> None:
    jpeg_video(storage / "raw/bad.mp4", 64, 64, frames=16, said=(16_000, 16_000))


def lying_huge(storage: Path) -> None:
    """The file says 64 x 64, its pictures say 16,000 x 16,000."""
    jpeg_video(storage / "raw/bad.mp4", 64, 64, frames=16, said=(16_000, 16_000))
    data = (storage / "raw/bad.mp4").read_bytes()
    entry = data.index(b"mp4v", data.index(b"stsd")) + 4 + 24
    assert data[entry : entry + 4] == struct.pack(">HH", 16_000, 16_000)
    (storage / "raw/bad.mp4").write_bytes(data[:entry] + struct.pack(">HH", 64, 64) + data[entry + 4 :])


def unknown_codec(storage: Path) -> None:
    data = (storage / "raw/bad.mp4").read_bytes()
    (storage / "raw/bad.mp4").write_bytes(data.replace(b"avc1", b"zzz9"))


def utf_16(storage: Path) -> None:
    (storage / "raw/bad.txt").write_bytes("a ball".encode("utf-16"))


def utf_16_without_mark(storage: Path) -> None:
    (storage / "raw/bad.txt").write_bytes("a ball".encode("utf-16-le"))


def devanagari_in_a_code_page(storage: Path) -> None:
    (storage / "raw/bad.txt").write_bytes(b"\xb3\xda\xcf\xda")  # ISCII


def a_picture(storage: Path) -> None:
    Image.new("RGB", (64, 64)).save(buffer := io.BytesIO(), "PNG")
    (storage / "raw/bad.mp4").write_bytes(buffer.getvalue())


def a_playlist(storage: Path) -> None:
    """ffmpeg would read what a playlist names: any file of the pod, and addresses in the cluster."""
    (storage / "raw/bad.mp4").write_text("ffconcat version 1.0\nfile a.mp4\n")


def a_streams_playlist(storage: Path) -> None:
    (storage / "raw/bad.mp4").write_text("#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\na.mp4\n#EXT-X-ENDLIST\n")


@pytest.mark.parametrize(
    ("harm", "cause", "words"),
    [
        (huge, "VideoUnreadable", "frames of 16000 x 16000, more than the 35,389,440 pixels of 8K"),
        (lying_huge, "VideoUnreadable", "Invalid data"),
        (unknown_codec, "VideoUnreadable", "no decoder"),
        (utf_16, "CaptionMissing", "raw/bad.txt is not UTF-8"),
        (utf_16_without_mark, "CaptionMissing", "raw/bad.txt has zero bytes, as UTF-16 has"),
        (devanagari_in_a_code_page, "CaptionMissing", "raw/bad.txt is not UTF-8"),
        (a_picture, "VideoUnreadable", "raw/bad.mp4"),
        (a_playlist, "VideoUnreadable", "raw/bad.mp4"),
        (a_streams_playlist, "VideoUnreadable", "raw/bad.mp4"),
    ],
)
def test_one_bad_file_of_six_is_rejected_by_name_and_the_others_are_the_version(
    tmp_path: Path, harm: Callable[[Path], None], cause: str, words: str
) -> None:
    for number, name in enumerate(("a", "b", "bad", "c", "d", "e")):
        write_video(tmp_path / f"raw/{name}.mp4", 8, seed=number)
    harm(tmp_path)
    report = run(job(), tmp_path, silent())
    assert (report.datasets[0].clips, report.datasets[0].rejected) == (5, 1)
    assert f"rejected 1 {cause} (" in report.message
    assert "raw/bad" in report.message
    assert words in (tmp_path / "datasets/shapes/reports/v1.html").read_text()


def test_a_byte_order_mark_is_no_part_of_a_caption(tmp_path: Path) -> None:
    write_video(tmp_path / "raw/a.mp4", 8)
    (tmp_path / "raw/a.txt").write_text("a ball", encoding="utf-8-sig")
    assert curated(tmp_path, job()).records[0].caption == "a ball"


@pytest.fixture
def open_storage() -> Iterator[Path]:
    """A storage that another user may write to; pytest's own folders may not even be entered."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        yield Path(folder)


@contextmanager
def as_nobody() -> Iterator[None]:
    """Root may read everything, the trainer's user in its container may not."""
    own = os.geteuid()
    os.seteuid(65534 if own == 0 else own)
    try:
        yield
    finally:
        os.seteuid(own)


def test_files_that_may_not_be_read_are_named_and_the_others_are_the_version(open_storage: Path) -> None:
    for number, name in enumerate("abcd"):
        write_video(open_storage / f"raw/{name}.mp4", 8, seed=number)
    assert curated(open_storage, job(version="before")).manifest.clips == 4
    shutil.rmtree(open_storage / "runs")
    shutil.rmtree(open_storage / "datasets")
    (open_storage / "raw/b.mp4").chmod(0)
    (open_storage / "raw/c.txt").chmod(0)
    with as_nobody():
        report = run(job(maximum_rejected_percent=50), open_storage, silent())
    assert (report.datasets[0].clips, report.datasets[0].rejected) == (2, 2)
    assert "raw/b.mp4 may not be read by the trainer's user" in report.message
    assert "the caption of raw/c.mp4 may not be read by the trainer's user" in report.message


def test_a_file_that_may_not_be_read_and_has_a_bad_caption_is_one_rejection(open_storage: Path) -> None:
    for number, name in enumerate("abcd"):
        write_video(open_storage / f"raw/{name}.mp4", 8, seed=number)
        (open_storage / f"raw/{name}.txt").write_text("x" if name == "b" else "a ball that moves")
    (open_storage / "raw/b.mp4").chmod(0)
    with as_nobody():
        report = run(job(filters={"caption": {}}, maximum_rejected_percent=50), open_storage, silent())
    assert (report.datasets[0].clips, report.datasets[0].rejected) == (3, 1)


def test_a_shard_that_may_not_be_read_is_named(open_storage: Path) -> None:
    write_video(open_storage / "raw/a.mp4", 8)
    with tarfile.open(open_storage / "raw/a.tar", "w") as archive:
        archive.add(open_storage / "raw/a.mp4", "a.mp4")
    (open_storage / "raw/a.tar").chmod(0)
    rejected: list[Rejection] = []
    with as_nobody():
        assert find_videos([Source(path="raw", shards="a.tar")], open_storage, rejected.append) == []
    assert [rejection.why for rejection in rejected] == ["raw/a.tar may not be read by the trainer's user; give it read permission for all"]


@pytest.mark.parametrize("name", ["t.csv", "t.jsonl"])
def test_a_table_that_may_not_be_read_is_named(open_storage: Path, name: str) -> None:
    (open_storage / "raw").mkdir()
    (open_storage / "raw" / name).write_text("path,caption\na.mp4,x\n")
    (open_storage / "raw" / name).chmod(0)
    with as_nobody(), pytest.raises(Failure, match=f"{name} may not be read by the trainer's user; give it read permission") as caught:
        find_videos([Source(path="raw", table=name)], open_storage, lambda rejection: None)
    assert caught.value.reason is Reason.TABLE_INVALID


ROOT = Path("/")


def below_root(folder: Path, **fields: str) -> Source:
    return Source(path=str(folder.relative_to(ROOT)), **fields)


def bad_sectors(path: Path) -> None:
    """A file that is there and whose bytes end in EIO: the memory of a process, from address 0 on; `ROOT` is a storage that has it."""
    path.unlink(missing_ok=True)
    path.symlink_to("/proc/self/mem")
    with pytest.raises(OSError, match="Input/output error"):
        path.read_bytes()


def test_a_video_with_a_bad_sector_is_rejected_by_name(tmp_path: Path) -> None:
    for number, stem in enumerate(("a", "bad")):
        write_video(tmp_path / f"raw/{stem}.mp4", 8, seed=number)
    bad_sectors(tmp_path / "raw/bad.mp4")
    videos = find_videos([below_root(tmp_path / "raw")], ROOT, lambda rejection: None)
    wanted = job()
    assert wanted.curate
    asked = Wanted(curate=wanted.curate, recipe=wanted.recipe, storage=ROOT, folder=tmp_path / "parts")
    good, bad = [examine(video, asked).rejection for video in videos]
    assert good is None
    assert bad and bad.cause is Cause.VIDEO_UNREADABLE
    assert "raw/bad.mp4 cannot be read as video: Input/output error" in bad.why


def test_a_caption_with_a_bad_sector_is_rejected_by_name(tmp_path: Path) -> None:
    for number, stem in enumerate(("a", "bad")):
        write_video(tmp_path / f"raw/{stem}.mp4", 2, seed=number)
    bad_sectors(tmp_path / "raw/bad.txt")
    rejected: list[Rejection] = []
    assert len(find_videos([below_root(tmp_path / "raw")], ROOT, rejected.append)) == 1
    assert [rejection.cause for rejection in rejected] == [Cause.CAPTION_MISSING]
    assert "raw/bad.mp4 cannot be read: Input/output error; upload its text file again" in rejected[0].why


def test_a_caption_that_is_a_folder_is_rejected_by_name(tmp_path: Path) -> None:
    write_video(tmp_path / "raw/a.mp4", 8, caption=None)
    (tmp_path / "raw/a.txt").mkdir()
    rejected: list[Rejection] = []
    assert find_videos([Source(path="raw")], tmp_path, rejected.append) == []
    assert [rejection.why for rejection in rejected] == [
        "the caption of raw/a.mp4 cannot be read: it is no plain file; upload its text file again"
    ]


@pytest.mark.parametrize("name", ["t.csv", "t.jsonl"])
def test_a_table_with_a_bad_sector_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / "raw").mkdir()
    bad_sectors(tmp_path / "raw" / name)
    with pytest.raises(Failure, match=f"raw/{name} cannot be read: Input/output error; upload it again") as caught:
        find_videos([below_root(tmp_path / "raw", table=name)], ROOT, lambda rejection: None)
    assert caught.value.reason is Reason.TABLE_INVALID


def test_a_shard_with_a_bad_sector_is_rejected_by_name(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    bad_sectors(tmp_path / "raw/a.tar")
    rejected: list[Rejection] = []
    assert find_videos([below_root(tmp_path / "raw", shards="a.tar")], ROOT, rejected.append) == []
    assert [rejection.cause for rejection in rejected] == [Cause.SHARD_INVALID]
    assert "raw/a.tar cannot be read after 0 samples: Input/output error; upload it again" in rejected[0].why


def test_a_shard_that_goes_between_the_check_and_the_opening_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Going(shards._Headers):
        def __init__(self, path: Path) -> None:
            path.unlink()
            super().__init__(path)

    (tmp_path / "raw").mkdir()
    (tmp_path / "raw/a.tar").write_bytes(bytes(1024))
    monkeypatch.setattr(shards, "_Headers", Going)
    rejected: list[Rejection] = []
    assert find_videos([Source(path="raw", shards="*.tar")], tmp_path, rejected.append) == []
    assert [rejection.cause for rejection in rejected] == [Cause.VIDEO_MISSING]
    assert "there is no shard raw/a.tar; upload it" in rejected[0].why


_MEASURE = """
import resource, sys
from pathlib import Path
from videogen_trainer.video_reading import read_frames
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
count = sum(1 for _ in read_frames(Path(sys.argv[1])))
print(count, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10)
"""


def measured(path: Path) -> tuple[int, int]:
    """Frames, and MiB of memory that reading them took, in a process of its own."""
    done = subprocess.run([sys.executable, "-c", _MEASURE, str(path)], capture_output=True, text=True, timeout=HANGS, check=True)
    frames, memory = done.stdout.split()
    return int(frames), int(memory)


def test_an_8k_video_takes_the_memory_of_a_few_frames(tmp_path: Path) -> None:
    """A frame of 7680 x 4320 has 95 MiB; ten of them are never there at once."""
    jpeg_video(tmp_path / "a.mp4", 7680, 4320, frames=10)
    frames, memory = measured(tmp_path / "a.mp4")
    assert frames == 10
    assert memory < 450


def test_a_long_video_takes_no_more_memory_than_a_short_one(tmp_path: Path) -> None:
    jpeg_video(tmp_path / "short.mp4", 160, 160, frames=50)
    jpeg_video(tmp_path / "long.mp4", 160, 160, frames=10_000)  # 730 MiB of pictures
    frames, memory = measured(tmp_path / "long.mp4")
    assert frames == 10_000
    assert memory <= measured(tmp_path / "short.mp4")[1] + 20
    assert seconds_of(tmp_path / "long.mp4") == pytest.approx(1250)


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize(
    ("most", "where"),
    [
        pytest.param(60_000, r"runs/demo-12345678/curation/parts/", id="while videos are looked at"),
        pytest.param(120_000, r"clips-00000.safetensors", id="while the version is written"),
    ],
)
def test_a_full_disk_is_one_reason_with_the_file_named_and_the_next_attempt_goes_on(
    tmp_path: Path, most: int, where: str, processes: int
) -> None:
    for number, frames in enumerate((16, 16, 32)):  # of 3 KiB: parts of 49, 49 and 98 KiB, and 196 KiB in the version
        write_video(tmp_path / f"raw/{number}.mp4", frames, seed=number)
    wanted = job(held_out_percent=0).model_copy(update={"processes_per_worker": processes})
    code, report = limited(wanted, tmp_path, most)
    assert (code, report.reason) == (ExitCode.STORAGE_FAILED, Reason.STORAGE_FAILED)
    assert where in report.message and "File too large" in report.message and "make room" in report.message
    assert not [path for path in (tmp_path / "datasets").rglob("*") if path.is_file()]
    kept = {path.name: path.stat().st_ino for path in (tmp_path / "runs/demo-12345678/curation/parts").glob("*.json")}
    assert len(kept) >= 2
    assert not list((tmp_path / "runs/demo-12345678/curation/parts").glob(".unsealed-*"))
    assert run(job(held_out_percent=0), tmp_path, silent()).datasets[0].clips == 8


def test_any_flipped_byte_of_a_version_is_found_and_its_file_named(tmp_path: Path) -> None:
    write_video(tmp_path / "raw/a.mp4", 16)
    dataset = curated(tmp_path, job(held_out_percent=0))
    random = np.random.default_rng(0)
    for path in sorted(path for path in dataset.folder.iterdir()):
        whole = path.read_bytes()
        for place in random.integers(0, len(whole), 4):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ (1 << int(random.integers(8)))]) + whole[place + 1 :])
            with pytest.raises(Failure, match=path.name) as caught:
                open_dataset(tmp_path, DataReference(dataset="shapes", version="v1"))
            assert caught.value.reason is Reason.DATASET_CORRUPT
        path.write_bytes(whole)
    assert open_dataset(tmp_path, DataReference(dataset="shapes", version="v1")).resolved == dataset.resolved


def test_frames_that_change_their_size_are_read(tmp_path: Path) -> None:
    """webm and mp4 may do so in the middle; the frames are fitted one by one."""
    jpeg_video(tmp_path / "a.mp4", 64, 64)
    Image.new("L", (32, 48), 128).save(buffer := io.BytesIO(), "JPEG")
    with av.open(str(tmp_path / "b.mp4"), "w") as container, av.open(str(tmp_path / "a.mp4")) as given:
        stream = container.add_stream("mjpeg", rate=8)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuvj420p"
        for number, data in enumerate([*(bytes(packet) for packet in given.demux() if packet.size), buffer.getvalue()]):
            packet = av.Packet(data)
            packet.stream, packet.pts, packet.dts, packet.time_base = stream, number, number, Fraction(1, 8)
            container.mux(packet)
    assert [picture.shape for picture in read_frames(tmp_path / "b.mp4")] == [(64, 64, 3)] * 4 + [(48, 32, 3)]
