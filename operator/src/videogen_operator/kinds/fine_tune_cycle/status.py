"""How a cycle's status reads: conditions and the words of printer columns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from videogen_api.fine_tune_cycle import ConditionType, CycleSummary, FineTuneCycleStatus, Outcome, Reason
from videogen_api.meta import Condition
from videogen_operator.conditions import Wanted, merged, timestamp
from videogen_operator.kinds.fine_tune_cycle import collection, consumption, stages
from videogen_operator.kinds.fine_tune_cycle.observed import Cycle
from videogen_operator.names import UPGRADING
from videogen_operator.plan import Manifest, StatusWrite

OBSTACLES = frozenset({Reason.SUSPENDED, Reason.QUEUED, Reason.NO_STABLE_RELEASE, Reason.RUN_REFUSED})  # that a scheduled time waits behind


@dataclass(frozen=True, slots=True)
class Said:
    """Reason and words for the conditions."""

    reason: Reason
    message: str
    ready: bool = True
    stalled: bool = False


def waiting(cycle: Cycle, known: FineTuneCycleStatus, following: datetime | None) -> Said:
    """Nothing is due: a run is at work, or the next time is waited for."""
    if known.current is not None:
        at = f" ({known.current.phase})" if known.current.phase else ""
        turn = known.current.waiting_for
        whose = f"; stage {known.current.stage} is the turn of {turn.team} until {turn.due}" if turn else ""
        return Said(Reason.RUNNING, f"run {known.current.run}{at} {cycle.verb} version {known.current.version}{whose}")
    when = timestamp(following) if following is not None else known.next_schedule_time
    return Said(Reason.SCHEDULED, f"the next run is created at {when}")


def obstacle(known: FineTuneCycleStatus) -> str:
    """Words for what a time has waited for until it was too late; "" if it only was found late."""
    ready = next((one for one in known.conditions if one.type == ConditionType.READY and one.reason in OBSTACLES), None)
    return f"; before that: {ready.message}"[:768] if ready else ""


def written(cycle: Cycle, known: FineTuneCycleStatus, said: Said, now: datetime) -> tuple[StatusWrite, ...]:
    """The status, if it is another one than before."""
    wanted = [Wanted(ConditionType.READY, said.ready, said.reason, said.message)]
    if said.stalled:
        wanted.append(Wanted(ConditionType.STALLED, True, said.reason, said.message))
    if late := stages.overdue(known.current, now):
        words = "; ".join(f"stage {one.name} of {one.owner} was due at {one.due} and is {one.state}" for one in late)
        wanted.append(Wanted(ConditionType.OVERDUE, True, Reason.WINDOW_CLOSED, words))
    if (exceeded := consumption.exceeded(cycle, known)) is not None:
        wanted.append(exceeded)
    if (below := collection.below(cycle, known)) is not None:
        wanted.append(below)
    wanted += _last_run(cycle, known)
    conditions = merged((old.wire() for old in cycle.status.conditions), wanted, cycle.generation, now)
    told = known.model_copy(
        update={
            "observed_generation": cycle.generation,
            "conditions": [Condition.model_validate(one) for one in conditions],
            "summary": _summary(known, said),
        }
    ).wire()
    return (StatusWrite(cycle.manifest, told),) if told != (cycle.manifest.get("status") or {}) else ()


def _last_run(cycle: Cycle, known: FineTuneCycleStatus) -> list[Wanted]:
    """LastRunSucceeded: of the newest run in the history; as it was said before, when later times have pushed that run out."""
    kind = ConditionType.LAST_RUN_SUCCEEDED
    last = next((past for past in reversed(known.history) if past.outcome in {Outcome.SUCCEEDED, Outcome.FAILED}), None)
    if last is None:
        return [Wanted(kind, one.status == "True", one.reason, one.message) for one in cycle.status.conditions if one.type == kind]
    if last.outcome == Outcome.SUCCEEDED:
        return [Wanted(kind, True, Reason.SUCCEEDED, f"run {last.run} {'measured' if cycle.measures else 'made'} version {last.version}")]
    return [Wanted(kind, False, Reason.FAILED, f"run {last.run}: {last.message}")]


def _summary(known: FineTuneCycleStatus, said: Said) -> CycleSummary:
    current = " ".join(part for part in ((known.current.run, known.current.phase) if known.current else ()) if part)
    return CycleSummary(
        status=said.reason, current=current, last=known.history[-1].outcome if known.history else "", message=said.message[:1024]
    )


def unreadable(manifest: Manifest, why: str, now: datetime) -> dict[str, Any]:
    """The status of a cycle that cannot be read: everything else in it stays."""
    old = manifest.get("status")
    old = dict(old) if isinstance(old, Mapping) else {}
    listed = old.get("conditions")
    before = [one for one in listed if isinstance(one, Mapping) and "type" in one] if isinstance(listed, list) else []
    generation = int(manifest["metadata"].get("generation", 0))
    message = f"this operator cannot read it: {why}; {UPGRADING}"
    wanted = (
        Wanted(ConditionType.READY, False, Reason.UNREADABLE, message),
        Wanted(ConditionType.STALLED, True, Reason.UNREADABLE, message),
    )
    return {**old, "observedGeneration": generation, "conditions": merged(before, wanted, generation, now)}
