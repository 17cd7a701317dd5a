"""How a run's status reads: conditions, summary for printer columns, and what is worth a write."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from videogen_api.meta import Condition, release_name
from videogen_api.pinned import RunArtifact
from videogen_api.progress import Progress, RunSummary
from videogen_api.training_run import (
    ConditionType,
    Phase,
    PhaseStatus,
    Reason,
    Task,
    TrainingRunSpec,
    TrainingRunStatus,
)
from videogen_api.tuning import TunedParameter
from videogen_operator.conditions import Wanted, merged
from videogen_operator.kinds.training_run.attempts import State, has_begun, state_of
from videogen_operator.kinds.training_run.observed import Observed, Unreadable
from videogen_operator.kinds.training_run.waiting import Wait
from videogen_operator.names import UPGRADING

PROGRESS_SECONDS = 15  # live progress is written at most this often; Prometheus gets each report (live.py)
DOING = {
    Task.CURATE: Reason.CURATING,
    Task.TRAIN: Reason.TRAINING,
    Task.EVALUATE: Reason.EVALUATING,
    Task.RELEASE: Reason.RELEASING,
    Task.FINE_TUNE: Reason.FINE_TUNING,
    Task.ADAPT: Reason.ADAPTING,
    Task.ALIGN_CROSS_MODAL: Reason.ALIGNING,
    Task.TUNE: Reason.TUNING,
    Task.TRAIN_INTERPOLATION: Reason.TRAINING_INTERPOLATION,
    Task.FINE_TUNE_DECODER: Reason.FINE_TUNING_DECODER,
    Task.BUILD_TEMPLATES: Reason.BUILDING_TEMPLATES,
    Task.TEST_SCENARIOS: Reason.TESTING_SCENARIOS,
    Task.OPTIMIZE: Reason.OPTIMIZING,
    Task.APPROVE: Reason.WAITING_FOR_APPROVAL,
}


def position(spec: TrainingRunSpec, status: TrainingRunStatus) -> int | None:
    """Index of the first phase that is not completed; None when all are."""
    done = {phase.name for phase in status.phases if phase.outcome == Reason.COMPLETED}
    return next((index for index, phase in enumerate(spec.phases) if phase.name not in done), None)


def assembled(observed: Observed, phase: PhaseStatus | None, said: Wait, artifact: RunArtifact | None, now: datetime) -> TrainingRunStatus:
    """The complete new status."""
    known = {old.name: old for old in observed.status.phases}
    if phase is not None and (phase.name in known or phase != PhaseStatus(name=phase.name)):
        known[phase.name] = phase
    here = phase.name if phase else ""
    known = {name: one for name, one in known.items() if name == here or has_begun(one)}  # an edit may have put others before it
    status = observed.status.model_copy(
        update={
            "observed_generation": observed.generation,
            "phases": [known[spec.name] for spec in observed.spec.phases if spec.name in known],
            "artifact": artifact,
            "release": _release(observed, list(known.values())),
            "tuned": tuned(observed.spec, list(known.values())),
        }
    )
    wanted = conditions(observed.spec, status, phase, said)
    written = merged((old.wire() for old in observed.status.conditions), wanted, observed.generation, now)
    return status.model_copy(
        update={"conditions": [Condition.model_validate(one) for one in written], "summary": summary(observed.spec, status)}
    )


def unreadable(broken: Unreadable, now: datetime) -> dict[str, Any]:
    """The status of a run that cannot be read: everything else in it stays, and that of an ended run stays whole."""
    old = broken.run.get("status")
    old = dict(old) if isinstance(old, Mapping) else {}
    listed = old.get("conditions")
    before = [one for one in listed if isinstance(one, Mapping) and "type" in one] if isinstance(listed, list) else []
    if any(one["type"] == ConditionType.SUCCEEDED and one.get("status") in {"True", "False"} for one in before):
        return old
    generation = int(broken.run["metadata"].get("generation", 0))
    message = f"this operator cannot read it: {broken.message}; {UPGRADING}"
    wanted = (
        Wanted(ConditionType.SUCCEEDED.value, None, Reason.UNREADABLE.value, message),
        Wanted(ConditionType.STALLED.value, True, Reason.UNREADABLE.value, message),
    )
    return {**old, "observedGeneration": generation, "conditions": merged(before, wanted, generation, now)}


def conditions(spec: TrainingRunSpec, status: TrainingRunStatus, phase: PhaseStatus | None, said: Wait) -> tuple[Wanted, ...]:
    """Succeeded always; Reconciling until the run's first job exists, and not again; Stalled when the run has failed, or its preflight."""
    place = position(spec, status)
    if place is None:
        reused = sum(one.reused_from is not None for one in status.phases)
        words = f"all {len(spec.phases)} phases are done" + (f", {reused} of them reused" if reused else "")
        return (Wanted(ConditionType.SUCCEEDED, True, Reason.COMPLETED, words),)
    state = state_of(phase) if phase is not None else State.IDLE
    if phase is not None and state == State.FAILED:
        reason, message = str(phase.outcome), f"{spec.phases[place].title}: {phase.message}"
        return (Wanted(ConditionType.SUCCEEDED, False, reason, message), Wanted(ConditionType.STALLED, True, reason, message))
    if said.reason == Reason.PREFLIGHT_FAILED:  # neither at work nor at an end: it waits until somebody has mended it
        reason, message = said.reason.value, said.message
        return (Wanted(ConditionType.SUCCEEDED, None, reason, message), Wanted(ConditionType.STALLED, True, reason, message))
    message = f"{spec.phases[place].title}: {said.message}"
    top = Wanted(ConditionType.SUCCEEDED, None, said.reason, message)
    begun = any(one.start_time is not None or one.outcome is not None for one in (*status.phases, *([phase] if phase else [])))
    return (top,) if begun else (top, Wanted(ConditionType.RECONCILING, True, said.reason, message))


def summary(spec: TrainingRunSpec, status: TrainingRunStatus) -> RunSummary:
    """Printer columns."""
    place = position(spec, status)
    if place is None:
        return RunSummary(model=release_name(spec.model), phase=f"{len(spec.phases)}/{len(spec.phases)}", progress="100 %")
    phase = spec.phases[place]
    known = next((one for one in status.phases if one.name == phase.name), None)
    progress = known.progress if known else None
    metrics = {metric.name: metric.value for metric in progress.metrics} if progress else {}
    return RunSummary(
        model=release_name(spec.model),
        phase=f"{place + 1}/{len(spec.phases)} {phase.name}",
        team=", ".join(one.team for one in known.waiting_for)[:128] if known else "",
        progress="" if progress is None or progress.progress_percentage is None else f"{progress.progress_percentage} %",
        step="/".join(metrics[name] for name in ("step", "steps") if name in metrics)[:40],
        loss=metrics.get("loss", "")[:16],
        eta="" if progress is None or progress.estimated_remaining_seconds is None else duration(progress.estimated_remaining_seconds),
    )


def worth_writing(old: Progress | None, new: Progress) -> bool:
    """Whether new progress is different, and the old one is some seconds old."""
    if old is None or old.last_updated_time is None or new.last_updated_time is None:
        return old != new
    return is_due(old.last_updated_time, new.last_updated_time)


def is_due(written: str | None, told: str | None) -> bool:
    """Whether a report is so much younger than the one that was written, or so much older: then another node's clock tells the time now."""
    if written is None or told is None:
        return True
    return abs((datetime.fromisoformat(told) - datetime.fromisoformat(written)).total_seconds()) >= PROGRESS_SECONDS


def duration(seconds: int) -> str:
    """The two largest units: 9d6h, 3h5m, 2m10s, 8s."""
    units = (("d", seconds // 86400), ("h", seconds // 3600 % 24), ("m", seconds // 60 % 60), ("s", seconds % 60))
    first = next((index for index, (_, value) in enumerate(units) if value), 3)
    return "".join(f"{value}{unit}" for unit, value in units[first : first + 2])


def tuned(spec: TrainingRunSpec, phases: Sequence[PhaseStatus]) -> list[TunedParameter]:
    """What the completed Tune phases have chosen; of two that search one parameter, the later one counts."""
    known = {phase.name: phase for phase in phases if phase.outcome == Reason.COMPLETED}
    chosen = {
        phase.tune.parameter: trial.value
        for phase in spec.phases
        if phase.tune and phase.name in known
        for trial in known[phase.name].trials
        if trial.chosen
    }
    return [TunedParameter(parameter=parameter, value=value) for parameter, value in chosen.items()]


def _release(observed: Observed, phases: list[PhaseStatus]) -> str:
    specs: dict[str, Phase] = {spec.name: spec for spec in observed.spec.phases}
    created = any(specs[one.name].task == Task.RELEASE and one.start_time is not None for one in phases if one.name in specs)
    return str(observed.release["metadata"]["name"]) if created and observed.release is not None else observed.status.release
