"""What the release's pods say while they start: will they never become ready, or what do they wait for?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

from videogen_api.job import ExitCode
from videogen_api.model_release import Reason
from videogen_operator.kinds.model_release.observed import Release
from videogen_operator.kinds.model_release.remembered import moment
from videogen_operator.kinds.model_release.rollout import Trigger
from videogen_operator.names import release_child_name
from videogen_operator.plan import Failure, Manifest

CHILDREN = frozenset({"Deployment", "Service", "PodDisruptionBudget"})
CRASH_SECONDS = timedelta(seconds=30)  # a server ends this long at most before its pod is seen not to be ready
_IMAGE_REASONS = frozenset({"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"})


def trouble(release: Release, failures: Iterable[Failure]) -> Trigger | None:
    """The first thing that keeps the pods from starting, in words; it may pass."""
    for failure in failures:
        if failure.kind in CHILDREN and failure.name == release_child_name(release.name):
            return Trigger(Reason.STARTING, f"{failure.kind} {failure.name} was refused by the API server: {failure.message}")
    found = [trigger for pod in release.pods for trigger in _of_pod(pod)]
    return found[0] if found else _of_deployment(release)


def fatal(release: Release, now: datetime) -> Trigger | None:
    """Why the pods will never be ready: the server refused the bundle, or the deadline has passed."""
    refused = next((t for pod in release.pods for t in _of_pod(pod) if t.reason == Reason.ARTIFACT_INVALID), None)
    if refused:
        return refused
    deadline = release.spec.serving.start_deadline_seconds
    if release.ready or not release.rollout.since or now < release.rollout.since + timedelta(seconds=deadline):
        return None
    cause = trouble(release, ())
    why = f": {cause.message}" if cause else ""
    reason = cause.reason if cause and cause.reason != Reason.STARTING else Reason.START_FAILED
    return Trigger(reason, f"no pod was ready within startDeadlineSeconds ({deadline}){why}")


def crash(release: Release) -> str:
    """What the server of a pod ended with by itself, at the time at which the pods were lost; "" if it did not. A pod that
    is deleted, evicted or shut down with its node was ended by somebody else.
    """
    lost = release.rollout.lost
    if lost is None:
        return ""
    own = [p for p in release.pods if not p["metadata"].get("deletionTimestamp") and (p.get("status") or {}).get("phase") != "Failed"]
    ended = [end for pod in own for end in _ends(pod) if (when := moment(end.get("finishedAt"))) and when >= lost - CRASH_SECONDS]
    return next((f"the server ended with exit code {end['exitCode']}: {_last_line(end)}" for end in ended if end.get("exitCode")), "")


def _ends(pod: Manifest) -> Iterable[Mapping[str, Any]]:
    for container in (pod.get("status") or {}).get("containerStatuses") or []:
        for state in (container.get("state") or {}, container.get("lastState") or {}):
            if ended := state.get("terminated"):
                yield ended


def _of_pod(pod: Manifest) -> Iterable[Trigger]:
    status = pod.get("status") or {}
    for condition in status.get("conditions") or []:
        if condition["type"] == "PodScheduled" and condition.get("reason") == "Unschedulable":
            yield Trigger(Reason.INSUFFICIENT_CAPACITY, f"the scheduler finds no node: {condition.get('message', '')}")
    for container in status.get("containerStatuses") or []:
        yield from _of_container(container)


def _of_container(container: Mapping[str, Any]) -> Iterable[Trigger]:
    waiting = (container.get("state") or {}).get("waiting") or {}
    if waiting.get("reason") in _IMAGE_REASONS:
        yield Trigger(Reason.IMAGE_NOT_FOUND, f"image {container.get('image')} cannot be pulled: {waiting['reason']}")
    for state in (container.get("state") or {}, container.get("lastState") or {}):
        ended = state.get("terminated")
        if ended and ended.get("exitCode") == ExitCode.ARTIFACT_INVALID:
            yield Trigger(Reason.ARTIFACT_INVALID, f"the server refused the bundle: {_last_line(ended)}")
        elif ended and ended.get("exitCode"):
            yield Trigger(Reason.STARTING, f"the server ended with exit code {ended['exitCode']}: {_last_line(ended)}")


def _last_line(ended: Mapping[str, Any]) -> str:
    lines = str(ended.get("message") or ended.get("reason") or "").strip().splitlines()
    return lines[-1][:300] if lines else "no message"


def _of_deployment(release: Release) -> Trigger | None:
    for condition in ((release.deployment or {}).get("status") or {}).get("conditions") or []:
        if condition["type"] == "ReplicaFailure" and condition["status"] == "True":
            return Trigger(Reason.STARTING, f"pods cannot be created: {condition.get('message', '')}")
    return None
