"""A video of a source with what is said of it."""

from __future__ import annotations

import json
import os
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from videogen_trainer.curation.rejection import Cause, Rejected
from videogen_trainer.dataset import Segment
from videogen_trainer.video_reading import Footage

SUFFIXES = (".mp4", ".webm")
TEXT_BYTES = 16 << 20  # of a caption, an annotation or a line of a table
_Label = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=64)]


class Row(BaseModel):
    """One row of a table, or what a sample's json says."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    path: Annotated[str, StringConstraints(min_length=1, max_length=1024)]
    caption: str
    transcript: list[Segment] = Field(default=[], max_length=100_000)
    category: _Label | None = None
    urgency: _Label | None = None
    licence: _Label | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Video:
    """A video file, its caption and its annotations."""

    path: Footage
    name: str  # relative to the storage, for people
    caption: str
    transcript: tuple[Segment, ...] = ()
    category: str | None = None
    urgency: str | None = None
    licence: str | None = None


def row_of(content: dict[str, Any] | ValueError) -> Row:
    """The row that was read, or Rejected(TableInvalid) that says what is wrong with it."""
    if isinstance(content, ValueError):
        raise Rejected(Cause.TABLE_INVALID, str(content)) from content
    try:
        return Row.model_validate(content)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        field = ".".join(map(str, problem["loc"])) or "row"
        found = "" if problem["type"] == "missing" else f", found {str(problem['input'])[:80]!r}"
        raise Rejected(Cause.TABLE_INVALID, f"{field}: {problem['msg']}{found}; known are {', '.join(Row.model_fields)}") from error


def video_of(row: Row, path: Footage, name: str, licence: str | None) -> Video:
    """The video of a row; `licence` is the one of its source. Raises Rejected(CaptionMissing)."""
    return Video(
        path=path,
        name=name,
        caption=checked(row.caption, f"the caption of {row.path!r}"),
        transcript=tuple(row.transcript),
        category=row.category,
        urgency=row.urgency,
        licence=row.licence or licence,
    )


def json_object(data: bytes, what: str) -> dict[str, Any] | ValueError:
    """The JSON object in a line or file, or what is wrong with it."""
    try:
        content = json.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        return ValueError(f"{what} is not UTF-8 ({error.reason}, byte {error.start}); save it as UTF-8")
    except (ValueError, RecursionError) as error:
        return ValueError(f"{what} is no JSON: {error}")
    return content if isinstance(content, dict) else ValueError(f"{what} is no JSON object, but {type(content).__name__}")


def caption_of(data: bytes, name: str) -> str:
    """The caption that a text file of this name holds, on one line. Raises Rejected(CaptionMissing)."""
    try:
        return checked(data.decode("utf-8-sig"), name)
    except UnicodeDecodeError as error:
        said = f"{name} is not UTF-8 ({error.reason}, byte {error.start}); save the caption as UTF-8"
        raise Rejected(Cause.CAPTION_MISSING, said) from error


def checked(caption: str, what: str) -> str:
    """The caption on one line.

    Raises Rejected(CaptionMissing) if nothing is left that can be seen, if it was UTF-16 (every second byte is zero), or if it has half
    of a character: JSON can write one half of a surrogate pair (RFC 8259, section 8.2), and no file in UTF-8 can hold it.
    """
    if half := next((letter for letter in caption if "\ud800" <= letter <= "\udfff"), ""):
        raise Rejected(Cause.CAPTION_MISSING, f"{what} has half of a character (\\u{ord(half):04x}); write all of it, or in UTF-8")
    if "\0" in caption:
        raise Rejected(Cause.CAPTION_MISSING, f"{what} has zero bytes, as UTF-16 has; save the caption as UTF-8")
    if not (words := " ".join(caption.split())):
        raise Rejected(Cause.CAPTION_MISSING, f"{what} is empty; write the video's caption into it")
    if all(unicodedata.category(letter)[0] in "CZ" for letter in words):  # control and format characters, and spaces
        raise Rejected(Cause.CAPTION_MISSING, f"{what} has nothing that can be seen; write the video's caption into it")
    return words


def name_of(path: Path, storage: Path) -> str:
    """The path below the storage; bytes that are no UTF-8 are replaced, so that every text can hold it."""
    return os.fsencode(path.relative_to(storage).as_posix()).decode("utf-8", "replace")


def plain_file(path: Path, storage: Path) -> Path:
    """The path. Raises FileNotFoundError if there is no plain file, for opening a pipe would wait for ever; OSError if links lead out."""
    if not path.is_file():
        raise FileNotFoundError(path)
    if leads_out(path, storage):
        raise OSError("it is a link that leads out of the storage")
    return path


def leads_out(path: Path, storage: Path) -> bool:
    """Whether links lead from this path out of the storage: what else the pod can read, such as its tokens, is no data."""
    return not path.resolve().is_relative_to(storage.resolve())
