"""Does an alert take traffic back? Only if it names a release that serves now, is newer than its traffic, and is verified.

An alert is a hint: whoever can make Prometheus or Alertmanager say something about a release may send one. The alerts of
the chart's group videogen-rollback are verified by the operator's own question about that release. Any other alert needs
the token of the release's namespace, which vouches for it, and quarantines nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from enum import StrEnum

from videogen_api.model_release import Check, LiveMetric
from videogen_operator.kinds.model_release.observed import KIND, Release
from videogen_operator.kinds.model_release.remembered import moment
from videogen_operator.kinds.model_release.states import SERVING
from videogen_operator.plan import Alerts, Inputs, Key, Manifest, Plan, StatusWrite, World

VERIFIED: Mapping[str, LiveMetric] = {  # alerts of charts/videogen/files/rules.yaml, and the metric whose check they apply
    "VideogenReleaseLatencyHigh": LiveMetric.LATENCY_P95_SECONDS,
    "VideogenReleaseErrorsHigh": LiveMetric.ERROR_RATIO,
}
CLOCK_SKEW = timedelta(seconds=10)  # how far Prometheus' clock may be ahead of the operator's


class Answer(StrEnum):
    """What became of an alert; everything but RolledBack left the traffic as it was."""

    ROLLED_BACK = "RolledBack"  # it took the traffic back
    NOTHING_TO_ROLL_BACK_TO = "NothingToRollBackTo"  # no other release has ready pods
    UNKNOWN_RELEASE = "UnknownRelease"  # labels release and namespace name no ModelRelease
    NOT_SERVING = "NotServing"  # the release takes no traffic
    STALE = "Stale"  # it began before the release took traffic, or has not begun yet: it is not about this rollout
    DISABLED = "Disabled"  # spec.rollback.onAlert is false
    RESOLVED = "Resolved"  # it is over
    UNKNOWN_ALERT = "UnknownAlert"  # not one of the chart's, and the token is not that of the release's namespace
    NOT_CONFIRMED = "NotConfirmed"  # the operator's own question says that the release is within its bounds
    UNVERIFIED = "Unverified"  # Prometheus could not be asked: it must be sent again


ADVICE: Mapping[Answer, str] = {
    Answer.UNKNOWN_ALERT: (
        f"the token of all namespaces may send {' and '.join(VERIFIED)}; send other alerts with the token of the release's namespace"
        " (the chart's alertWebhook.namespaceTokensSecret)"
    ),
    Answer.NOT_CONFIRMED: "Prometheus says of this release that it is within the bounds of its checks, or has too few requests",
    Answer.STALE: "startsAt must lie after the moment at which the release took traffic, and not in the future",
    Answer.UNVERIFIED: "Prometheus could not be asked about the release; send it again, and look at the chart's prometheus.url",
}


def key_of(alert: Manifest, world: World) -> Key | None:
    """The service whose release the alert names by its labels `release` and `namespace`, or None."""
    labels = alert.get("labels") or {}
    release = world.get(KIND, str(labels.get("namespace", "")), str(labels.get("release", "")))
    service = ((release or {}).get("spec") or {}).get("service")
    return Key(KIND, str(labels["namespace"]), service) if service else None


ALERTS = Alerts(
    key_of=key_of,
    unknown=Answer.UNKNOWN_RELEASE.value,
    again=frozenset({Answer.UNVERIFIED.value}),
    advice={answer.value: words for answer, words in ADVICE.items()},
)


def refusal(alert: Manifest, release: Release | None, namespace: str, now: datetime) -> Answer | None:
    """Why the alert is ignored, or None if it takes the release's traffic back, once it is verified."""
    labels = alert.get("labels") or {}
    if release is None or labels.get("namespace") != namespace or alert.get("sender", "") not in {"", namespace}:
        return Answer.UNKNOWN_RELEASE
    if alert.get("status", "firing") != "firing":
        return Answer.RESOLVED
    if not is_verifiable(alert) and alert.get("sender", "") != namespace:
        return Answer.UNKNOWN_ALERT
    if not release.spec.rollback.on_alert:
        return Answer.DISABLED
    if release.rollout.state not in SERVING:
        return Answer.NOT_SERVING
    began, since = moment(alert.get("startsAt")), release.rollout.traffic_since
    if began is None or since is None:
        return Answer.STALE
    # After a leap of the machine's clock nobody knows whether that or the plans' clock is the one that Prometheus has.
    leap = timedelta(seconds=float(alert.get("clockAhead", 0.0)))
    return None if any(since <= at <= now + CLOCK_SKEW for at in (began, began - leap)) else Answer.STALE


def is_verifiable(alert: Manifest) -> bool:
    """Whether it is one of the chart's, which the operator verifies by itself whoever sent it."""
    return str((alert.get("labels") or {}).get("alertname", "")) in VERIFIED


def accepted_by(alert: Manifest, releases: Mapping[str, Release], namespace: str, now: datetime) -> Release | None:
    """The release that the alert names, unless the alert is refused."""
    release = releases.get(str((alert.get("labels") or {}).get("release", "")))
    return None if refusal(alert, release, namespace, now) else release


def checks_of(alert: Manifest, release: Release) -> Iterable[Check]:
    """The release's checks that the alert applies: of its metric, with a maximum."""
    metric = VERIFIED[alert["labels"]["alertname"]]
    return (check for check in release.spec.rollout.checks if check.metric == metric and check.maximum is not None)


def timed(plan: Plan, inputs: Inputs, now: datetime) -> Plan:
    """The plan with `rollback.seconds` filled in: from the alert's arrival to now, when the route has just been changed."""
    arrived = {
        alert["labels"].get("release"): datetime.fromisoformat(alert["receivedAt"])
        for alert in inputs.alerts
        if plan.answers.get(alert["fingerprint"]) == Answer.ROLLED_BACK
    }
    return replace(plan, statuses=tuple(_timed(write, arrived.get(write.object["metadata"]["name"]), now) for write in plan.statuses))


def _timed(write: StatusWrite, arrived: datetime | None, now: datetime) -> StatusWrite:
    record = write.status.get("rollback")
    if arrived is None or not record or record.get("seconds"):
        return write
    seconds = f"{(now - arrived).total_seconds():.3f}"
    return replace(write, status={**write.status, "rollback": {**record, "seconds": seconds}})


def sentence(alert: Manifest) -> str:
    """The alert in words: its name, and its summary if it has one. No times or values of its labels."""
    labels, annotations = alert.get("labels") or {}, alert.get("annotations") or {}
    summary = str(annotations.get("summary") or annotations.get("description") or "")[:300]
    return f"alert {labels.get('alertname', 'without name')}" + (f": {summary}" if summary else "")
