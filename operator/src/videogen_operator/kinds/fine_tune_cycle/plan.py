"""What to do about the cycles of one model now: a pure function from a snapshot to a Plan.

Of several cycles that are due together the first one, of the highest precedence, starts; the others skip their time. A run's name is
made from its scheduled time, so no time is used twice, whenever the operator is killed.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from pydantic import ValidationError

from videogen_api.fine_tune_cycle import (
    LABEL_CYCLE,
    SCHEDULES,
    ConcurrencyPolicy,
    CurrentRun,
    FineTuneCycleStatus,
    Outcome,
    PastRun,
    Reason,
)
from videogen_api.meta import API_VERSION
from videogen_operator.conditions import timestamp
from videogen_operator.kinds.fine_tune_cycle import account, run_spec, stages, status
from videogen_operator.kinds.fine_tune_cycle.observed import RUN, Cycle, Observed, value_at
from videogen_operator.kinds.fine_tune_cycle.run_spec import CycleError, Order
from videogen_operator.kinds.fine_tune_cycle.schedule import Schedule, ZoneError, highest, next_version, schedule
from videogen_operator.kinds.fine_tune_cycle.sources import Source, source, trial
from videogen_operator.kinds.fine_tune_cycle.status import Said
from videogen_operator.names import MANAGED_BY
from videogen_operator.plan import Failure, Inputs, Manifest, Note, Plan, Ref, StatusWrite

LONGEST_SLEEP = 3600.0  # seconds: the clock may be set meanwhile
REFUSED_SECONDS = 30.0
RUN_NOW = "run-now"


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What one pass does about one cycle."""

    status: FineTuneCycleStatus
    said: Said
    create: Manifest | None = None
    delete: tuple[Ref, ...] = ()
    notes: tuple[Note, ...] = ()
    again: float = LONGEST_SLEEP  # seconds
    takes: datetime | None = None  # scheduled times of cycles after it up to this one go to it: it begins a run, or waits to begin one


@dataclass(frozen=True, slots=True, kw_only=True)
class Pass:
    """What all cycles of the line share in a pass."""

    observed: Observed
    now: datetime
    refused: Mapping[str, Failure]  # runs that were not created, by name
    undeleted: Mapping[str, Failure]  # runs that were not deleted, by name
    failed: bool = False  # a cycle before this one was refused its run, after which no other was created
    ahead: tuple[tuple[str, datetime], ...] = ()  # cycles of higher precedence, and up to when they take scheduled times
    claimed: frozenset[str] = frozenset()  # versions that are taken


def plan(observed: Observed, inputs: Inputs) -> Plan:
    """The plan for all cycles of a line."""
    failures = {failure.name: failure for failure in inputs.failures if failure.kind == RUN}
    there = {run["metadata"]["name"] for cycle in observed.cycles for run in cycle.runs}
    context = Pass(
        observed=observed,
        now=inputs.now,
        refused={name: failure for name, failure in failures.items() if name not in there},
        undeleted={name: failure for name, failure in failures.items() if name in there},
        claimed=observed.versions,
    )
    steps: list[tuple[Cycle, Step]] = []
    for cycle in observed.cycles:
        step = _advance(cycle, context)
        steps.append((cycle, step))
        claimed = context.claimed | {one for one in (step.status.last_version,) if one}
        ahead = ((cycle.name, step.takes),) if step.takes is not None and not cycle.measures else ()
        failed = context.failed or (step.create is not None and step.create["metadata"]["name"] in context.refused)
        context = replace(context, ahead=(*context.ahead, *ahead), claimed=claimed, failed=failed)
    # Who has skipped a time for another one's sake is written first: after a crash in between, the other one's run is found again.
    writes = [write for cycle, step in reversed(steps) for write in status.written(cycle, step.status, step.said, inputs.now)]
    writes += [write for broken in observed.unreadable for write in _unreadable(broken.manifest, broken.message, inputs.now)]
    return Plan(
        create=tuple(step.create for _, step in steps if step.create is not None),
        delete=tuple(ref for _, step in steps for ref in step.delete),
        statuses=tuple(writes),
        notes=tuple(note for _, step in steps for note in step.notes),
        requeue_after=min((step.again for _, step in steps), default=LONGEST_SLEEP),
    )


def _unreadable(manifest: Manifest, message: str, now: datetime) -> tuple[StatusWrite, ...]:
    told = status.unreadable(manifest, message, now)
    return (StatusWrite(manifest, told),) if told != (manifest.get("status") or {}) else ()


def _advance(stored: Cycle, context: Pass) -> Step:
    followed, notes = account.followed(stored, context.now)
    step = _decide(replace(stored, status=followed), context)
    kept = step.status.current.run if step.status.current else ""
    # The end of a run is written first; then those beyond the history limits go.
    has_ended = stored.status.current is not None and followed.current is None
    again = 0.0 if has_ended else min(step.again, *_awaited(step.status, context.now))
    return replace(step, notes=(*notes, *step.notes), delete=(*step.delete, *account.outdated(stored, kept)), again=again)


def _awaited(known: FineTuneCycleStatus, now: datetime) -> Iterator[float]:
    """Seconds until what comes by itself, whatever else is in the way: the next scheduled time, the end of a stage's window, an hour."""
    yield LONGEST_SLEEP
    if (end := stages.next_due(known.current, now)) is not None:
        yield end
    if known.next_schedule_time and (following := datetime.fromisoformat(known.next_schedule_time)) > now:
        yield (following - now).total_seconds()


def _decide(cycle: Cycle, context: Pass) -> Step:
    now = context.now
    expression, zone = _followed(cycle)
    try:
        times = schedule(expression, zone)
    except ZoneError as error:
        return _stalled(cycle, Reason.TIME_ZONE_UNKNOWN, f"spec.timeZone: {error}")
    except ValueError as error:
        return _stalled(cycle, Reason.SCHEDULE_INVALID, f"spec.schedule: {error}")
    following = times.next(now)
    assert following is not None, "a schedule without a next time is refused"
    cycle, left = _before_a_change(cycle, context, expression, zone)
    known = account.following(cycle, expression, zone, now).model_copy(update={"next_schedule_time": timestamp(following)})
    step = _follow(replace(cycle, status=known), context, times, following)
    return replace(step, notes=(*left, *step.notes))


def _follow(cycle: Cycle, context: Pass, times: Schedule, following: datetime) -> Step:
    spec, known, now = cycle.spec, cycle.status, context.now
    if known.current is None and (lost := account.unaccounted(cycle)):
        return _begun_unseen(cycle, context, times, *lost)
    if known.current is None and (past := account.retried(cycle)):
        return _goes_on(cycle, past)
    if cycle.request and cycle.request != known.last_handled_request:
        return _on_request(cycle, context, times)
    if problem := _trial(cycle, context, times, following):
        return problem
    if spec.suspend:
        return Step(status=known, said=Said(Reason.SUSPENDED, "spec.suspend is true; no run is created"))
    come = account.undecided(cycle, times, now)
    if come is None:
        return Step(status=known, said=status.waiting(cycle, known, following))
    cycle, overtaken = _overtaken(cycle, context, times, come[1])
    step = _due(cycle, context, times, come[1])
    return replace(step, notes=(*overtaken, *step.notes))


def _followed(cycle: Cycle) -> tuple[str, str]:
    """Schedule and time zone that count now: the former ones until the status has each run that was made by them."""
    spec, old = cycle.spec, cycle.status.followed
    if old is not None and account.unaccounted(cycle) is not None:
        with contextlib.suppress(ValueError):  # no zone of this operator's any more
            schedule(old.schedule, old.time_zone)
            return old.schedule, old.time_zone
    return spec.schedule or SCHEDULES[spec.cadence], spec.time_zone


def _before_a_change(cycle: Cycle, context: Pass, expression: str, zone: str) -> tuple[Cycle, tuple[Note, ...]]:
    """The cycle with an end for times of the schedule that was followed, if that is another one now."""
    old = cycle.status.followed
    if old is None or (old.schedule, old.time_zone) == (expression, zone):
        return cycle, ()
    try:
        times = schedule(old.schedule, old.time_zone)
    except ValueError:  # no zone of this operator's any more
        return cycle, ()
    return _missed(cycle, context, account.undecided(cycle, times, context.now), "the schedule was changed before a run could begin")


def _overtaken(cycle: Cycle, context: Pass, times: Schedule, due: datetime) -> tuple[Cycle, tuple[Note, ...]]:
    """The cycle with an end for times before the one that counts."""
    earlier = account.undecided(cycle, times, due - timedelta(seconds=1))
    return _missed(cycle, context, earlier, f"a later time, {timestamp(due)}, came before a run could begin")


def _missed(cycle: Cycle, context: Pass, span: tuple[datetime, datetime] | None, why: str) -> tuple[Cycle, tuple[Note, ...]]:
    """One line for all of them, however many: they must not push runs out of the history."""
    if span is None:
        return cycle, ()
    step = _passed_over(cycle, context, span[1], Outcome.MISSED, f"{why}{status.obstacle(cycle.status)}", span[0])
    return replace(cycle, status=step.status), step.notes


def _begun_unseen(cycle: Cycle, context: Pass, times: Schedule, due: datetime, run: Manifest) -> Step:
    """A run that was made before the status could say so, and what it had overtaken."""
    notes: tuple[Note, ...] = ()
    if account.scheduled_time(cycle.name, run["metadata"]["name"]) is not None:
        cycle, notes = _overtaken(cycle, context, times, due)
    step = _started(cycle, context, due, run, None)
    return replace(step, notes=(*notes, *step.notes))


def _due(cycle: Cycle, context: Pass, times: Schedule, due: datetime) -> Step:
    """A scheduled time has come and nobody has decided about it."""
    spec, known, now = cycle.spec, cycle.status, context.now
    late = (now - due).total_seconds()
    if spec.starting_deadline_seconds is not None and late > spec.starting_deadline_seconds:
        why = f"it was {late:.0f} s late, and startingDeadlineSeconds is {spec.starting_deadline_seconds}{status.obstacle(cycle.status)}"
        return _passed_over(cycle, context, due, Outcome.MISSED, why)
    if ahead := _ahead(cycle, context, due):
        why = f"cycle {ahead} of the same model was due, too, and has precedence"
        return _passed_over(cycle, context, due, Outcome.SKIPPED, why)
    if known.current is not None:
        match spec.concurrency_policy:
            case ConcurrencyPolicy.FORBID:
                why = f"run {known.current.run} was at work, and concurrencyPolicy is Forbid"
                return _passed_over(cycle, context, due, Outcome.SKIPPED, why)
            case ConcurrencyPolicy.QUEUE:
                said = Said(Reason.QUEUED, f"the run for {timestamp(due)} waits for the end of {known.current.run}")
                return Step(status=known, said=said, takes=due)
            case ConcurrencyPolicy.REPLACE:
                pass
    step = _start(cycle, context, times, due, account.run_name(cycle.name, due))
    return replace(step, takes=step.takes or due)


def _ahead(cycle: Cycle, context: Pass, due: datetime) -> str:
    """A cycle before this one that takes this time, or has begun a run for it; "" if there is none. One that waits takes no later time: it
    may wait for a release that this cycle makes. Those that measure are in nobody's way.
    """
    if cycle.measures:
        return ""
    place = [one.name for one in context.observed.cycles].index(cycle.name)
    before = [one for one in context.observed.cycles[:place] if not one.measures]
    taken = next((name for name, until in context.ahead if due <= until), "")
    return taken or next((one.name for one in before if account.has_started(one, due)), "")


def _start(cycle: Cycle, context: Pass, times: Schedule, due: datetime, name: str) -> Step:
    """Create the run, or adopt one that was created before the status could say so."""
    known = cycle.status
    if (made := cycle.run(name)) is not None:
        return _started(cycle, context, due, made, None)
    begins = source(cycle, context.observed.stable or {})
    if isinstance(begins, Said):
        return Step(status=known, said=begins, again=REFUSED_SECONDS)
    try:
        run = _manifest(cycle, context, times, due, name, begins)
    except CycleError as error:
        return _stalled(cycle, error.reason, str(error))
    if context.failed or name in context.refused:
        why = context.refused[name].message if name in context.refused else "what was written before it was refused, too"
        said = Said(Reason.RUN_REFUSED, f"TrainingRun {name} was refused: {why}"[:1024], ready=False)
        return Step(status=known, said=said, create=run, again=REFUSED_SECONDS)
    return _started(cycle, context, due, run, run)


def _started(cycle: Cycle, context: Pass, due: datetime, run: Manifest, create: Manifest | None) -> Step:
    known, name, version = cycle.status, run["metadata"]["name"], str(value_at(run, "spec", "model", "version"))
    replaced = account.replaced(cycle, name, context.now)
    if failure := next((context.undeleted[ref.name] for ref in replaced.delete if ref.name in context.undeleted), None):
        why = f"TrainingRun {name} replaces {failure.name}, which cannot be deleted: {failure.message}"
        return Step(status=known, said=Said(Reason.RUN_REFUSED, why[:1024], ready=False), create=create, again=REFUSED_SECONDS)
    current = CurrentRun(run=name, scheduled_time=timestamp(due), version=version)
    by_request = account.scheduled_time(cycle.name, name) is None
    last = account.later(known, due, by_request)
    used = known.last_version if cycle.measures else highest({version, known.last_version or version})
    update = {"current": current, "last_version": used, "history": replaced.history, "last_schedule_time": last}
    note = Note(cycle.manifest, "RunCreated", f"created TrainingRun {name} for {timestamp(due)}: version {version}")
    return Step(
        status=known.model_copy(update=update),
        said=Said(Reason.RUNNING, f"run {name} {cycle.verb} version {version}"),
        create=create,
        delete=replaced.delete,
        notes=(note,),
        again=0.0,
        takes=None if by_request else context.now if create is not None else account.created(run),
    )


def _goes_on(cycle: Cycle, past: PastRun) -> Step:
    """A failed run that is retried is the run at work again; its end is written when it has one."""
    assert past.run is not None and past.version is not None, "only a run fails"
    current = CurrentRun(run=past.run, scheduled_time=past.scheduled_time, version=past.version)
    history = [one for one in cycle.status.history if one != past]
    known = cycle.status.model_copy(update={"current": current, "history": history})
    note = Note(cycle.manifest, "RunRetried", f"TrainingRun {past.run} goes on after it had failed")
    return Step(status=known, said=status.waiting(cycle, known, None), notes=(note,), again=0.0)


def _passed_over(cycle: Cycle, context: Pass, due: datetime, outcome: Outcome, why: str, first: datetime | None = None) -> Step:
    """`first`: of several times, up to `due`, that end alike."""
    since = timestamp(first) if first is not None and first < due else None
    past = PastRun(scheduled_time=timestamp(due), first_time=since, outcome=outcome, message=why, end_time=timestamp(context.now))
    known = account.with_past(cycle.status, past).model_copy(update={"last_schedule_time": timestamp(due)})
    note = Note(cycle.manifest, outcome.value, f"no run for {f'{since} to ' if since else ''}{timestamp(due)}: {why}", "Warning")
    return Step(status=known, said=status.waiting(cycle, known, None), notes=(note,), again=0.0)


def _on_request(cycle: Cycle, context: Pass, times: Schedule) -> Step:
    """`run-now@<id>`: a run at once, also while the cycle is suspended. The same id never makes a second one."""
    verb, at, identifier = cycle.request.partition("@")
    answered = cycle.status.model_copy(update={"last_handled_request": cycle.request})
    if verb != RUN_NOW or not at or not identifier:
        return _refused(cycle, answered, f"request {cycle.request!r} is none; accepted is {RUN_NOW}@<id>")
    name = f"{cycle.name}-now-{hashlib.sha256(identifier.encode()).hexdigest()[:8]}"
    if (current := cycle.status.current) is not None:
        if current.run == name:  # made before the status could say so
            return Step(status=answered, said=status.waiting(cycle, answered, None), again=0.0)
        return _refused(cycle, answered, f"{RUN_NOW} was asked for while run {current.run} is at work; ask again after its end")
    if any(past.run == name for past in cycle.status.history):
        return _refused(cycle, answered, f"{RUN_NOW} with this id has made run {name}; ask with another id")
    step = _start(cycle, context, times, context.now.replace(microsecond=0), name)
    if step.status.current is None:
        if step.said.reason == Reason.RUN_REFUSED:
            return step  # the request waits, as the run would
        return _refused(cycle, answered, f"{RUN_NOW} creates no run: {step.said.message}")
    return replace(step, status=step.status.model_copy(update={"last_handled_request": cycle.request}))


def _refused(cycle: Cycle, answered: FineTuneCycleStatus, why: str) -> Step:
    said = status.waiting(cycle, answered, None)
    return Step(status=answered, said=said, notes=(Note(cycle.manifest, "RequestRefused", why, "Warning"),), again=0.0)


def _trial(cycle: Cycle, context: Pass, times: Schedule, due: datetime) -> Step | None:
    """What is wrong with the template is said when it is written, and not first when a run is due: tried with the next run's values."""
    try:
        run_spec.check(cycle, _order(cycle, context, times, due, account.run_name(cycle.name, due), trial(cycle)))
    except CycleError as error:
        return _stalled(cycle, error.reason, str(error))
    return None


def _order(cycle: Cycle, context: Pass, times: Schedule, due: datetime, name: str, begins: Source) -> Order:
    """What the run's spec follows from. Raises CycleError if there is no version for it."""
    spec = cycle.spec
    try:
        version = begins.version or next_version(spec.cadence, context.claimed, begins.after)
        model = spec.model.at(version)
    except ValidationError as error:
        why = error.errors(include_url=False)[0]["msg"].removeprefix("Value error, ")
        raise CycleError(Reason.VERSION_EXHAUSTED, f"spec.model: {why}") from None
    except ValueError as error:
        raise CycleError(Reason.VERSION_EXHAUSTED, str(error)) from None
    values = {"version": version, "date": f"{due.astimezone(times.zone):%Y-%m-%d}", "cycle": cycle.name, "run": name}
    return Order(
        model=model,
        init_from=begins.init_from,
        values=values | account.of_last_success(cycle, times.zone),
        last=cycle.status.last_success,
        scheduled=account.scheduled_time(cycle.name, name) is not None,
    )


def _manifest(cycle: Cycle, context: Pass, times: Schedule, due: datetime, name: str, begins: Source) -> Manifest:
    """The run. Raises CycleError with the field that is wrong if it would be none."""
    return {
        "apiVersion": API_VERSION,
        "kind": RUN,
        "metadata": {
            "name": name,
            "namespace": cycle.manifest["metadata"]["namespace"],
            "labels": {LABEL_CYCLE: cycle.name, MANAGED_BY[0]: MANAGED_BY[1], **begins.labels},
        },
        "spec": run_spec.filled(cycle, _order(cycle, context, times, due, name, begins)),
    }


def _stalled(cycle: Cycle, reason: Reason, message: str) -> Step:
    unknown = reason in {Reason.SCHEDULE_INVALID, Reason.TIME_ZONE_UNKNOWN}
    known = cycle.status.model_copy(update={"next_schedule_time": None}) if unknown else cycle.status
    return Step(status=known, said=Said(reason, message, ready=False, stalled=True))
