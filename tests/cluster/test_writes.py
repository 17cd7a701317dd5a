"""Writes that the API server does not answer as it should: given up in time, or sent again."""

import time
from datetime import UTC, datetime
from typing import Any

import pytest

from videogen_api.meta import GROUP
from videogen_operator import network_policies
from videogen_operator.api_server.cluster import ApiError, event_of
from videogen_operator.api_server.leadership import Leadership
from videogen_operator.names import MANAGED_BY
from videogen_operator.plan import Note
from videogen_testing.control_plane import Api, ControlPlane
from videogen_testing.fault_proxy import Point, WriteFault
from videogen_testing.operator_connection import connected
from videogen_testing.runs import RUNS, a_run

LEASE_SECONDS = 6


def a_config_map(namespace: str) -> dict[str, Any]:
    owner = {"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u"}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "late", "namespace": namespace, "ownerReferences": [owner]}}


async def test_a_write_without_answer_is_given_up_before_another_replica_can_take_over(
    plane: ControlPlane, api: Api, namespace: str
) -> None:
    async with connected(plane, namespace) as (proxy, cluster):
        leadership = Leadership(cluster, namespace=namespace, name="videogen-operator", identity="one", seconds=LEASE_SECONDS)
        cluster.fence = leadership.check
        proxy.faults = [WriteFault(Point("POST", "configmaps", "late"), "before", "hold")]
        begun = time.monotonic()
        await leadership.acquire()
        with pytest.raises(TimeoutError):
            await cluster.create(a_config_map(namespace))
        assert not leadership.holds()
        assert time.monotonic() - begun < LEASE_SECONDS
        assert proxy.fired == proxy.faults


@pytest.mark.parametrize(
    "faults", [[("before", 503)], [("before", 429), ("before", 500)], [("before", "lose")], [("after", "lose")]], ids=str
)
async def test_an_event_is_written_once_although(plane: ControlPlane, api: Api, namespace: str, faults: list[tuple[Any, Any]]) -> None:
    async with connected(plane, namespace) as (proxy, cluster):
        point = Point("POST", "events", "TrainingRun/run: Tested: some words")
        proxy.faults = [WriteFault(point, when, action) for when, action in faults]
        await cluster.record(event_of(a_note(namespace), datetime.now(UTC)))
        assert proxy.fired == proxy.faults
    assert [one["note"] for one in noted(api, namespace)] == ["some words"]


async def test_an_event_that_is_refused_for_good_is_not_sent_again(plane: ControlPlane, api: Api, namespace: str) -> None:
    async with connected(plane, namespace) as (proxy, cluster):
        proxy.faults = [WriteFault(Point("POST", "events", "TrainingRun/run: Tested: some words"), "before", 403)]
        with pytest.raises(ApiError):
            await cluster.record(event_of(a_note(namespace), datetime.now(UTC)))
        assert [write.status for write in proxy.writes] == [0]
    assert noted(api, namespace) == []


def a_policy(api: Api, namespace: str) -> dict[str, Any]:
    """Of a run that exists, or the garbage collector would delete it."""
    run = api.create(RUNS.format(namespace), a_run(namespace=namespace))["metadata"]
    owner = {"apiVersion": f"{GROUP}/v1alpha1", "kind": "TrainingRun", "name": run["name"], "uid": run["uid"], "controller": True}
    metadata = {"name": "run-train-1", "namespace": namespace, "labels": dict([MANAGED_BY]), "ownerReferences": [owner]}
    own = {"videogen.pib.gov.in/attempt": "1"}
    return network_policies.policy(metadata, own, network_policies.rule([{"podSelector": {"matchLabels": own}}]))


async def test_what_was_created_is_known_as_applied_and_its_edits_are_taken_back(plane: ControlPlane, api: Api, namespace: str) -> None:
    policy = a_policy(api, namespace)
    path = f"/apis/networking.k8s.io/v1/namespaces/{namespace}/networkpolicies/run-train-1"
    async with connected(plane, namespace) as (proxy, cluster):
        await cluster.create(policy)
        assert not await cluster.apply(policy)
        assert [write.point.verb for write in proxy.writes] == ["POST"]
        api.merge(path, {"spec": {"ingress": [{}]}})
        await cluster.get("NetworkPolicy", namespace, "run-train-1")
        assert await cluster.apply(policy)
    assert api.get(path)["spec"]["ingress"] == policy["spec"]["ingress"]


async def test_what_has_the_name_and_is_not_ours_is_not_taken_over(plane: ControlPlane, api: Api, namespace: str) -> None:
    policy = a_policy(api, namespace)
    theirs = policy | {"metadata": {"name": "run-train-1", "namespace": namespace}}
    api.create(f"/apis/networking.k8s.io/v1/namespaces/{namespace}/networkpolicies", theirs)
    async with connected(plane, namespace) as (_, cluster):
        with pytest.raises(ApiError, match="delete or rename it"):
            await cluster.create(policy)


def a_note(namespace: str) -> Note:
    metadata = {"name": "run", "namespace": namespace, "uid": "u"}
    return Note({"apiVersion": f"{GROUP}/v1alpha1", "kind": "TrainingRun", "metadata": metadata}, "Tested", "some words")


def noted(api: Api, namespace: str) -> list[Any]:
    listed = api.items(f"/apis/events.k8s.io/v1/namespaces/{namespace}/events")
    return [item for item in listed if item.get("reportingController") == GROUP]
