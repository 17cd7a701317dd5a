"""Names of dataset versions: `datasets/<name>/versions/<version>.json` has the digest of the content. None is ever rebound."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from pydantic import ValidationError

from videogen_api.bundle import canonical_json
from videogen_api.meta import Digest, Observation
from videogen_api.training_run import Reason
from videogen_models.sealed import staging, sync
from videogen_trainer.failure import Failure


class _Version(Observation):
    digest: Digest


def version_file(storage: Path, name: str, version: str) -> Path:
    """Where a version's digest stands."""
    return storage / "datasets" / name / "versions" / f"{version}.json"


def read_version(path: Path) -> str:
    """Digest of a version. Raises Failure(DatasetCorrupt) if the file names none; OSError, also if there is no file."""
    try:
        return _Version.model_validate_json(path.read_bytes()).digest
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        found = f"found {str(first['input'])[:80]!r}: {first['msg']}"
        raise Failure(Reason.DATASET_CORRUPT, f"{path} names no digest, {found}; curate the version again") from error


def names(path: Path, digest: str) -> bool:
    """Whether the version has this digest, not none. Raises Failure(InvalidJob) if it has another one; OSError."""
    try:
        existing = read_version(path)
    except (FileNotFoundError, Failure):
        return False
    if existing != digest:
        raise Failure(
            Reason.INVALID_JOB,
            f"curate.version: {path.parent.parent.name} {path.stem} exists with other content ({existing}, now {digest});"
            " versions never change: choose a new version name",
        )
    return True


def bind(path: Path, digest: str) -> None:
    """Give the version this digest, durably; a file that names no digest gives way. Raises what `names` raises."""
    with staging(path.parent.parent) as staged:
        path.parent.mkdir(parents=True, exist_ok=True)
        (pointer := staged / path.name).write_bytes(canonical_json({"digest": digest}))
        sync(pointer)
        while True:
            _place(pointer, path)
            if names(path, digest):
                return
            with suppress(FileNotFoundError):
                os.rename(path, taken := staged / "damaged.json")
                with suppress(Failure):
                    read_version(taken)
                    _place(taken, path)  # it is whole: another process has mended it meanwhile


def _place(pointer: Path, path: Path) -> None:
    """Make `path` a copy of `pointer`, unless it exists. A hard link is never there in part; after a crash a new file may be."""
    try:
        os.link(pointer, path)
    except FileExistsError:
        return
    except OSError:  # volumes without hard links say so in many ways; what else may be wrong, this tells as well
        with suppress(FileExistsError), path.open("xb") as file:
            file.write(pointer.read_bytes())
            file.flush()
            os.fsync(file.fileno())
    sync(path.parent)
