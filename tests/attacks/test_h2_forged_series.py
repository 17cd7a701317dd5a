"""Series that a tenant's own pod exposes about others: none of the operator's questions counts them. By Prometheus' own test tool."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from videogen_api.model_release import LiveMetric
from videogen_operator.kinds.model_release.judging import gateway_queries
from videogen_operator.kinds.model_release.judging.queries import measure, requests
from videogen_operator.kinds.model_release.observed import Observed
from videogen_testing.releases import NAMESPACE, SERVICE, SETTINGS

RELEASE, OTHER = "good", "other"
CLUSTER = f"httproute/{NAMESPACE}/{SERVICE}/rule/1/backend/"
ENVOY = 'namespace="envoy-gateway-system",pod="envoy-a"'


def route(*releases: str) -> dict[str, Any]:
    """A route with a rule for readiness and one for generations."""

    def backend(name: str) -> dict[str, Any]:
        header = {"set": [{"name": "x-videogen-release", "value": name}]}
        return {"weight": 1, "filters": [{"type": "RequestHeaderModifier", "requestHeaderModifier": header}]}

    paths = ("/v2/models/video/ready", "/v2/models/video/infer")
    rules = [{"matches": [{"path": {"value": path}}], "backendRefs": [backend(name) for name in releases]} for path in paths]
    return {"metadata": {}, "spec": {"rules": rules}}


OBSERVED = Observed(namespace=NAMESPACE, service=SERVICE, releases=(), route=route(RELEASE, OTHER))
SELECTOR = gateway_queries.selector(OBSERVED, RELEASE, SETTINGS)


def histogram(name: str, labels: str, fast: str, slow: str, bounds: tuple[str, str]) -> dict[str, str]:
    return {f'{name}_bucket{{{labels},le="{le}"}}': fast if le == bounds[0] else slow for le in (*bounds, "+Inf")}


@pytest.fixture
def asks(tmp_path: Path) -> Callable[[dict[str, str], str], float | None]:
    """`asks(series, promql)`: the one value at 60 s, where a sample is taken every 5 s; None if there is none."""

    def of(series: dict[str, str], promql: str) -> float | None:
        program = shutil.which("promtool")
        assert program, "no promtool: install Debian's package prometheus, which the local cluster needs too"
        test = {
            "interval": "5s",
            "input_series": [{"series": name, "values": values} for name, values in series.items()],
            "promql_expr_test": [{"expr": promql, "eval_time": "60s", "exp_samples": [{"labels": "{}", "value": -12345}]}],
        }
        (tmp_path / "test.yaml").write_text(yaml.safe_dump({"tests": [test]}))
        result = subprocess.run(
            [program, "test", "rules", tmp_path / "test.yaml"], capture_output=True, text=True, check=False, timeout=600
        )
        said = result.stdout + result.stderr
        got = said.partition("got:")[2].strip().splitlines()
        assert got, said
        return None if got[0] in {"nil", "[]"} else float(got[0].split()[-1])

    return of


OWN = f'namespace="{NAMESPACE}",release="{RELEASE}"'
FORGED = f'namespace="attacker",exported_namespace="{NAMESPACE}",release="x",exported_release="{RELEASE}"'


def test_only_series_whose_labels_come_from_the_target_count(asks: Callable[[dict[str, str], str], float | None]) -> None:
    truth = {f'videogen_requests_total{{{OWN},outcome="ok"}}': "0+10x12", f'videogen_requests_total{{{OWN},outcome="error"}}': "0x12"}
    lie = {f'videogen_requests_total{{{FORGED},outcome="error"}}': "0+1000x12", f'videogen_requests_total{{{FORGED},outcome="ok"}}': "0x12"}
    for series in (truth, truth | lie):
        assert asks(series, requests(RELEASE, NAMESPACE, 30)) == pytest.approx(60)
        assert asks(series, measure(LiveMetric.ERROR_RATIO, RELEASE, NAMESPACE, 30)) == 0
    assert asks(truth, requests(RELEASE, NAMESPACE, 30, ago=20)) == pytest.approx(60)


def test_quotes_in_a_name_open_no_other_selector(asks: Callable[[dict[str, str], str], float | None]) -> None:
    series = {f'videogen_requests_total{{{OWN},outcome="ok"}}': "0+10x12"}
    for name in (f'x",release="{RELEASE}', 'x"} or videogen_requests_total{a="', "x\\", "x\ny"):
        assert asks(series, requests(name, NAMESPACE, 30)) == 0
        assert asks(series, requests(RELEASE, name, 30)) == 0


def test_the_gateways_measurement_is_that_of_its_own_pods_and_of_the_releases_position(
    asks: Callable[[dict[str, str], str], float | None],
) -> None:
    time, counted = "envoy_cluster_upstream_rq_time", "envoy_cluster_upstream_rq_xx"
    own = f'{ENVOY},envoy_cluster_name="{CLUSTER}0"'
    beside = f'{ENVOY},envoy_cluster_name="{CLUSTER}1"'
    readiness = f'{ENVOY},envoy_cluster_name="{CLUSTER.replace("rule/1", "rule/0")}0"'
    forged = own.replace("envoy-gateway-system", "attacker")
    answers = f'{counted}{{{own},envoy_response_code_class="2"}}'
    series = histogram(time, own, "_x9 0 0 0", "_x9 1 1 1", ("1000", "10000")) | {answers: "_x9 1 1 1"}
    for lie in (beside, readiness, forged):
        series |= histogram(time, lie, "0+100x12", "0+100x12", ("1000", "10000"))
        series |= {f'{counted}{{{lie},envoy_response_code_class="{code}"}}': "0+50x12" for code in ("2", "5")}
    assert asks(series, gateway_queries.requests(SELECTOR, 30)) == 1, "the first request counts, though no sample says 0 before it"
    latency = asks(series, gateway_queries.measure(LiveMetric.LATENCY_P95_SECONDS, SELECTOR, 30))
    assert latency is not None
    assert 1 < latency <= 10
    assert asks(series, gateway_queries.measure(LiveMetric.ERROR_RATIO, SELECTOR, 30)) == 0
    assert asks(series, gateway_queries.requests(SELECTOR, 30, ago=20)) == 0, "it was not there then"


def test_requests_that_the_circuit_breaker_refused_are_not_the_releases(asks: Callable[[dict[str, str], str], float | None]) -> None:
    own = f'{ENVOY},envoy_cluster_name="{CLUSTER}0"'
    series = {
        f'envoy_cluster_upstream_rq_xx{{{own},envoy_response_code_class="2"}}': "0+10x12",
        f'envoy_cluster_upstream_rq_xx{{{own},envoy_response_code_class="5"}}': "0+41x12",
        f"envoy_cluster_upstream_rq_pending_overflow{{{own}}}": "0+40x12",
    }
    assert asks(series, gateway_queries.requests(SELECTOR, 30)) == 66
    assert asks(series, gateway_queries.measure(LiveMetric.ERROR_RATIO, SELECTOR, 30)) == pytest.approx(1 / 11)


def test_a_counter_that_began_anew_counts_since_then_and_one_that_is_gone_nothing(
    asks: Callable[[dict[str, str], str], float | None],
) -> None:
    own = f'envoy_cluster_name="{CLUSTER}0",envoy_response_code_class="2"'
    counted = "envoy_cluster_upstream_rq_xx"
    series = {
        f"{counted}{{{ENVOY},{own}}}": "1000+10x6 0+10x6",  # began anew at 35 s: another release had the position before
        f'{counted}{{namespace="envoy-gateway-system",pod="envoy-b",{own}}}': "0+1000x6 stale",  # gone
        f'{counted}{{namespace="envoy-gateway-system",pod="envoy-c",{own}}}': "_x9 7 8 9",  # new
    }
    assert asks(series, gateway_queries.requests(SELECTOR, 30)) == 50 + 9


def test_without_a_place_in_the_route_or_a_namespace_of_the_proxies_the_gateway_says_nothing() -> None:
    assert gateway_queries.selector(OBSERVED, "gone", SETTINGS) == ""
    assert gateway_queries.selector(OBSERVED, RELEASE, {**SETTINGS, "gateway_metrics_namespace": ""}) == ""
    assert "rule/(1)/backend/0" in SELECTOR
