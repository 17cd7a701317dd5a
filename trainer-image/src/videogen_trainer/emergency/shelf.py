"""Finished templates of a phase that is not yet over: a video and a record each, trusted only if they fit each other and the job."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from videogen_api.bundle import canonical_json
from videogen_api.emergency import EmergencyType, Template
from videogen_api.meta import Observation
from videogen_models.sealed import write_durably
from videogen_trainer.dataset import writing


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """A template and its mp4 file, or why there is none."""

    template: Template | None = None
    video: bytes = b""
    why: str = ""


class _Record(Observation):
    key: str
    kind: EmergencyType
    template: Template | None = None
    why: str = ""


@dataclass(frozen=True, slots=True)
class Shelf:
    """`<name>.mp4` and `<name>.json` in a folder. `key` stands for everything that decides what a template is like."""

    folder: Path
    key: str

    def find(self, name: str, kind: EmergencyType) -> Made | None:
        """What an earlier attempt has finished; None if there is nothing, or something else, or it is damaged."""
        try:
            record = _Record.model_validate_json((self.folder / f"{name}.json").read_bytes())
        except (FileNotFoundError, ValidationError):
            return None
        if (record.key, record.kind) != (self.key, kind):
            return None
        return self._with_video(name, record.template) if record.template else Made(why=record.why)

    def _with_video(self, name: str, template: Template) -> Made | None:
        try:
            video = (self.folder / f"{name}.mp4").read_bytes()
        except FileNotFoundError:
            return None
        return Made(template=template, video=video) if hashlib.sha256(video).hexdigest() == template.sha256 else None

    def keep(self, name: str, kind: EmergencyType, made: Made) -> Made:
        """Write it; the record comes last, so that one without its video is never found. Raises Failure(StorageFailed)."""
        with writing(self.folder / f"{name}.mp4"):
            if made.template:
                write_durably(self.folder / f"{name}.mp4", made.video)
            record = _Record(key=self.key, kind=kind, template=made.template, why=made.why)
            write_durably(self.folder / f"{name}.json", canonical_json(record.wire()))
        return made
