"""Somebody who may create pods in the namespace gives one the labels of a release's pods: its end says nothing about the release."""

from __future__ import annotations

from typing import Any

import pytest

from videogen_testing.releases import NAMESPACE, a_crashed_pod, a_release, a_replica_set, name_of
from videogen_testing.service_simulation import Simulation

OLD, NEW = "1.0.0", "1.1.0"
ROLLOUT = {"steps": [{"weightPercent": 50, "minimumRequests": 10**6}], "checks": []}
REFUSED = 67  # the exit code of a server that finds another digest


def begun(state: str) -> Simulation:
    simulation = Simulation(a_release(OLD, rollout=ROLLOUT))
    simulation.until(OLD, "Stable")
    simulation.put(a_release(NEW, at=simulation.now, rollout=ROLLOUT))
    if state == "Starting":
        simulation.ready_after = 1000
    simulation.until(NEW, state)
    simulation.tick()
    return simulation


def a_strangers_pod(simulation: Simulation, owners: list[dict[str, Any]]) -> dict[str, Any]:
    pod = a_crashed_pod(name_of(NEW), exit_code=REFUSED, at=simulation.now)
    pod["metadata"] |= {"name": "stranger", "uid": "uid-stranger", "ownerReferences": owners}
    return pod


def owners_of(case: str, simulation: Simulation) -> list[dict[str, Any]]:
    deployment = simulation.objects["Deployment", NAMESPACE, name_of(NEW).replace(".", "-")]["metadata"]["uid"]
    made: dict[str, list[dict[str, Any]]] = {
        "no owner": [],
        "the Deployment itself": [{"kind": "Deployment", "uid": deployment, "controller": True}],
        "the set, but not as its controller": [{"kind": "ReplicaSet", "uid": f"uid-{name_of(NEW)}-set"}],
        "a set of its own": [{"kind": "ReplicaSet", "uid": "uid-own-set", "controller": True}],
        "the set's name with another UID": [{"kind": "ReplicaSet", "name": f"{name_of(NEW)}-set", "uid": "guess", "controller": True}],
    }
    return made[case]


CASES = ["no owner", "the Deployment itself", "the set, but not as its controller", "a set of its own", "the set's name with another UID"]


@pytest.mark.parametrize("case", CASES)
def test_a_pod_that_the_deployment_did_not_make_ends_no_start_and_no_rollout(case: str) -> None:
    for state in ("Starting", "Canary"):
        simulation = begun(state)
        deployment = simulation.objects["Deployment", NAMESPACE, name_of(NEW).replace(".", "-")]["metadata"]["uid"]
        simulation.put(a_replica_set(name_of(NEW), deployment))
        own = a_replica_set(name_of(NEW), "uid-strangers-deployment")
        own["metadata"] |= {"name": "own-set", "uid": "uid-own-set"}
        simulation.put(own)
        if state == "Canary":
            simulation.broken.add(NEW)  # a drain, at which nobody is to blame
        simulation.put(a_strangers_pod(simulation, owners_of(case, simulation)))
        simulation.tick(2)
        assert simulation.state(NEW) == state
        assert "refused the bundle" not in simulation.condition(NEW)["message"]


def test_the_deployments_own_pod_ends_it() -> None:
    simulation = begun("Starting")
    simulation.crashed[NEW] = REFUSED
    simulation.tick(2)
    assert simulation.state(NEW) == "Failed"
