"""What the runs of a cycle use up, as they tell it: GPU hours, and that a budget has stopped one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import Any

from videogen_api.cycle_stages import StageUse
from videogen_api.fine_tune_cycle import ConditionType, CurrentRun, FineTuneCycleStatus, PastRun, Reason
from videogen_api.training_run import Reason as RunReason
from videogen_operator.conditions import Wanted
from videogen_operator.kinds.fine_tune_cycle.observed import Cycle, value_at
from videogen_operator.kubernetes_objects import NOTHING, conditions
from videogen_operator.plan import Manifest


def gpu_hours(run: Manifest | None) -> str | None:
    """GPU hours of all phases of a run; None if it has told of none."""
    return gpu_hours_of(value_at(run, "status", "phases") or ())


def bytes_of(phases: Iterable[Mapping[str, Any]]) -> int | None:
    """Bytes that phases have written; None if they have told of none."""
    told = [phase["bytesWritten"] for phase in phases if isinstance(phase.get("bytesWritten"), int)]
    return sum(told) if told else None


def seconds_between(start: str | None, end: str | None) -> int | None:
    """Whole seconds, and none if a clock says that the end was before; None unless both are known."""
    if start is None or end is None:
        return None
    return max(0, int((datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds()))


def stage_uses(current: CurrentRun) -> list[StageUse]:
    """What the stages of the run at work have taken, for the history."""
    return [StageUse(**{name: getattr(stage, name) for name in StageUse.model_fields}) for stage in current.stages]


def gpu_hours_of(phases: Iterable[Mapping[str, Any]]) -> str | None:
    """GPU hours of some phases of a run; None if they have told of none."""
    told = [str(phase["gpuHours"]) for phase in phases if phase.get("gpuHours")]
    try:
        return f"{sum(map(Decimal, told), Decimal(0)):.4f}" if told else None
    except InvalidOperation:  # of another version of the API
        return None


def with_late_pods(cycle: Cycle, past: PastRun) -> PastRun:
    """An entry of the history, with what pods have used that ended after their run."""
    told = gpu_hours(cycle.run(past.run)) if past.run else None
    return past.model_copy(update={"gpu_hours": told}) if told is not None and told != past.gpu_hours else past


def exceeded(cycle: Cycle, known: FineTuneCycleStatus) -> Wanted | None:
    """The condition BudgetExceeded; None unless the run at work is stopped for its budget."""
    run = cycle.run(known.current.run) if known.current is not None else None
    said = conditions(run).get("Succeeded", NOTHING) if run is not None else NOTHING
    if known.current is None or (said.get("status"), said.get("reason")) != ("Unknown", RunReason.BUDGET_EXCEEDED):
        return None
    words = f"run {known.current.run} is stopped: {said.get('message', '')}"
    return Wanted(ConditionType.BUDGET_EXCEEDED, True, Reason.BUDGET_SPENT, words[:1024])
