"""The check of a bundle before anything heavy starts: no torch here, so that a wrong bundle is told within a second.

The process that loads the weights verifies them once more (videogen_models.bundle.load_model).
"""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import ValidationError

from videogen_api.bundle import ALLOWED_SUFFIXES, MANIFEST, Manifest, manifest_digest
from videogen_models.sealed import CorruptError, verify


def check_bundle(folder: Path, digest: str) -> Manifest:
    """The manifest of an intact bundle. Raises CorruptError, a ValueError, with one sentence for the release's status."""
    try:
        return _check(folder, digest)
    except OSError as error:
        file = Path(error.filename or folder).name
        raise CorruptError(
            f"the bundle {folder} cannot be read: {file}: {error.strerror}; is artifact.path right, and may user {os.getuid()} read it?"
        ) from error


def _check(folder: Path, digest: str) -> Manifest:
    data = (folder / MANIFEST).read_bytes()
    if (found := manifest_digest(data)) != digest:
        raise CorruptError(f"the bundle {folder} has the digest {found}, the release says {digest}; it was changed or is another one")
    try:
        manifest = Manifest.model_validate_json(data)
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(str(part) for part in problem["loc"]) or "the file"
        raise CorruptError(f"{folder / MANIFEST} is no bundle's manifest: {where}: {problem['msg']}") from error
    verify(folder, manifest.files, ALLOWED_SUFFIXES)
    return manifest
