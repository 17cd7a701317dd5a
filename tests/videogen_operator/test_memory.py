"""An operator that runs for months: what it has been asked once, or what is gone, is not kept for ever."""

import asyncio
import gc
import sys
from collections.abc import Callable
from itertools import count
from typing import Any

import kopf
import pytest
from aiohttp import web

from videogen_api.meta import LABEL_RUN
from videogen_operator.api_server.cluster import Cluster
from videogen_operator.api_server.world import ObjectWorld
from videogen_operator.inbound.inbox import Mail
from videogen_operator.kinds import KINDS
from videogen_operator.plan import Key
from videogen_operator.reconcile import PASSING
from videogen_operator.resources import CONFIG_MAPS, MODEL_RELEASES, PODS
from videogen_operator.waking import Waking
from videogen_testing.patience import HANGS

TIMES = 1_000
FEW = TIMES // 4  # blocks of memory; an entry takes one at least


def kept_by(act: Callable[[int], object]) -> int:
    """Blocks of memory that are still in use after acting so often, each time with another number."""
    act(TIMES)
    before = in_use()
    for number in range(TIMES):
        act(number)
    return in_use() - before


def in_use() -> int:
    """Blocks, and not bytes: Python's table of interned strings is one, and may grow at any time."""
    gc.collect()
    return sys.getallocatedblocks()


def pod(number: int) -> dict[str, Any]:
    name = f"pod-{number}"
    metadata = {"name": name, "namespace": f"space-{number}", "uid": name, "resourceVersion": "1", "labels": {LABEL_RUN: name}}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata}


def test_asking_the_world_leaves_nothing_behind() -> None:
    world = ObjectWorld([PODS])
    assert kept_by(lambda number: (world.list("Pod", f"space-{number}"), world.list("Pod", labels={LABEL_RUN: f"run-{number}"}))) < FEW
    assert kept_by(lambda number: (world.count(f"Kind{number}"), world.get(f"Kind{number}", "", ""))) < FEW


def test_objects_that_are_gone_leave_only_their_uid_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("videogen_operator.api_server.world.REMEMBERED_DEAD", 10)
    world = ObjectWorld([PODS])
    assert kept_by(lambda number: (world.store(pod(number)), world.remove(pod(number)))) < FEW


async def test_who_no_longer_waits_for_an_alert_is_forgotten() -> None:
    mail = Mail()

    async def wait(number: int) -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await mail.arrival(Key("ModelRelease", "models", f"service-{number}"))

    await wait(TIMES)
    before = in_use()
    for number in range(TIMES):
        await wait(number)
    assert in_use() - before < FEW


async def test_an_alert_wakes_everybody_who_still_waits_for_it() -> None:
    mail, key = Mail(), Key("ModelRelease", "models", "standard")
    waiting = [asyncio.create_task(mail.arrival(key)) for _ in range(3)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    await asyncio.sleep(0)
    mail.expect(key, {"fingerprint": "f"})
    async with asyncio.timeout(HANGS):
        await asyncio.gather(*waiting[1:])


def test_of_malformed_objects_the_names_are_kept_up_to_a_number(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr("videogen_operator.waking.REMEMBERED_MALFORMED", 2)
    told = Waking(KINDS, ObjectWorld([MODEL_RELEASES]), lambda _: None, PASSING.get).told
    for name in ("a", "b", "a", "c", "d", "a"):
        told({"kind": "ModelRelease", "metadata": {"name": name, "namespace": "models"}})
    assert [record.getMessage().partition(" is malformed")[0][-1] for record in caplog.records] == ["a", "b", "c", "d", "a"]


async def test_of_what_was_applied_only_the_newest_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """An object whose defaults hide the intent is applied again once it was forgotten, and not before."""
    monkeypatch.setattr("videogen_operator.api_server.cluster.REMEMBERED_APPLIED", 2)
    versions, writes, stored = count(1), list[str](), dict[str, dict[str, Any]]()

    async def answer(request: web.Request) -> web.Response:
        name = request.path.rpartition("/")[2]
        if request.method == "PATCH":
            writes.append(name)
            metadata = (await request.json())["metadata"] | {"uid": name, "resourceVersion": str(next(versions))}
            stored[name] = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"number": "defaulted"}}
        return web.json_response(stored.get(name, {}), status=200 if name in stored else 404)

    application = web.Application()
    application.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    login = kopf.ConnectionInfo(server=f"http://127.0.0.1:{runner.addresses[0][1]}")
    async with Cluster(lambda: login, (CONFIG_MAPS,), ObjectWorld([CONFIG_MAPS])) as cluster:
        for name in ("a", "b", "a", "b", "c", "a", "a"):
            labels = {"app.kubernetes.io/managed-by": "videogen-operator"}
            metadata = {"name": name, "namespace": "models", "labels": labels}
            await cluster.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"number": name}})
    await runner.cleanup()
    assert writes == ["a", "b", "c", "a"]
