"""Dataset versions in the storage: written by Curate, read by Train and Evaluate.

`datasets/<name>/<digest hex>/` is a sealed folder: `clips-<number>.safetensors` each with one tensor `frames`, uint8
[clips, frames, height, width, 3] (RGB); `index.json` with one record a clip; `manifest.json` (canonical JSON), whose
SHA-256 is the dataset's digest. `datasets/<name>/versions/<version>.json` names the digest of a version. The digest
depends on the clips, captions, annotations, splits and their order, and on the parent, alone: not on the name, the
version, the time, or what was rejected.
"""

from __future__ import annotations

import errno
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field, ValidationError, model_validator
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from videogen_api.bundle import MANIFEST, BundleFile, canonical_json, manifest_digest
from videogen_api.meta import Digest, Observation
from videogen_api.pinned import ResolvedDataset
from videogen_api.recipe import Resolution
from videogen_api.training_run import DataReference, Reason, Split
from videogen_models import sealed
from videogen_models.sealed import CorruptError, describe, publish_content, staging, verify
from videogen_trainer.dataset_versions import bind, names, read_version, version_file
from videogen_trainer.failure import Failure

INDEX = "index.json"
SUFFIXES = (".safetensors", ".json")
SHARD_BYTES = 64 << 20


class Segment(Observation):
    """Something that is said, and when: in seconds from the video's first picture or sound, or from the clip's first frame."""

    start: float = Field(ge=0, allow_inf_nan=False)
    end: float = Field(ge=0, allow_inf_nan=False)
    text: str = Field(min_length=1, max_length=10_000)

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.end < self.start:
            raise ValueError(f"end {self.end} is before start {self.start}")
        return self


@dataclass(frozen=True, slots=True, kw_only=True)
class Clip:
    """A clip on its way into a dataset: uint8 [frames, height, width, 3], RGB."""

    frames: npt.NDArray[np.uint8]
    caption: str
    split: Split
    source: str = ""  # the video and frame that it was cut from, for people
    transcript: tuple[Segment, ...] = ()
    category: str | None = None
    urgency: str | None = None
    licence: str | None = None
    seconds: float | None = None
    motion: float | None = None
    brightness: float | None = None


class ClipRecord(Observation):
    """Where a clip of a dataset lies and what is known of it."""

    file: str
    row: int = Field(ge=0)
    caption: str
    split: Split
    source: str = ""
    transcript: list[Segment] | None = None  # what is said during the clip
    category: str | None = None
    urgency: str | None = None
    licence: str | None = None
    seconds: float | None = None  # from the first frame to the last one
    motion: float | None = None  # mean absolute difference of following frames, of 255
    brightness: float | None = None  # mean, of 255


class DatasetIndex(Observation):
    """index.json."""

    clips: list[ClipRecord]


class Statistics(Observation):
    """What a version holds: clips by side, licence, category and urgency ("" counts those without one), and means."""

    train: int = 0
    held_out: int = 0
    licences: dict[str, int] = {}
    categories: dict[str, int] = {}
    urgencies: dict[str, int] = {}
    with_transcript: int = 0
    mean_caption_characters: float | None = None
    mean_motion: float | None = None
    mean_brightness: float | None = None
    seconds: float | None = None


class DatasetManifest(Observation):
    """manifest.json."""

    format: Literal["videogen-dataset/v1"] = "videogen-dataset/v1"
    frames: int
    resolution: Resolution
    clips: int
    parent: Digest | None = None  # the version that this one follows
    statistics: Statistics = Statistics()
    files: list[BundleFile]


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """An opened dataset version."""

    folder: Path
    resolved: ResolvedDataset  # `clips` counts all of its clips
    manifest: DatasetManifest
    records: tuple[ClipRecord, ...]

    def part(self, split: Split) -> list[int]:
        """Numbers of the clips of one split, in the dataset's order."""
        return [number for number, record in enumerate(self.records) if record.split is split]

    def frames(self, number: int) -> npt.NDArray[np.uint8]:
        """Frames of one clip, uint8 [frames, height, width, 3]. Raises Failure(DatasetCorrupt) if its file is gone or damaged."""
        record = self.records[number]
        try:
            with safe_open(str(self.folder / record.file), framework="numpy") as shard:
                return np.asarray(shard.get_slice("frames")[record.row], dtype=np.uint8)
        except FileNotFoundError as error:
            what = f"dataset {self.resolved.dataset} {self.resolved.version}: {self.folder / record.file}"
            raise Failure(Reason.DATASET_CORRUPT, f"{what} is missing, although {INDEX} names it; curate the version again") from error
        except SafetensorError as error:
            if "os error" in str(error).lower():
                raise  # the storage failed, not the file
            what = f"dataset {self.resolved.dataset} {self.resolved.version}: {self.folder / record.file}"
            raise Failure(Reason.DATASET_CORRUPT, f"{what} was changed since it was opened: {error}; curate the version again") from error


def dataset_folder(storage: Path, name: str, digest: str) -> Path:
    """Folder of a dataset's content."""
    return storage / "datasets" / name / digest.removeprefix("sha256:")


def write_dataset(
    storage: Path,
    name: str,
    version: str,
    clips: Iterable[Clip],
    *,
    frames: int,
    resolution: Resolution,
    parent: str | None = None,
    staged_in: Path | None = None,
) -> ResolvedDataset:
    """Write clips as a new version, whole or not at all; the same clips under the same version again are no error.

    The content that they have in the storage is verified then, and replaced if it is damaged. Until all is there it lies in `staged_in`, a
    folder of the same volume (the dataset's own): what a kill leaves there is for its owner to remove.

    Raises Failure: InvalidJob if the version exists with other content, StorageFailed; ValueError if a clip has another shape.
    """
    with staging(staged_in or storage / "datasets" / name) as staged:
        records = [
            record for number, shard in enumerate(_shards(clips, frames, resolution)) for record in _write_shard(staged, number, shard)
        ]
        with writing(staged / INDEX):
            (staged / INDEX).write_bytes(canonical_json(DatasetIndex(clips=records).wire()))
        manifest = DatasetManifest(
            frames=frames,
            resolution=resolution,
            clips=len(records),
            parent=parent,
            statistics=statistics_of(records),
            files=describe(staged),
        )
        digest = manifest_digest(data := canonical_json(manifest.wire()))
        with writing(named := version_file(storage, name, version)):
            names(named, digest)  # raises before there is content that no version names
        target = dataset_folder(storage, name, digest)
        with writing(target):
            (staged / MANIFEST).write_bytes(data)
            publish_content(staged, target, manifest.files, SUFFIXES)
    with writing(named):
        bind(named, digest)
    return ResolvedDataset(dataset=name, version=version, digest=digest, clips=len(records))


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Raises Failure(StorageFailed) that names the file for whatever the system says: an error in a write names none."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        said = f"{path} cannot be written: {error}; {_remedy(error)}, what is finished is kept for the next attempt"
        raise Failure(Reason.STORAGE_FAILED, said) from error


_REMEDIES = {
    "make room on the volume": {errno.ENOSPC, errno.EDQUOT, errno.EFBIG},
    "let the trainer's user write there": {errno.EACCES, errno.EPERM, errno.EROFS},
    "move away what is in its place": {errno.EEXIST, errno.EISDIR, errno.ENOTDIR, errno.ENOTEMPTY, errno.ELOOP},
}


def _remedy(error: OSError | SafetensorError) -> str:
    found = re.search(r"os error (\d+)", str(error))  # as safetensors says it
    number = error.errno if isinstance(error, OSError) else int(found[1]) if found else None
    return next((remedy for remedy, numbers in _REMEDIES.items() if number in numbers), "see to the volume")


def _shards(clips: Iterable[Clip], frames: int, resolution: Resolution) -> Iterator[list[Clip]]:
    shape = (frames, resolution.height, resolution.width, 3)
    limit = max(1, SHARD_BYTES // int(np.prod(shape)))
    shard: list[Clip] = []
    for clip in clips:
        if clip.frames.shape != shape or clip.frames.dtype != np.uint8:
            raise ValueError(f"clip {clip.source!r} is {clip.frames.dtype} {clip.frames.shape}, expected uint8 {shape}")
        shard.append(clip)
        if len(shard) == limit:
            yield shard
            shard = []
    if shard:
        yield shard


def _write_shard(folder: Path, number: int, clips: list[Clip]) -> list[ClipRecord]:
    name = f"clips-{number:05}.safetensors"
    with writing(folder / name):
        save_file({"frames": np.stack([clip.frames for clip in clips])}, folder / name)
    return [record_of(name, row, clip) for row, clip in enumerate(clips)]


def record_of(file: str, row: int, clip: Clip) -> ClipRecord:
    """What is known of a clip that lies in this row of this file."""
    return ClipRecord(
        file=file,
        row=row,
        caption=clip.caption,
        split=clip.split,
        source=clip.source,
        transcript=list(clip.transcript) or None,
        category=clip.category,
        urgency=clip.urgency,
        licence=clip.licence,
        seconds=clip.seconds,
        motion=clip.motion,
        brightness=clip.brightness,
    )


def statistics_of(records: Sequence[ClipRecord]) -> Statistics:
    """Counts and means of a version's clips; means are over the clips that have the value, None if none has."""
    return Statistics(
        train=sum(record.split is Split.TRAIN for record in records),
        held_out=sum(record.split is Split.HELD_OUT for record in records),
        licences=_counts(record.licence for record in records),
        categories=_counts(record.category for record in records),
        urgencies=_counts(record.urgency for record in records),
        with_transcript=sum(bool(record.transcript) for record in records),
        mean_caption_characters=_mean(len(record.caption) for record in records),
        mean_motion=_mean(record.motion for record in records),
        mean_brightness=_mean(record.brightness for record in records),
        seconds=round(math.fsum(record.seconds or 0.0 for record in records), 3),
    )


def _counts(labels: Iterable[str | None]) -> dict[str, int]:
    return dict(sorted(Counter(label or "" for label in labels).items()))


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return round(math.fsum(known) / len(known), 3) if known else None


Check = Callable[[str, Path, Sequence[BundleFile]], None]


def check_alone(what: str, folder: Path, files: Sequence[BundleFile]) -> None:
    """Check that `folder` has these files and no others, one after another. Raises Failure(DatasetCorrupt), naming `what` and the file."""
    try:
        verify(folder, files, SUFFIXES)
    except CorruptError as error:
        raise Failure(Reason.DATASET_CORRUPT, f"{what}: {error}") from error


def check_sizes(what: str, folder: Path, files: Sequence[BundleFile]) -> None:
    """As `check_alone`, by the sizes of the files alone."""
    try:
        sealed.check_sizes(folder, files, SUFFIXES)
    except CorruptError as error:
        raise Failure(Reason.DATASET_CORRUPT, f"{what}: {error}") from error


def unchecked(what: str, folder: Path, files: Sequence[BundleFile]) -> None:
    """For who only looks, or beside a process that checks."""


def open_dataset(storage: Path, reference: DataReference, pinned: str | None = None, *, check: Check = check_alone) -> Dataset:
    """Open a dataset version, by its pinned digest if an earlier attempt has one.

    `check` checks the files of its manifest, before anything of them is read (`verification.together`: by all processes of a job).
    Raises Failure: DatasetNotFound if there is no such version, DatasetCorrupt if anything has another sum.
    """
    digest = pinned or resolve(storage, reference)
    folder = dataset_folder(storage, reference.dataset, digest)
    if not (folder / MANIFEST).is_file():
        raise Failure(
            Reason.DATASET_NOT_FOUND, f"dataset {reference.dataset} {reference.version}: {folder} has no {MANIFEST}; curate it again"
        )
    data = (folder / MANIFEST).read_bytes()
    if (found := manifest_digest(data)) != digest:
        raise Failure(Reason.DATASET_CORRUPT, f"{folder / MANIFEST} has digest {found}, expected {digest}; curate the version again")
    try:
        manifest = DatasetManifest.model_validate_json(data)
        check(f"dataset {reference.dataset} {reference.version}", folder, manifest.files)
        index = DatasetIndex.model_validate_json((folder / INDEX).read_bytes())
    except FileNotFoundError as error:
        what = f"dataset {reference.dataset} {reference.version}: {folder / INDEX}"
        raise Failure(Reason.DATASET_CORRUPT, f"{what} is missing, although {MANIFEST} lists it; curate the version again") from error
    except (ValidationError, SafetensorError) as error:
        raise Failure(Reason.DATASET_CORRUPT, f"dataset {reference.dataset} {reference.version}: {error}") from error
    _check_members(f"dataset {reference.dataset} {reference.version}", manifest, index)
    resolved = ResolvedDataset(dataset=reference.dataset, version=reference.version, digest=digest, clips=manifest.clips)
    return Dataset(folder=folder, resolved=resolved, manifest=manifest, records=tuple(index.clips))


def _check_members(what: str, manifest: DatasetManifest, index: DatasetIndex) -> None:
    """Raises Failure(DatasetCorrupt) if a clip lies in a file that no sum is known of: another dataset's, or one out of the folder."""
    known = {file.path for file in manifest.files if file.path != INDEX}
    for number, record in enumerate(index.clips):
        if record.file not in known:
            said = (
                f"{what}: {INDEX}: clips[{number}].file is {record.file[:200]!r}, which {MANIFEST} does not list; curate the version again"
            )
            raise Failure(Reason.DATASET_CORRUPT, said)


def resolve(storage: Path, reference: DataReference) -> str:
    """Digest of a version. Raises Failure: DatasetNotFound naming the versions that there are, DatasetCorrupt."""
    path = version_file(storage, reference.dataset, reference.version)
    if not path.is_file():
        known = sorted(other.stem for other in path.parent.glob("*.json"))
        raise Failure(
            Reason.DATASET_NOT_FOUND,
            f"dataset {reference.dataset} has no version {reference.version!r};"
            f" the storage has {', '.join(known) or 'none'}; run a Curate phase for it first",
        )
    return read_version(path)
