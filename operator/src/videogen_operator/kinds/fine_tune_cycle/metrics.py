"""What Prometheus is told of a FineTuneCycle: its state, the outcome of its last run, and when the next one is due."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from videogen_operator.kubernetes_objects import NOTHING, conditions
from videogen_operator.plan import Gauge, Manifest, Sample
from videogen_operator.quantities import number

CYCLE = ("namespace", "cycle")
STATE = Gauge("videogen_cycle", "1 for the reason of the cycle's Ready condition.", (*CYCLE, "reason"))
SUCCEEDED = Gauge("videogen_cycle_last_run_succeeded", "1 if the last run that has ended succeeded, 0 if it failed.", CYCLE)
NEXT = Gauge("videogen_cycle_next_schedule_time_seconds", "Next scheduled time, seconds since 1970.", CYCLE)
LAST = Gauge("videogen_cycle_last_schedule_time_seconds", "Last scheduled time that was decided about, seconds since 1970.", CYCLE)
OVERDUE = Gauge("videogen_cycle_overdue", "1 while a stage is not done and its window has closed.", CYCLE)
BELOW = Gauge("videogen_cycle_collection_below_target", "1 while a dataset has fewer new clips than collect asks for.", CYCLE)
STOPPED = Gauge("videogen_cycle_budget_exceeded", "1 while the run at work is stopped because it has used up budget.gpuHours.", CYCLE)
HOURS = Gauge("videogen_cycle_gpu_hours", "GPU hours that the run at work has used.", CYCLE)
GAUGES = (STATE, SUCCEEDED, NEXT, LAST, OVERDUE, BELOW, STOPPED, HOURS)


def samples(cycle: Manifest) -> Iterator[Sample]:
    """Of one cycle."""
    name, status, said = (cycle["metadata"]["namespace"], cycle["metadata"]["name"]), cycle.get("status") or NOTHING, conditions(cycle)
    if reason := said.get("Ready", NOTHING).get("reason"):
        yield STATE, (*name, reason), 1
    yield OVERDUE, name, float(said.get("Overdue", NOTHING).get("status") == "True")
    yield BELOW, name, float(said.get("CollectionBelowTarget", NOTHING).get("status") == "True")
    yield STOPPED, name, float(said.get("BudgetExceeded", NOTHING).get("status") == "True")
    if (hours := number(str((status.get("current") or NOTHING).get("gpuHours") or ""))) is not None:
        yield HOURS, name, hours
    if "LastRunSucceeded" in said:
        yield SUCCEEDED, name, float(said["LastRunSucceeded"]["status"] == "True")
    for gauge, field in ((NEXT, "nextScheduleTime"), (LAST, "lastScheduleTime")):
        if moment := status.get(field):
            yield gauge, name, datetime.fromisoformat(moment).timestamp()
