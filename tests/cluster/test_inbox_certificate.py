"""The inbox's certificate in a real API server, by the account and with the rights that the chart gives the hook."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import kopf
import pytest

from videogen_operator.api_server.cluster import ApiError, Cluster
from videogen_operator.api_server.world import ObjectWorld
from videogen_operator.inbound.authority import LIFE
from videogen_operator.inbound.inbox_certificate import Wanted, ensure
from videogen_testing.chart_rights import COLLECTIONS, PLACE, rendered
from videogen_testing.control_plane import Api, ControlPlane, Refused, eventually

SECRET, AUTHORITY = "videogen-inbox-tls", "videogen-inbox-ca"


@pytest.fixture
def token(api: Api, namespace: str) -> str:
    """Of the hook's account, once its rights are known."""
    made = json.loads(rendered(("certificate",), ()).replace(PLACE, namespace))
    for item in made:
        if item["kind"] in COLLECTIONS:
            api.create(COLLECTIONS[item["kind"]].format(namespace), item)
    accounts = COLLECTIONS["ServiceAccount"].format(namespace)
    body = {"spec": {"audiences": ["https://kubernetes.default.svc"]}}
    found: str = api.create(f"{accounts}/videogen-certificate/token", body)["status"]["token"]
    eventually(partial(_may_read, api, namespace, found))
    return found


def _may_read(api: Api, namespace: str, token: str) -> bool:
    try:
        api.request("GET", f"/api/v1/namespaces/{namespace}/secrets/{SECRET}", token=token)
    except Refused as error:
        return error.code == 404
    return True


@asynccontextmanager
async def connected(plane: ControlPlane, token: str) -> AsyncIterator[Cluster]:
    login = kopf.ConnectionInfo(server=plane.url, ca_path=str(plane.ca), scheme="Bearer", token=token)
    async with Cluster(lambda **_: login, (), ObjectWorld(())) as cluster:
        yield cluster


def wanted(namespace: str, *names: str) -> Wanted:
    return Wanted(namespace=namespace, secret=SECRET, authority=AUTHORITY, names=names or ("videogen-operator",))


def stored(api: Api, namespace: str) -> dict[str, bytes]:
    secret = api.get(f"/api/v1/namespaces/{namespace}/secrets/{SECRET}")
    assert secret["type"] == "kubernetes.io/tls"
    return {key: base64.b64decode(value) for key, value in secret["data"].items()}


def published(api: Api, namespace: str) -> Any:
    return api.get(f"/api/v1/namespaces/{namespace}/configmaps/{AUTHORITY}")["data"]


async def test_it_is_made_once_kept_and_renewed_under_the_same_authority(plane: ControlPlane, api: Api, namespace: str, token: str) -> None:
    now = datetime.now(UTC)
    async with connected(plane, token) as cluster:
        assert "was made for videogen-operator" in await ensure(cluster, wanted(namespace), now)
        first = stored(api, namespace)
        assert published(api, namespace) == {"ca.crt": first["ca.crt"].decode()}, "the certificate of the authority, and no key"
        assert "is good" in await ensure(cluster, wanted(namespace), now)
        assert stored(api, namespace) == first
        for names, when in ((("videogen-operator", "10.96.0.7"), now), (("videogen-operator",), now + LIFE - timedelta(days=100))):
            before = stored(api, namespace)
            assert "was renewed" in await ensure(cluster, wanted(namespace, *names), when)
            after = stored(api, namespace)
            assert after["tls.crt"] != before["tls.crt"]
            assert (after["ca.crt"], after["ca.key"]) == (first["ca.crt"], first["ca.key"])


async def test_of_several_at_once_one_wins_and_all_find_the_same(plane: ControlPlane, api: Api, namespace: str, token: str) -> None:
    now = datetime.now(UTC)
    async with connected(plane, token) as one, connected(plane, token) as other:
        done = await asyncio.gather(*(ensure(cluster, wanted(namespace), now) for cluster in (one, other) * 4))
    assert sum("was made" in words for words in done) == 1
    assert published(api, namespace)["ca.crt"].encode() == stored(api, namespace)["ca.crt"]


async def test_what_the_authority_is_said_to_be_is_put_right(plane: ControlPlane, api: Api, namespace: str, token: str) -> None:
    now, path = datetime.now(UTC), f"/api/v1/namespaces/{namespace}/configmaps/{AUTHORITY}"
    async with connected(plane, token) as cluster:
        await ensure(cluster, wanted(namespace), now)
        api.merge(path, {"data": {"ca.crt": "another"}})
        await ensure(cluster, wanted(namespace), now)
        assert published(api, namespace)["ca.crt"].encode() == stored(api, namespace)["ca.crt"]
        api.delete(path)
        await ensure(cluster, wanted(namespace), now)
    assert published(api, namespace)["ca.crt"].encode() == stored(api, namespace)["ca.crt"]


async def test_a_secret_of_somebody_else_is_left_alone(plane: ControlPlane, api: Api, namespace: str, token: str) -> None:
    theirs = {"metadata": {"name": SECRET}, "data": {"password": base64.b64encode(b"theirs").decode()}}
    api.create(f"/api/v1/namespaces/{namespace}/secrets", theirs)
    async with connected(plane, token) as cluster:
        with pytest.raises(
            ValueError, match=f"Secret {SECRET} has no label app.kubernetes.io/managed-by=videogen-operator.*delete or rename it"
        ):
            await ensure(cluster, wanted(namespace), datetime.now(UTC))
    assert api.get(f"/api/v1/namespaces/{namespace}/secrets/{SECRET}")["data"] == theirs["data"]


async def test_no_other_secret_can_be_read(plane: ControlPlane, api: Api, namespace: str, token: str) -> None:
    async with connected(plane, token) as cluster:
        with pytest.raises(ApiError) as refused:
            await cluster.request("GET", f"/api/v1/namespaces/{namespace}/secrets/another")
    assert refused.value.code == 403
