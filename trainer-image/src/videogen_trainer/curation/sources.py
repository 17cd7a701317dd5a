"""Videos and what is said of them: folders with a text file beside each video, a CSV or JSONL table, or shards (`shards.py`).

A table's rows have `path` (relative to the source's folder) and `caption`, and may have `transcript` (a list of {"start",
"end", "text"}, in seconds from its first picture or sound; in CSV the same as JSON in the cell), `category`, `urgency` and `licence`.
"""

from __future__ import annotations

import csv
import json
from collections import deque
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import IO, Any, AnyStr, Self

from videogen_api.curation import Source
from videogen_api.training_run import Reason
from videogen_trainer.curation.rejection import Cause, Reject, Rejected, Rejection
from videogen_trainer.curation.shards import of_shards
from videogen_trainer.curation.video import (
    SUFFIXES,
    TEXT_BYTES,
    Row,
    Video,
    caption_of,
    json_object,
    leads_out,
    name_of,
    plain_file,
    row_of,
    video_of,
)
from videogen_trainer.failure import Failure
from videogen_trainer.report import shorten

_REQUIRED = ("path", "caption")
_QUOTE = "quote cells that have commas or quotes"
_ENDS = ("\n", "\r", b"\n")  # of lines, as `readline` knows them of text and of bytes
_Numbered = Iterator[tuple[int, dict[str, Any] | ValueError]]


def find_videos(sources: list[Source], storage: Path, reject: Reject) -> list[Video]:
    """All videos of the sources, sorted by path, each once: where sources overlap, the first one counts.

    A video without a usable caption, and a row that cannot be used, is rejected and the others go on. Raises Failure:
    VideoMissing if a folder, table or shard does not exist or a folder has no video, TableInvalid if a table as a whole cannot be
    read, InvalidJob if a pattern of shards cannot be followed.
    """
    found: dict[Path, Video | Rejection] = {}
    for source in sources:
        for path, item in _of_source(_folder_of(source, storage), source, storage):
            found.setdefault(path, item)
    ordered = [found[path] for path in sorted(found)]
    for item in ordered:
        if isinstance(item, Rejection):
            reject(item)
    return [item for item in ordered if isinstance(item, Video)]


def look_at(source: Source, storage: Path) -> None:
    """Read no more than the beginning of a source. Raises what `find_videos` raises of a source as a whole."""
    next(_of_source(_folder_of(source, storage), source, storage), None)


def _folder_of(source: Source, storage: Path) -> Path:
    if not (folder := storage / source.path).is_dir():
        raise Failure(Reason.VIDEO_MISSING, f"curate.sources: there is no folder {folder}; upload the videos or correct the path")
    if leads_out(folder, storage):
        said = f"curate.sources: {folder} is a link that leads out of the storage; upload the videos below {storage}"
        raise Failure(Reason.VIDEO_MISSING, said)
    return folder


def _of_source(folder: Path, source: Source, storage: Path) -> Iterator[tuple[Path, Video | Rejection]]:
    if source.shards:
        return of_shards(folder, source, storage)
    return _of_table(folder, source, storage) if source.table else _of_folder(folder, source, storage)


def _of_folder(folder: Path, source: Source, storage: Path) -> Iterator[tuple[Path, Video | Rejection]]:
    paths = [path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file()]
    if not paths:
        kinds = " or ".join(SUFFIXES)
        raise Failure(Reason.VIDEO_MISSING, f"curate.sources: {folder} has no {kinds} file; upload videos or correct the path")
    for path in paths:
        name = name_of(path, storage)
        try:
            yield path, _captioned(path, name, source, storage)
        except Rejected as rejected:
            yield path, Rejection(cause=rejected.cause, source=name, why=rejected.why)


def _captioned(path: Path, name: str, source: Source, storage: Path) -> Video:
    if leads_out(path, storage):
        raise Rejected(Cause.VIDEO_MISSING, f"{name} is a link that leads out of the storage; upload the video itself")
    return Video(path=path, name=name, caption=_caption_beside(path, name, storage), licence=source.licence)


def _caption_beside(video: Path, name: str, storage: Path) -> str:
    try:
        return caption_of(_text(video.with_suffix(".txt"), storage), f"{name.rpartition('.')[0]}.txt")
    except FileNotFoundError as error:
        raise Rejected(Cause.CAPTION_MISSING, f"{name} has no caption; put it into a text file of the same name (.txt)") from error
    except PermissionError as error:
        said = f"the caption of {name} may not be read by the trainer's user; give the text file read permission for all"
        raise Rejected(Cause.CAPTION_MISSING, said) from error
    except OSError as error:  # of the volume, or it is no such file
        said = f"the caption of {name} cannot be read: {error.strerror or error}; upload its text file again"
        raise Rejected(Cause.CAPTION_MISSING, said) from error


def _text(path: Path, storage: Path) -> bytes:
    """The bytes of a caption's file. Raises OSError, FileNotFoundError only if nothing is there."""
    if path.exists() and not path.is_file():
        raise OSError("it is no plain file")
    with plain_file(path, storage).open("rb") as file:
        data = file.read(TEXT_BYTES + 1)
    if len(data) > TEXT_BYTES:
        raise OSError(f"it has more than {TEXT_BYTES:,} bytes")
    return data


def _of_table(folder: Path, source: Source, storage: Path) -> Iterator[tuple[Path, Video | Rejection]]:
    assert source.table is not None
    table = folder / source.table
    lines: dict[Path, int] = {}
    line = 0
    for line, content in _rows(table, storage):
        place = f"{name_of(table, storage)}:{line}"
        try:
            row = row_of(content)
            path = _new(_below(folder, row.path), line, lines)
            yield path, video_of(row, path, name_of(path, storage), source.licence)
        except Rejected as rejected:
            yield table / str(line), Rejection(cause=rejected.cause, source=place, why=f"{place}: {rejected.why}")
    if not line:
        raise Failure(Reason.TABLE_INVALID, f"{table} has no rows; list the videos in it, each with {' and '.join(_REQUIRED)}")


def _new(path: Path, line: int, lines: dict[Path, int]) -> Path:
    """The path, unless an earlier line has it too."""
    if (first := lines.setdefault(path, line)) != line:
        raise Rejected(Cause.TABLE_INVALID, f"{path.name} is in line {first} too; list each video once")
    return path


def _below(folder: Path, name: str) -> Path:
    path = folder / name
    try:
        inside = (resolved := path.resolve()).is_relative_to(folder.resolve())
        exists = path.is_file()
    except (ValueError, OSError, RuntimeError) as error:  # a zero byte, too long a name, links in a circle
        raise Rejected(Cause.TABLE_INVALID, f"path {shorten(repr(name), 80)} is no file name ({shorten(str(error), 80)})") from error
    if not inside or path.suffix.lower() not in SUFFIXES:
        raise Rejected(Cause.TABLE_INVALID, f"path is {name!r}; it must name an {' or '.join(SUFFIXES)} file below {folder.name}")
    if not exists:
        raise Rejected(Cause.VIDEO_MISSING, f"there is no video {name!r}; upload it or correct the path")
    return folder / resolved.relative_to(folder.resolve()) if ".." in path.parts else path  # one name for one video


def _rows(table: Path, storage: Path) -> _Numbered:
    """The rows by their lines. Raises Failure: VideoMissing, TableInvalid."""
    try:
        plain_file(table, storage)
        yield from _csv_rows(table) if table.suffix == ".csv" else _jsonl_rows(table)
    except FileNotFoundError as error:
        said = f"curate.sources: there is no table {table}; upload it or correct the source's table"
        raise Failure(Reason.VIDEO_MISSING, said) from error
    except PermissionError as error:
        said = f"{table} may not be read by the trainer's user; give it read permission for all"
        raise Failure(Reason.TABLE_INVALID, said) from error
    except OSError as error:  # of the volume
        raise Failure(Reason.TABLE_INVALID, f"{table} cannot be read: {error.strerror or error}; upload it again") from error


def _jsonl_rows(table: Path) -> _Numbered:
    with table.open("rb") as file:
        for line in count(1):
            if not (data := _bounded(file)):
                return
            if len(data) == TEXT_BYTES:
                yield line, ValueError(f"the line has {TEXT_BYTES:,} bytes or more; shorten its caption or transcript")
            elif data.strip():
                yield line, json_object(data, "the line")


def _bounded(file: IO[AnyStr]) -> AnyStr:
    """The next line; of a longer one its first `TEXT_BYTES`, and its rest is passed over."""
    line = rest = file.readline(TEXT_BYTES)
    while len(rest) == TEXT_BYTES and rest[-1:] not in _ENDS:
        rest = file.readline(TEXT_BYTES)
    return line


def _csv_rows(table: Path) -> _Numbered:
    csv.field_size_limit(TEXT_BYTES)  # its own limit is less than the transcript of an hour
    with table.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:  # so that only rows with bad bytes are bad
        lines = _Lines(file)
        reader = csv.DictReader(lines, strict=True)
        try:
            _check_header(table, reader.fieldnames or [])
        except csv.Error as error:
            raise Failure(Reason.TABLE_INVALID, f"{table}:1 is no CSV: {error}; {_QUOTE}") from error
        while True:
            lines.forget()
            try:
                content = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield lines.go_back(), ValueError(f"the row is no CSV: {error}; {_QUOTE}")
            else:
                yield lines.number, _cells(content)


class _Lines:
    """A table's lines for `csv`; after a bad row reading goes on behind its first line, for a quote without end takes all rows in."""

    def __init__(self, file: IO[str]) -> None:
        self._file, self._row, self._again = file, list[str](), deque[str]()
        self.number = 0  # of the newest line, from 1

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> str:
        if not (line := self._again.popleft() if self._again else _bounded(self._file)):
            raise StopIteration
        self.number += 1
        self._row.append(line)
        if len(line) == TEXT_BYTES:
            raise csv.Error(f"a line has {TEXT_BYTES:,} characters or more")
        return line

    def forget(self) -> None:
        """The row that was read is done with."""
        self._row.clear()

    def go_back(self) -> int:
        """Read the row's lines again but for its first one, whose number this is."""
        while len(self._row) > 1 and not self._row[0].strip():
            self._row.pop(0)
        self.number -= len(self._row) - 1
        self._again.extendleft(reversed(self._row[1:]))
        return self.number


def _check_header(table: Path, header: list[str] | Any) -> None:
    known = list(Row.model_fields)
    if found := _bad_byte("".join(header)):
        raise Failure(Reason.TABLE_INVALID, f"{table}:1 is not UTF-8 ({found}); save the table as UTF-8")
    if unknown := [name for name in header if name not in known]:
        raise Failure(Reason.TABLE_INVALID, f"{table}:1 has the column {unknown[0]!r}; known are {', '.join(known)}")
    if twice := [name for name in known if header.count(name) > 1]:
        raise Failure(Reason.TABLE_INVALID, f"{table}:1 has the column {twice[0]!r} twice; keep one of them")
    if missing := [name for name in _REQUIRED if name not in header]:
        raise Failure(Reason.TABLE_INVALID, f"{table}:1 has no column {missing[0]!r}; the first line must name the columns")


def _bad_byte(text: str) -> str:
    """The first byte that was no UTF-8, in words; nothing if there is none. Source: PEP 383."""
    return next((f"byte {ord(letter) - 0xDC00:#x}" for letter in text if 0xDC80 <= ord(letter) <= 0xDCFF), "")


def _cells(content: dict[Any, Any]) -> dict[str, Any] | ValueError:
    if None in content:
        return ValueError("the row has more cells than the header; quote cells that have commas")
    if found := _bad_byte("".join(text for text in content.values() if text)):
        return ValueError(f"the row is not UTF-8 ({found}); save it as UTF-8")
    cells = {name: text for name, text in content.items() if text is not None and (text.strip() or name in _REQUIRED)}
    if "transcript" in cells:
        try:
            cells["transcript"] = json.loads(cells["transcript"])
        except (ValueError, RecursionError) as error:
            return ValueError(f"transcript is no JSON: {error}")
    return cells
