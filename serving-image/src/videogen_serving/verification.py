"""The check of a bundle before anything heavy starts: no torch here, so that a wrong bundle is told within a second.

It is copied into the pod while it is checked, and the server loads the copy: whoever may write to the claim can change nothing of it
between the check and the use.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from pydantic import ValidationError

from videogen_api.bundle import ALLOWED_SUFFIXES, MANIFEST, Manifest, manifest_digest
from videogen_models.sealed import CorruptError, copy_verified


def take_bundle(folder: Path, digest: str, copy: Path) -> Manifest:
    """Make `copy`, which nobody else may write to, of an intact bundle -> its manifest; what a container before this one left there goes.

    Raises CorruptError, a ValueError, with one sentence for the release's status.
    """
    shutil.rmtree(copy, ignore_errors=True)
    try:
        return _take(folder, digest, copy)
    except OSError as error:
        if error.filename and Path(error.filename).is_relative_to(copy):
            said = f"the bundle {folder} cannot be copied into the pod: {error}; raise the chart's scratchSize, or see to the node's disk"
            raise CorruptError(said) from error
        file = Path(error.filename or folder).name
        raise CorruptError(
            f"the bundle {folder} cannot be read: {file}: {error.strerror}; is artifact.path right, and may user {os.getuid()} read it?"
        ) from error


def _take(folder: Path, digest: str, copy: Path) -> Manifest:
    data = (folder / MANIFEST).read_bytes()
    if (found := manifest_digest(data)) != digest:
        raise CorruptError(f"the bundle {folder} has the digest {found}, the release says {digest}; it was changed or is another one")
    try:
        manifest = Manifest.model_validate_json(data)
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(str(part) for part in problem["loc"]) or "the file"
        raise CorruptError(f"{folder / MANIFEST} is no bundle's manifest: {where}: {problem['msg']}") from error
    copy_verified(folder, manifest.files, copy, ALLOWED_SUFFIXES)
    (copy / MANIFEST).write_bytes(data)
    return manifest
