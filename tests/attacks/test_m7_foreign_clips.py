"""A dataset whose index names a file that its manifest does not: what no sum is known of is no data."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from videogen_api.bundle import MANIFEST, canonical_json, manifest_digest
from videogen_api.recipe import Resolution
from videogen_api.training_run import DataReference, Reason, Split
from videogen_models.sealed import describe
from videogen_trainer.dataset import INDEX, Clip, dataset_folder, open_dataset, write_dataset
from videogen_trainer.dataset_versions import version_file
from videogen_trainer.failure import Failure

NAMED = DataReference(dataset="shapes", version="v1")


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    """A dataset, and clips of somebody else beside it and out of the storage."""
    (storage := tmp_path / "storage").mkdir()
    clips = [Clip(frames=np.full((2, 16, 16, 3), number, np.uint8), caption="a thing", split=Split.TRAIN) for number in range(2)]
    write_dataset(storage, "shapes", "v1", clips, frames=2, resolution=Resolution(height=16, width=16))
    folder = next(path for path in (storage / "datasets/shapes").iterdir() if (path / MANIFEST).is_file())
    for place in (tmp_path, storage, storage / "datasets/shapes"):
        shutil.copyfile(folder / "clips-00000.safetensors", place / "secret.safetensors")
    return storage


def reseal(storage: Path, file: str) -> None:
    """The same version with an index whose second clip lies in this file; all sums are right."""
    folder = next(path for path in (storage / "datasets/shapes").iterdir() if (path / MANIFEST).is_file())
    index, manifest = json.loads((folder / INDEX).read_bytes()), json.loads((folder / MANIFEST).read_bytes())
    index["clips"][1]["file"] = file
    (folder / INDEX).write_bytes(canonical_json(index))
    manifest["files"] = [entry.wire() for entry in describe(folder)]
    (folder / MANIFEST).write_bytes(data := canonical_json(manifest))
    folder.rename(dataset_folder(storage, "shapes", digest := manifest_digest(data)))
    version_file(storage, "shapes", "v1").write_bytes(canonical_json({"digest": digest}))


FILES = {
    "up and out": "../../../../secret.safetensors",
    "beside the dataset": "../secret.safetensors",
    "by another way": "./clips-00000.safetensors",
    "the index itself": INDEX,
    "the manifest": MANIFEST,
    "nothing": "",
}


@pytest.mark.parametrize("file", FILES.values(), ids=FILES)
def test_a_clip_in_a_file_that_the_manifest_does_not_list_is_refused(storage: Path, file: str) -> None:
    reseal(storage, file)
    with pytest.raises(Failure) as failure:
        open_dataset(storage, NAMED)
    assert failure.value.reason is Reason.DATASET_CORRUPT
    assert failure.value.message.startswith(f"dataset shapes v1: {INDEX}: clips[1].file is {file!r}, which {MANIFEST} does not list")


def test_an_absolute_path_is_refused(storage: Path) -> None:
    reseal(storage, str(storage.parent / "secret.safetensors"))
    with pytest.raises(Failure, match=r"clips\[1\]\.file is .*secret\.safetensors"):
        open_dataset(storage, NAMED)


def test_the_version_as_it_was_made_is_read(storage: Path) -> None:
    assert [int(open_dataset(storage, NAMED).frames(number).mean()) for number in range(2)] == [0, 1]
