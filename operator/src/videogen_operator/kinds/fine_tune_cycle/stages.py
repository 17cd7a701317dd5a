"""Stages of the run at work: how far each is, what it has delivered, and whose turn it is."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from videogen_api.cycle_stages import Delivery, Stage, StageState, StageStatus
from videogen_api.fine_tune_cycle import CurrentRun
from videogen_api.training_run import TRAINING, Task
from videogen_api.windows import WaitingFor
from videogen_operator.conditions import timestamp
from videogen_operator.kinds.fine_tune_cycle import consumption
from videogen_operator.kinds.fine_tune_cycle.observed import value_at
from videogen_operator.kubernetes_objects import NOTHING, conditions
from videogen_operator.plan import Manifest

COMPLETED = "Completed"
MAKERS = frozenset({*TRAINING, Task.OPTIMIZE, Task.BUILD_TEMPLATES})  # tasks that make the run's bundle; the last one counts
DAY_SECONDS = 86400
LISTED = 16  # things that a stage has delivered


def check(stages: Sequence[Stage], spec: Mapping[str, Any]) -> None:
    """Raises ValueError with the path under spec unless each phase of a run's spec has one stage, and stages and phases one order."""
    if not stages:
        return
    phases = [str(phase.get("name")) for phase in spec["phases"]]
    told = f"the template has {', '.join(phases)}"
    named: list[str] = []
    for place, stage in enumerate(stages):
        for phase in stage.phases:
            if phase not in phases:
                raise ValueError(f"stages[{place}].phases: there is no phase {phase}; {told}")
            if phase in named:
                raise ValueError(f"stages[{place}].phases: phase {phase} has a stage already; name it once")
            named.append(phase)
    if missing := [phase for phase in phases if phase not in named]:
        raise ValueError(f"stages: phase {missing[0]} has no stage; add it to one")
    place_of = {phase: place for place, stage in enumerate(stages) for phase in stage.phases}
    for before, after in itertools.pairwise(phases):
        if place_of[before] > place_of[after]:
            raise ValueError(f"stages: phase {before} comes before {after} in the run, and its stage after; {told}")


def followed(stages: Sequence[Stage], current: CurrentRun, run: Manifest) -> CurrentRun:
    """The run at work with its stages as they are now. Stages may have been edited since: those without a phase of this run are not its."""
    phases = {phase.get("name") for phase in value_at(run, "spec", "phases") or ()}
    known = [_status(stage, datetime.fromisoformat(current.scheduled_time), run) for stage in stages if phases.intersection(stage.phases)]
    turn = next((one for one in known if one.state != StageState.DONE), None)
    return current.model_copy(
        update={"stages": known, "stage": turn.name if turn else "", "waiting_for": _waiting(turn, known, run) if turn else None}
    )


def overdue(current: CurrentRun | None, now: datetime) -> list[StageStatus]:
    """Stages whose window has closed before they were done."""
    return [one for one in (current.stages if current else ()) if one.state != StageState.DONE and datetime.fromisoformat(one.due) <= now]


def next_due(current: CurrentRun | None, now: datetime) -> float | None:
    """Seconds until the next window of a stage that is not done closes."""
    ends = [datetime.fromisoformat(one.due) for one in (current.stages if current else ()) if one.state != StageState.DONE]
    return min(((end - now).total_seconds() for end in ends if end > now), default=None)


def failed(current: CurrentRun) -> str:
    """Words for the stage in which the run failed; "" without stages."""
    stage = next((one for one in current.stages if one.state == StageState.FAILED), None)
    return f"stage {stage.name} of {stage.owner} failed: " if stage else ""


def _status(stage: Stage, scheduled: datetime, run: Manifest) -> StageStatus:
    phases = [phase for phase in value_at(run, "status", "phases") or () if phase.get("name") in stage.phases]
    outcomes = [phase.get("outcome") for phase in phases]
    ours = [phase for phase in value_at(run, "spec", "phases") or () if phase.get("name") in stage.phases]
    if len(phases) == len(ours) and all(outcome == COMPLETED for outcome in outcomes):
        state = StageState.DONE
    elif any(outcome and outcome != COMPLETED for outcome in outcomes):
        state = StageState.FAILED
    else:
        state = StageState.WORKING if any(phase.get("begun") for phase in phases) else StageState.WAITING
    over = state in {StageState.DONE, StageState.FAILED}
    starts, ends = ([str(phase[field]) for phase in phases if phase.get(field)] for field in ("startTime", "completionTime"))
    start, end = min(starts, default=None), max(ends, default=None) if over else None
    return StageStatus(
        name=stage.name,
        planned_seconds=stage.days * DAY_SECONDS,
        wall_seconds=consumption.seconds_between(start, end),
        gpu_hours=consumption.gpu_hours_of(phases),
        bytes_written=consumption.bytes_of(phases),
        owner=stage.owner,
        state=state,
        due=timestamp(scheduled + timedelta(days=stage.start_day + stage.days)),
        start_time=start,
        end_time=end,
        delivered=list(_delivered(stage, run))[:LISTED],
    )


def _delivered(stage: Stage, run: Manifest) -> Iterator[Delivery]:
    tasks = {phase.get("name"): phase.get("task") for phase in value_at(run, "spec", "phases") or ()}
    done = [phase for phase in value_at(run, "status", "phases") or () if phase.get("outcome") == COMPLETED]
    for phase in (one for one in done if one["name"] in stage.phases):
        if tasks.get(phase["name"]) == Task.CURATE:
            for data in phase.get("datasets") or ():
                yield Delivery(kind="Dataset", name=f"{data['dataset']}/{data['version']}", digest=data["digest"])
        if report := phase.get("report"):
            yield Delivery(kind="Report", name=report)
    makers = [phase["name"] for phase in done if tasks.get(phase["name"]) in MAKERS]
    if (bundle := value_at(run, "status", "artifact")) and makers and makers[-1] in stage.phases:
        yield Delivery(kind="Bundle", name=bundle["path"], digest=bundle["digest"])
    if (release := value_at(run, "status", "release")) and any(tasks.get(name) == Task.RELEASE for name in stage.phases):
        yield Delivery(kind="Release", name=release)


def _waiting(turn: StageStatus, known: Sequence[StageStatus], run: Manifest) -> WaitingFor:
    before = [one.end_time for one in known[: known.index(turn)] if one.end_time]
    said = conditions(run).get("Succeeded", NOTHING)
    what = str(said.get("message") or f"stage {turn.name}")
    return WaitingFor(
        team=turn.owner, what=what[:1024], since=before[-1] if before else run["metadata"].get("creationTimestamp"), due=turn.due
    )
