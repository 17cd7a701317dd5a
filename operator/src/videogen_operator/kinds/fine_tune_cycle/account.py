"""The account of a cycle: what became of its scheduled times and runs, and which runs are old enough to go."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import UTC, datetime, tzinfo
from functools import lru_cache

from videogen_api.fine_tune_cycle import HISTORY, LABEL_MEASURES, ConcurrencyPolicy, FineTuneCycleStatus, Followed, Outcome, PastRun
from videogen_operator.conditions import timestamp
from videogen_operator.kinds.fine_tune_cycle import collection, consumption, stages
from videogen_operator.kinds.fine_tune_cycle.observed import Cycle, value_at
from videogen_operator.kinds.fine_tune_cycle.schedule import Schedule
from videogen_operator.kubernetes_objects import NOTHING, conditions
from videogen_operator.names import MANAGED_BY
from videogen_operator.plan import Manifest, Note, Ref

NEVER = datetime(1970, 1, 1, tzinfo=UTC)


def run_name(cycle: str, due: datetime) -> str:
    """`<cycle>-<date>-<hour and minute>` in UTC: one name for each scheduled time."""
    return f"{cycle}-{due.astimezone(UTC):%Y%m%d-%H%M}"


@lru_cache(maxsize=8192)
def scheduled_time(cycle: str, run: str) -> datetime | None:
    """The scheduled time for which a cycle made the run of this name; None if it made it by request, or not at all."""
    found = re.fullmatch(rf"{re.escape(cycle)}-(\d{{8}}-\d{{4}})", run)
    try:
        return datetime.strptime(found[1], "%Y%m%d-%H%M").replace(tzinfo=UTC) if found else None
    except ValueError:
        return None


def following(cycle: Cycle, expression: str, zone: str, now: datetime) -> FineTuneCycleStatus:
    """The status with the schedule that is followed. A schedule that was changed counts from now on, so that the change makes no run."""
    known = cycle.status
    if known.followed is not None and (known.followed.schedule, known.followed.time_zone) == (expression, zone):
        return known
    created = cycle.manifest["metadata"].get("creationTimestamp")
    since = created if known.followed is None and created else timestamp(now)
    return known.model_copy(update={"followed": Followed(schedule=expression, time_zone=zone, since=since)})


def decided_until(cycle: Cycle) -> datetime:
    """The newest scheduled time that needs no decision."""
    known = cycle.status
    times = [_read(one) for one in (known.followed.since if known.followed else None, known.last_schedule_time) if one]
    return max(times, default=NEVER)


def undecided(cycle: Cycle, times: Schedule, until: datetime) -> tuple[datetime, datetime] | None:
    """The first and the last scheduled time up to a moment that nothing was decided about; None if there is none."""
    first = times.next(decided_until(cycle))
    last = times.last(until) if first is not None and first <= until else None
    return (first, last) if first is not None and last is not None and first <= last else None


def unaccounted(cycle: Cycle) -> tuple[datetime, Manifest] | None:
    """The oldest run that was made before the status could say so, if there is one: for a scheduled time, or by a request that somebody has
    overwritten since.
    """
    last = _read(cycle.status.last_schedule_time) if cycle.status.last_schedule_time else NEVER
    told = {past.run for past in cycle.status.history}
    late: list[tuple[datetime, Manifest]] = []
    for run in (one for one in _made(cycle) if not one["metadata"].get("deletionTimestamp")):
        due = scheduled_time(cycle.name, run["metadata"]["name"])
        if due is not None and due > last:
            late.append((due, run))
        elif due is None and run["metadata"]["name"] not in told and verdict(run) not in {"True", "False"}:
            late.append((created(run), run))
    return min(late, key=lambda one: one[0], default=None)


def retried(cycle: Cycle) -> PastRun | None:
    """A run that failed or found too few new clips and goes on, because somebody has asked for it (retry@<id>); None if there is none."""
    over = {Outcome.FAILED, Outcome.SKIPPED}
    failed = (past for past in reversed(cycle.status.history) if past.outcome in over and past.run and past.version)
    return next((past for past in failed if (run := cycle.run(past.run or "")) is not None and verdict(run) in {"Unknown", "True"}), None)


def created(run: Manifest) -> datetime:
    """When a run was created."""
    return _read(str(run["metadata"].get("creationTimestamp") or timestamp(NEVER)))


def verdict(run: Manifest) -> str:
    """The status of a run's condition Succeeded; "" before it has one."""
    return str(conditions(run).get("Succeeded", NOTHING).get("status", ""))


def has_started(cycle: Cycle, due: datetime) -> bool:
    """Whether the cycle made a run for this time."""
    return cycle.run(run_name(cycle.name, due)) is not None or any(
        past.run and past.scheduled_time == timestamp(due) for past in cycle.status.history
    )


def later(known: FineTuneCycleStatus, due: datetime, by_request: bool) -> str | None:
    """The last schedule time after a run for `due`; a run by request decides about no time of the calendar."""
    old = known.last_schedule_time
    return timestamp(due) if not by_request and (old is None or due > _read(old)) else old


def with_past(known: FineTuneCycleStatus, past: PastRun) -> FineTuneCycleStatus:
    """The status with one more line of history."""
    return known.model_copy(update={"history": [*known.history, past][-HISTORY:]})


def followed(cycle: Cycle, now: datetime) -> tuple[FineTuneCycleStatus, tuple[Note, ...]]:
    """The status with what the run at work does, or with its end."""
    history = [consumption.with_late_pods(cycle, past) for past in cycle.status.history]
    cycle = replace(cycle, status=cycle.status.model_copy(update={"history": history}))
    known, current = cycle.status, cycle.status.current
    if current is None:
        return known, ()
    run = cycle.run(current.run)
    succeeded = conditions(run).get("Succeeded", NOTHING) if run is not None else NOTHING
    if run is None or run["metadata"].get("deletionTimestamp"):
        if (by := unaccounted(cycle)) and cycle.spec.concurrency_policy == ConcurrencyPolicy.REPLACE:
            return _ended(cycle, Outcome.REPLACED, _began(by[1]["metadata"]["name"]), now)
        return _ended(cycle, Outcome.DELETED, "the run was deleted before its end", now)
    match succeeded.get("status"):
        case "True":
            return _ended(cycle, Outcome.SUCCEEDED, "", now, run)
        case "False" if succeeded.get("reason") == collection.TOO_FEW:
            return _ended(cycle, Outcome.SKIPPED, str(succeeded.get("message", ""))[:1024], now, run)
        case "False":
            told = stages.failed(stages.followed(cycle.spec.stages, current, run))
            return _ended(cycle, Outcome.FAILED, f"{told}{succeeded.get('reason')}: {succeeded.get('message', '')}"[:1024], now, run)
    phase, state = str(value_at(run, "status", "summary", "phase") or ""), str(succeeded.get("reason", ""))
    changes = {"phase": phase[:64], "state": state[:64], "gpu_hours": consumption.gpu_hours(run)}
    doing = stages.followed(cycle.spec.stages, current, run).model_copy(update=changes)
    return known.model_copy(update={"current": doing}), ()


def _ended(
    cycle: Cycle, outcome: Outcome, why: str, now: datetime, run: Manifest | None = None
) -> tuple[FineTuneCycleStatus, tuple[Note, ...]]:
    current = cycle.status.current
    assert current is not None, "only a run at work ends"
    last = stages.followed(cycle.spec.stages, current, run) if run is not None else current
    past = PastRun(
        scheduled_time=current.scheduled_time,
        outcome=outcome,
        stages=consumption.stage_uses(last),
        message=why,
        run=current.run,
        version=current.version,
        release=str(value_at(run, "status", "release") or "") or _measured(run),
        datasets=collection.curated(run),
        gpu_hours=consumption.gpu_hours(run) or current.gpu_hours,
        end_time=timestamp(now),
    )
    words = f"run {current.run} has ended: {outcome}{f', {why}' if why else ''}"
    note = Note(cycle.manifest, f"Run{outcome}", words[:1024], "Normal" if outcome == Outcome.SUCCEEDED else "Warning")
    success = {"last_success": past} if outcome == Outcome.SUCCEEDED else {}
    return with_past(cycle.status, past).model_copy(update={"current": None, **success}), (note,)


def _measured(run: Manifest | None) -> str | None:
    return run["metadata"]["labels"].get(LABEL_MEASURES) if run is not None else None


def _began(by: str) -> str:
    return f"{by} began, and concurrencyPolicy is Replace"


@dataclass(frozen=True, slots=True)
class Replaced:
    """What a new run means for the one at work."""

    history: list[PastRun]
    delete: tuple[Ref, ...] = ()


def replaced(cycle: Cycle, by: str, now: datetime) -> Replaced:
    """The history and what to delete when a new run begins; nothing if none was at work."""
    current = cycle.status.current
    if current is None:
        return Replaced(list(cycle.status.history))
    past = PastRun(
        scheduled_time=current.scheduled_time,
        outcome=Outcome.REPLACED,
        message=_began(by),
        run=current.run,
        version=current.version,
        gpu_hours=current.gpu_hours,
        end_time=timestamp(now),
    )
    run = cycle.run(current.run)
    return Replaced(list(with_past(cycle.status, past).history), (_ref(run),) if run is not None else ())


def outdated(stored: Cycle, kept: str) -> tuple[Ref, ...]:
    """Ended runs beyond the history limits, the oldest first; none whose end is not in the status yet: after a crash it would be lost."""
    spec, last = stored.spec, _read(stored.status.last_schedule_time or timestamp(NEVER))
    stay = {kept, stored.status.current.run if stored.status.current else ""}
    runs = [run for run in _made(stored) if run["metadata"]["name"] not in stay and not run["metadata"].get("deletionTimestamp")]
    runs = [run for run in runs if (scheduled_time(stored.name, run["metadata"]["name"]) or NEVER) <= last]
    runs.sort(key=lambda run: (str(run["metadata"].get("creationTimestamp")), run["metadata"]["name"]))
    found: list[Ref] = []
    for outcome, limit in (("True", spec.successful_runs_history_limit), ("False", spec.failed_runs_history_limit)):
        ended = [run for run in runs if verdict(run) == outcome]
        found += [_ref(run) for run in ended[: max(0, len(ended) - limit)]]
    return tuple(found)


def of_last_success(cycle: Cycle, zone: tzinfo) -> dict[str, str]:
    """Placeholders about the last successful run; none before it."""
    last = cycle.status.last_success
    if last is None or last.version is None:
        return {}
    known = {"previousVersion": last.version, "previousDate": f"{_read(last.scheduled_time).astimezone(zone):%Y-%m-%d}"}
    made = next((one.version for one in last.datasets if one.version), None)
    return known | ({"previousDataset": made} if made else {})


def _made(cycle: Cycle) -> list[Manifest]:
    """Runs that the cycle itself has made: anybody may give another one its label."""
    ours = re.compile(rf"{re.escape(cycle.name)}-(\d{{8}}-\d{{4}}|now-[0-9a-f]{{8}})")
    managed = [run for run in cycle.runs if run["metadata"]["labels"].get(MANAGED_BY[0]) == MANAGED_BY[1]]
    return [run for run in managed if ours.fullmatch(run["metadata"]["name"])]


def _ref(run: Manifest) -> Ref:
    metadata = run["metadata"]
    return Ref(run["apiVersion"], run["kind"], metadata["namespace"], metadata["name"], metadata["uid"])


def _read(moment: str) -> datetime:
    return datetime.fromisoformat(moment).astimezone(UTC)
