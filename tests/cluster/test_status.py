"""Whose a status is: the operator states the whole of it but the conditions of others, and never over what it has not seen."""

import json
from collections.abc import Mapping
from typing import Any

import pytest

from videogen_api.meta import FIELD_MANAGER
from videogen_api.training_run import Reason
from videogen_operator.api_server.cluster import ApiError
from videogen_operator.plan import StatusWrite
from videogen_testing.control_plane import Api, ControlPlane, Refused, eventually
from videogen_testing.operator_connection import connected
from videogen_testing.operator_process import OperatorProcess
from videogen_testing.runs import RUNS, TRAIN, a_claim, a_run, ended, first_job, play, running, trained

APPROVED, OURS = "example.org/Approved", "Succeeded"
NAME = "run"


def condition(kind: str, status: str = "True", reason: str = "Tested") -> dict[str, Any]:
    return {
        "type": kind,
        "status": status,
        "reason": reason,
        "message": "some words",
        "observedGeneration": 1,
        "lastTransitionTime": "2026-11-01T00:00:00Z",
    }


def a_status(*conditions: Mapping[str, Any], **fields: Any) -> dict[str, Any]:
    return {"observedGeneration": 1, "conditions": list(conditions), "phases": [], "release": "", **fields}


def approve(api: Api, path: str, manager: str = "approver") -> None:
    """What another controller does to say something of its own."""
    item = api.get(path)
    body = {
        "apiVersion": item["apiVersion"],
        "kind": item["kind"],
        "metadata": {"name": NAME},
        "status": {"conditions": [condition(APPROVED)]},
    }
    api.request("PATCH", f"{path}/status?fieldManager={manager}", body, "application/apply-patch+yaml")


def types(item: Any) -> list[str]:
    return sorted(one["type"] for one in item["status"].get("conditions", []))


@pytest.fixture
def path(api: Api, namespace: str) -> str:
    """A run that no operator looks at."""
    api.create(RUNS.format(namespace), a_run(namespace=namespace))
    return f"{RUNS.format(namespace)}/{NAME}"


async def test_a_condition_of_somebody_else_stays_whichever_comes_first(plane: ControlPlane, api: Api, namespace: str, path: str) -> None:
    async with connected(plane, namespace) as (proxy, cluster):
        await cluster.write_status(StatusWrite(api.get(path), a_status(condition(OURS, "Unknown"))))
        approve(api, path)
        await cluster.write_status(StatusWrite(api.get(path), a_status(condition(OURS, "Unknown"), condition("Reconciling"))))
        assert types(api.get(path)) == ["Reconciling", OURS, APPROVED]
        await cluster.write_status(StatusWrite(api.get(path), a_status(condition(OURS, "False"), release="a-release")))
        assert len(proxy.writes) == 3, "one write for each"
    item = api.get(path)
    assert types(item) == [OURS, APPROVED], "what we no longer state is gone"
    assert item["status"]["release"] == "a-release"
    managers = {(one["manager"], one["operation"]) for one in item["metadata"]["managedFields"] if one.get("subresource") == "status"}
    assert managers == {(FIELD_MANAGER, "Apply"), ("approver", "Apply")}


async def test_a_plan_sees_neither_the_conditions_of_others_nor_their_changes(
    plane: ControlPlane, api: Api, namespace: str, path: str
) -> None:
    async with connected(plane, namespace) as (_, cluster):
        heard: list[Any] = []
        cluster.told = heard.append
        status = a_status(condition(OURS, "Unknown"))
        await cluster.write_status(StatusWrite(api.get(path), status))
        approve(api, path)
        seen = await cluster.get("TrainingRun", namespace, NAME)
        assert len(heard) == 1, "our own write alone"
        assert seen["metadata"]["resourceVersion"] == api.get(path)["metadata"]["resourceVersion"], "but the version is the newest"


def full_phase(number: int) -> dict[str, Any]:
    """What is known of a phase about which everything was said at length, as far as the API server lets it be."""
    words, time, digest = "x" * 1024, "2026-11-01T00:00:00Z", "sha256:" + "a" * 64
    attempt = {"reason": "TrainerFailed", "message": words, "startTime": time, "endTime": time, "resumedFromStep": 1, "lastStep": 2}
    result = {"metric": "FVD", "value": "100", "low": "90", "high": "110", "samples": 128, "message": words, "extractorDigest": digest}
    return {
        "name": f"train-{number}",
        "begun": True,
        "attempt": 10,
        "imageID": "x" * 512,
        "message": words,
        "attempts": [attempt | {"number": count + 1, "workers": 128} for count in range(10)],
        "results": [result | {"extractor": f"network-{count}"} for count in range(16)],
        "datasets": [{"dataset": f"clips-{count}", "version": "1", "digest": digest, "clips": 9} for count in range(16)],
    }


async def test_the_longest_status_is_written_and_its_run_can_be_edited_still(plane: ControlPlane, api: Api, namespace: str) -> None:
    phases = [TRAIN | {"name": f"train-{number}"} for number in range(16)]
    api.create(RUNS.format(namespace), a_run(namespace=namespace, phases=phases, suspend=True))
    path = f"{RUNS.format(namespace)}/{NAME}"
    status = a_status(condition(OURS, "Unknown"), phases=[full_phase(number) for number in range(16)])
    assert len(json.dumps(status)) > 450_000
    async with connected(plane, namespace) as (_, cluster):
        for words in ("some words", "other words"):  # the second one is compared with the first by every rule
            told = condition(OURS, "Unknown") | {"message": words}
            await cluster.write_status(StatusWrite(api.get(path), status | {"conditions": [told]}))
    stored = api.get(path)
    assert stored["status"]["phases"] == status["phases"]
    assert stored["status"]["conditions"][0]["message"] == "other words"
    more = [phase | {"attempts": 9, "window": {"deadlineSeconds": 3600}} for phase in stored["spec"]["phases"]]
    api.merge(path, {"spec": {"phases": more}})
    assert [phase["attempts"] for phase in api.get(path)["spec"]["phases"]] == [9] * 16
    with pytest.raises(Refused, match="of a phase that has begun only"):
        api.merge(path, {"spec": {"phases": [phase | {"task": "FineTune"} for phase in more]}})


OTHER_WAYS = {
    "an older operator's JSON patch": (FIELD_MANAGER, "application/json-patch+json"),
    "a backup that was restored": ("velero", "application/merge-patch+json"),
}


@pytest.mark.parametrize(("manager", "content"), OTHER_WAYS.values(), ids=OTHER_WAYS)
async def test_what_was_written_in_another_way_goes_when_it_is_no_longer_stated(
    plane: ControlPlane, api: Api, namespace: str, path: str, manager: str, content: str
) -> None:
    old = a_status(
        condition(OURS, "False"), condition("Stalled"), condition(APPROVED), phases=[{"name": "train", "attempt": 3}], release="old"
    )
    body = [{"op": "add", "path": "/status", "value": old}] if "json-patch" in content else {"status": old}
    api.request("PATCH", f"{path}/status?fieldManager={manager}", body, content)
    async with connected(plane, namespace) as (_, cluster):
        for new in (a_status(condition(OURS, "Unknown")), a_status(condition(OURS))):
            await cluster.write_status(StatusWrite(api.get(path), new))
            item = api.get(path)
            assert types(item) == [OURS, APPROVED]
            assert item["status"]["release"] == ""
            assert item["status"]["phases"] == []


async def test_a_list_that_is_filled_and_then_empty_is_empty(plane: ControlPlane, api: Api, namespace: str, path: str) -> None:
    """An apply alone would leave null in its place, which the schema refuses."""
    approve(api, path)
    async with connected(plane, namespace) as (_, cluster):
        for phases in ([{"name": "train", "attempt": 1}], [], [{"name": "train", "attempt": 2}], []):
            await cluster.write_status(StatusWrite(api.get(path), a_status(condition(OURS), phases=phases)))
            assert [phase["attempt"] for phase in api.get(path)["status"]["phases"]] == [phase["attempt"] for phase in phases]
            assert types(api.get(path)) == [OURS, APPROVED]


async def test_a_status_from_before_a_change_is_refused(plane: ControlPlane, api: Api, namespace: str, path: str) -> None:
    stale = api.get(path)
    approve(api, path)
    async with connected(plane, namespace) as (_, cluster):
        with pytest.raises(ApiError, match="409 Conflict"):
            await cluster.write_status(StatusWrite(stale, a_status(condition(OURS))))
    assert types(api.get(path)) == [APPROVED]


async def test_the_status_of_what_is_gone_makes_nothing_and_that_of_a_predecessor_is_refused(
    plane: ControlPlane, api: Api, namespace: str, path: str
) -> None:
    first = api.get(path)
    api.delete(path)
    eventually(lambda: api.find(path) is None)
    async with connected(plane, namespace) as (_, cluster):
        with pytest.raises(ApiError, match=r"404|409"):
            await cluster.write_status(StatusWrite(first, a_status(condition(OURS))))
        assert api.find(path) is None
        api.create(RUNS.format(namespace), a_run(namespace=namespace))
        with pytest.raises(ApiError, match="409"):
            await cluster.write_status(StatusWrite(first, a_status(condition(OURS))))
    assert types(api.get(path)) == []


def test_a_run_goes_on_to_its_end_beside_the_condition_of_somebody_else(api: Api, namespace: str, operator: OperatorProcess) -> None:
    operator.start()
    path = f"{RUNS.format(namespace)}/{NAME}"
    api.create(f"/api/v1/namespaces/{namespace}/persistentvolumeclaims", a_claim())
    api.create(RUNS.format(namespace), a_run(namespace=namespace))
    approve(api, path)
    job = first_job(api, namespace)
    play(api, namespace, job, running())
    eventually(lambda: succeeded(api.get(path)) == Reason.TRAINING)
    play(api, namespace, job, ended(0, trained().model_dump_json(by_alias=True, exclude_none=True)))
    eventually(lambda: succeeded(api.get(path)) == Reason.COMPLETED)
    assert APPROVED in types(api.get(path))


def succeeded(item: Any) -> str:
    return next((str(one["reason"]) for one in item["status"].get("conditions", []) if one["type"] == OURS), "")
