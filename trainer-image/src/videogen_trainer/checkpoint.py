"""Checkpoints: sealed folders `step-<n>`, published at once, verified before use. The newest `keep_last` and the best `keep_best` stay.

A folder holds safetensors files of tensors and `state.json`. Nothing is unpickled. Where each process has its shards of the tensors, each
writes a file of them, `<name>-00001-of-00004.safetensors`, and what is whole is in the first; any number of processes reads them again.
"""

from __future__ import annotations

import json
import logging
import math
import re
import shutil
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter, ValidationError
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from videogen_api.bundle import MANIFEST, BundleFile, canonical_json
from videogen_models.sealed import STAGING, CorruptError, describe, described, publish, staging, sync, verify
from videogen_trainer.dataset import writing

_LOG = logging.getLogger(__name__)
_NAME = re.compile(r"step-(\d+)")
_PART = re.compile(r"-\d{5}-of-\d{5}$")
_FILES = TypeAdapter(list[BundleFile])
_STATE = "state.json"
_SUMS = "sums"
_ASIDE = "damaged-"  # how the names of folders begin that were checkpoints
SUFFIXES = (".safetensors", ".json")


def folder_of(root: Path, step: int) -> Path:
    """Folder of the checkpoint after `step` steps."""
    return root / f"step-{step:09}"


def steps(root: Path) -> list[int]:
    """Steps of all checkpoints, valid or not, newest first."""
    if not root.is_dir():
        return []
    return sorted((int(match[1]) for path in root.iterdir() if (match := _NAME.fullmatch(path.name))), reverse=True)


def save(
    root: Path,
    step: int,
    tensors: Mapping[str, Mapping[str, Tensor]],
    state: Mapping[str, Any],
    keep_last: int,
    sound: int | None = None,
    keep_best: int = 0,
) -> None:
    """Write a checkpoint, whole or not at all, then delete those that are neither of the newest `keep_last` nor of the best `keep_best`.

    Those after the step `sound`, if it is given, stay and do not count: they may hold the beginning of an explosion.
    Raises Failure(StorageFailed) that names the file.
    A folder of the same step can only be one that `load_latest` refused, and gives way.
    """
    with writing(folder_of(root, step)), staging(root) as staged:
        _write(staged, folder_of(root, step), tensors, "")
        _publish(root, step, staged, state, describe(staged))
    _prune(root, step, keep_last, sound, keep_best)


def save_part(root: Path, step: int, tensors: Mapping[str, Mapping[str, Tensor]], rank: int, size: int) -> None:
    """Write what process `rank` of `size` has of a checkpoint, which `seal` publishes when all have. Raises Failure(StorageFailed)."""
    staged, part = _staged(root, step), f"-{rank + 1:05}-of-{size:05}"
    with writing(folder_of(root, step)):
        staged.mkdir(parents=True, exist_ok=True)
        files = _write(staged, folder_of(root, step), tensors, part)
        for path in files:
            sync(path)  # here: another machine, whose process seals, has not what is on its way
        (staged / f"{_SUMS}{part}.json").write_bytes(canonical_json([file.wire() for file in described(staged, files)]))


def seal(root: Path, step: int, state: Mapping[str, Any], size: int, keep_last: int, sound: int | None = None, keep_best: int = 0) -> None:
    """Publish a checkpoint of which all processes have written their part, and delete older ones, as `save` does."""
    staged = _staged(root, step)
    with writing(folder_of(root, step)):
        sums = [staged / f"{_SUMS}-{rank + 1:05}-of-{size:05}.json" for rank in range(size)]
        files = [file for path in sums for file in _FILES.validate_json(path.read_bytes())]
        for path in sums:
            path.unlink()
        _publish(root, step, staged, state, files)
    _prune(root, step, keep_last, sound, keep_best)


def _staged(root: Path, step: int) -> Path:
    return root / f"{STAGING}{folder_of(root, step).name}"


def _write(staged: Path, target: Path, tensors: Mapping[str, Mapping[str, Tensor]], part: str) -> list[Path]:
    written = []
    for name, content in tensors.items():
        here = {key: tensor.detach().cpu().contiguous() for key, tensor in content.items()}
        with writing(target / (file := f"{name}{part}.safetensors")):
            save_file(here, staged / file)
        written.append(staged / file)
    return written


def _publish(root: Path, step: int, staged: Path, state: Mapping[str, Any], files: Sequence[BundleFile]) -> None:
    (staged / _STATE).write_bytes(canonical_json({"step": step, **state}))
    listed = sorted([*files, *described(staged, [staged / _STATE])], key=lambda file: file.path)
    (staged / MANIFEST).write_bytes(canonical_json([file.wire() for file in listed]))
    shutil.rmtree(folder_of(root, step), ignore_errors=True)
    publish(staged, folder_of(root, step))


def _prune(root: Path, step: int, keep_last: int, sound: int | None, keep_best: int) -> None:
    counted = [step for step in steps(root) if sound is None or step <= sound]
    best = sorted(counted, key=lambda step: _mean_loss(folder_of(root, step)))[:keep_best]
    for old in set(counted[keep_last:]) - set(best):
        shutil.rmtree(folder_of(root, old), ignore_errors=True)
    for damaged in root.glob(f"{_ASIDE}step-*"):
        if damaged.name <= f"{_ASIDE}{folder_of(root, step).name}":  # what it held has been learned again
            shutil.rmtree(damaged, ignore_errors=True)


def _mean_loss(folder: Path) -> float:
    """Of the steps before a checkpoint; infinite if it does not say, as those of older images."""
    try:
        return float(json.loads((folder / _STATE).read_bytes())["levels"]["loss"]["mean"])
    except (FileNotFoundError, ValueError, KeyError):
        return math.inf


def remove_unfinished(root: Path) -> None:
    """Delete what a writer that was killed in mid-save has left, often a whole checkpoint.

    Nobody else may be writing below `root`: an attempt begins when no pod of the one before is left.
    """
    for left in root.glob(f"{STAGING}*"):
        _LOG.warning("%s was never finished and goes", left)
        shutil.rmtree(left, ignore_errors=True)


def newest_valid(root: Path, below: int | None = None) -> int | None:
    """Step of the newest checkpoint (of those before step `below`) whose files have their sums; the log names those that do not."""
    return _examined(root, below)[0]


def resumable(root: Path) -> tuple[int | None, list[str]]:
    """Step of the newest valid checkpoint, and what is wrong with each that is newer, newest first.

    These are renamed, for they would count among those that are kept; their files stay until training has come as far again.
    """
    newest, damaged = _examined(root)
    for step in damaged:
        folder = folder_of(root, step)
        shutil.rmtree(aside := root / f"{_ASIDE}{folder.name}", ignore_errors=True)
        folder.rename(aside)
    return newest, list(damaged.values())


def _examined(root: Path, below: int | None = None) -> tuple[int | None, dict[int, str]]:
    damaged: dict[int, str] = {}
    for step in (step for step in steps(root) if below is None or step < below):
        try:
            verify_checkpoint(folder_of(root, step))
            return step, damaged
        except CorruptError as error:
            _LOG.warning("checkpoint of step %d is damaged, trying the one before: %s", step, error)
            damaged[step] = str(error)
    return None, damaged


def remove_after(root: Path, step: int) -> None:
    """Delete the checkpoints that were made after `step`."""
    for harmed in (saved for saved in steps(root) if saved > step):
        _LOG.warning("the checkpoint of step %d was made after training had diverged, and goes", harmed)
        shutil.rmtree(folder_of(root, harmed), ignore_errors=True)


def step_back(root: Path, step: int) -> int:
    """Delete the checkpoint of `step`, if a valid one from before is there -> step of the newest one left."""
    if (older := newest_valid(root, below=step)) is None:
        return step
    _LOG.warning("training diverged after the checkpoint of step %d: it goes, and step %d is the newest", step, older)
    shutil.rmtree(folder_of(root, step), ignore_errors=True)
    return older


def verify_checkpoint(folder: Path) -> None:
    """Raises CorruptError unless every file has the sum that the manifest says."""
    try:
        files = _FILES.validate_json((folder / MANIFEST).read_bytes())
    except (FileNotFoundError, ValidationError) as error:
        raise CorruptError(f"{folder / MANIFEST}: {error}") from error
    verify(folder, files, SUFFIXES)


class Saved(Mapping[str, Tensor]):
    """Tensors by name, each read when it is asked for, and put together if processes had shards of it: along their first dimension, as
    `fully_shard` takes them apart.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        files = [safe_open(path, framework="pt") for path in paths]
        self._names = list(files[0].keys())  # the first process has them all
        self._files = [(file, frozenset(file.keys())) for file in files]

    def __getitem__(self, name: str) -> Tensor:
        parts = [file.get_tensor(name) for file, names in self._files if name in names]
        if not parts:
            raise KeyError(name)
        return torch.cat(parts) if len(parts) > 1 else parts[0].clone()  # a copy: what is read stays good when its file is deleted

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def load(root: Path, step: int) -> tuple[dict[str, Saved], dict[str, Any]]:
    """Tensors by file and key, and the state, of a checkpoint that has been verified."""
    folder = folder_of(root, step)
    parts = defaultdict(list)
    for path in sorted(folder.glob("*.safetensors")):
        parts[_PART.sub("", path.stem)].append(path)
    return {name: Saved(paths) for name, paths in parts.items()}, json.loads((folder / _STATE).read_bytes())
