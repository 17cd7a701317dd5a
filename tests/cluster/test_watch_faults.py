"""Lists and watches that fail in every known way: the operator hears again, or its process ends and a new one hears.

Each fault has its own operator, proxy and namespace, and all of them happen at the same time. That the operator hears
again is shown twice: it acts upon what happened during the fault, and upon something new while nobody lists, so that it can
only know by its watch. Of the optional resources, objects that were there before the fault change after it: the operator must
neither take them for gone meanwhile nor be blind to them for ever.
"""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from videogen_testing.chart_rights import operator_kubeconfig
from videogen_testing.control_plane import ControlPlane
from videogen_testing.crash_story import GATEWAY, GATEWAYS, prepare
from videogen_testing.fault_proxy import FaultProxy, ReadFault, status_object
from videogen_testing.other_controllers import Client, View, client, condition, pass_preflight, route_taken
from videogen_testing.patience import HANGS
from videogen_testing.runs import DIGEST, JOBS, a_run, pods_of, running
from videogen_testing.supervision import SupervisedOperator
from videogen_testing.upstream_crds import gateway_definitions, install

pytestmark = [pytest.mark.timeout(1800), pytest.mark.asyncio(loop_scope="module")]  # the first test waits for most of all

RECOVERS = 75  # seconds after the end of the fault; a stalled watch is given up after 70
LATER = 10  # times as long as the same took before the fault, and at least 60 s: how much later it may be on a machine that is busy
LASTING = 20  # seconds that a refusal lasts, at least
STARTING = 4  # operators that start at the same time
API = "/apis/videogen.pib.gov.in/v1alpha1/namespaces/{}"


@dataclass(frozen=True)
class Fault:
    """Refusals that last for `seconds`, and until there was one, and what brings the operator to ask again."""

    reads: tuple[tuple[str, str | int], ...] = ()  # (list or watch, HTTP status or lose)
    seconds: float = LASTING
    times: int = 10**9
    error: int = 0  # code of an ERROR event in the stream
    stalled: bool = False
    quiet: bool = False  # the watch goes on, so that only the operator's own periodic list asks

    async def begin(self, proxy: FaultProxy, resource: str) -> int:
        """Returns how many open watches were hit."""
        proxy.read_faults = [ReadFault(resource, on, action, self.times) for on, action in self.reads]  # type: ignore[arg-type]
        if self.quiet:
            return proxy.hears(resource)
        if self.stalled:
            return proxy.stall(resource)
        if self.error:
            return await proxy.inject(resource, {"type": "ERROR", "object": status_object(self.error)})
        return proxy.cut(resource)

    async def last(self, proxy: FaultProxy, resource: str) -> None:
        """Return when it is over: a quiet one once the resource was refused, and then listed."""
        await asyncio.sleep(self.seconds)
        async with asyncio.timeout(HANGS):
            while self.reads and not proxy.refused_reads.total():  # noqa: ASYNC110 - the operator's process decides when
                await asyncio.sleep(0.1)
            if self.quiet:
                before = proxy.lists[resource]
                while proxy.lists[resource] < before + 2:  # noqa: ASYNC110
                    await asyncio.sleep(0.1)


FAULTS = {
    "an error 500 in the stream": Fault(error=500, seconds=0),
    "an error 503 in the stream": Fault(error=503, seconds=0),
    "an expired version in the stream": Fault(error=410, seconds=0),
    "lists are answered with 503": Fault((("list", 503),), error=410),
    "lists are answered with 500": Fault((("list", 500),), error=410),
    "lists are forbidden": Fault((("list", 403),), error=410),
    "a list is not found once": Fault((("list", 404),), error=410, times=1, seconds=0),
    "lists are throttled": Fault((("list", 429), ("watch", 429)), error=410),
    "watches are answered with 500": Fault((("watch", 500),)),
    "watches are answered with 503": Fault((("watch", 503),)),
    "watches are forbidden": Fault((("watch", 403),)),
    "a watch is gone once": Fault((("watch", 410),), times=1, seconds=0),
    "a watch is not found once": Fault((("watch", 404),), times=1, seconds=0),
    "connections are closed": Fault((("list", "lose"), ("watch", "lose"))),
    "the watch is silent, and stays open": Fault(stalled=True, seconds=0),
    "the periodic list is not found once": Fault((("list", 404),), quiet=True, times=1, seconds=0),
}
WATCHED = ("trainingruns", "pods", "modelreleases")
OPTIONAL = ("httproutes", "gateways", "pytorchjobs")
SLOW = ("the watch is silent, and stays open", "the periodic list is not found once")  # begun first, because they last longest
ALSO_CHILDREN = (SLOW[0], "an error 500 in the stream", "a list is not found once")
ALSO_OPTIONAL = (SLOW[1], "a list is not found once")
MATRIX = [
    *((fault, resource) for fault in ALSO_OPTIONAL for resource in OPTIONAL),
    *((fault, resource) for fault in ALSO_CHILDREN for resource in WATCHED),
    *((fault, "trainingruns") for fault in FAULTS),
]
CASES = {f"{fault} ({resource})": (fault, resource) for fault, resource in sorted(MATRIX, key=lambda case: case[0] not in SLOW)}
VERSIONS = ("1.0.0", "1.1.0", "1.2.0", "1.3.0", "1.4.0", "1.5.0", "1.6.0")  # before the fault, during it, and after it


@dataclass(frozen=True)
class Recovery:
    """What became of an operator."""

    hit: int  # open watches
    usual: float  # seconds that it took before the fault until what had happened was acted upon
    heard_after: float  # seconds from the end of the fault until what had happened meanwhile was acted upon
    exits: list[int]
    log: str


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def recoveries(
    plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Mapping[str, "asyncio.Task[Recovery]"]]:
    """All faults, already happening."""
    install(plane.api, gateway_definitions())
    folder, places = tmp_path_factory.mktemp("watches"), asyncio.Semaphore(STARTING)
    async with client(plane) as api:
        tasks = {case: asyncio.create_task(recovery(plane, api, folder, places, *which)) for case, which in CASES.items()}
        yield tasks
        for task in tasks.values():
            task.cancel()
        await asyncio.gather(*tasks.values(), return_exceptions=True)


@pytest.mark.parametrize("case", CASES)
async def test_the_operator_hears_again_although(recoveries: Mapping[str, "asyncio.Task[Recovery]"], case: str) -> None:
    found = await recoveries[case]
    assert found.hit >= 1, "the fault hit no open watch"
    assert found.heard_after <= RECOVERS + max(60.0, LATER * found.usual), found.log
    assert all(code == 1 for code in found.exits), f"exit codes {found.exits}: only 1 makes a supervisor start it again\n{found.log}"
    assert len(found.exits) <= 1, f"one new process must be enough\n{found.log}"


async def recovery(plane: ControlPlane, api: Client, folder: Path, places: asyncio.Semaphore, name: str, resource: str) -> Recovery:
    """One fault from its beginning to the operator's recovery."""
    namespace, fault = f"watch-{uuid.uuid4().hex[:8]}", FAULTS[name]
    async with AsyncExitStack() as stack:
        proxy = await stack.enter_async_context(FaultProxy(plane).serving())
        async with places:
            await prepare(api, namespace)
            kubeconfig = await asyncio.to_thread(operator_kubeconfig, plane, namespace, proxy.url)
            view = await stack.enter_async_context(View(api, namespace).watching())
            operator = await stack.enter_async_context(SupervisedOperator(kubeconfig, namespace, folder))
            await operator.ready()
            await hears(proxy, resource)
            happening, begun = HAPPENINGS[resource], time.monotonic()
            await happening(api, view, "1.0.0")
            usual = time.monotonic() - begun
        hit = await fault.begin(proxy, resource)
        meanwhile = asyncio.create_task(happening(api, view, "1.1.0"))
        await fault.last(proxy, resource)
        proxy.read_faults, ended = [], time.monotonic()
        try:
            await meanwhile
            heard_after = max(0.0, time.monotonic() - ended)
            await hears(proxy, resource)
            await hears_by_its_watch(api, view, proxy, resource)
        except AssertionError as error:
            error.add_note(f"exits {operator.exits}\n{operator.last_words()}")
            raise
        return Recovery(hit, usual, heard_after, operator.exits, operator.last_words())


async def hears(proxy: FaultProxy, resource: str) -> None:
    """Wait until the operator watches the resource."""
    end = time.monotonic() + HANGS
    while not proxy.hears(resource):
        assert time.monotonic() < end, f"no watch of {resource} within {HANGS} s"
        await asyncio.sleep(0.1)


async def hears_by_its_watch(api: Client, view: View, proxy: FaultProxy, resource: str) -> None:
    """Something new is acted upon although the resource is not listed meanwhile. If it is, that is tried again: the next
    periodic list is 54 to 66 s away then.
    """
    for version in VERSIONS[2:]:
        before = proxy.lists[resource]
        await HAPPENINGS[resource](api, view, version)
        if proxy.lists[resource] == before:
            return
    raise AssertionError(f"{resource} were listed again and again, so nobody knows whether they are watched")


async def a_new_run(api: Client, view: View, version: str) -> None:
    """A run is made, and the operator makes its jobs."""
    name = f"run-{version.replace('.', '-')}"
    await api.request("POST", f"{API.format(view.namespace)}/trainingruns", a_run(name, view.namespace))
    await pass_preflight(api, view, name)
    await view.until(lambda: view.get("PyTorchJob", f"{name}-train-1"), HANGS, f"the job of {name}")


async def a_new_release(api: Client, view: View, version: str) -> None:
    """A release is made, and the operator says something about it."""
    name = await make_release(api, view, version)
    await view.until(
        lambda: view.get("ModelRelease", name).get("status", {}).get("observedGeneration") == 1, HANGS, f"the status of {name}"
    )


async def make_release(api: Client, view: View, version: str) -> str:
    """The first release of a service of its own. Returns its name."""
    name = f"pib-videogen-videofusion-v{version}-base"
    spec = {"service": f"service-{version.replace('.', '-')}", "model": {"family": "VideoFusion", "version": version}}
    spec["artifact"] = {"claimName": "models", "path": "bundles/x", "digest": DIGEST}
    manifest = {"apiVersion": "videogen.pib.gov.in/v1alpha1", "kind": "ModelRelease", "metadata": {"name": name}, "spec": spec}
    await api.request("POST", f"{API.format(view.namespace)}/modelreleases", manifest)
    return name


async def a_pod_that_runs(api: Client, view: View, version: str) -> None:
    """A job's pod begins to run, and the operator says so."""
    name = f"run-{version.replace('.', '-')}"
    await a_new_run(api, view, version)
    for pod in pods_of(view.get("PyTorchJob", f"{name}-train-1")):
        path = f"/api/v1/namespaces/{view.namespace}/pods"
        await api.make_trainer(view.namespace, pod)
        await api.merge(f"{path}/{pod['metadata']['name']}/status", {"status": running()})
    await view.until(lambda: condition(view.get("TrainingRun", name), "Succeeded").get("reason") == "Training", HANGS, f"{name} trains")


async def a_route_that_is_refused(api: Client, view: View, version: str) -> None:
    """The gateway does not take a route that has been there all the time, and the operator says so."""
    if version == VERSIONS[0]:
        for each in VERSIONS:
            name = await make_release(api, view, each)
            await says(view, name, "has not answered")
    service = f"service-{version.replace('.', '-')}"
    path = f"/apis/gateway.networking.k8s.io/v1/namespaces/{view.namespace}/httproutes/{service}"
    status = route_taken(view.get("HTTPRoute", service))
    status["parents"][0]["conditions"][0] |= {"status": "False", "message": "no such listener"}
    await api.merge(f"{path}/status", {"status": status})
    await says(view, f"pib-videogen-videofusion-v{version}-base", "no such listener")


async def a_gateway_that_goes_and_comes(api: Client, view: View, version: str) -> None:
    """The gateway is there, is deleted, and is made again, and the operator says so each time."""
    name, gateways = f"pib-videogen-videofusion-v{VERSIONS[0]}-base", GATEWAYS.format(view.namespace)
    if version == VERSIONS[0]:
        await make_release(api, view, version)
    await says(view, name, "has not answered")
    await api.request("DELETE", f"{gateways}/videogen")
    await says(view, name, "does not exist")
    await api.request("POST", gateways, GATEWAY)
    await says(view, name, "has not answered")


async def says(view: View, name: str, words: str) -> None:
    """Wait until the operator says that of a release."""
    await view.until(lambda: words in condition(view.get("ModelRelease", name), "Ready").get("message", ""), HANGS, f"{name}: {words}")


async def a_job_that_is_deleted(api: Client, view: View, version: str) -> None:
    """A job that has been there all the time is deleted; not before that did the operator say so."""
    if version == VERSIONS[0]:
        for each in VERSIONS:
            await a_new_run(api, view, each)
    name = f"run-{version.replace('.', '-')}"

    def ended() -> list[dict[str, Any]]:
        phases = view.get("TrainingRun", name).get("status", {}).get("phases") or [{}]
        found: list[dict[str, Any]] = phases[0].get("attempts", [])
        return found

    assert not ended(), f"the attempt of {name} was healthy: {ended()}"
    await api.request("DELETE", f"{JOBS.format(view.namespace)}/{name}-train-1")
    await view.until(lambda: any("was deleted" in one.get("message", "") for one in ended()), HANGS, f"the end of the attempt of {name}")


HAPPENINGS: dict[str, Callable[[Client, View, str], Awaitable[None]]] = {
    "trainingruns": a_new_run,
    "modelreleases": a_new_release,
    "pods": a_pod_that_runs,
    "httproutes": a_route_that_is_refused,
    "gateways": a_gateway_that_goes_and_comes,
    "pytorchjobs": a_job_that_is_deleted,
}
