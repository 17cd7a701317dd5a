"""New clips: those whose frames, to the byte, are in no clip of another version of the dataset.

A dataset's index has no digest of a clip, so those of the other version are computed from its frames, once for all attempts of a run.
Captions, names of files and the order of clips make no clip new. Another trainer that decodes a video otherwise does, as it makes
another dataset of the same videos.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

from videogen_api.curation import Curate, NewClipsFound
from videogen_api.recipe import Recipe
from videogen_api.training_run import DataReference, Reason
from videogen_models.sealed import write_durably
from videogen_trainer.dataset import Check, Dataset, check_alone, open_dataset, unchecked, writing
from videogen_trainer.failure import Failure

_BYTES = 32  # of a SHA-256


class TooFewNewClips(Exception):
    """Keeps a version from being published; `found` is what was counted."""

    def __init__(self, found: NewClipsFound) -> None:
        super().__init__(found)
        self.found = found


class NewClipsCounter:
    """Counts the clips of a version that is being made, each content once."""

    def __init__(self, curate: Curate, recipe: Recipe, storage: Path, folder: Path) -> None:
        """Reads the version to compare with; what it has is kept in `folder`. Raises what `opened` raises."""
        assert curate.new_clips is not None, "nothing is to be counted"
        self._wanted = curate.new_clips
        self._known = _contents(curate, recipe, storage, folder) if curate.new_clips.previous else frozenset()
        self._new: set[bytes] = set()

    def add(self, frames: npt.NDArray[np.uint8]) -> None:
        """A clip of the new version."""
        if (content := _content(frames)) not in self._known:
            self._new.add(content)

    @property
    def found(self) -> NewClipsFound:
        """What was counted so far."""
        return NewClipsFound(found=len(self._new), minimum=self._wanted.minimum, previous=self._wanted.previous)

    def judge(self) -> None:
        """Raises TooFewNewClips below the minimum."""
        if len(self._new) < self._wanted.minimum:
            raise TooFewNewClips(self.found)


def opened(curate: Curate, recipe: Recipe, storage: Path, check: Check = check_alone) -> Dataset:
    """The version that clips are compared with.

    Raises Failure: DatasetNotFound, DatasetCorrupt, InvalidJob if its clips have another length or size, so that none could be the same.
    """
    assert curate.new_clips is not None and curate.new_clips.previous is not None, "there is nothing to compare with"
    version = curate.new_clips.previous
    dataset = open_dataset(storage, DataReference(dataset=curate.dataset, version=version), check=check)
    found, size, asked = dataset.manifest, dataset.manifest.resolution, recipe.resolution
    if (found.frames, size) != (recipe.frames, asked):
        raise Failure(
            Reason.INVALID_JOB,
            f"curate.newClips.previous: clips of {curate.dataset} {version} have {found.frames} frames of {size.height} x {size.width},"
            f" the recipe asks for {recipe.frames} of {asked.height} x {asked.width}, and such clips cannot be compared;"
            " leave previous out to count all clips as new",
        )
    return dataset


def _contents(curate: Curate, recipe: Recipe, storage: Path, folder: Path) -> frozenset[bytes]:
    """Digests of all clips of the other version. An attempt that comes hours later takes them from `folder` and reads no clip."""
    digest = opened(curate, recipe, storage, unchecked).resolved.digest
    kept = folder / f"known-{digest.removeprefix('sha256:')}"
    if not kept.is_file():
        dataset = opened(curate, recipe, storage)
        data = b"".join(_content(dataset.frames(number)) for number in range(len(dataset.records)))
        with writing(kept):
            folder.mkdir(parents=True, exist_ok=True)
            write_durably(kept, data)
    data = kept.read_bytes()
    return frozenset(data[start : start + _BYTES] for start in range(0, len(data), _BYTES))


def _content(frames: npt.NDArray[np.uint8]) -> bytes:
    return hashlib.sha256(np.ascontiguousarray(frames).data).digest()
