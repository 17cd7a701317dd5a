"""Clips of two bundles, in turn, from the same captions and the same noise; what an interrupted attempt has measured is kept."""

from __future__ import annotations

import hashlib
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from videogen_api.bundle import canonical_json
from videogen_api.job import Job
from videogen_api.training_run import Reason
from videogen_models.sealed import write_durably
from videogen_models.video_model import VideoModel
from videogen_trainer.dataset import writing
from videogen_trainer.evaluate.extractors import Extractors
from videogen_trainer.evaluate.pieces import Pieces
from videogen_trainer.evaluate.task import BATCH, SHOWN, Clips, Rows, batches, clip_seed, embed_generated, joined
from videogen_trainer.evaluate.timing import Timing
from videogen_trainer.failure import Failure
from videogen_trainer.samples import write_samples

Array = NDArray[np.float64]
Batch = dict[str, dict[str, Array]]  # by bundle and name
BEFORE, AFTER = "before", "after"
_BETWEEN = "/"
_SUM = "sha256"
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Two models that are measured on the same clips, and what with."""

    models: Mapping[str, VideoModel]  # BEFORE and AFTER
    captions: list[str]  # of the clips
    extractors: Extractors
    job: Job
    folder: Path  # of the phase
    stop: Callable[[], bool]
    pieces: Pieces = field(default_factory=lambda: Pieces(BATCH))  # how many clips a model generates at once

    def measure(self, kept: Path, advance: Callable[[], None]) -> tuple[dict[str, Array], dict[str, Array]]:
        """Arrays over all clips of the bundle before and of the one after. `advance` is called after each batch, new or kept.

        The first clips of both go into `samples` of the phase. Raises Failure: Preempted, OutOfMemory.
        """
        assert self.job.optimize is not None
        rows: dict[str, Rows] = {name: defaultdict(list) for name in self.models}
        whole = batches(0, self.job.optimize.samples)
        timing, warm = Timing(len(whole)), False
        for number, places in enumerate(whole):
            path = kept / f"batch-{number:06}.safetensors"
            batch = _read(path)
            if batch is None:
                if not warm:
                    self._warm_up()
                    warm = True
                batch = self._batch(number, places, timing)
                with writing(path):
                    write_durably(path, _packed(batch))
            for name, arrays in batch.items():
                for key, array in arrays.items():
                    rows[name][key].append(array)
            advance()
        return joined(rows[BEFORE]), joined(rows[AFTER])

    def _batch(self, number: int, places: range, timing: Timing) -> Batch:
        """What was measured of a batch; clips of the first one are written to be looked at."""

        def measured(piece: range) -> tuple[Batch, dict[str, Clips]]:
            return self._measured(number, piece, timing)

        parts = [part for piece in timing.pieces(number, places) for part in self.pieces.run(piece, measured)]
        if number == 0:
            self._show([clips for _, clips in parts])
        return _together([found for found, _ in parts])

    def _warm_up(self) -> None:
        """The first calls also allocate and compile; they are not timed."""
        for model in self.models.values():
            model.generate(self.captions[:1], [0], 1, self._asked)

    def _measured(self, number: int, places: range, timing: Timing) -> tuple[Batch, dict[str, Clips]]:
        """Clips of one batch or a part of it by both models, the first one in turn, so that neither finds the machine warmer."""
        assert self.job.optimize is not None
        captions = self.captions[places.start : places.stop]
        seeds = [clip_seed(self.job.recipe.seed, place) for place in places]
        clips: dict[str, Clips] = {}
        found: Batch = {}
        for name in (BEFORE, AFTER) if (number + places.start) % 2 == 0 else (AFTER, BEFORE):
            begun = time.perf_counter()
            clips[name] = self.models[name].generate(captions, seeds, self.job.optimize.sampling_steps, self._asked)
            rows: Rows = defaultdict(list)
            for key, row in timing.rows(number, time.perf_counter() - begun, len(captions)).items():
                rows[key].append(row)
            embed_generated(rows, clips[name], captions, self.extractors)
            found[name] = joined(rows)
        found[AFTER]["pixels"] = np.abs(clips[AFTER].astype(np.float64) - clips[BEFORE]).mean(axis=(1, 2, 3, 4))
        return found, clips

    def _show(self, parts: Sequence[Mapping[str, Clips]]) -> None:
        for name, model in self.models.items():
            some = [clip for part in parts for clip in part[name]][:SHOWN]
            write_samples(self.folder / "samples" / name, some, self.captions, model.config.frame_rate)

    def _asked(self, _done: int, _total: int) -> None:
        if self.stop():
            raise Failure(Reason.PREEMPTED, "asked to stop; the next attempt goes on after the last batch of clips")


def identity(*parts: object) -> str:
    """A name for what was measured with exactly these parts, which must be JSON."""
    return hashlib.sha256(canonical_json(list(parts))).hexdigest()[:16]


def _together(parts: list[Batch]) -> Batch:
    """Consecutive parts of a batch as one."""
    return {name: {key: np.concatenate([part[name][key] for part in parts]) for key in arrays} for name, arrays in parts[0].items()}


def _flat(batch: Batch) -> dict[str, Array]:
    return {f"{name}{_BETWEEN}{key}": np.ascontiguousarray(array) for name, arrays in batch.items() for key, array in arrays.items()}


def _packed(batch: Batch) -> bytes:
    """A batch as a safetensors file with its own sum, which `_read` looks at: a number that is wrong looks like any other."""
    flat = _flat(batch)
    return save({**flat, _SUM: np.frombuffer(_sum(flat), np.uint8)})


def _sum(flat: Mapping[str, Array]) -> bytes:
    """SHA-256 over names, types, shapes and values."""
    found = hashlib.sha256()
    for key, array in sorted(flat.items()):
        found.update(f"{key} {array.dtype} {array.shape}".encode() + array.tobytes())
    return found.digest()


def _read(path: Path) -> Batch | None:
    """A kept batch; None if there is none, or only a damaged one."""
    try:
        flat = load(path.read_bytes())
    except FileNotFoundError:
        return None
    except (SafetensorError, OSError) as error:
        _LOG.warning("%s cannot be read and is measured again: %s", path, error)
        return None
    told = flat.pop(_SUM, None)
    if told is None or told.tobytes() != _sum(flat):
        _LOG.warning("%s is damaged and is measured again", path)
        return None
    batch: Batch = {BEFORE: {}, AFTER: {}}
    for key, array in flat.items():
        name, _, rest = key.partition(_BETWEEN)
        batch[name][rest] = array
    return batch
