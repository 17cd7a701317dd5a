"""Collection targets: how many new clips a run needs of the datasets that it curates, and how many it has found.

The run's own Curate phases count and judge; a cycle tells them what to compare with and how many are needed, and reads the answer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import ValidationError

from videogen_api import curation
from videogen_api.curation import NewClips, NewClipsFound
from videogen_api.fine_tune_cycle import (
    MOST_DATASETS,
    CollectedDataset,
    CollectionTarget,
    ConditionType,
    FineTuneCycleSpec,
    FineTuneCycleStatus,
    PastRun,
    Reason,
    WhenBelow,
)
from videogen_api.training_run import Reason as RunReason
from videogen_api.training_run import Task
from videogen_operator.conditions import Wanted
from videogen_operator.kinds.fine_tune_cycle.observed import Cycle, value_at
from videogen_operator.kubernetes_objects import NOTHING
from videogen_operator.plan import Manifest

TOO_FEW = RunReason.TOO_FEW_NEW_CLIPS
IN_THE_RUN = {WhenBelow.WAIT: curation.WhenBelow.WAIT, WhenBelow.SKIP: curation.WhenBelow.FAIL}


def filled(spec: FineTuneCycleSpec, run: Mapping[str, Any], last: PastRun | None, *, scheduled: bool) -> dict[str, Any]:
    """The spec of a run whose Curate phases count new clips since the last successful run. A run that somebody asked for takes any number.

    Raises ValueError with the path under spec if collect does not fit the template.
    """
    made = [str(value_at(phase, "curate", "dataset")) for phase in run["phases"] if phase.get("curate")]
    for place, named in enumerate(spec.collect):
        if named.dataset not in made:
            told = f"there are Curate phases for {', '.join(made)}" if made else "there is no Curate phase"
            raise ValueError(f"collect[{place}].dataset: no Curate phase of the template makes {named.dataset}; {told}")
    previous = {one.dataset: one.version for one in (last.datasets if last else ()) if one.version}
    phases: list[Mapping[str, Any]] = []
    for place, phase in enumerate(run["phases"]):
        target = _target(spec, str(value_at(phase, "curate", "dataset"))) if phase.get("curate") else None
        if target is None:
            phases.append(phase)
            continue
        if "newClips" in phase["curate"]:
            where = f"runTemplate.spec.phases.{place}.curate.newClips"
            raise ValueError(f"{where} is set by the cycle, which has collect or skipIfNoNewData; leave it out")
        wanted = NewClips(
            previous=previous.get(target.dataset),
            minimum=target.minimum if scheduled else 0,
            when_below=IN_THE_RUN[target.when_below],
        )
        phases.append({**phase, "curate": {**phase["curate"], "newClips": wanted.wire()}})
    return {**run, "phases": phases}


def curated(run: Manifest | None) -> list[CollectedDataset]:
    """The datasets that a run's Curate phases have made or used, and what is new in them, in the order of the phases."""
    return list(_curated(run))[:MOST_DATASETS] if run is not None else []


def below(cycle: Cycle, known: FineTuneCycleStatus) -> Wanted | None:
    """The condition CollectionBelowTarget about the newest run that has counted; None if there is none, or if all have enough."""
    run = cycle.run(known.current.run) if known.current is not None else None
    newest = curated(run)
    past: PastRun | None = None
    if not any(one.new_clips for one in newest):
        past = next((old for old in reversed(known.history) if any(one.new_clips for one in old.datasets)), None)
        newest = past.datasets if past else []
    found = [told for one in newest if one.new_clips and (told := _below(cycle.spec, one.dataset, one.new_clips))]
    if not found:
        return None
    name = past.run if past else known.current.run if known.current else ""
    too_few = any(minimum for minimum, _ in found)
    does = ("did not go on" if too_few else "went on") if past else ("waits for more" if too_few else "goes on")
    words = "; ".join(words for _, words in found)
    reason = Reason.BELOW_MINIMUM if too_few else Reason.BELOW_TARGET
    return Wanted(ConditionType.COLLECTION_BELOW_TARGET, True, reason, f"{words}; run {name} {does}"[:1024])


def _target(spec: FineTuneCycleSpec, dataset: str) -> CollectionTarget | None:
    named = next((one for one in spec.collect if one.dataset == dataset), None)
    if named is None and spec.skip_if_no_new_data:
        return CollectionTarget(dataset=dataset, minimum=1, when_below=WhenBelow.SKIP)
    return named


def _below(spec: FineTuneCycleSpec, dataset: str, found: NewClipsFound) -> tuple[bool, str] | None:
    """Whether it is below the minimum that the run had, and words; None if there are enough by what the spec says now."""
    target = _target(spec, dataset)
    if target is None:
        return None
    wanted, too_few = target.target or target.minimum, found.found < found.minimum
    if not too_few and found.found >= wanted:
        return None
    least = found.minimum if too_few else target.minimum
    return too_few, f"dataset {dataset} has {found.words}; the minimum is {least:,} and the target {wanted:,}"


def _curated(run: Manifest) -> Iterator[CollectedDataset]:
    names = {
        str(phase.get("name")): str(value_at(phase, "curate", "dataset"))
        for phase in value_at(run, "spec", "phases") or ()
        if phase.get("task") == Task.CURATE
    }
    for phase in value_at(run, "status", "phases") or ():
        dataset = names.get(str(phase.get("name")))
        if dataset is None:
            continue
        made = next((one for one in phase.get("datasets") or () if one.get("dataset") == dataset), NOTHING)
        try:
            told = CollectedDataset(dataset=dataset, version=made.get("version"), new_clips=phase.get("newClips"))
        except ValidationError:  # of another version of the API
            continue
        if told.version or told.new_clips:
            yield told
