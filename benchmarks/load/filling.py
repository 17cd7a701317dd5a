"""Puts the objects into a real API server: statuses are written as the operator writes them, from a bounded number of clients."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import aiohttp

from benchmarks.load import scene
from benchmarks.load.scene import JOB_UID, NAMESPACES, OF_A_SERVICE, PODS_OF_A_RELEASE, RUN_UID, Manifest, Size
from videogen_api.job import TOKEN_AUDIENCE
from videogen_api.meta import FIELD_MANAGER, LABEL_RELEASE, LABEL_SERVICE
from videogen_operator.names import MANAGED_BY, release_child_name
from videogen_testing.control_plane import TOKEN, ControlPlane
from videogen_testing.other_controllers import COLLECTIONS, Client, Refused, View, route_taken
from videogen_testing.runs import JOBS, RUNS, a_claim, running
from videogen_testing.tls_session import tls_session

CLIENTS = 24  # at the same time
T = TypeVar("T")
PODS = "/api/v1/namespaces/{}/pods"
RELEASES = COLLECTIONS["ModelRelease"]
CYCLES = "/apis/videogen.pib.gov.in/v1alpha1/namespaces/{}/finetunecycles"
SETS = "/apis/apps/v1/namespaces/{}/replicasets"
APPLY = "application/apply-patch+yaml"
PATIENCE_SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class Trainer:
    """A live run's pod, and the token that a kubelet would have given it."""

    token: str
    namespace: str
    run: str


@asynccontextmanager
async def client(plane: ControlPlane) -> AsyncIterator[Client]:
    """As an administrator whose requests are not taken for the operator's in the audit log."""
    tls, headers = ssl.create_default_context(cafile=str(plane.ca)), {"Authorization": f"Bearer {TOKEN}", "User-Agent": "benchmark"}
    async with tls_session(tls, headers=headers, timeout=aiohttp.ClientTimeout(total=PATIENCE_SECONDS)) as session:
        yield Client(session, plane.url)


async def many(work: Callable[[T], Awaitable[Any]], items: Iterable[T]) -> list[Any]:
    """Do it for all of them, for only so many at the same time."""
    places = asyncio.Semaphore(CLIENTS)

    async def one(item: T) -> Any:
        async with places:
            return await work(item)

    return await asyncio.gather(*map(one, items))


async def prepare(api: Client, size: Size) -> list[Trainer]:
    """Everything that stands there before the operator is started. Returns the trainers of the live runs."""
    for number in range(NAMESPACES):
        namespace = scene.namespace_of(number)
        await api.request("POST", "/api/v1/namespaces", {"metadata": {"name": namespace}})
        await api.request("POST", f"/api/v1/namespaces/{namespace}/persistentvolumeclaims", a_claim())
        await _until_found(api, f"/api/v1/namespaces/{namespace}/serviceaccounts/default")
    await many(lambda number: _node(api, number), range(size.nodes))
    await many(lambda n: api.request("POST", CYCLES.format(scene.namespace_of(n)), scene.cycle(n)), range(size.cycles))
    trainers = await many(lambda run: _run(api, run, size.nodes), scene.runs(size))
    superseded = [(service, place) for service in range(size.services) for place in range(OF_A_SERVICE - 2)]
    await many(lambda one: make_release(api, *one), superseded)
    return [one for one in trainers if one]


async def _node(api: Client, number: int) -> None:
    """A new node has a taint until its kubelet has said that it is ready."""
    made = await api.request("POST", "/api/v1/nodes", scene.node(number))
    await api.merge(f"/api/v1/nodes/{made['metadata']['name']}", {"spec": {"taints": None}})


async def _until_found(api: Client, path: str) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            try:
                await api.request("GET", path)
            except Refused:
                await asyncio.sleep(0.1)
            else:
                return


async def _run(api: Client, run: scene.Run, nodes: int) -> Trainer | None:
    manifest, status, job, pod = scene.run_objects(run)
    path = RUNS.format(run.namespace)
    made = await api.request("POST", path, manifest)
    await _write_status(api, f"{path}/{run.name}", made, status)
    if not run.live:
        return None
    uid = made["metadata"]["uid"]
    made = await api.request("POST", JOBS.format(run.namespace), _with(job, RUN_UID, uid))
    pods = PODS.format(run.namespace)
    placed = pod | {"spec": _pod_spec(scene.node_name(run.number % nodes))}
    made = await api.request("POST", pods, _with(_with(placed, RUN_UID, uid), JOB_UID, made["metadata"]["uid"]))
    await api.merge(f"{pods}/{made['metadata']['name']}/status", {"status": running()})
    return Trainer(await _token(api, run.namespace, made), run.namespace, run.name)


def _with(manifest: Manifest, placeholder: str, uid: str) -> Any:
    return json.loads(json.dumps(manifest).replace(placeholder, uid))


def _pod_spec(node: str) -> Manifest:
    asked = {"cpu": "1", "memory": "4Gi"}
    container = {"name": "pytorch", "image": "trainer", "resources": {"requests": asked, "limits": {"memory": "4Gi"}}}
    return {"nodeName": node, "restartPolicy": "Never", "containers": [container]}


async def _write_status(api: Client, path: str, made: Manifest, status: Any) -> None:
    """As the operator does it, so that it owns the fields."""
    body = {"apiVersion": made["apiVersion"], "kind": made["kind"], "metadata": {"name": made["metadata"]["name"]}, "status": status}
    await api.request("PATCH", f"{path}/status?fieldManager={FIELD_MANAGER}&force=true", body, APPLY)


async def _token(api: Client, namespace: str, pod: Manifest) -> str:
    bound = {"kind": "Pod", "apiVersion": "v1", "name": pod["metadata"]["name"], "uid": pod["metadata"]["uid"]}
    spec = {"audiences": [TOKEN_AUDIENCE], "expirationSeconds": 7200, "boundObjectRef": bound}
    answer = await api.request("POST", f"/api/v1/namespaces/{namespace}/serviceaccounts/default/token", {"spec": spec})
    return str(answer["status"]["token"])


async def make_release(api: Client, service: int, place: int) -> None:
    """One release, with its status if that is not for the operator to find."""
    manifest, status = scene.release(service, place)
    path = RELEASES.format(scene.namespace_of(service))
    made = await api.request("POST", path, manifest)
    if status is not None:
        await _write_status(api, f"{path}/{made['metadata']['name']}", made, status)


async def roll_out(api: Client, views: dict[str, View], size: Size) -> None:
    """With the operator running: in each service one release becomes stable, and another one its canary; then their pods are made."""
    for place, state in ((OF_A_SERVICE - 2, "Stable"), (OF_A_SERVICE - 1, "Canary")):
        await many(lambda service: make_release(api, service, place), range(size.services))  # noqa: B023 - awaited here
        for service in range(size.services):
            view, name = views[scene.namespace_of(service)], scene.release_name(service, place)
            await view.until(lambda: state_of(view, name) == state, PATIENCE_SECONDS, f"{name} is {state}")  # noqa: B023
    served = [(views[scene.namespace_of(n)], n, scene.release_name(n, OF_A_SERVICE - 2 + k)) for n in range(size.services) for k in (0, 1)]
    await many(lambda one: _servers(api, *one, size.nodes), served)


def state_of(view: View, name: str) -> str:
    """Where a release is on its way."""
    return str((view.get("ModelRelease", name).get("status", {}).get("rollout") or {}).get("state"))


async def _servers(api: Client, view: View, service: int, release: str, nodes: int) -> None:
    """The ReplicaSet and the pods of a release, as the Deployment controller makes them."""
    deployment = view.get("Deployment", release_child_name(release))
    labels = dict([MANAGED_BY]) | {LABEL_RELEASE: release, LABEL_SERVICE: scene.service_name(service)}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "server", "image": "serving"}]}}
    owner = {"apiVersion": "apps/v1", "kind": "Deployment", "name": deployment["metadata"]["name"], "uid": deployment["metadata"]["uid"]}
    metadata = {"name": f"{owner['name']}-1", "labels": labels, "ownerReferences": [owner | {"controller": True}]}
    spec = {"replicas": PODS_OF_A_RELEASE, "selector": {"matchLabels": labels}, "template": template}
    made = await api.request("POST", SETS.format(view.namespace), {"metadata": metadata, "spec": spec})
    owner = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": made["metadata"]["name"], "uid": made["metadata"]["uid"]}
    for number in range(PODS_OF_A_RELEASE):
        metadata = {"name": f"{owner['name']}-{number}", "labels": labels, "ownerReferences": [owner | {"controller": True}]}
        pod = {"metadata": metadata, "spec": _pod_spec(scene.node_name((service + number) % nodes))}
        await api.request("POST", PODS.format(view.namespace), pod)
        ready = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
        await api.merge(f"{PODS.format(view.namespace)}/{metadata['name']}/status", {"status": ready})


@asynccontextmanager
async def playing(api: Client, views: Iterable[View]) -> AsyncIterator[None]:
    """Deployment controller and gateway: pods are ready at once, and each route is taken as it is now."""
    tasks = [asyncio.create_task(_play(api, view)) for view in views]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _play(api: Client, view: View) -> None:
    while True:
        for path, status in await view.until(lambda: _to_play(view), 10**6, "something to play"):
            try:
                await api.merge(f"{path}/status", {"status": status})
            except (Refused, aiohttp.ClientError) as error:
                print(f"{path}: {error}", flush=True)
        await asyncio.sleep(0.2)  # until the watch has seen what was just written


def _to_play(view: View) -> list[tuple[str, Manifest]]:
    found = []
    for deployment in view.all("Deployment"):
        replicas = deployment["spec"]["replicas"]
        if deployment.get("status", {}).get("readyReplicas") != replicas:
            ready = {"replicas": replicas, "readyReplicas": replicas, "availableReplicas": replicas}
            found.append((f"{COLLECTIONS['Deployment'].format(view.namespace)}/{deployment['metadata']['name']}", ready))
    for route in view.all("HTTPRoute"):
        taken = route_taken(route)
        if route.get("status", {}).get("parents") != taken["parents"]:
            found.append((f"{COLLECTIONS['HTTPRoute'].format(view.namespace)}/{route['metadata']['name']}", taken))
    return found
