"""Runs and releases as Prometheus gauges, read from the watched objects at each scrape: nothing to keep in step."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from videogen_operator.plan import Manifest, World

RUN = ("namespace", "run")
RELEASE = ("namespace", "service", "release")
MALFORMED = (AttributeError, LookupError, TypeError, ValueError)  # one such object must not silence all the others


class WorldCollector(Collector):
    """What the objects' statuses say, as metrics."""

    def __init__(self, world: World) -> None:
        self._world = world

    def collect(self) -> Iterator[Metric]:
        """All gauges of runs and releases."""
        yield from runs(self._world.list("TrainingRun"))
        yield from releases(self._world.list("ModelRelease"))


def runs(items: tuple[Manifest, ...]) -> Iterator[Metric]:
    """State and live progress of TrainingRuns."""
    state = GaugeMetricFamily("videogen_training_run", "1 for the reason of the run's Succeeded condition.", labels=(*RUN, "reason"))
    percent = GaugeMetricFamily("videogen_training_progress_percent", "Share of the phase that is done.", labels=(*RUN, "phase"))
    metric = GaugeMetricFamily("videogen_training_metric", "Newest value that the trainer reported.", labels=(*RUN, "phase", "metric"))
    for item in items:
        with suppress(*MALFORMED):
            _run(item, state, percent, metric)
    yield from (state, percent, metric)


def _run(item: Manifest, state: GaugeMetricFamily, percent: GaugeMetricFamily, metric: GaugeMetricFamily) -> None:
    name, status = (item["metadata"]["namespace"], item["metadata"]["name"]), item.get("status") or {}
    if reason := reason_of(status, "Succeeded"):
        state.add_metric((*name, reason), 1)
    for phase in status.get("phases", []):
        progress = phase.get("progress") or {}
        if "progressPercentage" in progress:
            percent.add_metric((*name, phase["name"]), progress["progressPercentage"])
        for one in progress.get("metrics", []):
            if (value := number(one["value"])) is not None:
                metric.add_metric((*name, phase["name"], one["name"]), value)


def releases(items: tuple[Manifest, ...]) -> Iterator[Metric]:
    """State, traffic and bounds of ModelReleases; alert rules compare measurements with the bounds."""
    state = GaugeMetricFamily("videogen_release", "1 for the reason of the release's Ready condition.", labels=(*RELEASE, "reason"))
    weight = GaugeMetricFamily("videogen_release_weight_percent", "Share of the service's traffic.", labels=RELEASE)
    rolled_back = GaugeMetricFamily("videogen_release_rolled_back", "1 if traffic was taken back, with why.", labels=(*RELEASE, "reason"))
    for item in items:
        with suppress(*MALFORMED):
            _release(item, state, weight, rolled_back)
    yield from (state, weight, rolled_back, *checks(items))


def _release(item: Manifest, state: GaugeMetricFamily, weight: GaugeMetricFamily, rolled_back: GaugeMetricFamily) -> None:
    spec, status = item["spec"], item.get("status") or {}
    name = (item["metadata"]["namespace"], spec["service"], item["metadata"]["name"])
    if reason := reason_of(status, "Ready"):
        state.add_metric((*name, reason), 1)
    weight.add_metric(name, (status.get("traffic") or {}).get("weightPercent", 0))
    if rollback := status.get("rollback"):
        rolled_back.add_metric((*name, rollback["reason"]), 1)


def checks(items: tuple[Manifest, ...]) -> Iterator[Metric]:
    """Bounds of live checks, and how many requests each wants before it says anything: an alert holds itself to both."""
    labels = (*RELEASE, "check", "metric")
    bound = GaugeMetricFamily("videogen_release_check_maximum", "Bound of a live check.", labels=labels)
    least = GaugeMetricFamily("videogen_release_check_minimum_requests", "Requests without which the check says nothing.", labels=labels)
    for item in items:
        with suppress(*MALFORMED):
            _checks(item, bound, least)
    yield from (bound, least)


def _checks(item: Manifest, bound: GaugeMetricFamily, least: GaugeMetricFamily) -> None:
    spec = item["spec"]
    for check in (spec.get("rollout") or {}).get("checks", []):
        if (maximum := number(check.get("maximum", ""))) is not None:
            name = (item["metadata"]["namespace"], spec["service"], item["metadata"]["name"], check["name"], check["metric"])
            least.add_metric(name, check["minimumRequests"])  # the API server fills the default in
            bound.add_metric(name, maximum)


def reason_of(status: Manifest, condition: str) -> str:
    """Reason of a condition, or nothing."""
    return next((str(one["reason"]) for one in status.get("conditions", []) if one["type"] == condition), "")


def number(text: str) -> float | None:
    """The text as a number, or None."""
    try:
        return float(text)
    except ValueError:
        return None
