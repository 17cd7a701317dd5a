"""The digest of an image model's folder in diffusers' layout: unet/, vae/, text_encoder/, tokenizer/, scheduler/. Needs no torch."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from videogen_api.bundle import ALLOWED_SUFFIXES, BundleFile, canonical_json
from videogen_models.sealed import CorruptError, describe

PARTS = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")


def folder_sha256(folder: Path) -> str:
    """SHA-256, hex, of the canonical JSON of what `sealed.describe` says of the five parts' files, paths relative to `folder`.

    Raises CorruptError naming a part that is missing, or a file with a name or of a kind that is not accepted.
    """
    files: list[dict[str, Any]] = []
    for part in sorted(PARTS):
        if not (folder / part).is_dir():
            raise CorruptError(f"{folder / part} is missing; expected is a folder in diffusers' layout, with {', '.join(PARTS)}")
        files += [file.wire() | {"path": f"{part}/{file.path}"} for file in _described(folder / part)]
    return hashlib.sha256(canonical_json(files)).hexdigest()


def _described(part: Path) -> list[BundleFile]:
    if foreign := sorted(path for path in part.rglob("*") if path.is_file() and path.suffix not in ALLOWED_SUFFIXES):
        raise CorruptError(f"{foreign[0]} is not accepted, only {', '.join(ALLOWED_SUFFIXES)} are; convert or remove it")
    try:
        return describe(part)
    except ValidationError as error:
        raise CorruptError(f"{part} has a file whose name is not accepted: {error.errors()[0]['input']}; remove it") from error
