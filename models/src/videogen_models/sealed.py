"""Sealed folders: a folder of files and a manifest with their SHA-256 sums, published whole or not at all.

Datasets, checkpoints and bundles are sealed folders. What the manifest says beyond `files` is their own affair.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path, PurePosixPath

from videogen_api.bundle import MANIFEST, BundleFile

_LOG = logging.getLogger(__name__)
_CHUNK = 1 << 20  # bytes
STAGING = ".staging-"  # how the names begin of what is being written
_WRITTEN: Counter[str] = Counter()  # bytes of this process, under one key
_TAKEN = {errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR}  # what rename says of a name that is


class CorruptError(ValueError):
    """A sealed folder is not what its manifest or its digest says."""


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def describe(folder: Path) -> list[BundleFile]:
    """Every file below `folder` but its manifest, sorted by path."""
    return described(folder, sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / MANIFEST))


def described(folder: Path, files: Sequence[Path]) -> list[BundleFile]:
    """These files below `folder`."""
    return [BundleFile(path=path.relative_to(folder).as_posix(), sha256=sha256_of(path), size=path.stat().st_size) for path in files]


def verify(folder: Path, files: Sequence[BundleFile], suffixes: Sequence[str]) -> None:
    """Check that `folder` holds exactly `files`, with their sums. Raises CorruptError naming the first difference."""
    for file in files:
        verify_file(folder, file, suffixes)
    check_listing(folder, files)


def check_sizes(folder: Path, files: Sequence[BundleFile], suffixes: Sequence[str]) -> None:
    """As `verify`, by the sizes of the files alone. Raises CorruptError naming the first difference."""
    for file in files:
        if (found := (path := _listed(folder, file, suffixes)).stat().st_size) != file.size:
            raise CorruptError(f"{path} has {found:,} bytes, the manifest says {file.size:,}; restore the file or publish again")
    check_listing(folder, files)


def check_listing(folder: Path, files: Sequence[BundleFile]) -> None:
    """Check that `folder` holds nothing but `files`. Raises CorruptError naming the first other one."""
    present = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()}
    if unknown := sorted(present - {file.path for file in files} - {MANIFEST}):
        raise CorruptError(f"{folder / unknown[0]} is not in the manifest; remove it or publish the folder again")


def verify_file(folder: Path, file: BundleFile, suffixes: Sequence[str]) -> None:
    """Check that one file is there with its size and sum. Raises CorruptError."""
    path = _listed(folder, file, suffixes)
    if (found := sha256_of(path)) != file.sha256 or path.stat().st_size != file.size:
        raise _changed(path, found, file)


def copy_verified(folder: Path, files: Sequence[BundleFile], target: Path, suffixes: Sequence[str]) -> None:
    """Copy what `verify` would accept into `target`, which is made, read-only and each file hashed on its way.

    After `verify`, whoever may write to `folder` can change it before it is used; of the copy nothing. The manifest is the caller's.
    Raises CorruptError naming the first difference, OSError with the target's name if there is no room for it.
    """
    check_listing(folder, files)
    if twice := next((path for path, count in Counter(file.path for file in files).items() if count > 1), None):
        raise CorruptError(f"{folder.name}: the manifest lists {twice!r} twice; publish the folder again")
    target.mkdir(mode=0o700, parents=True)
    for file in files:
        source = _listed(folder, file, suffixes)
        (copy := target / file.path).parent.mkdir(parents=True, exist_ok=True)
        if (found := _copied(source, copy, file.size)) != file.sha256:
            raise _changed(source, found, file)


def _copied(source: Path, copy: Path, size: int) -> str:
    """Copy at most `size` bytes and one more -> the SHA-256 of what was copied, in hex."""
    found, left = hashlib.sha256(), size + 1
    with source.open("rb") as file, copy.open("xb", buffering=0) as kept:
        os.fchmod(kept.fileno(), 0o400)
        while left and (data := file.read(min(left, _CHUNK))):
            found.update(data)
            left -= len(data)
            rest = memoryview(data)
            try:
                while rest:
                    rest = rest[kept.write(rest) :]
            except OSError as error:
                said = f"{error.strerror}; the copy of {source} needs {size:,} bytes there"
                raise OSError(error.errno, said, str(copy)) from error
    return found.hexdigest()


def _changed(path: Path, found: str, file: BundleFile) -> CorruptError:
    return CorruptError(f"{path} has SHA-256 {found}, the manifest says {file.sha256}; restore the file or publish again")


def _listed(folder: Path, file: BundleFile, suffixes: Sequence[str]) -> Path:
    """Where a file lies. Raises CorruptError if it is none, of a kind that is not accepted, or out of the folder."""
    if PurePosixPath(file.path).suffix not in suffixes:
        raise CorruptError(f"{folder.name}: the manifest lists {file.path!r}; accepted are {', '.join(suffixes)} only")
    path = folder / file.path
    if path.is_symlink() or not path.resolve().is_relative_to(folder.resolve()):
        raise CorruptError(f"{folder.name}: {file.path!r} leads out of the folder; links are not accepted")
    if not path.is_file():
        raise CorruptError(f"{path} is missing, although the manifest lists it")
    return path


@contextmanager
def staging(parent: Path) -> Iterator[Path]:
    """A folder next to the future one, on the same file system; whatever is left of it at the end is removed."""
    parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=STAGING, dir=parent))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def publish(staged: Path, target: Path) -> None:
    """Make `staged` durable and visible as `target` in one step; a non-empty `target` that exists raises OSError."""
    _settle(staged)
    _move(staged, target)


def publish_content(staged: Path, target: Path, files: Sequence[BundleFile], suffixes: Sequence[str]) -> None:
    """`publish` under a name that its content gives: what is there and intact stays, what is damaged gives way.

    `staged` has its manifest, which lists `files`. In a crash the name has what it had, nothing, or all of `staged`. Of processes that
    publish the same content at the same time, each succeeds.
    """
    if os.path.lexists(target) and _holds(target, staged, files, suffixes):
        return
    _settle(staged)  # before, so that the name is free for no longer than a rename takes
    with staging(target.parent) as removed:
        for number in count():
            try:
                _move(staged, target)
                break
            except OSError as error:
                if error.errno not in _TAKEN:
                    raise
            if _holds(target, staged, files, suffixes):  # another process was faster
                break
            with suppress(FileNotFoundError):
                os.rename(target, removed / str(number))


def _move(staged: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    os.rename(staged, target)
    sync(target.parent)


def _holds(folder: Path, staged: Path, files: Sequence[BundleFile], suffixes: Sequence[str]) -> bool:
    """Whether `folder` holds what `staged` does."""
    try:
        _compare_content(folder, staged, files, suffixes)
    except CorruptError as error:
        _LOG.warning("%s; it gives way to the same content, whole", error)
        return False
    except FileNotFoundError:  # another process takes it away, as damaged
        return False
    return True


def _compare_content(folder: Path, staged: Path, files: Sequence[BundleFile], suffixes: Sequence[str]) -> None:
    """Raises CorruptError unless `folder` holds what `staged` does."""
    if not (folder / MANIFEST).is_file() or (folder / MANIFEST).read_bytes() != (staged / MANIFEST).read_bytes():
        raise CorruptError(f"{folder / MANIFEST} is missing or not the one that the folder is named by")
    verify(folder, files, suffixes)


def _settle(folder: Path) -> None:
    """Let everybody read what is below, and wait until it is on the disk."""
    for path in sorted(folder.rglob("*"), reverse=True):
        _WRITTEN["bytes"] += 0 if path.is_dir() else path.stat().st_size
        path.chmod(0o755 if path.is_dir() else 0o644)  # safetensors writes for its user alone; servers may be another
        sync(path)
    sync(folder)


def bytes_written() -> int:
    """Bytes that this process has made durable: of all that it published, and of small files."""
    return _WRITTEN["bytes"]


def write_durably(path: Path, data: bytes) -> None:
    """Replace a small file at once: whoever reads it sees the old bytes or all of the new ones."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=STAGING, dir=path.parent)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    _WRITTEN["bytes"] += len(data)
    os.chmod(name, 0o644)
    os.rename(name, path)
    sync(path.parent)


def sync(path: Path) -> None:
    """Wait until a file or folder is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
