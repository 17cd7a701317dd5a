"""Everybody else in the cluster, played with real objects: training-operator, kubelet, Deployment controller, gateway.

They act only upon what the operator has written, and go on only when the operator has said that it has seen what they
did, so that a story without faults has the same writes each time.
"""

import asyncio
import json
import logging
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from typing import Any

import aiohttp

from videogen_api.evaluation import Metric, MetricResult
from videogen_api.job import Report
from videogen_api.meta import LABEL_ATTEMPT, LABEL_PHASE, LABEL_RUN
from videogen_api.pinned import ResolvedDataset
from videogen_api.training_run import Task
from videogen_testing.control_plane import TOKEN, TRAINING_OPERATOR, ControlPlane
from videogen_testing.patience import HANGS
from videogen_testing.runs import DIGEST, ended, passed, pods_of, running, trained
from videogen_testing.tls_session import tls_session

GROUP = "/apis/videogen.pib.gov.in/v1alpha1"
COLLECTIONS = {
    "FineTuneCycle": f"{GROUP}/namespaces/{{}}/finetunecycles",
    "TrainingRun": f"{GROUP}/namespaces/{{}}/trainingruns",
    "ModelRelease": f"{GROUP}/namespaces/{{}}/modelreleases",
    "PyTorchJob": "/apis/kubeflow.org/v1/namespaces/{}/pytorchjobs",
    "Deployment": "/apis/apps/v1/namespaces/{}/deployments",
    "NetworkPolicy": "/apis/networking.k8s.io/v1/namespaces/{}/networkpolicies",
    "Service": "/api/v1/namespaces/{}/services",
    "HTTPRoute": "/apis/gateway.networking.k8s.io/v1/namespaces/{}/httproutes",
}
DOING = frozenset({"Curating", "Training", "Evaluating"})
Object = dict[str, Any]
log = logging.getLogger(__name__)


class Refused(Exception):
    """The API server's answer was an error."""


class Client:
    """A few verbs over kept connections."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session, self._url = session, url

    async def request(self, verb: str, path: str, body: object = None, content: str = "application/json", token: str = TOKEN) -> Any:
        data = None if body is None else json.dumps(body)
        headers = {"Content-Type": content, "Authorization": f"Bearer {token}"}
        async with self._session.request(verb, self._url + path, data=data, headers=headers) as answer:
            text = await answer.text()
            if answer.status >= 400:
                raise Refused(f"{verb} {path}: {answer.status}: {text[:500]}")
            return json.loads(text)

    async def merge(self, path: str, patch: Mapping[str, Any]) -> Any:
        return await self.request("PATCH", path, patch, "application/merge-patch+json")

    async def make_trainer(self, namespace: str, pod: Mapping[str, Any]) -> None:
        """A pod of a PyTorchJob, made by training-operator."""
        await self.request("POST", f"/api/v1/namespaces/{namespace}/pods", pod, token=TRAINING_OPERATOR)

    async def lines(self, path: str) -> AsyncGenerator[bytes, None]:
        async with self._session.get(self._url + path, timeout=aiohttp.ClientTimeout(total=None)) as answer:
            answer.raise_for_status()
            rest = b""
            async for chunk in answer.content.iter_any():
                *whole, rest = (rest + chunk).split(b"\n")
                for line in whole:
                    yield line


@asynccontextmanager
async def client(plane: ControlPlane) -> AsyncIterator[Client]:
    """As an administrator, without a proxy."""
    tls, headers = ssl.create_default_context(cafile=str(plane.ca)), {"Authorization": f"Bearer {TOKEN}"}
    async with tls_session(tls, headers=headers, timeout=aiohttp.ClientTimeout(total=HANGS)) as session:
        yield Client(session, plane.url)


class View:
    """One namespace's objects as they are now, by watches."""

    def __init__(self, api: Client, namespace: str, collections: Mapping[str, str] = COLLECTIONS) -> None:
        self._api, self.namespace, self._collections = api, namespace, collections
        self._objects: dict[tuple[str, str], Object] = {}
        self._changed = asyncio.Condition()

    @asynccontextmanager
    async def watching(self) -> AsyncIterator["View"]:
        tasks = [asyncio.create_task(self._watch(kind, path.format(self.namespace))) for kind, path in self._collections.items()]
        try:
            yield self
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def get(self, kind: str, name: str) -> Object:
        return self._objects.get((kind, name), {})

    def all(self, kind: str) -> list[Object]:
        return [item for (of, _), item in self._objects.items() if of == kind]

    async def until(self, ask: Callable[[], Any], seconds: float, what: str) -> Any:
        """The first true answer, asked after each change. AssertionError that says what did not come."""
        try:
            async with asyncio.timeout(seconds), self._changed:
                while not (answer := ask()):
                    await self._changed.wait()
                return answer
        except TimeoutError:
            raise AssertionError(f"{self.namespace}: not within {seconds} s: {what}; {self.said()}") from None

    def said(self) -> str:
        """What the operator says about its objects."""
        items = [item for kind in ("FineTuneCycle", "TrainingRun", "ModelRelease") for item in self.all(kind)]
        return "; ".join(f"{item['kind']} {item['metadata']['name']}: {conditions(item)}" for item in items)

    async def _watch(self, kind: str, path: str) -> None:
        """List and watch, again after every error: a definition that was just made is not served by all at once."""
        while True:
            try:
                await self._follow(kind, path)
            except (aiohttp.ClientError, Refused, TimeoutError) as error:
                log.info("%s of %s are listed again: %r", kind, self.namespace, error)
            await asyncio.sleep(0.2)

    async def _follow(self, kind: str, path: str) -> None:
        listed = await self._api.request("GET", path)
        async with self._changed:
            for name in [name for of, name in self._objects if of == kind]:
                del self._objects[kind, name]
            self._objects |= {(kind, item["metadata"]["name"]): item | {"kind": kind} for item in listed["items"]}
            self._changed.notify_all()
        query = f"watch=true&resourceVersion={listed['metadata']['resourceVersion']}&timeoutSeconds=600"
        async with aclosing(self._api.lines(f"{path}?{query}")) as lines:
            async for line in lines:
                await self._take(kind, json.loads(line))

    async def _take(self, kind: str, event: Object) -> None:
        if event["type"] == "ERROR":
            raise Refused(str(event["object"]))
        name = event["object"]["metadata"]["name"]
        async with self._changed:
            if event["type"] == "DELETED":
                self._objects.pop((kind, name), None)
            else:
                self._objects[kind, name] = event["object"] | {"kind": kind}
            self._changed.notify_all()


def conditions(item: Object) -> dict[str, str]:
    """`status reason: message` by type."""
    listed = item.get("status", {}).get("conditions", [])
    return {one["type"]: f"{one['status']} {one['reason']}: {one.get('message', '')}" for one in listed}


def condition(item: Object, kind: str) -> Object:
    listed = item.get("status", {}).get("conditions", [])
    found: Object = next((one for one in listed if one["type"] == kind), {})
    return found


def phase_status(run: Object, name: str) -> Object:
    listed = run.get("status", {}).get("phases", [])
    found: Object = next((one for one in listed if one["name"] == name), {})
    return found


class OtherControllers:
    """Play one namespace until it is cancelled."""

    def __init__(self, api: Client, view: View, patience: float = HANGS, *, only_new: bool = False) -> None:
        self._api, self._view, self._patience = api, view, patience
        self._core = f"/api/v1/namespaces/{view.namespace}"
        self._path = {kind: path.format(view.namespace) for kind, path in COLLECTIONS.items()}
        self._played = {item["metadata"]["uid"] for item in self._items()} if only_new else set()

    async def play(self) -> None:
        """Give every new PyTorchJob and every new release what it needs. AssertionError if the operator does not follow."""
        async with asyncio.TaskGroup() as group:
            while True:
                item = await self._view.until(self._new, 10**6, "another object")
                self._played.add(item["metadata"]["uid"])
                group.create_task(self._job(item) if item["kind"] == "PyTorchJob" else self._release(item))

    def _new(self) -> Object | None:
        return next((item for item in self._items() if item["metadata"]["uid"] not in self._played), None)

    def _items(self) -> list[Object]:
        return [*self._view.all("PyTorchJob"), *self._view.all("ModelRelease")]

    async def _until(self, ask: Callable[[], Any], what: str) -> Any:
        return await self._view.until(ask, self._patience, what)

    async def _job(self, job: Object) -> None:
        """training-operator and kubelet: pods that run and end with a report."""
        name, labels = job["metadata"]["name"], job["metadata"]["labels"]
        if labels[LABEL_ATTEMPT] == "0":
            await pass_preflight(self._api, self._view, labels[LABEL_RUN], self._patience)
            return

        def run() -> Object:
            return self._view.get("TrainingRun", labels[LABEL_RUN])

        await self._until(lambda: phase_status(run(), labels[LABEL_PHASE]).get("jobName") == name, f"{name} in the run's status")
        for pod in pods_of(job):
            await self._api.make_trainer(self._view.namespace, pod)
        await self._until(lambda: "pods run" in condition(run(), "Succeeded").get("message", ""), f"the run sees the pods of {name}")
        await self._set_pods(job, running())
        await self._until(lambda: condition(run(), "Succeeded").get("reason") in DOING, f"the run says that {name} runs")
        task = next(phase["task"] for phase in run()["spec"]["phases"] if phase["name"] == labels[LABEL_PHASE])
        await self._set_pods(job, ended(0, REPORTS[Task(task)].model_dump_json(by_alias=True, exclude_none=True)))

    async def _set_pods(self, job: Object, status: Mapping[str, Any]) -> None:
        for pod in pods_of(job):
            await self._api.merge(f"{self._core}/pods/{pod['metadata']['name']}/status", {"status": status})

    async def _release(self, release: Object) -> None:
        """Gateway and Deployment controller: the route is taken, then the pods become ready."""
        name, service = release["metadata"]["name"], release["spec"]["service"]
        child = name.replace(".", "-")

        def said() -> str:
            return str(condition(self._view.get("ModelRelease", name), "Ready").get("message", ""))

        await self._until(lambda: self._view.get("Deployment", child) and self._view.get("Service", child), f"children of {name}")
        await self._until(lambda: self._view.get("HTTPRoute", service), f"the route of {name}")
        await self._until(lambda: "has not answered" in said(), f"{name} waits for the gateway")
        await self._answer_route(service)
        await self._until(lambda: said() == f"0 of {release['spec']['serving']['replicas']} pods are ready", f"{name} waits for its pods")
        deployment = self._view.get("Deployment", child)
        replicas = deployment["spec"]["replicas"]
        status = {"replicas": replicas, "readyReplicas": replicas, "availableReplicas": replicas}
        status |= {"observedGeneration": deployment["metadata"]["generation"]}
        await self._api.merge(f"{self._path['Deployment']}/{child}/status", {"status": status})
        await self._until(lambda: "100 % of" in said(), f"{name} takes the traffic")
        await self._until(lambda: condition(self._view.get("ModelRelease", name), "Reconciling"), f"{name} waits for the gateway again")
        await self._answer_route(service)

    async def _answer_route(self, service: str) -> None:
        status = route_taken(self._view.get("HTTPRoute", service))
        await self._api.merge(f"{self._path['HTTPRoute']}/{service}/status", {"status": status})


async def pass_preflight(api: Client, view: View, run: str, patience: float = HANGS) -> None:
    """training-operator and kubelet: the pod of a run's preflight finds that all is there."""

    def job() -> Object:
        return view.get("PyTorchJob", view.get("TrainingRun", run).get("status", {}).get("preflight", {}).get("jobName", ""))

    made = await view.until(job, patience, f"the preflight of {run}")
    path = f"/api/v1/namespaces/{view.namespace}/pods"
    for pod in pods_of(made):
        await api.make_trainer(view.namespace, pod)
        await api.merge(f"{path}/{pod['metadata']['name']}/status", {"status": ended(0, passed())})


def route_taken(route: Object) -> Object:
    """Status of a route that its gateway has accepted as it is now."""
    said = [_true(kind) | {"observedGeneration": route["metadata"]["generation"]} for kind in ("Accepted", "ResolvedRefs")]
    return {"parents": [{"parentRef": route["spec"]["parentRefs"][0], "controllerName": "test.example/gateway", "conditions": said}]}


def _true(kind: str) -> Object:
    return {"type": kind, "status": "True", "reason": kind, "message": "", "lastTransitionTime": "2026-11-01T00:00:00Z"}


REPORTS = {
    Task.CURATE: Report(datasets=[ResolvedDataset(dataset="clips", version="1", digest=DIGEST, clips=512)]),
    Task.TRAIN: trained(),
    Task.EVALUATE: Report(results=[MetricResult(metric=Metric.FVD, value="120.5", samples=128, extractor="default")]),
    Task.BUILD_TEMPLATES: trained(),
    Task.TEST_SCENARIOS: Report(results=[MetricResult(metric=Metric.SCENARIO_PASS_RATIO, value="0.98", samples=100)]),
}
