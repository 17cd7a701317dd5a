"""What follows when pods of an attempt wait in vain for a node: a second pool, fewer workers, or another try a little later.

Each has its own time; what is due first is done, by ending the attempt, which counts for nothing. A gang of which some pods hold nodes
and others have none gives them back: two such gangs would wait for each other for ever.
"""

from __future__ import annotations

import zlib
from datetime import timedelta

from videogen_api.training_run import Phase, PhaseStatus, Reason
from videogen_operator.conditions import timestamp
from videogen_operator.kinds.training_run import attempts, fewer_workers
from videogen_operator.kinds.training_run.attempts import FIRST_DELAY, LONGEST_DELAY
from videogen_operator.kinds.training_run.fewer_workers import Lack, has_place
from videogen_operator.kinds.training_run.room import in_burst_pool
from videogen_operator.kinds.training_run.step import soonest
from videogen_operator.kinds.training_run.waiting import Situation, Wait


def coming(situation: Situation) -> Lack | None:
    """What a lack of room leads to next, and when. None: all pods have a place, or they wait as long as it takes."""
    found = [one for one in (burst(situation), fewer_workers.reduction(situation) or release(situation)) if one]
    return min(found, key=lambda one: one.seconds, default=None)


def burst(situation: Situation) -> Lack | None:
    """The next attempt is for the second pool."""
    pool = situation.phase.placement.burst if situation.phase.placement else None
    if pool is None or situation.status.burst or not situation.pods:
        return None
    return fewer_workers.lack(situation, pool.after_seconds, workers=None, burst=True, then="is for the burst pool (placement.burst)")


def release(situation: Situation) -> Lack | None:
    """A gang gives back the nodes that some of its pods hold, and is tried again."""
    asked, placed = situation.phase.asked_workers, sum(has_place(pod) for pod in situation.pods)
    if not 0 < placed < fewer_workers.workers_of(situation.status, asked):
        return None
    return fewer_workers.lack(
        situation,
        fewer_workers.deadline_of(asked),
        workers=None,
        burst=False,
        then="begins a little later, and until then others have room",
    )


def next_status(situation: Situation, due: Lack) -> PhaseStatus:
    """The attempt has ended for want of room: the next one begins at once in another way, or later in the same."""
    ended = attempts.reduced(situation.status, fewer_workers.ending(due), due.workers, situation.now)
    if due.workers or due.burst:
        return ended.model_copy(update={"burst": due.burst or situation.status.burst})
    row = 0
    for record in reversed(ended.attempts):
        if record.reason != Reason.UNSCHEDULABLE:
            break
        row += 1
    # Up to twice as long, by run and attempt, so that those who were in each other's way do not come back together.
    spread = 1 + zlib.crc32(f"{situation.observed.uid} {ended.attempt}".encode()) / 2**32
    delay = min(FIRST_DELAY * 2 ** min(row - 1, 10), LONGEST_DELAY / 2) * spread
    return ended.model_copy(update={"retry_time": timestamp(situation.now + timedelta(seconds=delay))})


def with_prospect(said: Wait, due: Lack | None) -> Wait:
    """What is said of an attempt, and what comes if its room stays too little."""
    if due is None:
        return said
    return Wait(said.reason, f"{said.message}; {due.found}; if that does not change within {due.after} s, the next attempt {due.then}")


def placed(phase: Phase, status: PhaseStatus) -> Phase:
    """The phase with the placement of the status' next attempt."""
    return (in_burst_pool(phase) if status.burst else None) or phase


def words(situation: Situation, status: PhaseStatus) -> str:
    """How the attempt differs from what the phase asks for; "" if it does not."""
    fewer = fewer_workers.words(status, situation.phase.asked_workers)
    return ", ".join(filter(None, (fewer, "in the burst pool" if status.burst else "")))


def soon(again: float | None, due: Lack | None) -> float | None:
    """Seconds until the attempt is looked at again."""
    return soonest(again, due.seconds if due else None)
