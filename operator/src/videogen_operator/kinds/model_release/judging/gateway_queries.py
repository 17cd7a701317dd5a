"""What the gateway itself measured of a release, as a source that neither the release nor its namespace writes.

Envoy Gateway makes one cluster for each backend of a route's rule and names it after its position
(`httproute/<namespace>/<route>/rule/<n>/backend/<m>`: internal/gatewayapi/helpers.go of v1.9.1); Envoy has counters and a
histogram in milliseconds for each (docs: "Cluster manager, statistics"). A release keeps its position while it is in the
route (route.py). The series must come from the proxies' own namespace: Prometheus takes that label from the target.

What a circuit breaker refuses, Envoy counts among the 5xx of the release's cluster, and apart as overflow. It never reached the
release, so it is subtracted: a crowd of viewers is no fault of the model.

Some of these series begin with the first request, which `increase` does not see: it knows no 0 before. So what was
counted is a difference of two moments, for each proxy, where what was not there counts as 0. A counter that is smaller than
before began anew in between, because its proxy did or because another release had the position: all of it was counted since.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from videogen_api.model_release import LiveMetric
from videogen_operator.kinds.model_release.judging.promql import after, quoted
from videogen_operator.kinds.model_release.observed import Observed, generating_rules, slots

ANSWERED = 'envoy_response_code_class=~"2|5"'  # what the client did wrong says nothing, as with the servers' own metrics


def selector(observed: Observed, release: str, settings: Mapping[str, str]) -> str:
    """Label matchers for the release's clusters; "" if it is not in the route, or nobody said where the proxies are."""
    places, proxies = slots(observed.route), settings.get("gateway_metrics_namespace", "")
    if release not in places or not proxies:
        return ""
    rules = "|".join(str(rule) for rule in generating_rules(observed.route))
    route = re.escape(f"httproute/{observed.namespace}/{observed.service}/rule/")
    return f"namespace={quoted(proxies)},envoy_cluster_name=~{quoted(f'{route}({rules})/backend/{places.index(release)}')}"


def requests(selected: str, window: int, ago: int = 0) -> str:
    """Requests that the release answered in the window, which ended `ago` seconds before now; 0 without any series."""
    return _reached(f"{selected},{ANSWERED}", selected, window, ago)


def measure(metric: LiveMetric, selected: str, window: int, ago: int = 0) -> str:
    """The check's metric as the gateway saw it: seconds from sending a request to its answer's end, or the share of 5xx."""
    if metric == LiveMetric.LATENCY_P95_SECONDS:
        buckets = _counted(f"envoy_cluster_upstream_rq_time_bucket{{{selected}}}", window, ago)
        return f"histogram_quantile(0.95, sum by (le) ({buckets})) / 1000"
    errors = _reached(f'{selected},envoy_response_code_class="5"', selected, window, ago)
    return f"({errors}) / ({requests(selected, window, ago)})"


def _reached(answers: str, selected: str, window: int, ago: int) -> str:
    """Requests with these answers, without those that a circuit breaker refused; 0 without any series."""
    answered = _counted(f"envoy_cluster_upstream_rq_xx{{{answers}}}", window, ago)
    refused = _counted(f"envoy_cluster_upstream_rq_pending_overflow{{{selected}}}", window, ago)
    return f"clamp_min((sum({answered}) or vector(0)) - (sum({refused}) or vector(0)), 0)"


def _counted(series: str, window: int, ago: int) -> str:
    now, before = f"{series}{after(ago)}", f"{series}{after(ago + window)}"
    return f"(({now} - ({before} or {now} * 0)) >= 0 or {now})"
