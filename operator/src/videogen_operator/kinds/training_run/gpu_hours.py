"""GPU hours of each phase: GPUs of its pods times the time that they had them, over all attempts.

A pod has its GPUs from the moment it has a node until its containers have ended, or until it is gone. Both ends are told by the pod
itself, so a restart of the operator loses nothing, and its clock matters only for pods that run now. What is remembered is which pods
were seen: each counts once, also one that vanishes. It is written when a pod comes or ends, and else every few minutes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal

from videogen_api.consumption import MOST_PODS, GpuHolder, GpuTime
from videogen_api.meta import LABEL_ATTEMPT, LABEL_PHASE
from videogen_api.resources import gpus_in
from videogen_api.training_run import PhaseStatus
from videogen_operator.conditions import timestamp
from videogen_operator.kinds.training_run.moments import seconds_since
from videogen_operator.kinds.training_run.observed import Observed, controller_of, is_pod_of
from videogen_operator.kubernetes_objects import NOTHING, conditions, containers, has_ended, is_true
from videogen_operator.plan import Manifest

COUNTED_SECONDS = 300.0  # between two writes of what runs on, and the most that a pod is believed to have run unseen
HOUR = Decimal(3600)
MOST_SECONDS = Decimal(999999999)


@dataclass(frozen=True, slots=True)
class Used:
    """GPU seconds of a run until now."""

    seconds: Decimal = Decimal(0)
    gpus: int = 0  # that pods have now
    hours: str = "0"  # for words: as of the last count, so that they do not change with every look


def followed(observed: Observed, now: datetime) -> tuple[Observed, Used]:
    """The run with what its phases have used, as far as that is worth a write now; and what it has used in all."""
    fresh = {phase.name: _counted(phase, _pods(observed, phase), now) for phase in observed.status.phases}
    seconds = sum((_seconds(time, now) for time in fresh.values()), Decimal(0))
    spent = observed.budget is not None and _told(observed.status.phases) < observed.budget * HOUR <= seconds
    phases = [_written(phase, fresh[phase.name], now, spent) for phase in observed.status.phases]
    used = Used(seconds, sum(_running(time) for time in fresh.values()), hours_of(_told(phases)))
    return replace(observed, status=observed.status.model_copy(update={"phases": phases})), used


def _told(phases: Iterable[PhaseStatus]) -> Decimal:
    return sum((_seconds(phase.gpu_time, None) for phase in phases), Decimal(0))


def is_spent(observed: Observed, used: Used) -> bool:
    """Whether the run has used up its budget."""
    return observed.budget is not None and used.seconds >= observed.budget * HOUR


def again(observed: Observed, used: Used, now: datetime) -> float | None:
    """Seconds until the budget is used up, or what runs on is written; None while no pod has GPUs."""
    if not used.gpus:
        return None
    known = [phase.gpu_time for phase in observed.status.phases if phase.gpu_time and _running(phase.gpu_time)]
    left = [max(0.5, COUNTED_SECONDS - seconds_since(time.counted, now)) for time in known if time.counted]
    if observed.budget is not None and not is_spent(observed, used):
        left.append(max(0.5, float((observed.budget * HOUR - used.seconds) / used.gpus)))
    return min(left, default=COUNTED_SECONDS)


def hours_of(seconds: Decimal) -> str:
    """GPU seconds as hours, rounded down to a third of a second."""
    return f"{int(min(seconds, MOST_SECONDS) * 10000 / HOUR) / Decimal(10000):.4f}"


def _written(phase: PhaseStatus, fresh: GpuTime, now: datetime, spent: bool) -> PhaseStatus:
    """The phase with a new count if a pod has come or ended, the budget is used up just now, or the last count is old."""
    known = phase.gpu_time or GpuTime()
    changed = _open(known) != _open(fresh) or bool(_ended(fresh) - _ended(known))
    old = _running(fresh) > 0 and (known.counted is None or seconds_since(known.counted, now) >= COUNTED_SECONDS)
    if not (changed or old or (spent and _running(fresh))):
        return phase
    return phase.model_copy(update={"gpu_time": fresh, "gpu_hours": hours_of(_seconds(fresh, now))})


def _open(time: GpuTime) -> set[str]:
    return {one.uid for one in time.pods if one.seconds is None}


def _ended(time: GpuTime) -> set[str]:
    return {one.uid for one in time.pods if one.seconds is not None}


def _running(time: GpuTime) -> int:
    return sum(one.gpus for one in time.pods if one.seconds is None)


def _seconds(time: GpuTime | None, now: datetime | None) -> Decimal:
    """Of all its pods until now; without a time, until it was counted."""
    if time is None:
        return Decimal(0)
    end = now or (datetime.fromisoformat(time.counted) if time.counted else None)
    ended = (Decimal(one.seconds) if one.seconds is not None else _between(one.since, end) for one in time.pods)
    return Decimal(time.settled_seconds) + sum((one.gpus * had for one, had in zip(time.pods, ended, strict=True)), Decimal(0))


def _between(since: str, end: datetime | None) -> Decimal:
    """Seconds, and none if a clock says that the end was before."""
    return max(Decimal(0), Decimal(str((end - datetime.fromisoformat(since)).total_seconds()))) if end else Decimal(0)


def _counted(phase: PhaseStatus, pods: Mapping[str, Manifest], now: datetime) -> GpuTime:
    known = phase.gpu_time or GpuTime()
    settled, holders = Decimal(known.settled_seconds), []
    for old in known.pods:
        if (pod := pods.get(old.uid)) is not None:
            holders.append(old if old.seconds is not None else old.model_copy(update={"seconds": _had(pod, old.since, known, now)}))
        else:
            had = Decimal(old.seconds) if old.seconds is not None else _between(old.since, _last_seen(known, now))
            settled += old.gpus * had
    seen = {one.uid for one in known.pods}
    for uid, pod in pods.items():
        gpus, since = gpus_of(pod), _scheduled(pod)
        if uid not in seen and gpus and since and len(holders) < MOST_PODS:
            holders.append(GpuHolder(uid=uid, gpus=gpus, since=since, seconds=_had(pod, since, known, now)))
    settled = min(settled, MOST_SECONDS)
    return GpuTime(settled_seconds=f"{settled:.3f}", pods=holders, counted=timestamp(now))


def _had(pod: Manifest, since: str, known: GpuTime, now: datetime) -> str | None:
    """How long a pod had its GPUs, by the clock of its node alone; None while it has them."""
    status, found = pod.get("status") or NOTHING, [(one.get("state") or NOTHING).get("terminated") for one in containers(pod)]
    if not has_ended(pod) and not (found and all(found)):
        return None
    finished = [str(one["finishedAt"]) for one in found if one and one.get("finishedAt")]
    if finished and len(finished) == len(found):
        end = max(datetime.fromisoformat(one) for one in finished)
        return f"{_between(str(status.get('startTime') or since), end):.3f}"
    told = [datetime.fromisoformat(one["lastTransitionTime"]) for one in conditions(pod).values() if one.get("lastTransitionTime")]
    return f"{_between(since, max(told, default=_last_seen(known, now))):.3f}"


def _last_seen(known: GpuTime, now: datetime) -> datetime:
    """When a pod went that nobody has seen going: now, but after an outage no later than a few minutes after it was counted last."""
    if known.counted is None:
        return now
    counted = datetime.fromisoformat(known.counted)
    return max(counted, min(now, counted + timedelta(seconds=COUNTED_SECONDS)))


def _pods(observed: Observed, phase: PhaseStatus) -> dict[str, Manifest]:
    """Pods of the phase's attempts by UID: those of the run's own jobs, and those that were such before their job went."""
    known = {one.uid for one in (phase.gpu_time.pods if phase.gpu_time else ())}
    return {pod["metadata"]["uid"]: pod for pod in _of_phase(observed, phase) if pod["metadata"]["uid"] in known or _is_ours(observed, pod)}


def _of_phase(observed: Observed, phase: PhaseStatus) -> Iterator[Manifest]:
    for pod in observed.pods:
        labels = pod["metadata"]["labels"]
        if labels.get(LABEL_PHASE) == phase.name and labels.get(LABEL_ATTEMPT) != "0":
            yield pod


def _is_ours(observed: Observed, pod: Manifest) -> bool:
    job = observed.job(str(controller_of(pod).get("name")))
    return job is not None and is_pod_of(pod, job)


def gpus_of(pod: Manifest) -> int:
    """GPUs, or slices of them, of a pod's containers."""
    listed = ((one.get("resources") or NOTHING).get("limits") or NOTHING for one in (pod.get("spec") or NOTHING).get("containers") or ())
    return sum(gpus_in(limits) for limits in listed)


def _scheduled(pod: Manifest) -> str | None:
    """When the pod got its node; None before that."""
    if is_true(pod, "PodScheduled"):
        return str(conditions(pod)["PodScheduled"].get("lastTransitionTime") or "") or None
    told = (pod.get("status") or NOTHING).get("startTime")
    return str(told) if told else None
