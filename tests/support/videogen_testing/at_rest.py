"""What must hold of all objects of a namespace when their operator has nothing more to do: nothing stuck, nothing lost, nothing twice."""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Container, Mapping
from typing import Any

from videogen_api.fine_tune_cycle import HISTORY, LABEL_CYCLE, LABEL_MEASURES
from videogen_api.meta import LABEL_PHASE, LABEL_RUN
from videogen_operator.kinds.model_release.observed import route_weights
from videogen_operator.names import MANAGED_BY
from videogen_testing.any_state_controllers import COLLECTIONS_OF_ALL, AnyStateControllers
from videogen_testing.operator_process import requests_of
from videogen_testing.other_controllers import Client, Object, View
from videogen_testing.patience import HANGS
from videogen_testing.supervision import SupervisedOperator

OURS = ("TrainingRun", "ModelRelease", "FineTuneCycle")
CANDIDATES = frozenset({"Starting", "Canary", "Held"})
QUIET_SECONDS = 2.0  # without a write of the operator
DEFECTS = ("unexpected error", "Traceback")  # in its log
Found = Mapping[str, list[Object]]


class Witness(View):
    """A view that remembers which runs cycles have made, and says what they made twice."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.twice: list[str] = []
        self.made: dict[str, set[str]] = defaultdict(set)  # by UID of a cycle: the names of its runs

    async def _take(self, kind: str, event: Object) -> None:
        item = event["object"]
        labels = item["metadata"].get("labels", {})
        if (kind, event["type"]) == ("TrainingRun", "ADDED") and MANAGED_BY in labels.items() and LABEL_CYCLE in labels:
            self._note(item, labels)
        await super()._take(kind, event)

    def _note(self, run: Object, labels: Mapping[str, str]) -> None:
        name, cycle = run["metadata"]["name"], self.get("FineTuneCycle", labels[LABEL_CYCLE])
        same = [item for kind in ("TrainingRun", "ModelRelease") for item in self.all(kind) if _identity(item) == _identity(run)]
        if same and LABEL_MEASURES not in labels:
            self.twice.append(f"{name} makes the version of {[item['metadata']['name'] for item in same]}")
        if cycle:
            names = self.made[cycle["metadata"]["uid"]]
            self.twice += [f"{name} was made twice by {labels[LABEL_CYCLE]}"] if name in names else []
            names.add(name)


def _identity(item: Object) -> tuple[str, str, str]:
    model = item["spec"]["model"]
    return model.get("type", ""), model["specialization"], model["version"]


async def rest(view: View, operator: SupervisedOperator) -> None:
    """Wait until every object is judged as it is now, and the operator has written nothing for a while, its Lease apart."""
    loop = asyncio.get_running_loop()
    end = loop.time() + HANGS
    while True:
        await view.until(lambda: not _behind(view), HANGS, "each object's status judges its newest generation")
        before = await writes(operator)
        await asyncio.sleep(QUIET_SECONDS)
        if await writes(operator) == before and not _behind(view):
            return
        assert loop.time() < end, f"the operator still writes after {HANGS} s: {view.said()}"


async def writes(operator: SupervisedOperator) -> float:
    return await asyncio.to_thread(requests_of, operator.metrics_port, "POST", "PUT", "PATCH", "DELETE")


def _behind(view: View) -> list[str]:
    items = [item for kind in OURS for item in view.all(kind)]
    return [item["metadata"]["name"] for item in items if not _is_judged(item)]


def _is_judged(item: Object) -> bool:
    return bool(item.get("status", {}).get("observedGeneration") == item["metadata"]["generation"])


class Invariants:
    """Looked at again and again, in one namespace: what was there the last time is remembered."""

    def __init__(self, api: Client, view: Witness, operator: SupervisedOperator, others: AnyStateControllers) -> None:
        self._api, self._view, self._operator, self._others = api, view, operator, others
        self._past: dict[str, list[str]] = {}  # by UID of a cycle: the runs and times of its history

    async def check(self, ours: Mapping[tuple[str, str], str]) -> None:
        """AssertionError that says what does not hold. `ours`: UIDs by kind and name of what must be there."""
        assert self._operator.exits == [], f"the operator has ended: {self._operator.exits}"
        log = self._operator.log.read_text()
        for word in DEFECTS:
            assert word not in log, word + log.partition(word)[2][:4000]
        assert self._view.twice == []
        found = await self._snapshot()
        _check_jobs(found, self._others.over)
        _check_services(found)
        self._check_lost(found, ours)

    async def _snapshot(self) -> Found:
        """All objects, between two moments with no write of the operator in between."""
        while True:
            await rest(self._view, self._operator)
            before = await writes(self._operator)
            listed = {kind: await self._api.request("GET", path.format(self._view.namespace)) for kind, path in COLLECTIONS_OF_ALL.items()}
            if await writes(self._operator) == before:
                return {kind: one["items"] for kind, one in listed.items()}

    def _check_lost(self, found: Found, ours: Mapping[tuple[str, str], str]) -> None:
        there = {(kind, item["metadata"]["name"]): item["metadata"]["uid"] for kind in OURS for item in found[kind]}
        lost = {key for key, uid in ours.items() if there.get(key) != uid}
        assert not lost, f"gone, and not deleted by an operation: {sorted(lost)}"
        for cycle in found["FineTuneCycle"]:
            status, uid, name = cycle.get("status", {}), cycle["metadata"]["uid"], cycle["metadata"]["name"]
            history, current = [_key(past) for past in status.get("history", [])], status.get("current", {}).get("run")
            told = {*history, current}
            before, missing = self._past.get(uid, []), [one for one in self._past.get(uid, []) if one not in told]
            full = len(history) == HISTORY and missing == before[: len(missing)]  # the oldest go
            assert not missing or full, f"{missing} left the history of {name}: {history}"
            unknown = self._view.made[uid] - told
            assert not unknown or len(history) == HISTORY, f"{name} has made {unknown}, and has neither at work nor in its history"
            self._past[uid] = history


def _key(past: Object) -> str:
    return str(past.get("run") or past["scheduledTime"])


def _check_jobs(found: Found, over: Container[str]) -> None:
    live: dict[tuple[str, str], list[str]] = defaultdict(list)
    for job in found["PyTorchJob"]:
        labels = job["metadata"]["labels"]
        if not job["metadata"].get("deletionTimestamp") and job["metadata"]["uid"] not in over:
            live[labels[LABEL_RUN], labels[LABEL_PHASE]].append(job["metadata"]["name"])
    several = {key: names for key, names in live.items() if len(names) > 1}
    assert not several, f"several jobs at work for one phase: {several}"


def _check_services(found: Found) -> None:
    states: dict[str, Counter[str]] = defaultdict(Counter)
    serves = set()
    available = {one["metadata"]["name"] for one in found["Deployment"] if one.get("status", {}).get("availableReplicas")}
    for release in found["ModelRelease"]:
        state, service = (release["status"].get("rollout") or {}).get("state", "Pending"), release["spec"]["service"]
        states[service]["candidate" if state in CANDIDATES else state] += 1
        if state == "Stable" and release["metadata"]["name"].replace(".", "-") in available:
            serves.add(service)
    for service, counted in states.items():
        several = {state for state in ("Stable", "Standby", "candidate") if counted[state] > 1}
        assert not several, f"service {service} has several of {several}: {counted}"
    for route in found["HTTPRoute"]:
        service, weights = route["metadata"]["name"], route_weights(route)
        assert sum(weights.values()) in {0, 100}, f"the weights of {service} are {weights}"
        assert weights or service not in serves, f"{service} is closed, although its stable release has pods"
