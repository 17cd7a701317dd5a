"""What ended attempts leave behind: their jobs, and pods that may still write or hold a node.

Deleting a job takes its pods along, so the operator needs no right to delete pods.
"""

from __future__ import annotations

from datetime import datetime

from videogen_api.meta import LABEL_ATTEMPT, LABEL_PHASE
from videogen_api.training_run import PhaseStatus
from videogen_operator.kinds.training_run.attempts import State, state_of
from videogen_operator.kinds.training_run.failure_policy import pod_ending
from videogen_operator.kinds.training_run.moments import seconds_since
from videogen_operator.kinds.training_run.observed import Observed, is_suspended
from videogen_operator.kubernetes_objects import containers, has_ended, is_ready
from videogen_operator.plan import Manifest, Ref

LINGER_SECONDS = 30  # a worker may end a little later than the one whose report counted


def past_pods(observed: Observed, phase: PhaseStatus) -> tuple[Manifest, ...]:
    """Pods of the phase's ended attempts whose processes may still write."""
    return live_pods(tuple(pod for pod in observed.pods if is_past(phase, pod)), observed.nodes)


def unstopped(observed: Observed, phase: PhaseStatus) -> tuple[Ref, ...]:
    """Jobs of the phase's ended attempts, if one of them has pods that may still write, or a queue may give it some."""
    may_begin = any(is_past(phase, job) and is_suspended(job) for job in observed.jobs)
    return past_jobs(observed, phase) if may_begin or past_pods(observed, phase) else ()


def past_jobs(observed: Observed, phase: PhaseStatus) -> tuple[Ref, ...]:
    """Jobs of the phase's ended attempts that are not being deleted yet."""
    return tuple(reference(job) for job in observed.jobs if is_past(phase, job) and _is_there(job))


def lingering(observed: Observed, now: datetime) -> tuple[tuple[Ref, ...], float | None]:
    """Jobs of completed phases whose pods do not end by themselves, and the seconds until more of them may have to go.

    training-operator leaves the pods of an elastic job alone (cleanPodPolicy None, see `objects.pytorch_job`): a worker
    that hangs after another one's success would hold its node for ever.
    """
    jobs: list[Ref] = []
    delay: float | None = None
    for phase in observed.status.phases:
        if state_of(phase) != State.COMPLETED or phase.completion_time is None:
            continue
        jobs += (reference(job) for job in observed.jobs if is_past(phase, job) and is_suspended(job) and _is_there(job))
        if not past_pods(observed, phase):
            continue
        left = LINGER_SECONDS - seconds_since(phase.completion_time, now)
        if left <= 0:
            jobs += past_jobs(observed, phase)
        else:
            delay = left if delay is None else min(delay, left)
    return tuple(dict.fromkeys(jobs)), delay


def expired(observed: Observed, now: datetime) -> tuple[tuple[Ref, ...], float | None]:
    """Jobs of a run that ended ttlSecondsAfterFinished ago, and else the seconds until then. Their pods go with them."""
    ttl, ends = observed.spec.ttl_seconds_after_finished, [phase.completion_time for phase in observed.status.phases if phase.outcome]
    jobs = tuple(reference(job) for job in observed.jobs if _is_there(job))
    if not jobs or not ends:
        return (), None
    left = ttl - (now - max(datetime.fromisoformat(end) for end in ends if end)).total_seconds()
    return (jobs, None) if left <= 0 else ((), left)


def live_pods(pods: tuple[Manifest, ...], nodes: tuple[Manifest, ...]) -> tuple[Manifest, ...]:
    """Pods whose processes may still write: not ended, or going, unless their node is lost."""
    ready = {node["metadata"]["name"] for node in nodes if is_ready(node)}
    return tuple(pod for pod in pods if not _is_over(pod, ready))


def _is_there(job: Manifest) -> bool:
    return not job["metadata"].get("deletionTimestamp")


def _is_over(pod: Manifest, ready_nodes: set[str]) -> bool:
    node = (pod.get("spec") or {}).get("nodeName")
    if has_ended(pod):
        return True
    going = pod["metadata"].get("deletionTimestamp") is not None
    return going and (node is None or node not in ready_nodes or (pod_ending(pod) is not None and _has_stopped(pod)))


def _has_stopped(pod: Manifest) -> bool:
    found = containers(pod)
    return bool(found) and all("terminated" in container.get("state", {}) for container in found)


def is_past(phase: PhaseStatus, item: Manifest) -> bool:
    """Of an attempt that has ended. One of a later number was created just before a crash, or an edit, and is taken up, but not while the
    phase is suspended. Not the preflight.
    """
    labels = item["metadata"]["labels"]
    number = labels.get(LABEL_ATTEMPT, "")
    if labels.get(LABEL_PHASE) != phase.name or not number.isdecimal() or int(number) == 0:
        return False
    ended = phase.attempt - (1 if state_of(phase) == State.ACTIVE else 0)
    return int(number) <= ended or state_of(phase) == State.SUSPENDED


def reference(item: Manifest) -> Ref:
    """An observed object, to delete it."""
    metadata = item["metadata"]
    return Ref(item["apiVersion"], item["kind"], metadata["namespace"], metadata["name"], metadata["uid"])
