"""The manifest of a bundle, and a first look at what it lists. Needs no torch."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from videogen_api.bundle import ALLOWED_SUFFIXES, MANIFEST, Manifest, manifest_digest
from videogen_models.sealed import CorruptError, check_sizes


def read_manifest(folder: Path, digest: str | None) -> tuple[bytes, Manifest]:
    """A bundle's manifest, as bytes and read. Raises CorruptError if there is none, or one with another digest."""
    if not (folder / MANIFEST).is_file():
        raise CorruptError(f"{folder} is no bundle: it has no {MANIFEST}")
    data = (folder / MANIFEST).read_bytes()
    if digest and (found := manifest_digest(data)) != digest:
        raise CorruptError(f"{folder} has digest {found}, expected {digest}; it was changed or is another bundle")
    try:
        return data, Manifest.model_validate_json(data)
    except ValidationError as error:
        raise CorruptError(f"{folder / MANIFEST}: {error}") from error


def check_bundle_sizes(folder: Path, digest: str) -> None:
    """Whether a bundle of this digest is there with all its files, by their sizes. Raises CorruptError."""
    _, manifest = read_manifest(folder, digest)
    check_sizes(folder, manifest.files, ALLOWED_SUFFIXES)
