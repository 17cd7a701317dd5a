"""Does an authenticated alert take traffic back? Only if it names a release that serves now, and is newer than its traffic."""

from __future__ import annotations

from enum import StrEnum

from videogen_operator.kinds.model_release.observed import KIND, Release
from videogen_operator.kinds.model_release.remembered import moment
from videogen_operator.kinds.model_release.states import SERVING
from videogen_operator.plan import Key, Manifest, World


class Answer(StrEnum):
    """What became of an alert; everything but RolledBack left the traffic as it was."""

    ROLLED_BACK = "RolledBack"  # it took the traffic back
    NOTHING_TO_ROLL_BACK_TO = "NothingToRollBackTo"  # no other release has ready pods
    UNKNOWN_RELEASE = "UnknownRelease"  # labels release and namespace name no ModelRelease
    NOT_SERVING = "NotServing"  # the release takes no traffic
    STALE = "Stale"  # it began before the release took traffic: it is about an earlier rollout
    DISABLED = "Disabled"  # spec.rollback.onAlert is false
    RESOLVED = "Resolved"  # it is over


def key_of(alert: Manifest, world: World) -> Key | None:
    """The service whose release the alert names by its labels `release` and `namespace`, or None."""
    labels = alert.get("labels") or {}
    release = world.get(KIND, str(labels.get("namespace", "")), str(labels.get("release", "")))
    return Key(KIND, release["metadata"]["namespace"], release["spec"]["service"]) if release else None


def refusal(alert: Manifest, release: Release | None, namespace: str) -> Answer | None:
    """Why the alert is ignored, or None if it takes the release's traffic back."""
    labels = alert.get("labels") or {}
    if release is None or labels.get("namespace") != namespace:
        return Answer.UNKNOWN_RELEASE
    if alert.get("status", "firing") != "firing":
        return Answer.RESOLVED
    if not release.spec.rollback.on_alert:
        return Answer.DISABLED
    if release.rollout.state not in SERVING:
        return Answer.NOT_SERVING
    began, since = moment(alert.get("startsAt")), release.rollout.traffic_since
    return Answer.STALE if began is None or since is None or began < since else None


def sentence(alert: Manifest) -> str:
    """The alert in words: its name, and its summary if it has one. No times or values of its labels."""
    labels, annotations = alert.get("labels") or {}, alert.get("annotations") or {}
    summary = str(annotations.get("summary") or annotations.get("description") or "")[:300]
    return f"alert {labels.get('alertname', 'without name')}" + (f": {summary}" if summary else "")
