"""Records of computed phases: by them a later run finds what its storage holds already, `records/<key>.json`.

A phase's key is the SHA-256 of the canonical JSON of what decides its result. Operator and trainer compute it alike: the trainer to
find the file, the operator because it believes no key that it has not computed. Not here: whose records count (the operator's seals).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import Field, StringConstraints

from videogen_api.bundle import canonical_json
from videogen_api.evaluation import Metric
from videogen_api.job import Job, PinnedData, Report
from videogen_api.meta import Observation, Sha256, ShortName, StoragePath, Timestamp
from videogen_api.pinned import ResolvedDataset
from videogen_api.training_run import TRAINING, Phase, Task

REUSABLE = (*TRAINING, Task.TUNE, Task.EVALUATE, Task.OPTIMIZE, Task.BUILD_TEMPLATES)
TIMINGS = (Metric.GENERATION_SECONDS,)  # which are of a machine and a day
RECORD_BYTES = 3840  # of a record, so that it fits into a termination message (4096 bytes) with the words around it
KeyId = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$", max_length=63)]


class Record(Observation):
    """What one phase of a run has computed. Fields that a reader does not know are under the MAC as well."""

    key: Sha256
    run: Annotated[str, StringConstraints(max_length=253)]
    phase: ShortName
    time: Timestamp
    report: dict[str, Any]  # as `told` makes it; it is validated as a Report where it is used
    image_id: Annotated[str, StringConstraints(max_length=512)] = Field(default="", alias="imageID")  # that the pod ran; empty: not told
    page: StoragePath | None = None  # about what was measured, beside the bundle
    key_id: KeyId = Field(alias="keyID")
    mac: Sha256  # HMAC-SHA-256 over all the rest and the namespace


def inputs_of(job: Job, datasets: Sequence[ResolvedDataset]) -> dict[str, Any] | None:
    """What decides the result of a job that has used `datasets`; None if a dataset's digest is not known, or if the task has no key."""
    data = [_data(part, datasets) for part in job.data]
    if job.task not in REUSABLE or None in data:
        return None
    weights = job.init_from or job.artifact
    optimize = job.optimize.model_copy(update={"maximum_loss": []}) if job.optimize else None  # which judges, like gates
    blocks = {"evaluate": job.evaluate, "tune": job.tune, "optimize": optimize, "templates": job.templates}
    return {
        "contract": job.contract,
        "task": job.task.value,
        "model": job.model.wire(),  # a bundle's manifest names it
        "recipe": job.recipe.wire(),
        "data": data,
        "weights": weights.digest if weights else None,
        **{name: block.wire() if block else None for name, block in blocks.items()},
    }


def key_of(inputs: dict[str, Any]) -> str:
    """64 hex digits."""
    return hashlib.sha256(canonical_json(inputs)).hexdigest()


def record_path(key: str) -> str:
    """Where the record with this key stands, below the storage's root: JSON with `record` and, for people, `inputs`."""
    return f"records/{key}.json"


def told(report: Report) -> dict[str, Any]:
    """What a record keeps of a report: the result, without words, times, and what an attempt went through."""
    kept = report.model_copy(update={"results": [one for one in report.results if one.metric not in TIMINGS]})
    if kept.optimization:
        losses = [one for one in kept.optimization.losses if one.metric not in TIMINGS]
        kept = kept.model_copy(update={"optimization": kept.optimization.model_copy(update={"losses": losses})})
    clips = {"frames", "resolution"} if report.frames else set[str]()  # told once, for all results
    left_out: Any = {"message": True, "goodput": True, "resumed_from_step": True, "page": True, "results": {"__all__": {"message", *clips}}}
    return kept.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_defaults=True, exclude=left_out)


def is_reusable(phase: Phase) -> bool:
    """Whether a phase may take what was computed before: not if its gates or bounds are about times, which are measured anew."""
    bounds = phase.optimize.maximum_loss if phase.optimize else []
    judged = {*(gate.metric for gate in phase.gates), *(bound.metric for bound in bounds)}
    return phase.task in REUSABLE and judged.isdisjoint(TIMINGS)


def _data(part: PinnedData, datasets: Sequence[ResolvedDataset]) -> dict[str, Any] | None:
    wanted = part.reference
    used = (one.digest for one in datasets if one.dataset == wanted.dataset and wanted.version in {one.version, one.in_place_of})
    digest = part.digest or next(used, None)
    return {"digest": digest, "split": wanted.split.value, "samples": wanted.samples} if digest else None
