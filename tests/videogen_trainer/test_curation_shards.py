"""Webdataset shards as a source, and what is said of bad ones."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from videogen_api.curation import Source
from videogen_api.job import Job
from videogen_api.training_run import Reason
from videogen_models.video import encode_mp4
from videogen_testing.curation import curated, job, silent, write_video
from videogen_trainer.curate import run
from videogen_trainer.curation import shards
from videogen_trainer.curation.rejection import Cause, Rejection
from videogen_trainer.curation.shards import braces
from videogen_trainer.curation.sources import find_videos
from videogen_trainer.curation.video import Video
from videogen_trainer.failure import Failure
from videogen_trainer.progress import ProgressReporter
from videogen_trainer.synthetic import synthetic_clip
from videogen_trainer.video_reading import digest_of, read_frames


def mp4(seed: int = 0, frames: int = 8) -> bytes:
    return encode_mp4(synthetic_clip(seed, seed=9, frames=frames, height=32, width=32).frames, 8)


def pack(path: Path, *members: tuple[str | tarfile.TarInfo, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, data in members:
            member = tarfile.TarInfo(name) if isinstance(name, str) else name
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def sample(key: str, seed: int = 0, caption: str = "a thing") -> list[tuple[str | tarfile.TarInfo, bytes]]:
    return [(f"{key}.mp4", mp4(seed)), (f"{key}.txt", caption.encode())]


def sharded(pattern: str = "*.tar", version: str = "v1", **fields: Any) -> Job:
    wanted = job(version=version, maximum_rejected_percent=60)
    assert wanted.curate
    source = Source(path="raw", shards=pattern, **fields)
    return wanted.model_copy(update={"curate": wanted.curate.model_copy(update={"sources": [source]})})


def found(storage: Path, pattern: str = "*.tar", **fields: Any) -> tuple[list[Video], list[Rejection]]:
    rejected: list[Rejection] = []
    return find_videos([Source(path="raw", shards=pattern, **fields)], storage, rejected.append), rejected


def test_a_version_made_from_shards_has_the_clips_of_one_made_from_the_same_files(tmp_path: Path) -> None:
    members: list[tuple[str | tarfile.TarInfo, bytes]] = []
    for number in range(4):
        write_video(tmp_path / f"raw/{number}.mp4", 8, seed=number, caption=f"thing {number}")
        data = (tmp_path / f"raw/{number}.mp4").read_bytes()
        members += [(f"{number}.mp4", data), (f"{number}.txt", f"thing {number}".encode())]
    pack(tmp_path / "raw/a-0.tar", *members[:4])
    pack(tmp_path / "raw/a-1.tar", *members[4:])
    loose = curated(tmp_path, job(version="loose"))
    packed = curated(tmp_path, sharded("a-{0..1}.tar", "packed"))
    assert [record.source for record in packed.records] == [f"raw/a-{n // 2}.tar/{n}.mp4:0" for n in range(4)]
    for number in range(4):
        one, other = loose.records[number], packed.records[number]
        assert (one.caption, one.split, loose.frames(number).tobytes()) == (other.caption, other.split, packed.frames(number).tobytes())
    assert not [path for path in (tmp_path / "runs").rglob("*") if path.is_file()]  # nothing that was unpacked


def test_a_member_is_read_where_it_lies_and_has_the_digest_of_its_file(tmp_path: Path) -> None:
    write_video(tmp_path / "raw/loose.mp4", 8)
    pack(tmp_path / "raw/a.tar", ("x.txt", b"y"), ("k.mp4", (tmp_path / "raw/loose.mp4").read_bytes()), ("k.txt", b"a thing"))
    ((video,), _) = found(tmp_path)
    assert digest_of(video.path) == digest_of(tmp_path / "raw/loose.mp4")
    one, other = (b"".join(frame.tobytes() for frame in read_frames(path)) for path in (video.path, tmp_path / "raw/loose.mp4"))
    assert one == other


def test_pairs_need_not_be_neighbours_and_folders_are_part_of_the_key(tmp_path: Path) -> None:
    pack(
        tmp_path / "raw/a.tar",
        ("./b/1.txt", b"second"),
        ("a/1.mp4", mp4(1)),
        ("b/1.mp4", mp4(2)),
        ("a/1.cls", b"7"),
        ("a/1.txt", b"first"),
    )
    videos, rejected = found(tmp_path)
    assert [(video.name, video.caption) for video in videos] == [("raw/a.tar/a/1.mp4", "first"), ("raw/a.tar/b/1.mp4", "second")]
    assert rejected == []


def test_json_has_the_columns_of_a_table_and_other_fields_are_ignored(tmp_path: Path) -> None:
    said = [{"start": 0, "end": 1, "text": "hello"}]
    about = {"caption": "from json", "title": "A title", "transcript": said, "category": "flood", "urgency": "high", "fps": 25}
    pack(tmp_path / "raw/a.tar", ("1.mp4", mp4()), ("1.json", json.dumps(about).encode()), *sample("2", 1, "from txt"), ("2.json", b"{}"))
    videos, _ = found(tmp_path, licence="CC0")
    assert [video.caption for video in videos] == ["from json", "from txt"]
    assert (videos[0].category, videos[0].urgency, videos[0].licence) == ("flood", "high", "CC0")
    assert [segment.text for segment in videos[0].transcript] == ["hello"]
    titled, rejected = found(tmp_path, caption_key="title")
    assert [video.caption for video in titled] == ["A title"]
    assert [rejection.cause for rejection in rejected] == [Cause.CAPTION_MISSING]
    assert "give it the field 'title' in its .json" in rejected[0].why


def test_a_caption_in_json_with_half_of_a_character_is_rejected_and_the_others_are_the_version(tmp_path: Path) -> None:
    """JSON can write it; a dataset in UTF-8 cannot hold it."""
    bad = ("2.mp4", mp4(1)), ("2.json", rb'{"caption": "a cat \ud83d"}')
    pack(tmp_path / "raw/a.tar", ("1.mp4", mp4()), ("1.json", rb'{"caption": "a cat \ud83d\ude3a"}'), *bad)
    report = run(sharded(), tmp_path, silent())
    assert (report.datasets[0].clips, report.datasets[0].rejected) == (1, 1)
    assert r"the caption of 'raw/a.tar/2.mp4' has half of a character (\ud83d)" in report.message


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("a.tar", ["a.tar"]),
        ("{b,a}/x.tar", ["b/x.tar", "a/x.tar"]),
        ("s-{08..11}.tar", ["s-08.tar", "s-09.tar", "s-10.tar", "s-11.tar"]),
        ("{a,b}{1..2}.tar", ["a1.tar", "a2.tar", "b1.tar", "b2.tar"]),
    ],
)
def test_braces_spell_names_as_a_shell_does(pattern: str, names: list[str]) -> None:
    assert list(braces(pattern)) == names


def link(name: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, "/etc/passwd"
    return member


@pytest.mark.parametrize(
    ("members", "cause", "words"),
    [
        ([("../../b.mp4", mp4())], Cause.SHARD_INVALID, "'../../b.mp4' is a name that leads out"),
        ([("/etc/b.mp4", mp4())], Cause.SHARD_INVALID, "'/etc/b.mp4' is a name that leads out"),
        ([(link("b.mp4"), b"")], Cause.SHARD_INVALID, "'b.mp4' is a link"),
        ([(link("b.txt", tarfile.LNKTYPE), b"")], Cause.SHARD_INVALID, "'b.txt' is a link"),
        ([("a.mp4", mp4(1))], Cause.SHARD_INVALID, "'a.mp4' is there twice"),
        ([("./a.txt", b"another")], Cause.SHARD_INVALID, "'a.txt' is there twice"),
        ([("a.webm", b"another")], Cause.SHARD_INVALID, "'a.webm' is there twice, or with two videos for one key"),
        ([("b.1.mp4", mp4())], Cause.SHARD_INVALID, "'b.1.mp4' has a dot in its key"),
        ([("b.txt", bytes(5000))], Cause.SHARD_INVALID, "'b.txt' has 5,000 bytes; captions and annotations have at most"),
        ([("b.txt", b"a caption alone")], Cause.VIDEO_MISSING, "raw/a.tar/b has no .mp4 or .webm"),
        ([("b.mp4", mp4())], Cause.CAPTION_MISSING, "raw/a.tar/b.mp4 has no caption; give it a .txt"),
        ([("b.mp4", mp4()), ("b.txt", "Fußball".encode("latin-1"))], Cause.CAPTION_MISSING, "raw/a.tar/b.txt is not UTF-8"),
        ([("b.mp4", mp4()), ("b.txt", "ball".encode("utf-16-le"))], Cause.CAPTION_MISSING, "raw/a.tar/b.txt has zero bytes, as UTF-16"),
        ([("b.mp4", mp4()), ("b.json", b"{")], Cause.TABLE_INVALID, "raw/a.tar/b.json is no JSON"),
        ([("b.mp4", mp4()), ("b.json", b'{"caption": 7}')], Cause.TABLE_INVALID, "raw/a.tar/b.json: caption: .*string"),
    ],
)
def test_a_bad_member_is_rejected_by_name_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, members: list[tuple[str | tarfile.TarInfo, bytes]], cause: Cause, words: str
) -> None:
    monkeypatch.setattr(shards, "TEXT_BYTES", 4096)
    pack(tmp_path / "raw/a.tar", *sample("a"), *members, *sample("c", 2))
    videos, rejected = found(tmp_path)
    assert [video.name for video in videos] == ["raw/a.tar/a.mp4", "raw/a.tar/c.mp4"]
    assert [rejection.cause for rejection in rejected] == [cause]
    with pytest.raises(ValueError, match=words):
        raise ValueError(rejected[0].why)


def cut(data: bytes) -> bytes:
    return data[: data.index(b"c.mp4") + 512 + 300]


def cut_in_a_header(data: bytes) -> bytes:
    return data[: data.index(b"c.mp4") + 100]


def without_end(data: bytes) -> bytes:
    return data.rstrip(b"\0").ljust(-(-len(data.rstrip(b"\0")) // 512) * 512, b"\0")


def damaged_header(data: bytes) -> bytes:
    where = data.index(b"c.mp4")
    return data[:where] + b"X" + data[where + 1 :]


def endless_header(data: bytes) -> bytes:
    """A name of 8 GB, as GNU tar would announce it."""
    member = tarfile.TarInfo("././@LongLink")
    member.type, member.size = tarfile.GNUTYPE_LONGNAME, 8_000_000_000
    where = data.index(b"c.mp4")
    return data[:where] + member.tobuf(tarfile.GNU_FORMAT)[:512] + data[where:]


@pytest.mark.parametrize("harm", [cut, cut_in_a_header, without_end, damaged_header, endless_header])
def test_of_a_damaged_shard_what_stands_before_the_damage_is_kept(tmp_path: Path, harm: Callable[[bytes], bytes]) -> None:
    shard = pack(tmp_path / "raw/a.tar", *sample("a"), *sample("b", 1), *sample("c", 2))
    shard.write_bytes(harm(shard.read_bytes()))
    pack(tmp_path / "raw/b.tar", *sample("a", 3))
    dataset = curated(tmp_path, sharded())
    kept = [record.source for record in dataset.records]
    assert kept[:2] + kept[-1:] == ["raw/a.tar/a.mp4:0", "raw/a.tar/b.mp4:0", "raw/b.tar/a.mp4:0"]
    page = (tmp_path / "datasets/shapes/reports/v1.html").read_text()
    assert "ShardInvalid" in page and "raw/a.tar is no whole tar file" in page


@pytest.mark.parametrize("data", [b"", b"no tar file" * 100, b"\x1f\x8b" + bytes(600)], ids=["empty", "text", "gzip"])
def test_what_is_no_tar_file_is_named_and_the_other_shards_go_on(tmp_path: Path, data: bytes) -> None:
    pack(tmp_path / "raw/a.tar", *sample("a"))
    (tmp_path / "raw/b.tar").write_bytes(data)
    videos, rejected = found(tmp_path)
    assert [video.name for video in videos] == ["raw/a.tar/a.mp4"]
    assert [rejection.cause for rejection in rejected] == [Cause.SHARD_INVALID]
    assert rejected[0].why.startswith("raw/b.tar is no whole tar file")


@pytest.mark.parametrize(
    ("pattern", "reason", "words"),
    [
        ("*.tar", Reason.VIDEO_MISSING, r"has no file \*.tar; upload the shards"),
        ("{0..1}/{a,..}/x.tar", Reason.INVALID_JOB, "lead out of raw"),
        ("part**.tar", Reason.INVALID_JOB, r"have \*\*; write one \*"),
        ("{0..999999999}.tar", Reason.INVALID_JOB, "more than 100,000 names"),
    ],
)
def test_a_pattern_that_cannot_be_followed_is_told(tmp_path: Path, pattern: str, reason: Reason, words: str) -> None:
    (tmp_path / "raw").mkdir()
    with pytest.raises(Failure, match=words) as caught:
        found(tmp_path, pattern)
    assert caught.value.reason is reason


def test_a_shard_that_braces_name_and_that_is_not_there_is_counted(tmp_path: Path) -> None:
    pack(tmp_path / "raw/s-0.tar", *sample("a"))
    videos, rejected = found(tmp_path, "s-{0..1}.tar")
    assert len(videos) == 1
    assert [(rejection.cause, rejection.why) for rejection in rejected] == [
        (Cause.VIDEO_MISSING, "there is no shard raw/s-1.tar; upload it or correct the source's shards")
    ]


class Vanishing(ProgressReporter):
    """Somebody harms a file while the first video is being looked at."""

    def __init__(self, harm: Callable[[], object]) -> None:
        super().__init__(None, 0.0, lambda: 0.0, lambda: datetime(2026, 1, 1, tzinfo=UTC))
        self._harm = harm

    def report(self, done: int, total: int, metrics: Mapping[str, object], *, final: bool = False) -> None:
        if done == 1:
            self._harm()


def shorten(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:2000])


@pytest.mark.parametrize(("harm", "cause"), [(Path.unlink, "VideoMissing"), (shorten, "VideoUnreadable")])
def test_a_shard_that_goes_while_the_phase_runs_is_named_and_the_others_are_the_version(
    tmp_path: Path, harm: Callable[[Path], None], cause: str
) -> None:
    for number in range(4):
        pack(tmp_path / f"raw/{number}.tar", *sample("a", number))
    shutil.copy(tmp_path / "raw/3.tar", tmp_path / "raw/9.tar")
    report = run(sharded(), tmp_path, Vanishing(lambda: harm(tmp_path / "raw/2.tar")))
    assert (report.datasets[0].clips, report.datasets[0].rejected) == (4, 1)
    assert f"rejected 1 {cause} (" in report.message and "raw/2.tar/a.mp4" in report.message


def test_a_shard_is_not_read_into_memory(tmp_path: Path) -> None:
    """A member of 3 GB that is a hole in the file, so that it costs no disk; its video cannot be read, the one after it can."""
    with (tmp_path / "huge.tar").open("wb") as file:
        member = tarfile.TarInfo("a.mp4")
        member.size = 3_000_000_000 // 512 * 512
        file.write(member.tobuf(tarfile.GNU_FORMAT))
        file.seek(member.size, io.SEEK_CUR)
        pack(tmp_path / "rest.tar", ("a.txt", b"a thing"), *sample("b"))
        file.write((tmp_path / "rest.tar").read_bytes())
    (tmp_path / "raw").mkdir()
    (tmp_path / "huge.tar").rename(tmp_path / "raw/a.tar")
    videos, rejected = found(tmp_path)
    assert [video.name for video in videos] == ["raw/a.tar/a.mp4", "raw/a.tar/b.mp4"]
    assert rejected == []
    with pytest.raises(Failure, match=r"raw/a.tar/a.mp4 cannot be read as video"):
        next(iter(read_frames(videos[0].path)))
    assert len(list(read_frames(videos[1].path))) == 8
