"""Dataset versions: immutable, content-addressed, verified."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from videogen_api.recipe import Resolution
from videogen_api.training_run import DataReference, Reason, Split
from videogen_trainer import dataset as module
from videogen_trainer.dataset import Clip, Dataset, open_dataset, resolve, unchecked, write_dataset
from videogen_trainer.failure import Failure

SHAPE = {"frames": 2, "resolution": Resolution(height=16, width=16)}
REFERENCE = DataReference(dataset="d", version="v1")


def clips(count: int, offset: int = 0) -> list[Clip]:
    return [
        Clip(
            frames=np.full((2, 16, 16, 3), number + offset, np.uint8),
            caption=f"nº {number}",
            split=Split.TRAIN if number % 3 else Split.HELD_OUT,
        )
        for number in range(count)
    ]


def test_clips_come_back_over_several_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SHARD_BYTES", 3 * 2 * 16 * 16 * 3)
    written = write_dataset(tmp_path, "d", "v1", iter(clips(7)), **SHAPE)
    opened = open_dataset(tmp_path, REFERENCE)
    assert opened.resolved == written
    assert written.clips == 7
    assert len(list(opened.folder.glob("clips-*.safetensors"))) == 3
    assert [opened.frames(number)[0, 0, 0, 0] for number in range(7)] == list(range(7))
    assert [record.caption for record in opened.records] == [f"nº {number}" for number in range(7)]
    assert opened.part(Split.HELD_OUT) == [0, 3, 6]
    assert opened.part(Split.TRAIN) == [1, 2, 4, 5]


def test_the_digest_depends_on_the_content_alone(tmp_path: Path) -> None:
    digests = [
        write_dataset(tmp_path, "d", "v1", clips(3), **SHAPE).digest,
        write_dataset(tmp_path, "e", "v9", clips(3), **SHAPE).digest,
        write_dataset(tmp_path, "d", "v2", clips(3, offset=1), **SHAPE).digest,
        write_dataset(tmp_path, "d", "v3", [replace(clip, caption="other") for clip in clips(3)], **SHAPE).digest,
    ]
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3


def test_a_version_never_changes(tmp_path: Path) -> None:
    first = write_dataset(tmp_path, "d", "v1", clips(3), **SHAPE)
    assert write_dataset(tmp_path, "d", "v1", clips(3), **SHAPE) == first
    with pytest.raises(Failure, match="exists with other content") as caught:
        write_dataset(tmp_path, "d", "v1", clips(4), **SHAPE)
    assert caught.value.reason is Reason.INVALID_JOB
    assert (opened := open_dataset(tmp_path, REFERENCE)).resolved == first
    assert {path.name for path in (tmp_path / "datasets/d").iterdir()} == {"versions", opened.folder.name}


def test_a_writer_that_fails_leaves_nothing(tmp_path: Path) -> None:
    wrong = replace(clips(1)[0], frames=np.zeros((2, 16, 8, 3), np.uint8))
    with pytest.raises(ValueError, match=r"expected uint8 \(2, 16, 16, 3\)"):
        write_dataset(tmp_path, "d", "v1", [*clips(2), wrong], **SHAPE)
    assert list((tmp_path / "datasets" / "d").iterdir()) == []


def change_a_pixel(dataset: Dataset) -> None:
    path = dataset.folder / "clips-00000.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    "harm, reason",
    [
        (change_a_pixel, Reason.DATASET_CORRUPT),
        (lambda dataset: (dataset.folder / "index.json").write_text("{}"), Reason.DATASET_CORRUPT),
        (lambda dataset: (dataset.folder / "manifest.json").write_text("{}"), Reason.DATASET_CORRUPT),
        (lambda dataset: (dataset.folder / "clips-00000.safetensors").unlink(), Reason.DATASET_CORRUPT),
        (lambda dataset: (dataset.folder.parent / "versions" / "v1.json").write_text("?"), Reason.DATASET_CORRUPT),
        (lambda dataset: (dataset.folder / "manifest.json").unlink(), Reason.DATASET_NOT_FOUND),
        (lambda dataset: (dataset.folder.parent / "versions" / "v1.json").unlink(), Reason.DATASET_NOT_FOUND),
    ],
    ids=["changed pixel", "changed index", "changed manifest", "missing clips", "broken version", "missing manifest", "missing version"],
)
def test_a_harmed_dataset_is_refused(tmp_path: Path, harm: Callable[[Dataset], object], reason: Reason) -> None:
    write_dataset(tmp_path, "d", "v1", clips(3), **SHAPE)
    harm(open_dataset(tmp_path, REFERENCE))
    with pytest.raises(Failure) as caught:
        open_dataset(tmp_path, REFERENCE)
    assert caught.value.reason is reason


@pytest.mark.parametrize("version", ["v1", "v2"])
@pytest.mark.parametrize(
    "harm",
    [
        change_a_pixel,
        lambda dataset: (dataset.folder / "clips-00000.safetensors").unlink(),
        lambda dataset: (dataset.folder / "manifest.json").unlink(),
    ],
    ids=["changed pixel", "missing clips", "missing manifest"],
)
def test_a_harmed_dataset_that_is_made_again_is_whole_by_either_name(
    tmp_path: Path, harm: Callable[[Dataset], object], version: str
) -> None:
    first = write_dataset(tmp_path, "d", "v1", clips(3), **SHAPE)
    harm(open_dataset(tmp_path, REFERENCE))
    write_dataset(tmp_path, "d", version, clips(3), **SHAPE)
    assert open_dataset(tmp_path, REFERENCE).resolved == first
    assert open_dataset(tmp_path, DataReference(dataset="d", version=version)).frames(2)[0, 0, 0, 0] == 2


def test_a_file_that_goes_while_a_dataset_is_in_use_is_named_and_is_no_failure_of_the_storage(tmp_path: Path) -> None:
    write_dataset(tmp_path, "d", "v1", clips(3), **SHAPE)
    opened = open_dataset(tmp_path, REFERENCE)
    (opened.folder / "clips-00000.safetensors").unlink()
    with pytest.raises(
        Failure, match=r"dataset d v1: .*clips-00000.safetensors is missing, although index.json names it; curate"
    ) as caught:
        opened.frames(0)
    assert caught.value.reason is Reason.DATASET_CORRUPT
    (opened.folder / "index.json").unlink()
    with pytest.raises(Failure, match=r"dataset d v1: .*index.json is missing, although manifest.json lists it; curate") as caught:
        open_dataset(tmp_path, REFERENCE, check=unchecked)  # as every process but the first opens it
    assert caught.value.reason is Reason.DATASET_CORRUPT


@pytest.mark.parametrize("harm", [lambda data: data[:-700], lambda data: b"\xff" + data[1:], lambda data: b""])
def test_a_file_that_is_damaged_while_a_dataset_is_in_use_is_named(tmp_path: Path, harm: Callable[[bytes], bytes]) -> None:
    write_dataset(tmp_path, "d", "v1", clips(3), **SHAPE)
    opened = open_dataset(tmp_path, REFERENCE)
    path = opened.folder / "clips-00000.safetensors"
    path.write_bytes(harm(path.read_bytes()))
    with pytest.raises(Failure, match=r"dataset d v1: .*clips-00000.safetensors was changed since it was opened: .*; curate") as caught:
        opened.frames(2)
    assert caught.value.reason is Reason.DATASET_CORRUPT


def test_a_pinned_digest_goes_before_the_versions_name(tmp_path: Path) -> None:
    first = write_dataset(tmp_path, "d", "v1", clips(3), **SHAPE)
    pointer = tmp_path / "datasets" / "d" / "versions" / "v1.json"
    second = write_dataset(tmp_path, "d", "v2", clips(4), **SHAPE)
    pointer.write_text(json.dumps({"digest": second.digest}))
    assert open_dataset(tmp_path, REFERENCE, first.digest).resolved.digest == first.digest


NO_DIGESTS = ["", "?", "[]", "{}", '{"digest": 1}', '{"digest": "sha256:12"}', f'{{"digest": "sha256:{"../" * 22}"}}', "\xff"]


@pytest.mark.parametrize("written", NO_DIGESTS)
def test_a_versions_file_that_names_no_digest_is_told_and_is_made_whole_by_curating_again(tmp_path: Path, written: str) -> None:
    first = write_dataset(tmp_path, "d", "v1", clips(3), **SHAPE)
    pointer = tmp_path / "datasets/d/versions/v1.json"
    pointer.write_text(written, encoding="latin-1")
    with pytest.raises(Failure, match=r"versions/v1\.json names no digest, found .*; curate the version again") as caught:
        resolve(tmp_path, REFERENCE)
    assert caught.value.reason is Reason.DATASET_CORRUPT
    assert write_dataset(tmp_path, "d", "v1", clips(3), **SHAPE) == first
    assert open_dataset(tmp_path, REFERENCE).resolved == first
    assert [path.name for path in pointer.parent.iterdir()] == ["v1.json"]


@pytest.mark.parametrize("number", [errno.ENOTSUP, errno.EPERM, errno.ENOSYS, errno.EXDEV, errno.EMLINK], ids=errno.errorcode.get)
def test_a_volume_without_hard_links_holds_versions_that_never_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "link", refuse)
    first = write_dataset(tmp_path, "d", "v1", clips(3), **SHAPE)
    assert open_dataset(tmp_path, REFERENCE).resolved == first
    assert write_dataset(tmp_path, "d", "v1", clips(3), **SHAPE) == first
    with pytest.raises(Failure, match="exists with other content"):
        write_dataset(tmp_path, "d", "v1", clips(4), **SHAPE)
    (tmp_path / "datasets/d/versions/v1.json").write_bytes(b"")  # as a crash may leave it
    assert write_dataset(tmp_path, "d", "v1", clips(3), **SHAPE) == first
    assert open_dataset(tmp_path, REFERENCE).resolved == first


def test_of_two_writers_of_one_version_one_has_it_and_the_other_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def late(pointer: Path, path: Path) -> None:
        monkeypatch.undo()
        write_dataset(tmp_path, "d", "v1", clips(4), **SHAPE)
        os.link(pointer, path)

    monkeypatch.setattr(os, "link", late)
    with pytest.raises(Failure, match="exists with other content"):
        write_dataset(tmp_path, "d", "v1", clips(3), **SHAPE)
    assert open_dataset(tmp_path, REFERENCE).resolved.clips == 4


def test_of_two_writers_that_mend_one_version_one_has_it_and_the_other_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def late(source: Path, target: Path) -> None:
        if source == pointer:
            monkeypatch.undo()
            write_dataset(tmp_path, "d", "v1", clips(4), **SHAPE)
        rename(source, target)

    rename, pointer = os.rename, tmp_path / "datasets/d/versions/v1.json"
    pointer.parent.mkdir(parents=True)
    pointer.touch()
    monkeypatch.setattr(os, "rename", late)
    with pytest.raises(Failure, match="exists with other content"):
        write_dataset(tmp_path, "d", "v1", clips(3), **SHAPE)
    assert open_dataset(tmp_path, REFERENCE).resolved.clips == 4


def test_an_unknown_version_names_the_known_ones(tmp_path: Path) -> None:
    write_dataset(tmp_path, "d", "v1", clips(3), **SHAPE)
    with pytest.raises(Failure, match="has no version 'v2'; the storage has v1"):
        open_dataset(tmp_path, DataReference(dataset="d", version="v2"))
