"""What filters keep out, where scenes are cut, and what a version says of it all."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from fractions import Fraction
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from videogen_api.curation import (
    CaptionFilter,
    DarknessFilter,
    DuplicateFilter,
    Filters,
    LengthFilter,
    MotionFilter,
    ResolutionFilter,
    SceneCuts,
    Source,
)
from videogen_api.job import Job
from videogen_api.training_run import DataReference, Reason, Split
from videogen_models.video import encode_mp4
from videogen_testing.curation import curated, job, silent, write_video
from videogen_trainer.curate import run
from videogen_trainer.curation.duplicates import BITS, Duplicates, Look, bits_of, difference_percent, look_of
from videogen_trainer.curation.filters import brightness_of, motion_of
from videogen_trainer.dataset import open_dataset
from videogen_trainer.failure import Failure
from videogen_trainer.synthetic import synthetic_clip
from videogen_trainer.video_reading import seconds_of

Frames = NDArray[np.uint8]


MOVING = [index for index in range(108) if synthetic_clip(index, seed=9, frames=2, height=8, width=8).motion < 4]
RED = next(index for index in MOVING if synthetic_clip(index, seed=9, frames=2, height=8, width=8).colour == 0)


def drawn(number: int, frames: int = 8, side: int = 32) -> Frames:
    """A clip of something that moves on a ground that is not dark."""
    return synthetic_clip(MOVING[number], seed=9, frames=frames, height=side, width=side).frames // 2 + 40


def put(path: Path, frames: Frames, caption: str = "a thing that moves") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode_mp4(frames, 8))
    path.with_suffix(".txt").write_text(caption, encoding="utf-8")


def still(index: int) -> Frames:
    return np.repeat(drawn(index)[:1], 8, axis=0)


@pytest.mark.parametrize(
    ("filters", "frames", "caption", "cause"),
    [
        (Filters(darkness=DarknessFilter()), drawn(1) // 32, "a thing that moves", "Darkness"),
        (Filters(motion=MotionFilter()), still(1), "a thing that moves", "Motion"),
        (Filters(caption=CaptionFilter()), drawn(1), "a thing", "CaptionLength"),
        (Filters(caption=CaptionFilter(maximum_characters=20)), drawn(1), "a thing that moves and moves", "CaptionLength"),
        (Filters(resolution=ResolutionFilter(minimum_shorter_side=32)), drawn(1, side=24), "a thing that moves", "Resolution"),
        (Filters(length=LengthFilter(minimum_seconds=1, maximum_seconds=1)), drawn(1, frames=9), "a thing that moves", "Length"),
        (Filters(duplicates=DuplicateFilter()), (drawn(0, side=128) * 0.9).astype(np.uint8), "another caption", "Duplicate"),
    ],
)
def test_a_filter_keeps_out_one_clip_with_its_cause_and_off_keeps_it(
    tmp_path: Path, filters: Filters, frames: Frames, caption: str, cause: str
) -> None:
    put(tmp_path / "raw/a.mp4", drawn(0, side=128))
    put(tmp_path / "raw/b.mp4", frames, caption)
    put(tmp_path / "raw/c.mp4", drawn(2))
    filtered = run(job(version="on", filters=filters, maximum_rejected_percent=40), tmp_path, silent())
    assert (filtered.datasets[0].clips, filtered.datasets[0].rejected) == (2, 1)
    assert f"rejected 1 {cause} (" in filtered.message
    assert run(job(version="off"), tmp_path, silent()).datasets[0].clips == 3


def test_motion_and_brightness_are_mean_values_of_255() -> None:
    frames = np.zeros((3, 4, 4, 3), np.uint8)
    frames[1], frames[2] = 10, 5
    assert motion_of(frames) == 7.5
    assert brightness_of(frames) == 5.0


def test_the_hash_forgives_scaling_noise_and_light_but_not_another_motion_or_place() -> None:
    clip = synthetic_clip(RED, seed=9, frames=8, height=64, width=64).frames
    own = look_of(clip).hash
    noise = np.random.default_rng(0).normal(0, 2, clip.shape)

    def difference(other: Frames) -> float:
        return float(difference_percent(look_of(other).hash[None], own)[0])

    assert own.size * 64 == BITS
    assert difference(np.clip(clip + noise, 0, 255).astype(np.uint8)) <= 12
    assert difference((clip * 0.85).astype(np.uint8)) <= 12
    assert difference(np.repeat(np.repeat(clip, 2, axis=1), 2, axis=2)) <= 12
    assert difference(np.rot90(clip, axes=(1, 2)).copy()) > 24
    assert difference(clip[::-1]) > 24


def grey(own: NDArray[np.uint64]) -> Look:
    return Look(own, np.full(72, 128, np.uint8))


def plain(kind: str, seed: int = 0, larger: int = 1) -> Frames:
    """Eight frames without upright edges, with the grain of a camera."""
    below = np.linspace(0, 1, 48)[:, None, None]
    red, green, blue = np.array([[220, 60, 60]]), np.array([[60, 200, 60]]), np.array([[70, 110, 190]])
    colours = {
        "fog": np.array([[200, 200, 205]]),
        "darker fog": np.array([[185, 185, 190]]),
        "sky": np.array([[110, 170, 235]]) * (1 - 0.2 * below),
        "sky upside down": np.array([[110, 170, 235]]) * (0.8 + 0.2 * below),
        "sea": np.where(below < 0.4, np.array([[150, 190, 230]]), np.array([[20, 70, 100]])),
        "sea from above": np.array([[20, 70, 100]]),
        "night": np.array([[2, 2, 6]]),
        "red": red,
        "green": green,
        "blue": blue,
    }
    picture = np.broadcast_to(colours[kind], (48, 48, 3)).repeat(larger, axis=0).repeat(larger, axis=1)
    dusk = np.linspace(1, 0.6, 8)[:, None, None, None] if kind == "blue" else 1.0
    grain = np.random.default_rng(seed).normal(0, 3, (8, *picture.shape))
    return np.clip(picture * dusk + grain, 0, 255).astype(np.uint8)


PLAIN = ("fog", "darker fog", "sky", "sky upside down", "sea", "sea from above", "night", "red", "green", "blue")


def test_different_clips_without_edges_are_kept_and_equal_ones_are_duplicates(tmp_path: Path) -> None:
    """Each kind at once, then each again: with other grain, larger and encoded once more."""
    for kind in PLAIN:
        put(tmp_path / f"raw/a {kind}.mp4", plain(kind))
        put(tmp_path / f"raw/b {kind}.mp4", plain(kind, seed=1, larger=2))
    wanted = job(filters=Filters(duplicates=DuplicateFilter()), maximum_rejected_percent=50, held_out_percent=0)
    report = run(wanted, tmp_path, silent())
    kept = {record.source for record in open_dataset(tmp_path, DataReference(dataset="shapes", version="v1")).records}
    assert kept == {f"raw/a {kind}.mp4:0" for kind in PLAIN}
    assert report.datasets[0].rejected == len(PLAIN)


def test_a_clip_without_edges_that_darkens_is_not_one_that_does_not() -> None:
    kept = Duplicates(12)
    kept.keep(look_of(plain("blue")), "darkens")
    assert kept.like(look_of(plain("blue")[::-1].copy())) is None
    assert kept.like(look_of(plain("blue", seed=2))) == ("darkens", 0.0)


def test_the_nearest_kept_clip_is_found_among_many() -> None:
    random = np.random.default_rng(0)
    hashes = random.integers(0, 1 << 63, (3000, BITS // 64), dtype=np.uint64)
    kept = Duplicates(10)
    for number, own in enumerate(hashes):
        kept.keep(grey(own), str(number))
    near = hashes[2500].copy()
    near[:3] ^= np.uint64(0b101)
    found = kept.like(grey(near))
    assert found is not None
    assert found[0] == "2500"
    assert found[1] == pytest.approx(100 * 6 / np.unpackbits((near | hashes[2500]).view(np.uint8)).sum())
    assert kept.like(grey(random.integers(0, 1 << 63, BITS // 64, dtype=np.uint64))) is None


def test_bits_are_counted_right() -> None:
    hashes = np.random.default_rng(2).integers(0, 1 << 64, (50, 9), dtype=np.uint64)
    hashes[0], hashes[1] = 0, (1 << 64) - 1
    assert bits_of(hashes).tolist() == [sum(int(word).bit_count() for word in own) for own in hashes]


def test_leaving_out_hashes_of_other_sizes_changes_no_answer() -> None:
    """Hashes of very different numbers of bits, near and far ones, against a comparison with every one of them."""
    random = np.random.default_rng(1)
    bits = random.random((400, BITS)) < random.uniform(0.01, 0.6, (400, 1))
    bits[200:] = bits[:200] ^ (random.random((200, BITS)) < random.uniform(0, 0.1, (200, 1)))
    hashes = np.packbits(bits, axis=1).view(np.uint64)
    kept = Duplicates(12)
    for number, own in enumerate(hashes[:200]):
        kept.keep(grey(own), str(number))
    expected = [difference_percent(hashes[:200], own) for own in hashes[200:]]
    answers = [kept.like(grey(own)) for own in hashes[200:]]
    assert answers == [(str(percents.argmin()), percents.min()) if percents.min() <= 12 else None for percents in expected]
    assert 20 < sum(answer is None for answer in answers) < 180


def test_no_clip_reaches_over_a_cut_between_scenes(tmp_path: Path) -> None:
    bright = np.clip(drawn(3, frames=20).astype(int) + 100, 0, 255).astype(np.uint8)
    put(tmp_path / "raw/a.mp4", np.concatenate([drawn(1, frames=13), bright]))
    starts = {
        name: [record.source.split(":")[1] for record in curated(tmp_path, job(version=name, held_out_percent=0, scene_cuts=cuts)).records]
        for name, cuts in {"off": None, "on": SceneCuts()}.items()
    }
    assert starts == {"off": ["0", "8", "16", "24"], "on": ["0", "13", "21"]}


def write_uneven(path: Path, steps: list[int]) -> None:
    """A video whose frames are that many thousandths of a second apart."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.height, stream.width, stream.pix_fmt, stream.time_base = 32, 32, "yuv420p", Fraction(1, 1000)
        stream.codec_context.time_base = Fraction(1, 1000)
        for picture, time in zip(drawn(4, frames=len(steps)), np.cumsum(steps), strict=True):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = int(time), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    path.with_suffix(".txt").write_text("a thing that moves")


def test_clips_of_uneven_frame_times_are_rejected_and_jitter_is_not(tmp_path: Path) -> None:
    write_uneven(tmp_path / "raw/a.mp4", [33, 34, 33, 33, 34, 33, 34, 33] + [33, 33, 200, 33, 33, 33, 33, 33] + [33] * 8)
    report = run(job(held_out_percent=0, maximum_rejected_percent=40), tmp_path, silent())
    assert (report.datasets[0].clips, report.datasets[0].rejected) == (2, 1)
    assert "1 VariableFrameRate (raw/a.mp4:8 has frames at uneven times, 0.033 s to 0.200 s apart" in report.message
    assert seconds_of(tmp_path / "raw/a.mp4") == pytest.approx(0.967, abs=0.05)


def many(storage: Path, good: int, dark: int) -> None:
    for number in range(good + dark):
        put(storage / f"raw/{number:02}.mp4", drawn(number) // (1 if number < good else 64), f'<b>&"clip"</b> {number}')


DARK: dict[str, Any] = {"filters": Filters(darkness=DarknessFilter())}


def test_a_version_with_too_many_rejections_is_not_published(tmp_path: Path) -> None:
    many(tmp_path, 3, 2)
    with pytest.raises(
        Failure,
        match=r"40.0 % were rejected, 39 are allowed \(see datasets/shapes/reports/v1.html\); rejected 2 of 5: 2 Darkness \(raw/03.mp4:0 has",
    ) as caught:
        run(job(maximum_rejected_percent=39, **DARK), tmp_path, silent())
    assert caught.value.reason is Reason.DATASET_REJECTED
    assert [path.name for path in (tmp_path / "datasets").rglob("*") if path.is_file()] == ["v1.html"]
    assert run(job(maximum_rejected_percent=40, **DARK), tmp_path, silent()).datasets[0].clips == 3


def test_a_rejected_version_gives_way_to_its_parent_and_says_so(tmp_path: Path) -> None:
    many(tmp_path, 3, 0)
    parent = run(job(version="v1", **DARK), tmp_path, silent()).datasets[0]
    many(tmp_path, 3, 2)
    report = run(job(version="v2", parent="v1", **DARK), tmp_path, silent())
    used = report.datasets[0]
    assert report.reason is Reason.COMPLETED
    assert (used.version, used.digest, used.in_place_of, used.rejected) == ("v1", parent.digest, "v2", 2)
    assert "version v2 was rejected (DatasetRejected: curate.maximumRejectedPercent: 40.0 %" in report.message
    assert "its parent v1 is used" in report.message
    with pytest.raises(Failure, match="has no version 'v2'; the storage has v1"):
        open_dataset(tmp_path, DataReference(dataset="shapes", version="v2"))


def no_folder(storage: Path) -> None:
    shutil.rmtree(storage / "raw")


def no_videos(storage: Path) -> None:
    for path in (storage / "raw").glob("*.mp4"):
        path.unlink()


def no_header(storage: Path) -> None:
    (storage / "raw/videos.csv").write_text("file,text\n00.mp4,a thing\n")


@pytest.mark.parametrize(
    ("harm", "source", "reason", "words"),
    [
        (no_folder, Source(path="raw"), Reason.VIDEO_MISSING, "there is no folder"),
        (no_videos, Source(path="raw"), Reason.VIDEO_MISSING, "raw has no .mp4 or .webm file"),
        (no_videos, Source(path="raw", table="videos.csv"), Reason.VIDEO_MISSING, "there is no table"),
        (no_videos, Source(path="raw", shards="*.tar"), Reason.VIDEO_MISSING, r"raw has no file \*.tar"),
        (no_header, Source(path="raw", table="videos.csv"), Reason.TABLE_INVALID, "videos.csv:1 has the column 'file'"),
    ],
)
def test_a_version_with_a_source_that_cannot_be_read_gives_way_to_its_parent_and_says_why(
    tmp_path: Path, harm: Callable[[Path], None], source: Source, reason: Reason, words: str
) -> None:
    many(tmp_path, 3, 0)
    parent = run(job(version="v1"), tmp_path, silent()).datasets[0]
    harm(tmp_path)
    wanted = {parent_name: from_source(job(version="v2", parent=parent_name), source) for parent_name in ("v1", None)}
    report = run(wanted["v1"], tmp_path, silent())
    assert report.datasets == [parent.model_copy(update={"in_place_of": "v2", "rejected": 0})]
    assert re.search(rf"version v2 was rejected \({reason}: .*{words}.*; its parent v1 is used", report.message)
    page = (tmp_path / "datasets/shapes/reports/v2.html").read_text()
    assert re.search(words, unescape(page)) and str(tmp_path) not in page
    with pytest.raises(Failure, match=words) as caught:
        run(wanted[None], tmp_path, silent())
    assert caught.value.reason is reason


def from_source(wanted: Job, source: Source) -> Job:
    assert wanted.curate
    return wanted.model_copy(update={"curate": wanted.curate.model_copy(update={"sources": [source]})})


def test_a_job_that_cannot_be_followed_has_no_parent_to_fall_back_to(tmp_path: Path) -> None:
    many(tmp_path, 3, 0)
    run(job(version="v1"), tmp_path, silent())
    with pytest.raises(Failure, match="lead out of raw") as caught:
        run(from_source(job(version="v2", parent="v1"), Source(path="raw", shards="a/../../b.tar")), tmp_path, silent())
    assert caught.value.reason is Reason.INVALID_JOB


def test_a_parent_of_another_shape_does_not_stand_in(tmp_path: Path) -> None:
    many(tmp_path, 3, 0)
    run(job(version="v1", frames=4), tmp_path, silent())
    with pytest.raises(Failure, match="its parent v1 was made for other frames") as caught:
        run(job(version="v2", parent="v1", minimum_clips=9), tmp_path, silent())
    assert caught.value.reason is Reason.DATASET_TOO_SMALL


def test_a_parent_that_does_not_exist_is_told_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(Failure, match="has no version 'v0'") as caught:
        run(job(parent="v0"), tmp_path, silent())
    assert caught.value.reason is Reason.DATASET_NOT_FOUND


def test_the_manifest_has_parent_and_statistics_and_no_word_of_what_was_rejected(tmp_path: Path) -> None:
    many(tmp_path, 4, 0)
    first = run(job(version="v1", **DARK), tmp_path, silent()).datasets[0]
    second = curated(tmp_path, job(version="v2", parent="v1", **DARK))
    assert second.manifest.parent == first.digest
    statistics = second.manifest.statistics
    assert statistics.train + statistics.held_out == second.manifest.clips == 4
    assert statistics.licences == {"": 4}
    assert statistics.mean_motion == round(sum(record.motion or 0 for record in second.records) / 4, 3)
    assert statistics.seconds == pytest.approx(4 * 7 / 8)
    many(tmp_path, 4, 1)
    assert run(job(version="v3", **DARK), tmp_path, silent()).datasets[0].digest == first.digest


def test_a_clip_stays_on_its_side_when_filters_and_videos_change(tmp_path: Path) -> None:
    for number in range(10):
        write_video(tmp_path / f"raw/{number}.mp4", 8, seed=number)
    before = curated(tmp_path, job(version="v1", held_out_percent=50))
    for number in range(10, 14):
        write_video(tmp_path / f"raw/{number}.mp4", 8, seed=number)
    wanted = Filters(motion=MotionFilter(minimum="0.8"), duplicates=DuplicateFilter())
    after = curated(tmp_path, job(version="v2", held_out_percent=50, filters=wanted, scene_cuts=SceneCuts(), maximum_rejected_percent=90))
    old, new = ({record.source: record.split for record in dataset.records} for dataset in (before, after))
    both = old.keys() & new.keys()
    assert 3 <= len(both) < 10
    assert {source: old[source] for source in both} == {source: new[source] for source in both}
    assert set(old.values()) == {Split.TRAIN, Split.HELD_OUT}


class Page(HTMLParser):
    """What a browser would take of the page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.loaded: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.loaded += [value or "" for name, value in attrs if name in {"src", "href", "xlink:href", "action", "data"}]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_report_is_one_page_with_counts_bars_and_pictures_that_loads_nothing_else(tmp_path: Path) -> None:
    many(tmp_path, 8, 2)
    run(job(**DARK), tmp_path, silent())
    text = (tmp_path / "datasets/shapes/reports/v1.html").read_text(encoding="utf-8")
    page = Page(text)
    assert len(page.loaded) == 6 + 2  # six examples that were kept, both that were rejected
    assert all(source.startswith("data:image/jpeg;base64,") for source in page.loaded)
    assert not {"script", "link", "iframe", "b"} & set(page.tags)
    assert "url(" not in text and "@import" not in text
    assert page.tags.count("svg") == 2
    assert '<b>&"clip"</b> 8' in page.text and "Rejected: Darkness (2)" in page.text
    assert re.search(r"Rejected: Darkness\s*2", page.text)


def test_the_page_shows_clips_of_as_many_videos_as_it_can_and_names_files_below_the_storage(tmp_path: Path) -> None:
    for name, frames in {"a": 40, "b": 40, "c": 8, "d": 8}.items():
        write_video(tmp_path / f"raw/{name}.mp4", frames)
    (tmp_path / "raw/d.mp4").write_bytes(b"no video")
    run(job(held_out_percent=0, maximum_rejected_percent=50), tmp_path, silent())
    text = (tmp_path / "datasets/shapes/reports/v1.html").read_text(encoding="utf-8")
    kept = re.findall(r"<strong>(.*?)</strong>", text)[:6]
    assert kept == ["raw/a.mp4:0", "raw/b.mp4:0", "raw/c.mp4:0", "raw/a.mp4:8", "raw/a.mp4:16", "raw/a.mp4:24"]
    assert "raw/d.mp4 cannot be read as video: Invalid data found" in text
    assert str(tmp_path) not in text


def test_the_same_videos_give_the_same_bytes_of_version_and_report(tmp_path: Path) -> None:
    wanted = Filters(motion=MotionFilter(), duplicates=DuplicateFilter(), darkness=DarknessFilter())
    for storage in (tmp_path / "one", tmp_path / "two"):
        many(storage, 6, 1)
        run(job(filters=wanted, scene_cuts=SceneCuts(), maximum_rejected_percent=90), storage, silent())
    one, two = (
        {
            path.relative_to(tmp_path / name).as_posix(): path.read_bytes()
            for path in (tmp_path / name / "datasets").rglob("*")
            if path.is_file()
        }
        for name in ("one", "two")
    )
    assert one == two
    assert len(one) == 5
