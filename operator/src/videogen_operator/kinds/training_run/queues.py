"""An attempt whose job stands in a queue of Kueue's: it waits, is let go on, and may be taken back and wait its turn again.

The job is made suspended and with the queue's name; from then on only Kueue writes that. One job is one attempt, however often its pods are
taken back: deleting it and making another would lose its place in the queue. What has to be remembered is since when it waits
(`queuedTime`). Kueue says in the job's Workload what it waits for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from videogen_api.resources import completed
from videogen_api.training_run import Phase, PhaseStatus, Reason
from videogen_operator.kinds.training_run import attempts, fewer_workers, windows
from videogen_operator.kinds.training_run.failure_policy import Action, Ending, ending, interrupted_at, newest_report, with_all_written
from videogen_operator.kinds.training_run.leftovers import live_pods
from videogen_operator.kinds.training_run.moments import seconds_since
from videogen_operator.kinds.training_run.observed import controller_of, is_suspended, queue_of
from videogen_operator.kinds.training_run.room import DEFAULTS
from videogen_operator.kinds.training_run.step import Step, healing, note, soonest
from videogen_operator.kinds.training_run.waiting import Situation, Wait
from videogen_operator.kubernetes_objects import NOTHING, conditions, is_true
from videogen_operator.plan import Manifest

UNSEEN_SECONDS = 15  # Kueue makes a job's Workload within a second; without one for so long it will not come by itself
SETTLING_SECONDS = 5.0  # within which the job itself says that its queue has taken back the pods that are seen to go
STOPPING_SECONDS = 5.0
LONGEST = 500  # characters of what Kueue says


def asked_for(phase: Phase) -> bool:
    """Whether jobs of the phase wait in a queue."""
    return phase.placement is not None and phase.placement.queue_name is not None


def advance(situation: Situation) -> Step | None:
    """What the queue does with the current attempt. None: nothing, or the attempt is over."""
    job = situation.observed.job(situation.status.job_name)
    if job is None or queue_of(job) is None or is_true(job, "Succeeded", "Failed"):
        return None
    waits = situation.status.queued_time is not None
    if is_suspended(job):
        return _waiting(situation, job) if waits else _taken_back(situation, job)
    return _admitted(situation, job) if waits else _settling(situation, job)


def _waiting(situation: Situation, job: Manifest) -> Step:
    """The job waits for its turn. However long that takes, it is neither late nor without room nor unanswered."""
    said, again = waited_for(situation, situation.status, job), healing(situation.observed)
    return Step(status=situation.status, said=said, again=soonest(again, unseen_in(situation, situation.status, job)))


def _admitted(situation: Situation, job: Manifest) -> Step:
    """The queue lets the job begin, or go on."""
    workload, status = workload_of(situation, job), windows.admitted(situation)
    by_kueue = workload is not None and is_true(workload, "Admitted")
    words = f"queue {queue_of(job)} lets PyTorchJob {status.job_name} go on" if attempts.was_evicted(status) else ""
    words = words or f"queue {queue_of(job)} lets PyTorchJob {status.job_name} begin"
    words = words if by_kueue else f"PyTorchJob {status.job_name} was let go on"  # by hand, or its Workload is seen a moment later
    said = Wait(Reason.STARTING, f"attempt {status.attempt} is starting: {words}")
    return Step(status=status, said=said, notes=(note(situation, "Admitted", f"{situation.phase.title}: {words}"),), again=0.0)


def _taken_back(situation: Situation, job: Manifest) -> Step | None:
    """The job was suspended after it had begun: its pods end, then it is recorded. None: the work had ended before.

    Where a LocalQueue is named `default`, Kueue suspends jobs that name no queue as well.
    """
    end = ending(situation.pods, situation.phase.task, situation.now)
    if end is not None and end.action != Action.RETRY_FREE:
        return None
    began = situation.pods or situation.status.progress or situation.status.image_id or _is_evicted(situation, job)
    if not began:  # an operator before this one made it, and has not noted that it waits
        status = attempts.queued(situation.status, situation.now)
        return Step(status=status, said=waited_for(situation, status, job), again=0.0)
    why = _why(situation, job)
    if live := live_pods(situation.pods, situation.observed.nodes):
        names = ", ".join(sorted(pod["metadata"]["name"] for pod in live)[:3])
        said = Wait(Reason.QUEUED, f"{why}; waiting for {names} to save and end")
        return Step(status=situation.status, said=said, again=STOPPING_SECONDS)
    found = with_all_written(Ending(Reason.PREEMPTED, Action.RETRY_FREE, why, newest_report(situation.pods)), situation.pods)
    status = attempts.evicted(situation.status, found, situation.now)
    then = f"attempt {status.attempt} waits its turn again, then resumes from step {status.checkpoint_step:,}"
    message = f"{situation.phase.title}: {why}; {then}"
    said = waited_for(situation, status, job)
    return Step(status=status, said=said, notes=(note(situation, Reason.PREEMPTED, message, warning=True),), again=0.0)


def _is_evicted(situation: Situation, job: Manifest) -> bool:
    workload = workload_of(situation, job)
    return workload is not None and is_true(workload, "Evicted")


def _settling(situation: Situation, job: Manifest) -> Step | None:
    """Pods go, and it is not known yet whether the queue takes them back: jobs, Workloads and pods are seen in any order."""
    end = ending(situation.pods, situation.phase.task, situation.now)
    if end is None or end.action != Action.RETRY_FREE:
        return None
    going = [moment for pod in situation.pods if (moment := interrupted_at(pod))]
    left = max((SETTLING_SECONDS - seconds_since(moment, situation.now) for moment in going), default=0.0)
    if left <= 0 and not _is_evicted(situation, job):
        return None
    said = Wait(Reason.QUEUED, f"pods of attempt {situation.status.attempt} were stopped: {end.message}")
    return Step(status=situation.status, said=said, again=left if left > 0 else STOPPING_SECONDS)


def _why(situation: Situation, job: Manifest) -> str:
    """Why the job was suspended, as far as Kueue says it."""
    workload = workload_of(situation, job)
    told = conditions(workload).get("Evicted", NOTHING) if workload else NOTHING
    if told.get("status") == "True":
        return f"queue {queue_of(job)} has taken back what it gave, {told.get('reason')}: {_cut(told)}"
    said = f"PyTorchJob {situation.status.job_name} was suspended, and Kueue does not say why"
    return f"{said}; if Kueue does not let it go on, delete it, and another one is made"


def waited_for(situation: Situation, status: PhaseStatus, job: Manifest) -> Wait:
    """For what the job waits, in which queue, since when, and what of it is free as Kueue says it."""
    workload = workload_of(situation, job)
    head = f"PyTorchJob {status.job_name} waits in queue {queue_of(job)} since {status.queued_time} for {asked(situation.phase, status)}"
    if workload is None:
        return _unseen(situation, status, job, head)
    reason, words = next((reason, words) for rule, reason in SAYINGS if (words := rule(workload)))
    return Wait(reason, f"{head}; {words}")


def _unseen(situation: Situation, status: PhaseStatus, job: Manifest, head: str) -> Wait:
    if unseen_in(situation, status, job):
        return Wait(Reason.QUEUED, f"{head}; Kueue has not looked at it yet")
    causes = (
        "Kueue 0.15 or later is not installed, not running or without its PyTorchJob integration, or does not manage this namespace,"
        " or a priority class of the job does not exist"
    )
    return Wait(Reason.QUEUE_UNAVAILABLE, f"{head}; Kueue has made no Workload of it in {UNSEEN_SECONDS} s: {causes}")


def unseen_in(situation: Situation, status: PhaseStatus, job: Manifest) -> float | None:
    """Seconds until a job that Kueue has not looked at counts as unseen; None: it has, or it counts so already."""
    if workload_of(situation, job) is not None or status.queued_time is None:
        return None
    left = UNSEEN_SECONDS - seconds_since(status.queued_time, situation.now)
    return left if left > 0 else None


def asked(phase: Phase, status: PhaseStatus) -> str:
    """`2 pods with nvidia.com/gpu 4, cpu 8, memory 64Gi each`."""
    requests = completed(phase.resources, **DEFAULTS).requests or {}
    needs = ", ".join(f"{name} {text}" for name, text in sorted(requests.items(), key=lambda one: "/" not in one[0]))
    count = fewer_workers.workers_of(status, phase.asked_workers)
    return f"{count} pods with {needs} each" if count > 1 else f"1 pod with {needs}"


def workload_of(situation: Situation, job: Manifest) -> Manifest | None:
    """What Kueue makes of the job: of several the one that is not over."""
    uid = job["metadata"]["uid"]
    found = [one for one in situation.observed.workloads if controller_of(one).get("uid") == uid]
    return min(found, key=lambda one: is_true(one, "Finished"), default=None)


def _cut(told: Mapping[str, Any]) -> str:
    return str(told.get("message") or "no reason given")[:LONGEST]


def _given_up(workload: Manifest) -> str:
    if not is_true(workload, "Finished"):
        return ""
    return f"Kueue has given it up: {_cut(conditions(workload)['Finished'])}; delete the job, and another one is made"


def _deactivated(workload: Manifest) -> str:
    if (workload.get("spec") or NOTHING).get("active", True):
        return ""
    why = conditions(workload).get("Evicted", NOTHING)
    said = f" ({_cut(why)})" if why.get("status") == "True" else ""
    return f"its Workload {workload['metadata']['name']} is deactivated{said}; set spec.active of the Workload to true"


def _no_queue(workload: Manifest) -> str:
    told = conditions(workload).get("QuotaReserved", NOTHING)
    return f"Kueue: {_cut(told)}" if (told.get("status"), told.get("reason")) == ("False", "Inadmissible") else ""


def _no_quota(workload: Manifest) -> str:
    told = conditions(workload).get("QuotaReserved", NOTHING)
    return f"Kueue: {_cut(told)}" if told.get("status") == "False" else ""


def _unchecked(workload: Manifest) -> str:
    if not is_true(workload, "QuotaReserved"):
        return "it is not its turn yet"
    checks = (workload.get("status") or NOTHING).get("admissionChecks") or ()
    open_ones = [f"{one.get('name')} is {one.get('state')}: {_cut(one)}" for one in checks if one.get("state") != "Ready"]
    return f"its quota is reserved; {'; '.join(open_ones)[:LONGEST] or 'Kueue lets it begin'}"


SAYINGS: tuple[tuple[Callable[[Manifest], str], Reason], ...] = (  # the first that says anything counts
    (_given_up, Reason.QUEUE_UNAVAILABLE),
    (_deactivated, Reason.QUEUE_UNAVAILABLE),
    (_no_queue, Reason.QUEUE_UNAVAILABLE),  # it does not exist, or is stopped
    (_no_quota, Reason.QUEUED),
    (_unchecked, Reason.QUEUED),
)
