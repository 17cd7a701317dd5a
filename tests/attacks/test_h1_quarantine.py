"""Viewers and tenants try to bar a good digest: requests that slow every server, one forged source, a request that ends servers."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest

from videogen_operator.kinds.model_release.judging.quarantine import ANNOTATION
from videogen_testing.releases import NAMESPACE, SERVICE, a_release, name_of
from videogen_testing.service_simulation import Crashed, Simulation

OLD, NEW = "1.0.0", "1.1.0"
CHECKS = [
    {"name": "latency", "metric": "LatencyP95Seconds", "maximum": "10", "windowSeconds": 20},
    {"name": "errors", "metric": "ErrorRatio", "maximum": "0.05", "windowSeconds": 20},
]
STEPS = [{"weightPercent": 50, "minimumRequests": 200, "minimumSeconds": 20}]
SPEC: dict[str, Any] = {
    "rollout": {"steps": STEPS, "checks": CHECKS, "checkIntervalSeconds": 5},
    "rollback": {"windowSeconds": 6000},
    "serving": {"startDeadlineSeconds": 40},
}


def canary_beside_stable(**spec: Any) -> Simulation:
    simulation = Simulation(a_release(OLD, **SPEC))
    simulation.until(OLD, "Stable")
    simulation.put(a_release(NEW, at=simulation.now, **SPEC | spec))
    simulation.until(NEW, "Canary")
    simulation.tick()
    return simulation


def stable_with_standby() -> Simulation:
    simulation = canary_beside_stable()
    simulation.until(NEW, "Stable")
    simulation.tick()
    return simulation


def quarantined(simulation: Simulation) -> dict[str, list[str]]:
    """Signals of each release whose digest is quarantined."""
    route = simulation.objects["HTTPRoute", NAMESPACE, SERVICE]
    entries = json.loads(route["metadata"]["annotations"][ANNOTATION])
    return {entry["release"]: entry["signals"] for entry in entries if entry["quarantined"]}


def judgement(simulation: Simulation) -> str:
    return str(simulation.status(NEW)["rollback"]["judgement"])


def test_what_slows_every_release_bars_none() -> None:
    simulation = canary_beside_stable()
    simulation.latency |= {OLD: 60.0, NEW: 60.0}
    simulation.until(NEW, "RolledBack")
    simulation.tick(10)
    assert quarantined(simulation) == {}
    assert f"{name_of(OLD)} is affected, too" in judgement(simulation)


@pytest.mark.parametrize("source", ["servers", "gateway"])
def test_one_source_alone_bars_nothing_whichever_it_is(source: str) -> None:
    """Metrics that somebody forges: those of the servers roll back and no more, those of the gateway do not even that."""
    simulation = canary_beside_stable()
    simulation.latency[NEW] = 60.0 if source == "servers" else 2.0
    simulation.gateway_latency[NEW] = 2.0 if source == "servers" else 60.0
    simulation.tick(12)
    assert simulation.state(NEW) == ("RolledBack" if source == "servers" else "Stable")
    assert quarantined(simulation) == {}
    if source == "servers":
        assert judgement(simulation) == "its servers' metrics alone: check latency of the gateway: P95 latency 2 s, may be at most 10 s"
        assert "its digest is not quarantined" in simulation.condition(NEW)["message"]


def test_a_stable_release_that_viewers_make_look_fast_bars_no_candidate() -> None:
    """They ask it for next to nothing, and the other one does by itself what it always did: the ratio alone says so."""
    steps = [STEPS[0] | {"minimumSeconds": 120}]
    simulation = canary_beside_stable(rollout=SPEC["rollout"] | {"steps": steps, "checks": [CHECKS[0] | {"maximumRatioToStable": "1.5"}]})
    for measured in (simulation.latency, simulation.gateway_latency):
        measured[OLD] = 0.1
        measured[NEW] = 2.0
    simulation.until(NEW, "RolledBack")
    simulation.tick(12)
    assert quarantined(simulation) == {}
    assert judgement(simulation).endswith("alone: check latency of its servers: P95 latency 2 s, may be at most 10 s")


def test_two_sources_that_agree_bar_a_release_that_is_really_slow() -> None:
    simulation = canary_beside_stable()
    simulation.latency[NEW] = 60.0
    simulation.until(NEW, "RolledBack")
    simulation.tick()
    assert quarantined(simulation) == {name_of(NEW): ["Servers", "Gateway"]}


def test_figures_of_the_gateway_that_come_late_still_bar_a_release_whose_requests_are_short() -> None:
    simulation = canary_beside_stable(serving={"timeoutSeconds": 5})
    simulation.tick(2)
    simulation.gateway_delay = timedelta(seconds=15)
    simulation.latency[NEW] = 60.0
    simulation.until(NEW, "RolledBack")
    simulation.tick()
    assert quarantined(simulation) == {}, "the gateway has not shown the slow requests yet"
    simulation.tick(3)
    assert quarantined(simulation) == {name_of(NEW): ["Servers", "Gateway"]}
    simulation.tick(10)
    assert ("Deployment", NAMESPACE, name_of(NEW).replace(".", "-")) not in simulation.objects


def test_an_operator_that_died_before_it_said_the_quarantine_keeps_it_without_prometheus() -> None:
    simulation = canary_beside_stable()
    simulation.tick(2)
    simulation.gateway_delay = timedelta(seconds=15)
    simulation.latency[NEW] = 60.0
    simulation.until(NEW, "RolledBack")
    simulation.gateway_delay = timedelta(0)
    simulation.now += timedelta(seconds=10)
    simulation.writes_until_crash = 1  # the route, and not the status
    with pytest.raises(Crashed):
        simulation.settle()
    simulation.writes_until_crash = None
    assert quarantined(simulation) == {name_of(NEW): ["Servers", "Gateway"]}
    rollback = simulation.status(NEW)["rollback"]
    assert "awaitsUntil" in rollback and not rollback["quarantined"]
    simulation.prometheus = False
    simulation.now += timedelta(seconds=120)
    simulation.tick(2)
    assert quarantined(simulation) == {name_of(NEW): ["Servers", "Gateway"]}
    rollback = simulation.status(NEW)["rollback"]
    assert rollback["quarantined"] and "awaitsUntil" not in rollback


def test_a_request_that_ends_servers_takes_no_stable_release_back() -> None:
    simulation = stable_with_standby()
    simulation.crashed[NEW] = 139
    simulation.tick()
    assert (simulation.state(NEW), simulation.weights()[OLD]) == ("Stable", 100), "the traffic has moved at once"
    del simulation.crashed[NEW]
    simulation.tick(4)
    assert (simulation.state(NEW), simulation.weights()[NEW]) == ("Stable", 100), "and is back with the pods"
    assert quarantined(simulation) == {}


def test_where_the_same_request_ends_the_servers_of_both_neither_is_taken_back() -> None:
    for begin in (canary_beside_stable, stable_with_standby):
        simulation = begin()
        before = {version: simulation.state(version) for version in (OLD, NEW)}
        for victim in [NEW, OLD] * 6:  # traffic moves to the other one, whose server the next request ends
            simulation.crashed = {victim: 139}
            simulation.tick(2)
        simulation.crashed.clear()
        simulation.tick(6)
        after = {version: simulation.state(version) for version in (OLD, NEW)}
        assert after[OLD] == before[OLD]
        assert after[NEW] in {before[NEW], "Stable", "RolledBack" if before[NEW] == "Canary" else "Stable"}
        assert quarantined(simulation) == {}
        assert sum(simulation.weights().values()) == 100


def test_the_only_release_that_can_serve_is_neither_taken_back_nor_barred() -> None:
    simulation = Simulation(a_release(OLD, **SPEC))
    simulation.until(OLD, "Stable")
    simulation.latency[OLD], simulation.errors[OLD] = 60.0, 0.9
    simulation.tick(5)
    simulation.crashed[OLD] = 139
    simulation.tick(20)
    assert (simulation.state(OLD), quarantined(simulation)) == ("Stable", {})


def test_a_person_alone_is_enough() -> None:
    simulation = canary_beside_stable()
    simulation.request(NEW, "quarantine@1")
    simulation.tick()
    assert quarantined(simulation) == {name_of(NEW): ["Request"]}
