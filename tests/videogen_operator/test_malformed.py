"""Objects that some other version of the schema let in: the real list, world and kinds meet them, and nothing ends."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import kopf
import pytest
from aiohttp import web
from prometheus_client import CollectorRegistry, generate_latest

from videogen_operator.api_server.cluster import Cluster, path_of
from videogen_operator.api_server.resync import Resync
from videogen_operator.api_server.world import ObjectWorld
from videogen_operator.exporter import WorldCollector
from videogen_operator.kinds import KINDS
from videogen_operator.main import merged
from videogen_operator.plan import Key, Manifest
from videogen_operator.reconcile import PASSING
from videogen_operator.telemetry import MALFORMED
from videogen_operator.waking import Waking
from videogen_testing.runs import a_run

WATCHED = merged(resource for kind in KINDS for resource in kind.resources)
PLURALS = {resource.kind: path_of(resource) for resource in WATCHED}
GOOD = Key("TrainingRun", "models", "good")


def item(kind: str, name: str, **content: Any) -> dict[str, Any]:
    return {"kind": kind, "metadata": {"name": name, "namespace": "models", "uid": f"uid of {name}", "resourceVersion": "7"}} | content


MALFORMED_ITEMS = {
    "a release without a service": item("ModelRelease", "bad", spec={"model": {}}),
    "a release without spec": item("ModelRelease", "bad"),
    "a release whose spec is a list": item("ModelRelease", "bad", spec=["service"]),
    "a run without spec": item("TrainingRun", "bad"),
    "a run whose status is text": item("TrainingRun", "bad", status="Training"),
    "a pod whose labels are null": item("Pod", "bad") | {"metadata": {"name": "bad", "namespace": "models", "labels": None, "uid": "u"}},
}


@asynccontextmanager
async def listing(*items: Manifest) -> AsyncIterator[tuple[ObjectWorld, Resync, list[Key]]]:
    """World and Resync behind an API server whose lists are these objects; and the keys that are woken."""

    async def answer(request: web.Request) -> web.Response:
        found = [one for one in items if PLURALS[one["kind"]] == request.path]
        return web.json_response({"items": found, "metadata": {"resourceVersion": "9"}})

    server = web.Application()
    server.router.add_get("/{path:.*}", answer)
    runner = web.AppRunner(server)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    login = kopf.ConnectionInfo(server=f"http://127.0.0.1:{runner.addresses[0][1]}")
    world, woken = ObjectWorld(WATCHED), list[Key]()
    try:
        async with Cluster(lambda: login, WATCHED, world) as cluster:
            yield (
                world,
                Resync(cluster, world, [(resource, None) for resource in WATCHED], Waking(KINDS, world, woken.append, PASSING.get).told),
                woken,
            )
    finally:
        await runner.cleanup()


def counted(kind: str) -> float:
    return sum(sample.value for metric in MALFORMED.collect() for sample in metric.samples if sample.labels.get("kind") == kind)


@pytest.mark.parametrize("bad", MALFORMED_ITEMS.values(), ids=MALFORMED_ITEMS.keys())
@pytest.mark.parametrize("order", [list, lambda items: list(reversed(items))], ids=["first", "last"])
async def test_beside_a_malformed_object_the_others_are_heard(bad: Manifest, order: Callable[[list[Any]], list[Any]]) -> None:
    good = a_run("good") | {"metadata": item("TrainingRun", "good")["metadata"]}
    async with listing(*order([bad, good])) as (world, resync, woken):
        listed = asyncio.Event()
        listing_for_ever = asyncio.create_task(resync.run(0.01, listed.set))
        await asyncio.wait({listing_for_ever, asyncio.create_task(listed.wait())}, return_when=asyncio.FIRST_COMPLETED)
        assert not listing_for_ever.done(), "one object has ended the listing"
        listing_for_ever.cancel()
    assert GOOD in woken
    assert world.get(bad["kind"], "models", "bad") is not None


async def test_a_malformed_object_is_named_once_and_counted_each_time(caplog: pytest.LogCaptureFixture) -> None:
    bad, before = MALFORMED_ITEMS["a release without a service"], counted("ModelRelease")
    caplog.set_level(logging.ERROR)
    told = Waking(KINDS, world := ObjectWorld(WATCHED), lambda _: None, PASSING.get).told
    world.store(bad | {"apiVersion": "videogen.pib.gov.in/v1alpha1"})
    for _ in range(3):
        told(bad)
    assert [record.getMessage().partition(" is malformed")[0] for record in caplog.records] == ["ModelRelease models/bad"]
    assert counted("ModelRelease") - before == 3


@pytest.mark.parametrize("bad", [one for one in MALFORMED_ITEMS.values() if one["kind"] != "Pod"])
def test_metrics_are_told_although_an_object_is_malformed(bad: Manifest) -> None:
    registry, world = CollectorRegistry(), ObjectWorld(WATCHED)
    good = a_run("good") | {"status": {"conditions": [{"type": "Succeeded", "reason": "Training"}]}}
    for one in (bad | {"apiVersion": "videogen.pib.gov.in/v1alpha1"}, good):
        world.store(one)
    registry.register(WorldCollector(world, KINDS))
    assert 'videogen_training_run{namespace="models",reason="Training",run="good"} 1.0' in generate_latest(registry).decode()
