"""How many workers an attempt has: all, or fewer while the cluster has no room for all of them.

An attempt is a gang of one size from beginning to end. When its pods have waited long enough for a place and some of them
have none, the attempt ends and counts for nothing; the next one has as many workers as had a place, of the counts that keep
batch and memory. The wait begins when the newest pod is made, and is not over while the scheduler is still giving places.
What follows any other end tries all workers again. Within a row the count only falls, so a row is short.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from videogen_api.resources import ALL_REPLICAS_SECONDS, Workers
from videogen_api.training_run import PhaseStatus, Reason
from videogen_operator.kinds.training_run.failure_policy import Action, Ending
from videogen_operator.kinds.training_run.waiting import Situation
from videogen_operator.kubernetes_objects import conditions, is_true
from videogen_operator.plan import Manifest

JOIN_SECONDS = 600  # that pods wait for each other
PLACING_SECONDS = 30  # from a pod's place to the next one's, where there is room: the scheduler gives them one by one


@dataclass(frozen=True, slots=True, kw_only=True)
class Lack:
    """A lack of room, and what it leads to if it lasts."""

    workers: int | None  # of the next attempt; None: all
    burst: bool  # whether the next attempt is for the second pool
    seconds: float  # from now until it is due
    found: str  # how many of the workers have a place
    after: int  # seconds of waiting
    then: str  # what the next attempt is, in words

    @property
    def message(self) -> str:
        """Why the attempt ends, once it is due."""
        return f"{self.found} after {self.after} s"


def usable_counts(asked: Workers, accumulation: int) -> tuple[int, ...]:
    """Counts of workers for which every process takes whole micro-batches of the same size, the largest count first."""
    least = asked.min_replicas or asked.replicas
    return tuple(count for count in range(asked.replicas, least - 1, -1) if asked.replicas * accumulation % count == 0)


def workers_of(status: PhaseStatus, asked: Workers) -> int:
    """Workers of the current attempt or, between attempts, of the next one."""
    return status.workers or asked.replicas


def accumulation_of(workers: int, asked: Workers, accumulation: int) -> int | None:
    """Micro-batches of a process in a step if so many workers do the work of all; None: `accumulation`, the recipe's."""
    if workers == asked.replicas:
        return None
    steps, rest = divmod(asked.replicas * accumulation, workers)
    assert not rest, f"{workers} workers cannot take the micro-batches of {asked.replicas} x {accumulation}"
    return steps


def join_seconds(asked: Workers) -> int:
    """How long the pods of an attempt wait for each other: not given up before the operator gives up, and then as long as ever."""
    return JOIN_SECONDS + (deadline_of(asked) if asked.replicas > 1 else 0)


def deadline_of(asked: Workers) -> int:
    """Seconds that an attempt waits for room for all its workers."""
    return asked.all_replicas_deadline_seconds or ALL_REPLICAS_SECONDS


def reduction(situation: Situation) -> Lack | None:
    """With how many workers the next attempt shall begin, and when. None: all have a place, or no usable smaller count has."""
    status, asked = situation.status, situation.phase.asked_workers
    placed = sum(has_place(pod) for pod in situation.pods)
    counts = usable_counts(asked, situation.observed.spec.recipe.gradient_accumulation_steps)
    fits = next((count for count in counts if count <= placed), None)
    if placed >= workers_of(status, asked) or fits is None:
        return None
    return lack(situation, deadline_of(asked), workers=fits, burst=False, then=f"has {fits} (workers.minReplicas)")


def lack(situation: Situation, after: int, *, workers: int | None, burst: bool, then: str) -> Lack | None:
    """That pods have no place, and when it has lasted so long. None: all have one.

    Training that has begun had a place for all: whatever is missing later is a loss, and tells its own reason.
    """
    status, asked = situation.status, situation.phase.asked_workers
    began, placed, wanted = status.attempt_start_time, sum(has_place(pod) for pod in situation.pods), workers_of(status, asked)
    if began is None or placed >= wanted or status.progress is not None:
        return None
    since = max([datetime.fromisoformat(began), *(_made(pod) for pod in situation.pods)])
    placed_last = max((time for pod in situation.pods if (time := _placed(pod))), default=since)
    due = max(since + timedelta(seconds=after), placed_last + timedelta(seconds=PLACING_SECONDS))
    waits, left = (due - since).total_seconds(), (due - situation.now).total_seconds()
    found = f"{placed} of {wanted} workers have a place"
    return Lack(workers=workers, burst=burst, seconds=left, found=found, after=round(waits), then=then)


def _made(pod: Manifest) -> datetime:
    return datetime.fromisoformat(pod["metadata"]["creationTimestamp"])


def _placed(pod: Manifest) -> datetime | None:
    """When the scheduler gave the pod a node; None: it has none."""
    placed = is_true(pod, "PodScheduled")
    return datetime.fromisoformat(conditions(pod)["PodScheduled"]["lastTransitionTime"]) if placed else None


def has_place(pod: Manifest) -> bool:
    """Whether the scheduler has given the pod a node."""
    return bool((pod.get("spec") or {}).get("nodeName")) or (pod.get("status") or {}).get("phase", "Pending") != "Pending"


def ending(due: Lack) -> Ending:
    """The end of an attempt whose workers had no place."""
    return Ending(Reason.UNSCHEDULABLE, Action.RETRY_FREE, due.message)


def words(status: PhaseStatus, asked: Workers) -> str:
    """`2 of 4 workers: there was no room for the others`, while fewer work; else nothing."""
    workers = workers_of(status, asked)
    return f"{workers} of {asked.replicas} workers: there was no room for the others" if workers < asked.replicas else ""
