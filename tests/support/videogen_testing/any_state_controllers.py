"""Everybody else in the cluster, for objects in any state: they act upon what there is, and wait for no word of the operator.

Beside `other_controllers`, whose players follow one story and say where the operator leaves it.
"""

import asyncio
import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import aiohttp

from videogen_api.job import Report
from videogen_api.meta import LABEL_ATTEMPT, LABEL_PHASE, LABEL_RUN
from videogen_api.training_run import Task
from videogen_testing.other_controllers import COLLECTIONS, REPORTS, Client, Object, Refused, View, route_taken
from videogen_testing.runs import ended, optimized, passed, pods_of, running, trained, tuned

COLLECTIONS_OF_ALL = COLLECTIONS | {
    "Pod": "/api/v1/namespaces/{}/pods",
    "ConfigMap": "/api/v1/namespaces/{}/configmaps",
    "PodDisruptionBudget": "/apis/policy/v1/namespaces/{}/poddisruptionbudgets",
    "BackendTrafficPolicy": "/apis/gateway.envoyproxy.io/v1alpha1/namespaces/{}/backendtrafficpolicies",
    "HTTPRouteFilter": "/apis/gateway.envoyproxy.io/v1alpha1/namespaces/{}/httproutefilters",
}
MOST_PODS = 4  # of a job; a larger one finds no room and waits
OTHER_REPORTS = {Task.TUNE: tuned(), Task.OPTIMIZE: optimized()}
OVER = frozenset({"Succeeded", "Failed"})
Action = tuple[str, str, Object]  # what is done, to which path, with what


def fate(uid: str, *shares: int) -> int:
    """Which of so many ends an object has, by shares of 100."""
    place = int(hashlib.sha256(uid.encode()).hexdigest(), 16) % 100
    return next((number for number, _ in enumerate(shares) if place < sum(shares[: number + 1])), len(shares))


class AnyStateControllers:
    """Play one namespace until it is cancelled. Some pods end with an error, some never end, some never become ready: by their UIDs."""

    def __init__(self, api: Client, view: View) -> None:
        self._api, self._view = api, view
        self.over: set[str] = set()  # UIDs of jobs that get no other pods: all have ended, or the API server takes none

    async def play(self) -> None:
        while True:
            for action in await self._view.until(lambda: list(self.todo()), 10**6, "something to play"):
                try:
                    await self._act(*action)
                except (Refused, aiohttp.ClientError) as error:  # it has changed meanwhile
                    if action[0] == "make" and not any(f": {code}: " in str(error) for code in (404, 409)):
                        self.over.add(action[2]["metadata"]["ownerReferences"][0]["uid"])  # the API server takes no such pod
            await asyncio.sleep(0.1)  # until the watch has seen what was just written

    async def _act(self, verb: str, path: str, body: Object) -> None:
        if verb == "make":
            await self._api.make_trainer(self._view.namespace, body)
        else:
            await self._api.merge(f"{path}/status", {"status": body})

    def todo(self) -> Iterator[Action]:
        """What is to be done now; nothing when all of them have nothing to do."""
        for job in self._living("PyTorchJob"):
            yield from self._job(job)
        for deployment in self._living("Deployment"):
            yield from self._deployment(deployment)
        for route in self._living("HTTPRoute"):
            wanted = route_taken(route)
            if route.get("status", {}).get("parents") != wanted["parents"]:
                yield "tell", self._path(route), wanted

    def _living(self, kind: str) -> list[Object]:
        return [item for item in self._view.all(kind) if not item["metadata"].get("deletionTimestamp")]

    def _path(self, item: Mapping[str, Any]) -> str:
        return f"{COLLECTIONS_OF_ALL[item['kind']].format(self._view.namespace)}/{item['metadata']['name']}"

    def _job(self, job: Object) -> Iterator[Action]:
        """training-operator and kubelet."""
        uid, wanted = job["metadata"]["uid"], pods_of(job)
        if len(wanted) > MOST_PODS or uid in self.over:
            return
        there = [self._view.get("Pod", pod["metadata"]["name"]) for pod in wanted]
        yield from (("make", "", pod) for pod, found in zip(wanted, there, strict=True) if not found)
        pods = [found for found in there if found and not found["metadata"].get("deletionTimestamp")]
        if len(pods) == len(wanted) and all(pod.get("status", {}).get("phase") in OVER for pod in pods):
            self.over.add(uid)
        for pod in pods:
            phase = pod.get("status", {}).get("phase")
            if phase == "Pending":
                yield "tell", self._path(pod), running()
            elif phase == "Running" and (end := self._end(job)) is not None:
                yield "tell", self._path(pod), end

    def _end(self, job: Object) -> Object | None:
        labels = job["metadata"]["labels"]
        if labels[LABEL_ATTEMPT] == "0":
            return ended(0, passed())
        match fate(job["metadata"]["uid"], 15, 10):
            case 0:
                return ended(1)
            case 1:
                return None
        spec = self._view.get("TrainingRun", labels[LABEL_RUN]).get("spec", {"phases": []})
        task = next((one["task"] for one in spec["phases"] if one["name"] == labels[LABEL_PHASE]), Task.TRAIN)
        report: Report = (REPORTS | OTHER_REPORTS).get(Task(task)) or trained()
        return ended(0, report.model_dump_json(by_alias=True, exclude_none=True))

    def _deployment(self, deployment: Object) -> Iterator[Action]:
        """Deployment controller and kubelet."""
        uid, replicas, generation = deployment["metadata"]["uid"], deployment["spec"]["replicas"], deployment["metadata"]["generation"]
        ready = 0 if fate(uid, 10) == 0 else replicas
        wanted = {"replicas": replicas, "readyReplicas": ready, "availableReplicas": ready, "observedGeneration": generation}
        found = deployment.get("status", {})
        if any(found.get(name, 0) != value for name, value in wanted.items()):
            yield "tell", self._path(deployment), wanted | {"unavailableReplicas": None}
