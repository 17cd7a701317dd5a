"""An overloaded API server: it answers 429 for a minute, is slow with each page, or sends ten thousand changes a second."""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from videogen_testing.chart_rights import operator_kubeconfig
from videogen_testing.control_plane import ControlPlane
from videogen_testing.crash_story import prepare
from videogen_testing.fault_proxy import FaultProxy
from videogen_testing.other_controllers import Client, View, client, condition, pass_preflight
from videogen_testing.patience import HANGS
from videogen_testing.runs import RUNS, a_run, pods_of, running
from videogen_testing.supervision import SupervisedOperator
from videogen_testing.upstream_crds import gateway_definitions, install

pytestmark = pytest.mark.timeout(1800)
THROTTLED_SECONDS = 60
PERIOD = 2  # seconds between two lists
EVENTS, BATCH = 20_000, 1_000


@dataclass(frozen=True)
class Scene:
    """One operator behind its proxy."""

    plane: ControlPlane
    api: Client
    view: View
    proxy: FaultProxy
    operator: SupervisedOperator


@asynccontextmanager
async def a_scene(plane: ControlPlane, folder: Path, **changes: str) -> AsyncIterator[Scene]:
    install(plane.api, gateway_definitions())
    namespace = f"crowded-{uuid.uuid4().hex[:8]}"
    async with client(plane) as api, FaultProxy(plane).serving() as proxy:
        await prepare(api, namespace)
        kubeconfig = await asyncio.to_thread(operator_kubeconfig, plane, namespace, proxy.url)
        async with View(api, namespace).watching() as view, SupervisedOperator(kubeconfig, namespace, folder, **changes) as operator:
            await operator.ready()
            yield Scene(plane, api, view, proxy, operator)


async def a_job(scene: Scene, run: str) -> None:
    """A run that was made gets the job of its preflight."""
    await scene.view.until(lambda: scene.view.get("PyTorchJob", f"{run}-train-0"), HANGS, f"the job of {run}")


async def make(scene: Scene, run: str) -> None:
    await scene.api.request("POST", RUNS.format(scene.view.namespace), a_run(run, scene.view.namespace))


async def test_an_api_server_that_answers_429_for_a_minute_ends_nothing_and_loses_nothing(plane: ControlPlane, tmp_path: Path) -> None:
    async with a_scene(plane, tmp_path, VIDEOGEN_RESYNC_SECONDS=str(10 * THROTTLED_SECONDS)) as scene:
        await make(scene, "before")
        await pass_preflight(scene.api, scene.view, "before")
        job = await scene.view.until(lambda: scene.view.get("PyTorchJob", "before-train-1"), HANGS, "the job of the first attempt")
        scene.proxy.throttled = True
        scene.proxy.cut()
        await make(scene, "meanwhile")
        for pod in pods_of(job):
            await scene.api.make_trainer(scene.view.namespace, pod)
            path = f"/api/v1/namespaces/{scene.view.namespace}/pods/{pod['metadata']['name']}"
            await scene.api.merge(f"{path}/status", {"status": running()})
        await asyncio.sleep(THROTTLED_SECONDS)
        assert scene.proxy.throttles > 10, "too few requests were answered 429"
        assert scene.view.get("PyTorchJob", "meanwhile-train-0") == {}
        scene.proxy.throttled = False
        await a_job(scene, "meanwhile")
        await scene.view.until(
            lambda: condition(scene.view.get("TrainingRun", "before"), "Succeeded").get("reason") == "Training", HANGS, "it trains"
        )
        assert scene.operator.exits == [], scene.operator.last_words()
        assert max(scene.proxy.made(201).values()) == 1, "something was made twice"


async def test_lists_that_take_longer_than_all_periods_end_nothing(plane: ControlPlane, tmp_path: Path) -> None:
    async with a_scene(plane, tmp_path, VIDEOGEN_RESYNC_SECONDS=str(PERIOD)) as scene:
        scene.proxy.list_seconds = 1.0  # of some fifteen resources
        before = scene.proxy.lists["trainingruns"]
        async with asyncio.timeout(HANGS):
            while scene.proxy.lists["trainingruns"] < before + 4:  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.2)
        assert scene.operator.exits == [], scene.operator.last_words()
        scene.proxy.list_seconds = 0.0
        await make(scene, "after")
        await a_job(scene, "after")


async def test_ten_thousand_events_a_second_of_a_foreign_object_wake_nothing(plane: ControlPlane, tmp_path: Path) -> None:
    async with a_scene(plane, tmp_path, VIDEOGEN_RESYNC_SECONDS="600") as scene:
        await make(scene, "run")
        await a_job(scene, "run")
        before, claim = await passes(scene), await a_claim_of_others(scene)
        version, begun = int(claim["metadata"]["resourceVersion"]), time.monotonic()
        for number in range(EVENTS):
            labels, news = {"number": str(number)}, str(version + number + 1)
            claim = {**claim, "metadata": {**claim["metadata"], "labels": labels, "resourceVersion": news}}
            assert await scene.proxy.inject("persistentvolumeclaims", {"type": "MODIFIED", "object": claim})
            if number % BATCH == 0:
                await asyncio.sleep(max(0.0, begun + number / 10_000 - time.monotonic()))
        await make(scene, "after")
        await a_job(scene, "after")
        assert scene.operator.exits == [], scene.operator.last_words()
        new = await passes(scene) - before
        assert new < 50, f"{new} passes for two runs and {EVENTS} foreign events"


async def a_claim_of_others(scene: Scene) -> dict[str, Any]:
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    path = f"/api/v1/namespaces/{scene.view.namespace}/persistentvolumeclaims"
    made: dict[str, Any] = await scene.api.request("POST", path, {"metadata": {"name": "database"}, "spec": spec})
    return made


async def passes(scene: Scene) -> float:
    """Finished passes so far, of all kinds."""
    url = f"http://127.0.0.1:{scene.operator.metrics_port}/metrics"
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        lines = (await answer.text()).splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith("videogen_reconcile_total{"))
