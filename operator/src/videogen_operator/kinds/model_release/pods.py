"""What the release's pods say while they start: will they never become ready, or what do they wait for?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

from videogen_api.job import ExitCode
from videogen_api.model_release import Reason
from videogen_operator.kinds.model_release.objects import CONTAINER
from videogen_operator.kinds.model_release.observed import Release
from videogen_operator.kinds.model_release.remembered import moment
from videogen_operator.kinds.model_release.rollout import Trigger
from videogen_operator.kubernetes_objects import (
    conditions,
    containers,
    ends,
    has_ended,
    image_id,
    is_ready,
    is_true,
    pull_error,
    without_place,
)
from videogen_operator.names import release_child_name
from videogen_operator.plan import Failure, Manifest

CHILDREN = frozenset({"NetworkPolicy", "Deployment", "Service", "PodDisruptionBudget"})
PLACED_SECONDS = timedelta(seconds=30)  # in which the scheduler finds a node if there is one, also where pods must give way
CRASH_SECONDS = timedelta(seconds=30)  # a server ends this long at most before its pod is seen not to be ready


def trouble(release: Release, failures: Iterable[Failure]) -> Trigger | None:
    """The first thing that keeps the pods from starting, in words; it may pass."""
    for failure in failures:
        if failure.kind in CHILDREN and failure.name == release_child_name(release.name):
            return Trigger(Reason.STARTING, f"{failure.kind} {failure.name} was refused by the API server: {failure.message}")
    starting = [pod for pod in release.pods if not is_ready(pod) and not has_ended(pod) and not pod["metadata"].get("deletionTimestamp")]
    found = [trigger for pod in starting for trigger in _of_pod(pod)]
    return found[0] if found else _of_deployment(release)


def unplaced(release: Release, now: datetime) -> str:
    """What the scheduler says of pods for which it has found no node for a while, none of them being ready; or ""."""
    if release.ready or not release.rollout.since or now < release.rollout.since + PLACED_SECONDS:
        return ""
    return next((trigger.message for pod in release.pods for trigger in _of_pod(pod) if trigger.reason == Reason.INSUFFICIENT_CAPACITY), "")


def _placed(release: Release) -> datetime | None:
    """Since when the last of its pods has had a node: only then it can load."""
    conditions = [c for pod in release.pods for c in (pod.get("status") or {}).get("conditions") or [] if c["type"] == "PodScheduled"]
    times = [moment(c.get("lastTransitionTime")) for c in conditions if c.get("status") == "True"]
    return max((time for time in times if time), default=None)


def fatal(release: Release, now: datetime) -> Trigger | None:
    """Why the pods will never be ready: the server refused the bundle, or the deadline has passed. No node is no reason: there may
    be one later.
    """
    refused = next((t for pod in release.pods for t in _of_pod(pod) if t.reason == Reason.ARTIFACT_INVALID), None)
    if refused:
        return refused
    deadline = release.spec.serving.start_deadline_seconds
    since, placed = release.rollout.since, _placed(release)
    if release.ready or since is None or now < max(since, placed or since) + timedelta(seconds=deadline):
        return None
    cause = trouble(release, ())
    if cause and cause.reason == Reason.INSUFFICIENT_CAPACITY:
        return None
    why = f": {cause.message}" if cause else ""
    reason = cause.reason if cause and cause.reason != Reason.STARTING else Reason.START_FAILED
    return Trigger(reason, f"no pod was ready within startDeadlineSeconds ({deadline}){why}")


def image_that_runs(release: Release) -> str:
    """The image of its newest pod that runs one, as the kubelet tells it; else what an earlier pass has seen."""
    newest = sorted(release.pods, key=lambda pod: str(pod["metadata"].get("creationTimestamp", "")), reverse=True)
    told = (image_id(container) for pod in newest for container in containers(pod) if container.get("name") == CONTAINER)
    return next(filter(None, told), release.status.image_id)


def crash(release: Release) -> str:
    """What the server of a pod ended with by itself, at the time at which the pods were lost; "" if it did not. A pod that
    is deleted, evicted or shut down with its node was ended by somebody else.
    """
    lost = release.rollout.lost
    if lost is None:
        return ""
    return ended_by_itself(release, lost - CRASH_SECONDS)


def ended_by_itself(release: Release, since: datetime) -> str:
    """What the server of a pod ended with by itself since then; "" if none did."""
    own = [p for p in release.pods if not p["metadata"].get("deletionTimestamp") and (p.get("status") or {}).get("phase") != "Failed"]
    ended = [
        end
        for pod in own
        for container in containers(pod)
        for end in ends(container)
        if (when := moment(end.get("finishedAt"))) and when >= since
    ]
    return next((f"the server ended with exit code {end['exitCode']}: {_last_line(end)}" for end in ended if end.get("exitCode")), "")


def _of_pod(pod: Manifest) -> Iterable[Trigger]:
    if condition := without_place(pod):
        yield Trigger(Reason.INSUFFICIENT_CAPACITY, f"the scheduler finds no node: {condition.get('message', '')}")
    for container in containers(pod):
        yield from _of_container(container)


def _of_container(container: Mapping[str, Any]) -> Iterable[Trigger]:
    if waiting := pull_error(container):
        yield Trigger(Reason.IMAGE_NOT_FOUND, f"image {container.get('image')} cannot be pulled: {waiting['reason']}")
    for ended in ends(container):
        if ended.get("exitCode") == ExitCode.ARTIFACT_INVALID:
            yield Trigger(Reason.ARTIFACT_INVALID, f"the server refused the bundle: {_last_line(ended)}")
        elif ended.get("exitCode"):
            yield Trigger(Reason.STARTING, f"the server ended with exit code {ended['exitCode']}: {_last_line(ended)}")


def _last_line(ended: Mapping[str, Any]) -> str:
    lines = str(ended.get("message") or ended.get("reason") or "").strip().splitlines()
    return lines[-1][:300] if lines else "no message"


def _of_deployment(release: Release) -> Trigger | None:
    if release.deployment is None or not is_true(release.deployment, "ReplicaFailure"):
        return None
    said = conditions(release.deployment)["ReplicaFailure"].get("message", "")
    return Trigger(Reason.STARTING, f"pods cannot be created: {said}")
