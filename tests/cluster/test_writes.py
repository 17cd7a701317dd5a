"""Writes that the API server does not answer as it should: given up in time, or sent again."""

import time
from datetime import UTC, datetime
from typing import Any

import pytest

from videogen_api.meta import GROUP
from videogen_operator.api_server.cluster import ApiError, event_of
from videogen_operator.api_server.leadership import Leadership
from videogen_operator.plan import Note
from videogen_testing.control_plane import Api, ControlPlane
from videogen_testing.fault_proxy import Point, WriteFault
from videogen_testing.operator_connection import connected

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


def a_note(namespace: str) -> Note:
    metadata = {"name": "run", "namespace": namespace, "uid": "u"}
    return Note({"apiVersion": f"{GROUP}/v1alpha1", "kind": "TrainingRun", "metadata": metadata}, "Tested", "some words")


def noted(api: Api, namespace: str) -> list[Any]:
    listed = api.items(f"/apis/events.k8s.io/v1/namespaces/{namespace}/events")
    return [item for item in listed if item.get("reportingController") == GROUP]
