"""The questions to Prometheus: only those that this pass can use, each about one release by its pods' labels.

`videogen_requests_total{outcome="ok|invalid|timeout|error"}` and the histogram `videogen_request_duration_seconds` come
from the server; Prometheus adds `namespace` and, from the pods' label, `release`. An `invalid` request is the client's
fault and counts for nothing. `increase` and `rate` handle counters that start again with a new pod; a window that holds
fewer than two scrapes has no value, which the checks take for "no requests", never for "no errors".
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from datetime import datetime

from videogen_api.model_release import Check, LiveMetric
from videogen_operator.kinds.model_release.observed import Observed, Release
from videogen_operator.kinds.model_release.rollout import round_due
from videogen_operator.kinds.model_release.states import CANARIES, SERVING, State
from videogen_operator.plan import Query

SERVED = 'outcome=~"ok|timeout|error"'  # neither what the client did wrong nor what it gave up
SHORTEST_WINDOW = 5  # seconds; less than two scrapes even of a very eager Prometheus says nothing


def queries(observed: Observed, now: datetime) -> tuple[Query, ...]:
    """The questions of all releases whose round of checks is due."""
    stable = next((release for release in observed.releases if release.rollout.state == State.STABLE), None)
    checked = any(release.rollout.state == State.STANDBY for release in observed.releases)
    due = [r for r in observed.releases if r.rollout.state in SERVING and round_due(r.rollout, r.spec, checked, now)]
    return tuple(query for release in due for query in _of_release(release, stable, now))


def _of_release(release: Release, stable: Release | None, now: datetime) -> Iterable[Query]:
    namespace = release.manifest["metadata"]["namespace"]
    if release.rollout.state in CANARIES:
        since = release.rollout.since or now
        yield Query(step_requests(release.name), successes(release.name, namespace, _window((now - since).total_seconds())))
    for check in release.spec.rollout.checks:
        if not judged(check, release):
            continue
        window = _measured_since(release, check, now)
        yield Query(count_of(release.name, check), requests(release.name, namespace, window))
        yield Query(value_of(release.name, check), measure(check.metric, release.name, namespace, window))
        if compared(check, release) and stable:
            yield Query(count_of(release.name, check, of_stable=True), requests(stable.name, namespace, window))
            yield Query(value_of(release.name, check, of_stable=True), measure(check.metric, stable.name, namespace, window))


def judged(check: Check, release: Release) -> bool:
    """Whether the check says anything now: a stable release has no other to be compared with."""
    return check.maximum is not None or compared(check, release)


def compared(check: Check, release: Release) -> bool:
    """Whether the check compares with the stable release."""
    return check.maximum_ratio_to_stable is not None and release.rollout.state in CANARIES


def _measured_since(release: Release, check: Check, now: datetime) -> int:
    """The check's window, but not from before the release took traffic: that belongs to an earlier rollout."""
    since = release.rollout.traffic_since or now
    return min(check.window_seconds, _window((now - since).total_seconds()))


def _window(seconds: float) -> int:
    return max(SHORTEST_WINDOW, math.ceil(seconds))


def step_requests(release: str) -> str:
    """Name of the query: requests answered well in the current step."""
    return f"{release}/step/requests"


def count_of(release: str, check: Check, *, of_stable: bool = False) -> str:
    """Name of the query: requests in the check's window, of the release or of the stable one beside it."""
    return f"{release}/{check.name}/{'stable-' if of_stable else ''}requests"


def value_of(release: str, check: Check, *, of_stable: bool = False) -> str:
    """Name of the query: the check's metric."""
    return f"{release}/{check.name}/{'stable-' if of_stable else ''}value"


def requests(release: str, namespace: str, window: int) -> str:
    """Requests answered in the window; 0 without any series."""
    return f"sum(increase(videogen_requests_total{{{_selector(release, namespace)}{SERVED}}}[{window}s])) or vector(0)"


def successes(release: str, namespace: str, window: int) -> str:
    """Requests answered well in the window; 0 without any series. Errors are no reason to raise the weight."""
    return f'sum(increase(videogen_requests_total{{{_selector(release, namespace)}outcome="ok"}}[{window}s])) or vector(0)'


def measure(metric: LiveMetric, release: str, namespace: str, window: int) -> str:
    """The metric over the window; no value if nothing was answered."""
    selector = _selector(release, namespace)
    if metric == LiveMetric.LATENCY_P95_SECONDS:
        buckets = f"sum by (le) (rate(videogen_request_duration_seconds_bucket{{{selector}{SERVED}}}[{window}s]))"
        return f"histogram_quantile(0.95, {buckets})"
    bad = f'sum(increase(videogen_requests_total{{{selector}outcome=~"timeout|error"}}[{window}s])) or vector(0)'
    return f"({bad}) / ({requests(release, namespace, window)})"


def _selector(release: str, namespace: str) -> str:
    return f'namespace="{namespace}",release="{release}",'
