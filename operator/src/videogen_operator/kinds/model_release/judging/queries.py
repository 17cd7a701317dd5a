"""The questions to Prometheus: only those that this pass can use, each about one release.

`videogen_requests_total{outcome="ok|invalid|overlong|timeout|error"}` and the histogram `videogen_request_duration_seconds` come
from the server; Prometheus adds `namespace` and, from the pods' label, `release`. An `invalid` request is the client's fault,
an `overlong` one ran out of time with more steps than the release's own, and both count for nothing. The histogram knows only
generations with the release's own number of steps: what a viewer asks for makes no release fast or slow. `increase` and `rate`
handle counters that start again with a new pod; a window that holds fewer than two scrapes has no value, which the checks take
for "no requests", never for "no errors". What the gateway measured of the same requests is asked in gateway_queries.py.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from videogen_api.model_release import Check, LiveMetric, Reason, RollbackRecord
from videogen_operator.kinds.model_release.judging import gateway_queries
from videogen_operator.kinds.model_release.judging.alerts import accepted_by, checks_of, is_verifiable
from videogen_operator.kinds.model_release.judging.promql import after, quoted
from videogen_operator.kinds.model_release.observed import Observed, Release
from videogen_operator.kinds.model_release.remembered import moment
from videogen_operator.kinds.model_release.rollout import round_due
from videogen_operator.kinds.model_release.states import CANARIES, State
from videogen_operator.plan import Inputs, Manifest, Query

SERVED = 'outcome=~"ok|timeout|error"'  # neither what the client did wrong nor what it gave up
SHORTEST_WINDOW = 5  # seconds; less than two scrapes even of a very eager Prometheus says nothing


@dataclass(frozen=True, slots=True)
class Names:
    """Names of two queries that belong together: how many requests, and the check's metric over them."""

    requests: str
    value: str


def queries(observed: Observed, inputs: Inputs) -> tuple[Query, ...]:
    """What this pass asks. While alerts wait, only what verifies them: a rollback waits for nothing else. An alert that needs
    no verification waits for no answer at all.
    """
    now = inputs.now
    if inputs.alerts:
        return _verifications(observed, inputs)
    stable = next((release for release in observed.releases if release.rollout.state == State.STABLE), None)
    due = [r for r in observed.releases if round_due(r.rollout, r.spec, now)]
    rounds = [query for release in due for query in _of_release(release, stable, now)]
    return (*rounds, *(query for release in observed.releases for query in _second_signal(observed, release, inputs)))


def _of_release(release: Release, stable: Release | None, now: datetime) -> Iterable[Query]:
    namespace = release.manifest["metadata"]["namespace"]
    if release.rollout.state in CANARIES:
        since = release.rollout.since or now
        yield Query(step_requests(release.name), successes(release.name, namespace, _window((now - since).total_seconds())))
    for check in release.spec.rollout.checks:
        if not judged(check, release):
            continue
        window = _measured_since(release, check.window_seconds, now)
        yield Query(count_of(release.name, check), measured(check.metric, release.name, namespace, window))
        yield Query(value_of(release.name, check), measure(check.metric, release.name, namespace, window))
        if compared(check, release) and stable:
            yield Query(count_of(release.name, check, of_stable=True), measured(check.metric, stable.name, namespace, window))
            yield Query(value_of(release.name, check, of_stable=True), measure(check.metric, stable.name, namespace, window))


def _verifications(observed: Observed, inputs: Inputs) -> tuple[Query, ...]:
    releases, window = {release.name: release for release in observed.releases}, _alert_window(inputs)
    accepted = [(alert, one) for alert in inputs.alerts if (one := accepted_by(alert, releases, observed.namespace, inputs.now))]
    if any(not is_verifiable(alert) for alert, _ in accepted):
        return ()
    asked = {query.name: query for alert, release in accepted for query in _verification(release, alert, window, inputs.now)}
    return tuple(asked.values())


def _alert_window(inputs: Inputs) -> int:
    return int(inputs.settings.get("alert_window_seconds") or 60)


def _verification(release: Release, alert: Manifest, window: int, now: datetime) -> Iterable[Query]:
    """The alert's own question, asked about this release alone: its checks of that metric, over the rule's window."""
    namespace, seconds = release.manifest["metadata"]["namespace"], _measured_since(release, window, now)
    for check in checks_of(alert, release):
        names = at_alert(release.name, check)
        yield Query(names.requests, measured(check.metric, release.name, namespace, seconds))
        yield Query(names.value, measure(check.metric, release.name, namespace, seconds))


def _second_signal(observed: Observed, release: Release, inputs: Inputs) -> Iterable[Query]:
    """What judges a digest after its rollback: the window that led to it, of the release and of the one that took over."""
    record = release.status.rollback
    other = next((one for one in observed.releases if record and one.name == record.to), None)
    at = moment(record.time) if record else None
    if release.rollout.state != State.ROLLED_BACK or record is None or record.awaits_until is None or other is None or at is None:
        return
    ago = max(0, math.ceil((inputs.now - at).total_seconds()))
    namespace = release.manifest["metadata"]["namespace"]
    for check in release.spec.rollout.checks:
        window = _measured_since(release, _window_of(record, check, inputs), at)
        for who, one in (("own", release), ("other", other)):
            servers, gateway = at_rollback(release.name, check, who, "servers"), at_rollback(release.name, check, who, "gateway")
            # What is under way at the rollback ends after it, and is seen after it: Prometheus looks every few seconds, and Envoy
            # shows its histograms some seconds late.
            # The other one is looked at for the whole window: slow answers of this release may have kept its viewers busy meanwhile.
            seen = (window + ago, 0) if who == "own" else (_window_of(record, check, inputs), ago)
            yield Query(servers.requests, measured(check.metric, one.name, namespace, *seen))
            yield Query(servers.value, measure(check.metric, one.name, namespace, *seen))
            if selector := gateway_queries.selector(observed, one.name, inputs.settings):
                yield Query(gateway.requests, gateway_queries.requests(selector, *seen))
                yield Query(gateway.value, gateway_queries.measure(check.metric, selector, *seen))


def _window_of(record: RollbackRecord, check: Check, inputs: Inputs) -> int:
    by_alert = record.reason == Reason.ROLLED_BACK_ALERT
    return _alert_window(inputs) if by_alert else check.window_seconds


def judged(check: Check, release: Release) -> bool:
    """Whether the check says anything now: a stable release has no other to be compared with."""
    return check.maximum is not None or compared(check, release)


def compared(check: Check, release: Release) -> bool:
    """Whether the check compares with the stable release."""
    return check.maximum_ratio_to_stable is not None and release.rollout.state in CANARIES


def _measured_since(release: Release, seconds: int, now: datetime) -> int:
    """A window, but not from before the release took traffic: that belongs to an earlier rollout."""
    since = release.rollout.traffic_since or now
    return min(seconds, _window((now - since).total_seconds()))


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


def at_alert(release: str, check: Check) -> Names:
    """Names of the queries that verify an alert."""
    return Names(f"{release}/alert/{check.name}/requests", f"{release}/alert/{check.name}/value")


def at_rollback(release: str, check: Check, who: str, by: str) -> Names:
    """Names of the queries that judge a rollback: `who` is own or other (who took over), measured `by` servers or gateway."""
    return Names(f"{release}/rollback/{check.name}/{who}-{by}/requests", f"{release}/rollback/{check.name}/{who}-{by}/value")


def requests(release: str, namespace: str, window: int, ago: int = 0) -> str:
    """Requests answered in the window, which ended `ago` seconds before now; 0 without any series."""
    return f"sum(increase(videogen_requests_total{{{_selector(release, namespace)}{SERVED}}}[{window}s]{after(ago)})) or vector(0)"


def measured(metric: LiveMetric, release: str, namespace: str, window: int, ago: int = 0) -> str:
    """Requests in the window of which the metric is made; 0 without any series."""
    if metric != LiveMetric.LATENCY_P95_SECONDS:
        return requests(release, namespace, window, ago)
    series = f"videogen_request_duration_seconds_count{{{_selector(release, namespace)}{SERVED}}}"
    return f"sum(increase({series}[{window}s]{after(ago)})) or vector(0)"


def successes(release: str, namespace: str, window: int) -> str:
    """Requests answered well in the window; 0 without any series. Errors are no reason to raise the weight."""
    return f'sum(increase(videogen_requests_total{{{_selector(release, namespace)}outcome="ok"}}[{window}s])) or vector(0)'


def measure(metric: LiveMetric, release: str, namespace: str, window: int, ago: int = 0) -> str:
    """The metric over the window; no value if nothing was answered."""
    selector, seen = _selector(release, namespace), f"[{window}s]{after(ago)}"
    if metric == LiveMetric.LATENCY_P95_SECONDS:
        buckets = f"sum by (le) (rate(videogen_request_duration_seconds_bucket{{{selector}{SERVED}}}{seen}))"
        return f"histogram_quantile(0.95, {buckets})"
    bad = f'sum(increase(videogen_requests_total{{{selector}outcome=~"timeout|error"}}{seen})) or vector(0)'
    return f"({bad}) / ({requests(release, namespace, window, ago)})"


def _selector(release: str, namespace: str) -> str:
    return f"namespace={quoted(namespace)},release={quoted(release)},"
