"""Task Curate: what good videos become, and what is said of bad ones."""

from __future__ import annotations

import json
import logging
import shutil
import struct
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from videogen_api.recipe import Resolution
from videogen_api.training_run import DataReference, Reason, Split
from videogen_testing.curation import curated, job, silent, write_video
from videogen_trainer.curate import run
from videogen_trainer.curation.cutting import block_of, cuts_of, split_of
from videogen_trainer.dataset import Dataset, open_dataset
from videogen_trainer.failure import Failure
from videogen_trainer.progress import ProgressReporter
from videogen_trainer.synthetic import synthetic_clip, write_folder
from videogen_trainer.video_reading import digest_of, fit, read_frames


def sides(dataset: Dataset) -> dict[bytes, Split]:
    return {dataset.frames(number).tobytes(): record.split for number, record in enumerate(dataset.records)}


def test_each_short_video_becomes_a_clip_with_its_caption(tmp_path: Path) -> None:
    write_folder(tmp_path / "raw", count=4, seed=0, frames=8, height=32, width=32)
    report = run(job(), tmp_path, silent())
    dataset = open_dataset(tmp_path, DataReference(dataset="shapes", version="v1"))
    assert report.datasets == [dataset.resolved.model_copy(update={"rejected": 0})]
    assert [record.caption for record in dataset.records] == [
        synthetic_clip(n, seed=0, frames=8, height=32, width=32).caption for n in range(4)
    ]
    drawn = synthetic_clip(2, seed=0, frames=8, height=32, width=32).frames
    assert np.abs(dataset.frames(2).astype(float) - drawn).mean() < 5


def test_progress_counts_videos_and_clips(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_video(tmp_path / "raw/a.mp4", 16)
    write_video(tmp_path / "raw/b.mp4", 8)
    with caplog.at_level(logging.INFO):
        run(job(held_out_percent=0), tmp_path, silent())
    assert caplog.messages == ["1 of 2: clips 2, rejected 0", "2 of 2: clips 3, rejected 0", "decoded 2 of 2 videos"]


def test_folders_are_read_recursively_and_overlapping_sources_once(tmp_path: Path) -> None:
    write_video(tmp_path / "raw/a/one.mp4", 8)
    write_video(tmp_path / "raw/b/c/TWO.MP4", 8, seed=1)
    dataset = curated(tmp_path, job(sources=("raw", "raw/b")))
    assert [record.source for record in dataset.records] == ["raw/a/one.mp4:0", "raw/b/c/TWO.MP4:0"]


@pytest.mark.parametrize(
    ("frames", "curate", "starts"),
    [
        pytest.param(30, {}, [0, 8, 16], id="30 frames are three clips of 8; six frames are left over"),
        pytest.param(30, {"frame_stride": 2}, [0, 15], id="at stride 2 a clip spans 15 frames"),
        pytest.param(30, {"maximum_clips_per_video": 2}, [0, 8], id="no more than maximumClipsPerVideo"),
    ],
)
def test_a_long_video_is_cut_back_to_back(tmp_path: Path, frames: int, curate: dict[str, Any], starts: list[int]) -> None:
    write_video(tmp_path / "raw/long.mp4", frames)
    dataset = curated(tmp_path, job(held_out_percent=0, **curate))
    assert [record.source for record in dataset.records] == [f"raw/long.mp4:{start}" for start in starts]


def test_stride_takes_every_nth_frame(tmp_path: Path) -> None:
    write_video(tmp_path / "raw/long.mp4", 20)
    every = curated(tmp_path, job(version="every", frames=16, held_out_percent=0)).frames(0)
    second = curated(tmp_path, job(version="second", held_out_percent=0, frame_stride=2)).frames(0)
    np.testing.assert_array_equal(second, every[::2])


def test_no_clip_reaches_over_a_change_of_sides(tmp_path: Path) -> None:
    write_video(tmp_path / "raw/long.mp4", 500)
    dataset = curated(tmp_path, job(frames=12, held_out_percent=50, maximum_clips_per_video=1000))
    digest_of = {record.source: record.split for record in dataset.records}
    blocks: dict[int, set[Split]] = {}
    for source, split in digest_of.items():
        start = int(source.split(":")[1])
        for block in {block_of(start), block_of(start + 11)}:
            blocks.setdefault(block, set()).add(split)
    assert all(len(split) == 1 for split in blocks.values())
    assert {split for found in blocks.values() for split in found} == {Split.TRAIN, Split.HELD_OUT}


def test_a_frame_is_on_one_side_whatever_the_length_and_stride_of_the_clips(tmp_path: Path) -> None:
    """Random videos, 5 versions of each; those of 113 frames, of 17, and of 8 frames at stride 16 are read together in training."""
    write_video(tmp_path / "long.mp4", 500, height=16, width=16)
    random = np.random.default_rng(5)
    lengths: dict[Split, set[int]] = {Split.TRAIN: set(), Split.HELD_OUT: set()}
    for percent in (20, 35, 50, 65):
        digest = random.bytes(32).hex()
        found: dict[Split, set[int]] = {Split.TRAIN: set(), Split.HELD_OUT: set()}
        shapes = [(113, 1), (17, 1), (8, 16)] + [(int(random.integers(2, 40)), int(random.integers(1, 9))) for _ in range(2)]
        for frames, stride in shapes:
            wanted = job(frames=frames, side=16, frame_stride=stride, held_out_percent=percent, maximum_clips_per_video=1000)
            assert wanted.curate
            for cut in cuts_of(tmp_path / "long.mp4", digest, wanted.curate, wanted.recipe):
                span = (frames - 1) * stride + 1
                found[cut.split].update(range(cut.start, cut.start + span))
                lengths[cut.split].add(span)
        assert not found[Split.TRAIN] & found[Split.HELD_OUT]
    assert min(max(spans) for spans in lengths.values()) >= 113


def test_a_video_whose_sides_change_too_often_for_a_clip_is_rejected_for_that(tmp_path: Path) -> None:
    def write(path: Path, sides: int) -> None:
        for seed in range(30):
            write_video(path, 120, seed=seed)
            if len({split_of(digest_of(path), block, 50) for block in (0, 1)}) == sides:
                return

    write(tmp_path / "raw/a.mp4", sides=1)
    write(tmp_path / "raw/b.mp4", sides=2)
    report = run(job(frames=113, held_out_percent=50, maximum_rejected_percent=50), tmp_path, silent())
    assert report.datasets[0].clips == 1
    said = "raw/b.mp4 is shorter than one clip of 113 frames at stride 1, or each of its parts that are held out or not is"
    assert f"1 TooShort ({said})" in report.message


def test_blocks_grow_with_the_video_until_the_longest_clip_fits() -> None:
    first = [frame for frame in range(8000) if frame == 0 or block_of(frame) != block_of(frame - 1)]
    assert first == [0, 64, 128, 192, 256, 384, 512, 768, 1024, 1536, *range(2048, 8000, 1024)]
    assert [block_of(frame) for frame in first] == sorted({block_of(frame) for frame in range(8000)})


@pytest.mark.parametrize(("percent", "low", "high"), [(0, 0.0, 0.0), (20, 0.17, 0.23), (90, 0.87, 0.93)])
def test_the_share_of_held_out_blocks_is_as_asked(percent: int, low: float, high: float) -> None:
    share = np.mean([split_of("ab" * 32, block, percent) is Split.HELD_OUT for block in range(3000)])
    assert low <= share <= high


def test_a_larger_share_keeps_what_a_smaller_one_holds_out() -> None:
    small, large = ({block for block in range(500) if split_of("cd" * 32, block, percent) is Split.HELD_OUT} for percent in (20, 35))
    assert small < large


def test_the_side_stays_the_same_when_videos_are_added_renamed_or_moved(tmp_path: Path) -> None:
    for number in range(8):
        write_video(tmp_path / f"raw/{number}.mp4", 8, seed=number)
    before = sides(curated(tmp_path, job(version="v1", held_out_percent=50)))
    for number in range(8):
        (tmp_path / f"raw/{number}.mp4").rename(tmp_path / f"raw/renamed-{9 - number}.mp4")
        (tmp_path / f"raw/{number}.txt").rename(tmp_path / f"raw/renamed-{9 - number}.txt")
    write_video(tmp_path / "raw/added.mp4", 8, seed=20)
    after = sides(curated(tmp_path, job(version="v2", held_out_percent=50)))
    assert len(before) == 8 and len(after) == 9
    assert before.items() <= after.items()


def test_the_side_does_not_depend_on_the_resolution(tmp_path: Path) -> None:
    write_folder(tmp_path / "raw", count=12, seed=0, frames=8, height=32, width=32)
    small, large = (curated(tmp_path, job(version=f"v{side}", side=side, held_out_percent=50)) for side in (16, 48))
    assert [record.split for record in small.records] == [record.split for record in large.records]
    assert len({record.split for record in small.records}) == 2


def test_the_same_again_is_no_error_and_gives_the_same_digest(tmp_path: Path) -> None:
    write_folder(tmp_path / "raw", count=3, seed=0, frames=8, height=32, width=32)
    first = run(job(), tmp_path, silent())
    assert run(job(), tmp_path, silent()) == first
    assert run(job(version="other"), tmp_path, silent()).datasets[0].digest == first.datasets[0].digest


def test_the_digest_is_the_same_in_another_storage_and_order_of_writing(tmp_path: Path) -> None:
    for number in range(3):
        write_video(tmp_path / f"one/raw/{number}.mp4", 8, seed=number)
    (tmp_path / "two/raw").mkdir(parents=True)
    for path in sorted((tmp_path / "one/raw").iterdir(), reverse=True):
        shutil.copy(path, tmp_path / "two/raw")
    digests = {run(job(), tmp_path / storage, silent()).datasets[0].digest for storage in ("one", "two")}
    assert len(digests) == 1


def test_an_existing_version_with_other_content_is_refused_and_kept(tmp_path: Path) -> None:
    write_folder(tmp_path / "raw", count=2, seed=0, frames=8, height=32, width=32)
    first = run(job(), tmp_path, silent()).datasets[0].digest
    write_video(tmp_path / "raw/more.mp4", 8)
    with pytest.raises(Failure, match=r"v1 exists with other content.*choose a new version") as failure:
        run(job(), tmp_path, silent())
    assert failure.value.reason is Reason.INVALID_JOB
    assert json.loads((tmp_path / "datasets/shapes/versions/v1.json").read_text()) == {"digest": first}


def encode(path: Path, frames: NDArray[np.uint8], codec: str, **options: str) -> None:
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream(codec, rate=8)
        stream.height, stream.width, stream.pix_fmt = frames.shape[1], frames.shape[2], "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def test_webm_is_read_too(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    drawn = synthetic_clip(4, seed=0, frames=8, height=32, width=32)
    encode(tmp_path / "raw/a.webm", drawn.frames, "libvpx")
    (tmp_path / "raw/a.txt").write_text(drawn.caption)
    assert np.abs(curated(tmp_path, job()).frames(0).astype(float) - drawn.frames).mean() < 10


def nothing(storage: Path) -> None:
    pass


def empty_folder(storage: Path) -> None:
    (storage / "raw").mkdir()
    (storage / "raw/notes.txt").write_text("no video here")


def without_captions(storage: Path) -> None:
    for number in range(7):
        write_video(storage / f"raw/{number}.mp4", 8, caption=None)


def blank_caption(storage: Path) -> None:
    write_video(storage / "raw/a.mp4", 8, caption=" \n")


def latin_caption(storage: Path) -> None:
    write_video(storage / "raw/a.mp4", 8)
    (storage / "raw/a.txt").write_bytes("Fußball".encode("latin-1"))


def zero_length(storage: Path) -> None:
    write_video(storage / "raw/a.mp4", 8)
    (storage / "raw/a.mp4").write_bytes(b"")


def garbage(storage: Path) -> None:
    write_video(storage / "raw/a.mp4", 8)
    (storage / "raw/a.mp4").write_bytes(np.random.default_rng(0).bytes(5000))


def cut_off(storage: Path) -> None:
    """The index of an mp4 written in one go is at its end, so nothing can be read."""
    write_video(storage / "raw/a.mp4", 200)
    data = (storage / "raw/a.mp4").read_bytes()
    (storage / "raw/a.mp4").write_bytes(data[: len(data) * 2 // 3])


def cut_off_with_index_in_front(storage: Path) -> None:
    write_video(storage / "raw/a.mp4", 1)
    frames = np.random.default_rng(0).integers(0, 256, (60, 32, 32, 3), dtype=np.uint8)
    encode(storage / "raw/a.mp4", frames, "libx264", movflags="faststart")
    data = (storage / "raw/a.mp4").read_bytes()
    (storage / "raw/a.mp4").write_bytes(data[: len(data) // 2])


def cut_off_webm(storage: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (60, 32, 32, 3), dtype=np.uint8)
    (storage / "raw").mkdir()
    encode(storage / "raw/a.webm", frames, "libvpx")
    (storage / "raw/a.txt").write_text("noise")
    data = (storage / "raw/a.webm").read_bytes()
    (storage / "raw/a.webm").write_bytes(data[: len(data) // 2])


def overwritten_in_the_middle(storage: Path) -> None:
    cut_off_with_index_in_front(storage)
    write_video(storage / "raw/a.mp4", 100)
    data = bytearray((storage / "raw/a.mp4").read_bytes())
    middle = data.index(b"mdat") + 2000
    data[middle : middle + 3000] = np.random.default_rng(1).bytes(3000)
    (storage / "raw/a.mp4").write_bytes(bytes(data))


def only_sound(storage: Path) -> None:
    write_video(storage / "raw/a.mp4", 8)
    with av.open(str(storage / "raw/a.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=44100, layout="mono")
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        sound.sample_rate = 44100
        container.mux(stream.encode(sound))
        container.mux(stream.encode())


def too_few(storage: Path) -> None:
    write_video(storage / "raw/a.mp4", 8)
    write_video(storage / "raw/short.mp4", 7)


@pytest.mark.parametrize(
    ("prepare", "reason", "words"),
    [
        pytest.param(nothing, Reason.VIDEO_MISSING, ["no folder", "/raw", "correct the path"], id="no folder"),
        pytest.param(empty_folder, Reason.VIDEO_MISSING, ["/raw has no .mp4 or .webm"], id="a folder without videos"),
        pytest.param(without_captions, Reason.CAPTION_MISSING, ["7 of 7", "raw/0.mp4", "and 6 more", ".txt"], id="no captions"),
        pytest.param(blank_caption, Reason.CAPTION_MISSING, ["raw/a.txt is empty"], id="a blank caption"),
        pytest.param(latin_caption, Reason.CAPTION_MISSING, ["raw/a.txt is not UTF-8"], id="a caption in Latin-1"),
        pytest.param(zero_length, Reason.VIDEO_UNREADABLE, ["raw/a.mp4", "empty"], id="a file of no bytes"),
        pytest.param(garbage, Reason.VIDEO_UNREADABLE, ["raw/a.mp4", "Invalid data"], id="random bytes"),
        pytest.param(cut_off, Reason.VIDEO_UNREADABLE, ["raw/a.mp4", "Invalid data"], id="cut off before its index"),
        pytest.param(cut_off_with_index_in_front, Reason.VIDEO_UNREADABLE, ["raw/a.mp4"], id="cut off after its index"),
        pytest.param(cut_off_webm, Reason.VIDEO_UNREADABLE, ["raw/a.webm", "of 7.50 seconds"], id="a webm cut off"),
        pytest.param(overwritten_in_the_middle, Reason.VIDEO_UNREADABLE, ["raw/a.mp4"], id="overwritten in the middle"),
        pytest.param(only_sound, Reason.VIDEO_UNREADABLE, ["raw/a.mp4", "no video stream, only audio"], id="sound only"),
        pytest.param(
            too_few,
            Reason.DATASET_TOO_SMALL,
            ["2 videos", "1 TooShort (raw/short.mp4 is shorter than one clip", "1 clips of 8 frames", "2 are needed"],
            id="fewer clips than minimumClips",
        ),
    ],
)
def test_bad_input_is_named_and_leaves_nothing_behind(
    tmp_path: Path, prepare: Callable[[Path], None], reason: Reason, words: list[str]
) -> None:
    prepare(tmp_path)
    with pytest.raises(Failure) as failure:
        run(job(minimum_clips=2, maximum_clips_per_video=1000), tmp_path, silent())
    assert failure.value.reason is reason
    assert [word for word in words if word not in failure.value.message] == []
    left = {path.relative_to(tmp_path).as_posix() for path in tmp_path.glob("datasets/**/*") if path.is_file()}
    assert left <= {"datasets/shapes/reports/v1.html"}


def turned_right(data: bytes) -> bytes:
    """The mp4 with a note, as phones write it, to show its pictures turned right by 90 degrees: the matrix of its track header."""
    start = data.index(b"tkhd") + 44
    matrix = struct.pack(">9i", 0, 1 << 16, 0, -1 << 16, 0, 0, 0, 0, 1 << 30)
    return data[:start] + matrix + data[start + len(matrix) :]


class Removing(ProgressReporter):
    """Somebody removes a video while the one before it is being cut."""

    def __init__(self, video: Path) -> None:
        super().__init__(None, 0.0, lambda: 0.0, lambda: datetime(2026, 1, 1, tzinfo=UTC))
        self._video = video

    def report(self, done: int, total: int, metrics: Mapping[str, object], *, final: bool = False) -> None:
        self._video.unlink(missing_ok=True)


def test_a_video_that_is_removed_meanwhile_is_named_and_is_no_failure_of_the_storage(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_video(tmp_path / "raw" / f"{name}.mp4", 8)
    with pytest.raises(Failure, match=r"raw/b.mp4 was removed while the phase ran; upload the video again") as caught:
        run(job(), tmp_path, Removing(tmp_path / "raw/b.mp4"))
    assert caught.value.reason is Reason.VIDEO_MISSING
    assert not list((tmp_path / "datasets").rglob("*.json"))


def test_videos_that_a_phone_has_turned_are_read_upright(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", 4, height=32, width=48)
    lying = list(read_frames(tmp_path / "a.mp4"))
    (tmp_path / "a.mp4").write_bytes(turned_right((tmp_path / "a.mp4").read_bytes()))
    upright = list(read_frames(tmp_path / "a.mp4"))
    assert upright[0].shape == (48, 32, 3)
    for before, after in zip(lying, upright, strict=True):
        np.testing.assert_array_equal(after, np.rot90(before, k=-1))


@pytest.mark.parametrize(("height", "width"), [(32, 32), (64, 32), (32, 64), (16, 16), (97, 33)])
def test_fitting_keeps_the_middle_and_the_proportions(height: int, width: int) -> None:
    """A disc in the middle stays a disc in the middle."""
    rows, columns = np.mgrid[0:height, 0:width] + 0.5
    radius = 0.3 * min(height, width)
    disc = (np.hypot(rows - height / 2, columns - width / 2) < radius).astype(np.uint8) * 255
    fitted = fit(np.repeat(disc[..., None], 3, axis=2), Resolution(height=32, width=32)) > 127
    assert fitted.shape == (32, 32, 3)
    filled = fitted[..., 0]
    assert np.abs(filled.sum(0) - filled.sum(1)).max() <= 2
    assert filled.mean() == pytest.approx(np.pi * 0.3**2, abs=0.03)


def test_fitting_down_averages_instead_of_picking() -> None:
    """A fine chess board becomes grey: without anti-aliasing it would stay black and white."""
    board = (np.indices((256, 256)).sum(axis=0) % 2 * 255).astype(np.uint8)
    fitted = fit(np.repeat(board[..., None], 3, axis=2), Resolution(height=32, width=32))
    assert np.abs(fitted.astype(int) - 127).max() < 20
