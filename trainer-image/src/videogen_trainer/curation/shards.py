"""Webdataset shards: uncompressed tar files whose members belong together by what stands before the first dot of their names.

`key.mp4` or `key.webm` is a video, `key.txt` its caption, and `key.json` an object with the columns of a table's row (other
fields are ignored). Layout: github.com/webdataset/webdataset, README, "WebDataset Format"; unlike there, the members of a sample
need not be neighbours. A shard is read once for its headers, captions and annotations; a video is read where it lies, so nothing
is unpacked and no name in a shard is ever a path of the file system.
"""

from __future__ import annotations

import io
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any

from videogen_api.curation import Source
from videogen_api.training_run import Reason
from videogen_trainer.curation.rejection import Cause, Rejected, Rejection
from videogen_trainer.curation.video import (
    SUFFIXES,
    TEXT_BYTES,
    Row,
    Video,
    caption_of,
    json_object,
    name_of,
    plain_file,
    row_of,
    video_of,
)
from videogen_trainer.failure import Failure
from videogen_trainer.report import shorten
from videogen_trainer.video_reading import Member

SHARDS = 100_000  # that the braces of one source may spell
_VIDEO, _TEXT = tuple(suffix.removeprefix(".") for suffix in SUFFIXES), ("txt", "json")
_BLOCK = tarfile.BLOCKSIZE
_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d{1,9})\.\.(\d{1,9})")

Found = Iterator[tuple[Path, Video | Rejection]]


@dataclass(slots=True)
class _Sample:
    """What a shard has under one key."""

    video: Member | None = None
    texts: dict[str, bytes] = field(default_factory=dict)


@dataclass(slots=True)
class _Contents:
    """A shard's samples by key, and what cannot be used of it."""

    samples: dict[str, _Sample] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def of_shards(folder: Path, source: Source, storage: Path) -> Found:
    """Videos of all shards of a source, each with a path of its own below its shard; a shard without end is read up to there.

    Raises Failure: VideoMissing if there is no shard, InvalidJob if the pattern leads out of the folder or spells too many names.
    """
    assert source.shards is not None
    shards = _spelled(folder, source.shards)
    if not shards:
        said = f"curate.sources: {folder} has no file {source.shards}; upload the shards or correct the pattern"
        raise Failure(Reason.VIDEO_MISSING, said)
    for shard in shards:
        yield from _of_shard(shard, storage, source)


def _spelled(folder: Path, pattern: str) -> list[Path]:
    """Shards in order. Names without * and ? are taken whether they exist or not."""
    found: set[Path] = set()
    names = list(islice(braces(pattern), SHARDS + 1))
    if len(names) > SHARDS:
        raise Failure(Reason.INVALID_JOB, f"curate.sources: shards {pattern!r} are more than {SHARDS:,} names; make several sources")
    for name in names:
        if ".." in PurePosixPath(name).parts or name.startswith("/"):
            raise Failure(Reason.INVALID_JOB, f"curate.sources: shards {pattern!r} lead out of {folder.name}; name files below it")
        if "**" in name:
            raise Failure(Reason.INVALID_JOB, f"curate.sources: shards {pattern!r} have **; write one *, and name each folder")
        found |= set(folder.glob(name)) if set("*?") & set(name) else {folder / name}
    return sorted(found)


def braces(pattern: str) -> Iterator[str]:
    """Names that a pattern with {a,b} and {000..127} spells, as a shell does; numbers keep the width of the first one."""
    if not (group := _BRACES.search(pattern)):
        yield pattern
        return
    for choice in _choices(group[1]):
        for rest in braces(pattern[group.end() :]):
            yield pattern[: group.start()] + choice + rest


def _choices(inside: str) -> Iterator[str]:
    if not (ends := _RANGE.fullmatch(inside)):
        yield from inside.split(",")
        return
    width = len(ends[1]) if ends[1].startswith("0") else 0
    for number in range(int(ends[1]), int(ends[2]) + 1):
        yield f"{number:0{width}}"


def _of_shard(shard: Path, storage: Path, source: Source) -> Found:
    name = name_of(shard, storage)
    try:
        contents = _contents(shard, storage)
    except FileNotFoundError:
        said = f"there is no shard {name}; upload it or correct the source's shards"
        yield shard, Rejection(cause=Cause.VIDEO_MISSING, source=name, why=said)
        return
    for number, problem in enumerate(contents.problems):
        yield shard / f"\0{number}", Rejection(cause=Cause.SHARD_INVALID, source=name, why=problem)
    for key, sample in contents.samples.items():
        path = shard / (sample.video.name if sample.video else key)
        try:
            yield path, _video(sample, f"{name}/{_shown(key)}", source)
        except Rejected as rejected:
            yield path, Rejection(cause=rejected.cause, source=f"{name}/{_shown(key)}", why=rejected.why)


def _video(sample: _Sample, name: str, source: Source) -> Video:
    if sample.video is None:
        raise Rejected(Cause.VIDEO_MISSING, f"{name} has no {' or '.join(SUFFIXES)} file; pack the video, or leave its caption out")
    shown = f"{name}{PurePosixPath(sample.video.name).suffix}"
    described = _described(sample, name)
    told = described.get(source.caption_key or "caption")
    if source.caption_key is None and "txt" in sample.texts:
        told = caption_of(sample.texts["txt"], f"{name}.txt")
    if told is None:
        wanted = f"the field {source.caption_key!r} in its .json" if source.caption_key else 'a .txt, or the field "caption" in its .json'
        raise Rejected(Cause.CAPTION_MISSING, f"{shown} has no caption; give it {wanted}")
    row = {column: described[column] for column in Row.model_fields if described.get(column) is not None}
    try:
        return video_of(row_of(row | {"path": shown, "caption": told}), sample.video, shown, source.licence)
    except Rejected as rejected:
        raise Rejected(rejected.cause, f"{name}.json: {rejected.why}" if rejected.cause is Cause.TABLE_INVALID else rejected.why) from None


def _described(sample: _Sample, name: str) -> dict[str, Any]:
    if "json" not in sample.texts:
        return {}
    described = json_object(sample.texts["json"], f"{name}.json")
    if isinstance(described, ValueError):
        raise Rejected(Cause.TABLE_INVALID, str(described)) from described
    return described


class _Headers(io.FileIO):
    """A shard as tarfile sees it. A header that says it goes on for gigabytes shall not be read into memory."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or not 0 <= size <= TEXT_BYTES:
            raise tarfile.ReadError(f"a header of {size:,} bytes")
        return super().read(size) or b""


def _contents(shard: Path, storage: Path) -> _Contents:
    """Everything but the videos themselves, which are left where they are. Raises FileNotFoundError, also if it goes meanwhile."""
    contents, name = _Contents(), name_of(shard, storage)
    try:
        with _Headers(plain_file(shard, storage)) as file, tarfile.open(fileobj=file, mode="r:") as archive:
            while member := archive.next():
                archive.members = []  # type: ignore[attr-defined]  # they would grow with the shard
                _check_onward(archive, member)
                _take(contents, archive, member, shard, name)
            _check_end(file, archive)
    except FileNotFoundError:
        raise
    except PermissionError:
        contents.problems.append(f"{name} may not be read by the trainer's user; give it read permission for all")
    except OSError as error:  # of the volume
        said = f"{name} cannot be read after {len(contents.samples):,} samples: {error.strerror or error}; upload it again"
        contents.problems.append(said)
    except (tarfile.TarError, ValueError, OverflowError, EOFError, RecursionError) as error:
        where = f"after {len(contents.samples):,} samples" if contents.samples else "at its start"
        said = f"{name} is no whole tar file: {shorten(str(error), 120)} {where}; pack and upload it again, without compression"
        contents.problems.append(said)
    return contents


def _check_onward(archive: tarfile.TarFile, member: tarfile.TarInfo) -> None:
    """A size below zero leads back to headers that were read, again and again; not every Python refuses it (CVE-2025-8194)."""
    if member.size < 0 or archive.offset < member.offset_data:
        raise tarfile.ReadError("a member with a size below zero")


def _check_end(file: io.FileIO, archive: tarfile.TarFile) -> None:
    """tarfile ends without a word at the first header that it cannot read; a whole tar file ends with a block of zeros."""
    file.seek(archive.offset)
    if (block := file.read(_BLOCK)) != bytes(_BLOCK):
        raise tarfile.ReadError("a damaged header" if len(block) == _BLOCK else "no end mark, it was cut off")


def _take(contents: _Contents, archive: tarfile.TarFile, member: tarfile.TarInfo, shard: Path, name: str) -> None:
    path = PurePosixPath(member.name)
    if member.isdir() or path.name.startswith("."):
        return
    stem, _, kind = path.name.partition(".")
    key, kind = str(path.with_name(stem)), kind.lower()
    if problem := _problem(contents, member, key, kind, shard.stat().st_size):
        contents.problems.append(f"{name}: {shorten(repr(_shown(str(path))), 200)} {problem}")
    elif kind in _VIDEO:
        video = Member(shard, member.offset_data, member.size, str(path))
        contents.samples.setdefault(key, _Sample()).video = video
    elif kind in _TEXT:
        text = archive.extractfile(member)
        assert text is not None, "a regular file"
        contents.samples.setdefault(key, _Sample()).texts[kind] = text.read()


def _shown(name: str) -> str:
    """A name that every text can hold: bytes that are no UTF-8 are replaced."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _problem(contents: _Contents, member: tarfile.TarInfo, key: str, kind: str, size: int) -> str:
    """Why a member cannot be used; nothing for members that are good or of no interest."""
    known = contents.samples.get(key)
    if not kind.endswith((*_VIDEO, *_TEXT)):
        return ""
    if not member.isreg() or member.issparse():
        return "is a link, a sparse file or no file; pack plain files"
    if kind not in (*_VIDEO, *_TEXT):
        return "has a dot in its key; the key ends at the first dot of the name"
    if ".." in PurePosixPath(member.name).parts or member.name.startswith("/") or "\0" in member.name:
        return "is a name that leads out of the shard; use names without / in front and .. in them"
    if known and (kind in known.texts or (kind in _VIDEO and known.video)):
        return "is there twice, or with two videos for one key; the first one counts"
    if kind in _TEXT and member.size > TEXT_BYTES:
        return f"has {member.size:,} bytes; captions and annotations have at most {TEXT_BYTES:,}"
    if member.offset_data + member.size > size:
        return f"has {member.size:,} bytes, and the shard ends before them"
    return ""
