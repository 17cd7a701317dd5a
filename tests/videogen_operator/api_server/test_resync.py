"""What the complete lists make of a 404: the operator must never be blind to what is there."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import kopf
import pytest
from aiohttp import web
from prometheus_client import REGISTRY

from videogen_operator.api_server.cluster import ApiError, Cluster, path_of
from videogen_operator.api_server.resync import ANEW, FIRST_SECONDS, Resync
from videogen_operator.api_server.world import ObjectWorld
from videogen_operator.kinds import KINDS
from videogen_operator.main import merged
from videogen_operator.plan import Manifest, Resource
from videogen_operator.resources import CLAIMS, PYTORCH_JOBS

WATCHED = merged(resource for kind in KINDS for resource in kind.resources)
OPTIONAL = [resource for resource in WATCHED if resource.optional]
NEEDED = [resource for resource in WATCHED if not resource.optional]
optional = pytest.mark.parametrize("resource", OPTIONAL, ids=lambda resource: resource.plural)


def item(resource: Resource, version: int = 5) -> dict[str, Any]:
    metadata = {"name": "standard", "namespace": "models", "uid": f"uid of a {resource.kind}", "resourceVersion": str(version)}
    owners = [{"kind": kind, "name": "owner", "controller": True} for kind in resource.owners]  # what has none is not kept
    return {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": metadata | {"ownerReferences": owners}}


@dataclass
class Served:
    """An API server whose one resource comes and goes. `discovery` is the answer about its group-version."""

    resource: Resource
    listed: bool = True
    denials: int = 0  # lists that are still answered with 404
    asked: list[str] = field(default_factory=list)  # paths
    discovery: tuple[int, str] = (404, "404 page not found")
    told: list[str] = field(default_factory=list)  # kinds
    world: ObjectWorld = field(default_factory=lambda: ObjectWorld(WATCHED))
    now: float = 0.0

    async def answer(self, request: web.Request) -> web.Response:
        self.asked.append(request.path)
        if request.path == path_of(self.resource):
            if not self.listed or self.denials:
                self.denials = max(self.denials - 1, 0)
                return web.Response(status=404, text="404 page not found")
            return web.json_response({"items": [item(self.resource)], "metadata": {"resourceVersion": "9"}})
        if request.path == path_of(self.resource).removesuffix(f"/{self.resource.plural}"):
            return web.Response(status=self.discovery[0], text=self.discovery[1])
        return web.json_response({"items": [], "metadata": {"resourceVersion": "9"}})

    @asynccontextmanager
    async def listing(self) -> AsyncIterator[Resync]:
        application = web.Application()
        application.router.add_get("/{path:.*}", self.answer)
        runner = web.AppRunner(application)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        login = kopf.ConnectionInfo(server=f"http://127.0.0.1:{runner.addresses[0][1]}")
        try:
            async with Cluster(lambda: login, WATCHED, self.world) as cluster:
                places = [(resource, None) for resource in WATCHED]
                yield Resync(cluster, self.world, places, self.tell, doubt=0.0, clock=lambda: self.now)
        finally:
            await runner.cleanup()

    def tell(self, item: Manifest) -> None:
        self.told.append(item["kind"])

    def known(self) -> Manifest | None:
        return self.world.get(self.resource.kind, "models", "standard")


def named(*plurals: str) -> tuple[int, str]:
    """Discovery that names these."""
    return 200, json.dumps({"kind": "APIResourceList", "resources": [{"name": plural} for plural in plurals]})


@optional
async def test_a_404_of_what_discovery_names_is_a_failed_list_and_nothing_is_lost(resource: Resource) -> None:
    served = Served(resource, discovery=named(resource.plural, f"{resource.plural}/status"))
    async with served.listing() as resync:
        await resync.once()
        served.listed = False
        for _ in range(3):
            with pytest.raises(ApiError, match="404"):
                await resync.once()
            assert served.known() is not None
        served.listed = True
        await resync.once()
    assert served.told == [resource.kind]
    served.world.store(item(resource, version=99) | {"status": {"phase": "New"}})
    (kept,) = served.world.list(resource.kind)
    assert kept["metadata"]["resourceVersion"] == "99", "blind to an object that was there all the time"


DENIALS = {"the group-version is gone": (404, "404 page not found"), "others of the group stay": named("others", "others/status")}


@pytest.mark.parametrize("denial", DENIALS.values(), ids=DENIALS.keys())
@optional
async def test_what_discovery_denies_twice_is_gone_and_may_come_back_as_it_was(resource: Resource, denial: tuple[int, str]) -> None:
    served = Served(resource, discovery=denial)
    async with served.listing() as resync:
        await resync.once()
        served.listed = False
        served.asked.clear()
        await resync.once()
        assert served.known() is None
        assert served.asked.count(path_of(resource)) == 2, "once may be a mistake"
        assert served.asked.count(path_of(CLAIMS)) == 1, "only what was not served is asked for again"
        await resync.once()
        assert served.asked.count(path_of(resource)) == 3, "what is known to be absent is asked for once in each round"
        served.listed = True
        await resync.once()
    assert served.told == [resource.kind] * 3
    assert served.known() is not None


async def test_what_is_denied_once_and_listed_then_is_kept() -> None:
    served = Served(PYTORCH_JOBS)
    async with served.listing() as resync:
        await resync.once()
        for _ in range(3):
            served.denials = 1
            await resync.once()
            assert served.known() is not None
    assert served.told == [PYTORCH_JOBS.kind]


DOUBTS = {
    "discovery is away": (503, "try again"),
    "discovery is forbidden": (403, "no"),
    "discovery is no JSON": (200, "<html>"),
    "discovery is another object": (200, '{"kind": "Status"}'),
    "discovery is a list": (200, "[]"),
}


@pytest.mark.parametrize("doubt", DOUBTS.values(), ids=DOUBTS.keys())
async def test_in_doubt_what_is_known_is_kept(doubt: tuple[int, str]) -> None:
    served = Served(PYTORCH_JOBS, discovery=doubt)
    async with served.listing() as resync:
        await resync.once()
        served.listed = False
        for _ in range(3):
            with pytest.raises(ApiError):
                await resync.once()
    assert served.known() is not None


async def test_a_resource_that_is_not_optional_is_never_taken_for_absent() -> None:
    served = Served(NEEDED[0])
    async with served.listing() as resync:
        await resync.once()
        served.listed = False
        for _ in range(3):
            with pytest.raises(ApiError, match="404"):
                await resync.once()
    assert served.known() is not None


async def test_without_a_resource_that_was_never_installed_the_first_list_is_complete() -> None:
    served = Served(PYTORCH_JOBS, listed=False)
    async with served.listing() as resync:
        await resync.once()
    assert served.told == []


@dataclass
class Paged:
    """Claims in two pages. The second one is answered with 410 so many times; meanwhile the first claim is deleted."""

    expired: int
    asked: list[str] = field(default_factory=list)
    heard: int = 0
    world: ObjectWorld = field(default_factory=lambda: ObjectWorld([CLAIMS]))

    async def answer(self, request: web.Request) -> web.Response:
        if request.path != path_of(CLAIMS):
            return web.json_response({"items": [], "metadata": {"resourceVersion": "9"}})
        place = request.query.get("continue", "")
        self.asked.append(place)
        if place and self.expired:
            self.expired -= 1
            return web.json_response({"reason": "Expired", "message": "too old"}, status=410)
        names = ["c"] if place else ["b"] if "next" in self.asked else ["a", "b"]
        items = [item(CLAIMS) for name in names]
        for one, name in zip(items, names, strict=True):
            one["metadata"] |= {"name": name, "uid": name}
        return web.json_response({"items": items, "metadata": {"resourceVersion": "9"} | ({} if place else {"continue": "next"})})

    def count(self) -> None:
        self.heard += 1


async def resynced(paged: Paged) -> None:
    application = web.Application()
    application.router.add_get("/{path:.*}", paged.answer)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    login = kopf.ConnectionInfo(server=f"http://127.0.0.1:{runner.addresses[0][1]}")
    try:
        async with Cluster(lambda: login, [CLAIMS], paged.world) as cluster:
            await Resync(cluster, paged.world, [(CLAIMS, None)], lambda _: None, paged.count).once()
    finally:
        await runner.cleanup()


async def test_a_list_whose_version_has_expired_between_two_pages_is_begun_anew() -> None:
    paged = Paged(expired=1)
    await resynced(paged)
    assert paged.asked == ["", "next", "", "next"]
    assert [one["metadata"]["name"] for one in paged.world.list("PersistentVolumeClaim")] == ["b", "c"], "a has gone between the two"
    assert paged.heard == 3


async def test_a_list_that_expires_again_and_again_fails_and_keeps_what_is_known() -> None:
    paged = Paged(expired=100)
    with pytest.raises(ApiError, match="410"):
        await resynced(paged)
    assert len(paged.asked) == 2 * (1 + ANEW)
    assert [one["metadata"]["name"] for one in paged.world.list("PersistentVolumeClaim")] == ["a", "b"]


async def test_a_list_that_failed_is_begun_anew_when_the_api_server_says(monkeypatch: pytest.MonkeyPatch) -> None:
    paged, pauses, failures = Paged(expired=0), list[float](), list[int]()
    async with Cluster(lambda: kopf.ConnectionInfo(server="http://127.0.0.1:1"), [CLAIMS], paged.world) as cluster:
        resync = Resync(cluster, paged.world, [(CLAIMS, None)], lambda _: None)
        answers = iter([ApiError(429, "TooManyRequests", "later", 40.0), ApiError(500, "InternalError", "no"), TimeoutError(), None])

        async def once() -> None:
            if (error := next(answers)) is not None:
                raise error

        async def sleep(seconds: float) -> None:
            pauses.append(seconds)

        monkeypatch.setattr(resync, "once", once)
        monkeypatch.setattr("videogen_operator.api_server.resync.asyncio", SimpleNamespace(sleep=sleep))
        await resync.until_done(lambda: failures.append(1))
    assert pauses[0] == 40.0
    assert FIRST_SECONDS * 2 <= pauses[1] < pauses[2] <= FIRST_SECONDS * 4 * 1.2
    assert len(failures) == 3


def counted(plural: str, result: str) -> float:
    return REGISTRY.get_sample_value("videogen_lists_total", {"resource": plural, "result": result}) or 0.0


def age(plural: str) -> float | None:
    return REGISTRY.get_sample_value("videogen_list_age_seconds", {"resource": plural})


async def test_each_resource_has_the_time_since_its_own_last_list() -> None:
    served = Served(CLAIMS, discovery=named(CLAIMS.plural))
    async with served.listing() as resync:
        served.now = 1000.0
        assert age("persistentvolumeclaims") == 0, "a standby lists nothing"
        await resync.once()
        done = counted("persistentvolumeclaims", "Done")
        served.now, served.listed = 1060.0, False
        with pytest.raises(ApiError):
            await resync.once()
        assert counted("persistentvolumeclaims", "Done") == done
        assert counted("persistentvolumeclaims", "Failed") >= 1
        assert age("persistentvolumeclaims") == 60
        assert age("trainingruns") == 0


async def test_a_kind_that_is_not_served_counts_as_looked_at() -> None:
    served = Served(PYTORCH_JOBS, listed=False)
    async with served.listing() as resync:
        before, failed = counted("pytorchjobs", "Absent"), counted("pytorchjobs", "Failed")
        await resync.once()
        served.now = 60.0
        await resync.once()
        assert (counted("pytorchjobs", "Failed"), age("pytorchjobs")) == (failed, 0)
        assert counted("pytorchjobs", "Absent") == before + 3, "the first time it is asked for again"
