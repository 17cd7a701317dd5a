"""Phases that were computed before in the run's storage are taken from there, without an attempt.

The pod of a preflight looks for the record; here it is judged: by its seal, by the key that this very phase has, and by the gates of
this spec. What does not count is computed. As soon as a phase was computed whose result is in the keys of later ones, those are not
looked for any more.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pydantic import ValidationError

from videogen_api.fine_tune_cycle import LABEL_MEASURES
from videogen_api.job import Report
from videogen_api.pinned import ReusedFrom
from videogen_api.records import Record, inputs_of, is_reusable, key_of, record_path
from videogen_api.training_run import Phase, Reason, Task
from videogen_operator.kinds.training_run import objects
from videogen_operator.kinds.training_run.conclusion import concluded
from videogen_operator.kinds.training_run.sources import first_problem
from videogen_operator.kinds.training_run.step import Step, note
from videogen_operator.kinds.training_run.waiting import Situation


def is_wanted(situation: Situation) -> bool:
    """Whether a record of the phase is looked for: nothing of it was begun, and what its key rests on was taken where it could be.

    This saves pods, and is not what makes a record count: the key has the weights and the recipe that the phase really gets.
    """
    observed, phase, status = situation.observed, situation.phase, situation.status
    before = (one for one in observed.spec.phases[: observed.spec.phases.index(phase)] if is_reusable(one) and _changes_keys(one))
    fresh = not status.attempt and status.start_time is None
    taken_so_far = all(observed.phase_status(one.name).reused_from for one in before)
    measures = LABEL_MEASURES in (observed.run["metadata"].get("labels") or {})  # what serves is looked at anew
    return bool(situation.seals.keys) and is_reusable(phase) and fresh and taken_so_far and not measures


def taken(situation: Situation, found: Mapping[str, Any], step: Step) -> Step:
    """`step`, and with it the phase from a record that a preflight has found. The phase stays as it is if the record does not count."""
    phase = situation.phase.title
    try:
        record, report = _judged(situation, found)
    except ValueError as error:
        said = f"{phase}: {record_path(str(found.get('key'))[:64])} does not count, so the phase is computed: {str(error)[:500]}"
        return replace(step, notes=(*step.notes, note(situation, "RecordRefused", said, warning=True)))
    source = ReusedFrom(run=record.run, phase=record.phase, time=record.time, key=record.key)
    known = step.status.model_copy(
        update={
            "reused_from": source,
            "image_id": record.image_id,
            "report": record.page,
            "datasets": report.datasets,
            "results": report.results,
            "trials": report.trials,
            "optimization": report.optimization,
        }
    )
    words = f"reused from run {source.run}, phase {source.phase} of {source.time}"
    done = concluded(situation, known, report, words)
    told = note(situation, "PhaseReused", f"{phase}: {words}")
    return replace(done, notes=(*step.notes, told), preflight=step.preflight)


def _changes_keys(phase: Phase) -> bool:
    """Whether later phases get other inputs from this one: weights, or a value that was tuned."""
    return phase.task in objects.MAKES_ARTIFACT or phase.task is Task.TUNE


def _judged(situation: Situation, found: Mapping[str, Any]) -> tuple[Record, Report]:
    """Raises ValueError, with why, if the record does not count."""
    observed = situation.observed
    if problem := situation.seals.problem(found, observed.namespace):
        raise ValueError(problem)
    try:
        record = Record.model_validate(found)
        report = Report.model_validate(record.report)
    except ValidationError as error:
        raise ValueError(f"it is of another version: {first_problem(error)}") from error
    inputs = inputs_of(objects.job_of(observed, situation.phase, situation.status, 1), report.datasets)
    if inputs is None or key_of(inputs) != record.key or report.reason is not Reason.COMPLETED:
        raise ValueError("it is of other inputs than the phase has")
    return record, report
