"""What was found in one video, kept in the run's work path until the version is made, so that a killed attempt loses little.

`<key>.clips` holds the frames of the video's clips one after the other, `<key>.json` says everything else and the SHA-256 of
the frames; its first line is the SHA-256 of the rest. The json is there last, by a rename: with it the part is sealed. The
key is a digest of all that a part depends on, so a part is never taken for another video, caption or setting.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self
from uuid import uuid4

import numpy as np
from pydantic import Base64Bytes, BaseModel, ValidationError

from videogen_models.sealed import STAGING, sha256_of
from videogen_trainer.curation.rejection import Cause, Rejection
from videogen_trainer.dataset import Clip, ClipRecord, Segment, record_of, writing

Shape = tuple[int, ...]
_UNSEALED = ".unsealed-"


class _Refused(BaseModel):
    """A `Rejection` in JSON."""

    cause: Cause
    source: str
    why: str
    caption: str
    picture: Base64Bytes | None


class _Finding(BaseModel):
    """A clip or a rejection; exactly one of them is there."""

    clip: ClipRecord | None = None
    rejection: _Refused | None = None


class _Content(BaseModel):
    """The json, after its first line."""

    seconds: float | None
    sha256: str
    findings: list[_Finding]


@dataclass(frozen=True, slots=True)
class Part:
    """The two files of one video."""

    folder: Path
    key: str

    @property
    def clips(self) -> Path:
        """The file of frames."""
        return self.folder / f"{self.key}.clips"

    @property
    def note(self) -> Path:
        """The file of everything else."""
        return self.folder / f"{self.key}.json"

    def sealed(self) -> bool:
        """Whether the part is there, whole and unharmed."""
        try:
            return self._content().sha256 == sha256_of(self.clips)
        except (OSError, ValueError):
            return False

    def seconds(self) -> float | None:
        """Length of the video, if it has one."""
        return self._content().seconds

    def findings(self, shape: Shape) -> Iterator[Clip | Rejection]:
        """Clips with frames of this shape, and rejections, in the order in which they were found."""
        with self.clips.open("rb") as file:
            for finding in self._content().findings:
                if finding.rejection:
                    yield Rejection(**dict(finding.rejection))
                elif finding.clip:
                    frames = np.frombuffer(file.read(int(np.prod(shape))), np.uint8).reshape(shape)
                    yield _clip(finding.clip, frames)

    def _content(self) -> _Content:
        """Raises OSError or ValueError."""
        digest, _, data = self.note.read_bytes().partition(b"\n")
        if hashlib.sha256(data).hexdigest().encode() != digest:
            raise ValueError(f"{self.note} was changed")
        try:
            return _Content.model_validate_json(data)
        except ValidationError as error:
            raise ValueError(f"{self.note} is of another trainer") from error


def _clip(record: ClipRecord, frames: np.ndarray[Shape, np.dtype[np.uint8]]) -> Clip:
    known = {name: getattr(record, name) for name in ClipRecord.model_fields if name not in {"file", "row", "transcript"}}
    segments: tuple[Segment, ...] = tuple(record.transcript or ())
    return Clip(frames=frames, transcript=segments, **known)


class PartWriter:
    """Writes a part; nothing is kept if it is not sealed. Raises Failure(StorageFailed)."""

    def __init__(self, part: Part) -> None:
        self._part = part
        self._findings: list[_Finding] = []
        self._hash = hashlib.sha256()
        self._unsealed = part.folder / f"{_UNSEALED}{uuid4()}"

    def __enter__(self) -> Self:
        with writing(self._part.clips):
            self._part.folder.mkdir(parents=True, exist_ok=True)
            self._unsealed.touch(exist_ok=False)
            self._file = self._unsealed.open("r+b")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with suppress(OSError):  # what could not be flushed is of no use anyway
            self._file.close()
        self._unsealed.unlink(missing_ok=True)

    def keep(self, clip: Clip) -> None:
        """Add a clip."""
        with writing(self._part.clips):
            self._file.write(data := clip.frames.tobytes())
        self._hash.update(data)
        self._findings.append(_Finding(clip=record_of(self._part.clips.name, len(self._findings), clip)))

    def refuse(self, rejection: Rejection) -> None:
        """Add a rejection."""
        fields = {name: getattr(rejection, name) for name in _Refused.model_fields}
        self._findings.append(_Finding(rejection=_Refused.model_construct(**fields)))

    def forget(self) -> None:
        """Drop everything that was added: a video that ends badly gives no clip."""
        self._findings, self._hash = [], hashlib.sha256()
        with writing(self._part.clips):
            self._file.seek(0)
            self._file.truncate()

    def seal(self, seconds: float | None) -> None:
        """Make the part count."""
        content = _Content.model_construct(seconds=seconds, sha256=self._hash.hexdigest(), findings=self._findings)
        data = content.model_dump_json().encode("utf-8", "replace")
        with writing(self._part.clips):
            self._file.flush()
            self._unsealed.replace(self._part.clips)
        with writing(self._part.note):
            self._unsealed.write_bytes(hashlib.sha256(data).hexdigest().encode() + b"\n" + data)
            self._unsealed.replace(self._part.note)


def tidy(folder: Path) -> None:
    """Remove what killed attempts left without sealing it."""
    for path in folder.glob(f"{_UNSEALED}*"):
        path.unlink(missing_ok=True)
    for path in folder.glob(f"{STAGING}*"):  # of the version: up to all of its clips
        shutil.rmtree(path, ignore_errors=True)


def remove(folder: Path) -> None:
    """Remove all parts of a run, and its work path if nothing else is in it."""
    shutil.rmtree(folder, ignore_errors=True)
    with suppress(OSError):  # not empty
        folder.parent.rmdir()
        folder.parent.parent.rmdir()
