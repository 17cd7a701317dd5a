"""What Prometheus is told of a ModelRelease: state, traffic, and bounds of live checks, which alert rules compare measurements with."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from videogen_api.model_release import Reason
from videogen_operator.kubernetes_objects import NOTHING, conditions
from videogen_operator.plan import Gauge, Manifest, Sample
from videogen_operator.quantities import number

RELEASE = ("namespace", "service", "release")
CHECK = (*RELEASE, "check", "metric")
STATE = Gauge("videogen_release", "1 for the reason of the release's Ready condition, or Superseded.", (*RELEASE, "reason"))
WEIGHT = Gauge("videogen_release_weight_percent", "Share of the service's traffic.", RELEASE)
ROLLED_BACK = Gauge("videogen_release_rolled_back", "1 if traffic was taken back, with why.", (*RELEASE, "reason"))
FAILING = Gauge("videogen_release_checks_failing", "1 while its live checks fail and no other release can take over.", RELEASE)
UNREADABLE = Gauge("videogen_release_unreadable", "1 for a release that the operator cannot read.", ("namespace", "release"))
MAXIMUM = Gauge("videogen_release_check_maximum", "Bound of a live check.", CHECK)
LEAST = Gauge("videogen_release_check_minimum_requests", "Requests without which the check says nothing.", CHECK)
MEASURED = Gauge(
    "videogen_release_measured", "Newest value that a cycle has measured in production.", (*RELEASE, "metric", "extractor", "normalization")
)
MEASURED_AT = Gauge("videogen_release_measured_time_seconds", "When a cycle has measured it last, seconds since 1970.", (*RELEASE, "cycle"))
GAUGES = (MEASURED, MEASURED_AT, STATE, WEIGHT, ROLLED_BACK, FAILING, UNREADABLE, MAXIMUM, LEAST)


def samples(release: Manifest) -> Iterator[Sample]:
    """Of one release."""
    spec, status, said = release["spec"], release.get("status") or NOTHING, conditions(release)
    if said.get("Ready", NOTHING).get("reason") == Reason.UNREADABLE.value:
        yield UNREADABLE, (release["metadata"]["namespace"], release["metadata"]["name"]), 1  # before what may fail with it
    name = (release["metadata"]["namespace"], spec["service"], release["metadata"]["name"])
    yield from _checks(release, name)  # first: they stay where the status cannot be read
    if reason := said.get("Ready", NOTHING).get("reason") or (status.get("rollout") or NOTHING).get("state"):
        yield STATE, (*name, reason), 1
    yield WEIGHT, name, (status.get("traffic") or NOTHING).get("weightPercent", 0)
    if "ChecksFailing" in said:
        yield FAILING, name, 1
    yield from _measured(status, name)
    if rollback := status.get("rollback"):
        yield ROLLED_BACK, (*name, rollback["reason"]), 1


def _measured(status: Manifest, name: tuple[str, str, str]) -> Iterator[Sample]:
    """The newest of each: a later one of the same labels takes the place of the one before."""
    values: dict[tuple[str, str, str], float] = {}
    times: dict[str, float] = {}
    for one in status.get("measurements") or ():
        times[one["cycle"]] = datetime.fromisoformat(one["time"]).timestamp()
        for result in one.get("results") or ():
            if (value := number(result["value"])) is not None:
                values[result["metric"], result.get("extractor", ""), result.get("normalization", "")] = value
    yield from ((MEASURED, (*name, *labels), value) for labels, value in values.items())
    yield from ((MEASURED_AT, (*name, cycle), time) for cycle, time in times.items())


def _checks(release: Manifest, name: tuple[str, str, str]) -> Iterator[Sample]:
    for check in (release["spec"].get("rollout") or NOTHING).get("checks", []):
        if (maximum := number(check.get("maximum", ""))) is not None:
            yield LEAST, (*name, check["name"], check["metric"]), check["minimumRequests"]  # the API server fills the default in
            yield MAXIMUM, (*name, check["name"], check["metric"]), maximum
