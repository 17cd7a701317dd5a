"""One story from a FineTuneCycle over its run to a Stable release, with faults in the operator's writes."""

import asyncio
import hashlib
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from videogen_api.meta import ANNOTATION_REQUEST
from videogen_testing.chart_rights import operator_kubeconfig
from videogen_testing.control_plane import ControlPlane
from videogen_testing.cycle_simulation import a_cycle
from videogen_testing.end_state import differences, end_state, events
from videogen_testing.fault_proxy import FaultProxy, Point, WriteFault
from videogen_testing.other_controllers import COLLECTIONS, Client, OtherControllers, View, condition
from videogen_testing.patience import HANGS
from videogen_testing.runs import EVALUATE, RELEASE, TRAIN, a_claim, a_run
from videogen_testing.supervision import SupervisedOperator

CURATE = {"name": "curate", "task": "Curate", "curate": {"dataset": "clips", "version": "1", "sources": [{"path": "raw"}]}}
UNCHECKED = {"checkIntervalSeconds": 3600}  # no round of checks, however long the story takes on this machine
PHASES = [CURATE, TRAIN, EVALUATE, RELEASE | {"release": {"service": "standard", "serving": {"replicas": 2}, "rollout": UNCHECKED}}]
RELEASE_NAME = "pib-videogen-videofusion-v1.0.0-base"
CYCLE, REQUEST = "base", "story"
CYCLES_RUN = f"{CYCLE}-now-{hashlib.sha256(REQUEST.encode()).hexdigest()[:8]}"  # the same in each story: no date is in it
TEMPLATE = {name: value for name, value in a_run(phases=PHASES)["spec"].items() if name != "model"}
GATEWAYS = "/apis/gateway.networking.k8s.io/v1/namespaces/{}/gateways"
GATEWAY = {
    "apiVersion": "gateway.networking.k8s.io/v1",
    "kind": "Gateway",
    "metadata": {"name": "videogen"},
    "spec": {"gatewayClassName": "test", "listeners": [{"name": "http", "port": 80, "protocol": "HTTP"}]},
}


@dataclass(frozen=True)
class Outcome:
    """What is left of a story."""

    points: list[Point]  # committed writes, in order
    state: dict[str, Any]
    created: Counter[str]  # objects by how often they were created
    deleted: Counter[str]
    events: set[str]
    fired: list[WriteFault]
    exits: list[int]


async def tell(
    plane: ControlPlane, api: Client, folder: Path, namespace: str, faults: Sequence[WriteFault] = (), patience: float = HANGS
) -> Outcome:
    """The story in a new namespace. AssertionError with the operator's log if it does not come to its end."""
    await prepare(api, namespace)
    async with AsyncExitStack() as stack:
        proxy = await stack.enter_async_context(FaultProxy(plane).serving())
        proxy.faults = list(faults)
        kubeconfig = await asyncio.to_thread(operator_kubeconfig, plane, namespace, proxy.url)
        view = await stack.enter_async_context(View(api, namespace).watching())
        operator = await stack.enter_async_context(SupervisedOperator(kubeconfig, namespace, folder))
        proxy.kill = operator.kill
        others = asyncio.create_task(OtherControllers(api, view, patience).play())
        stack.push_async_callback(_end, others)
        ending = asyncio.create_task(_play(api, view, proxy, patience * 3))
        try:
            await asyncio.wait({others, ending}, return_when=asyncio.FIRST_COMPLETED)
            await (ending if ending.done() else others)
        except BaseException as error:
            error.add_note(f"faults: {[f'{f.when} {f.action} {f.point}' for f in faults]}, fired {len(proxy.fired)}")
            error.add_note(operator.last_words())
            raise
        finally:
            ending.cancel()
        return Outcome(
            points=[point for point in proxy.points() if (point.verb, point.resource) != ("PUT", "leases")],
            state=ending.result(),
            created=proxy.made(201),
            deleted=proxy.made(200, "DELETE"),
            events=await events(api, namespace),
            fired=proxy.fired,
            exits=operator.exits,
        )


async def _play(api: Client, view: View, proxy: FaultProxy, patience: float) -> dict[str, Any]:
    """What people do: ask a cycle for a run, and let it keep none when all is done -> all objects before that, and the cycle after it."""
    cycle = a_cycle(CYCLE, cadence="Annual", suspend=True, runTemplate={"spec": TEMPLATE})  # the first version of a year is 1.0.0
    cycle["metadata"] |= {"namespace": view.namespace, "annotations": {ANNOTATION_REQUEST: f"run-now@{REQUEST}"}}
    cycles = COLLECTIONS["FineTuneCycle"].format(view.namespace)
    await api.request("POST", cycles, cycle)
    await view.until(lambda: is_over(view, CYCLES_RUN) and _has_ended(view), patience, "the release is Stable and at rest")
    await _rest(proxy)
    state = await end_state(api, view.namespace)
    await api.merge(f"{cycles}/{CYCLE}", {"spec": {"successfulRunsHistoryLimit": 0}})
    await view.until(lambda: not view.get("TrainingRun", CYCLES_RUN) and _is_current(view), patience, "the end of the cycle's run")
    await _rest(proxy)
    return state | {f"{CYCLE} without its run": (await end_state(api, view.namespace))[f"FineTuneCycle {CYCLE}"]}


def _has_ended(view: View) -> bool:
    """The cycle has written its account of the run."""
    status = view.get("FineTuneCycle", CYCLE).get("status", {})
    return bool(status.get("history")) and not status.get("current")


def _is_current(view: View) -> bool:
    cycle = view.get("FineTuneCycle", CYCLE)
    return bool(cycle["status"]["observedGeneration"] == cycle["metadata"]["generation"])


def common_points(outcomes: Sequence[Outcome]) -> list[Point]:
    """The writes that are made in each of these stories, in the order of the first."""
    return [point for point in outcomes[0].points if all(point in other.points for other in outcomes)]


def assert_same_end(reference: Outcome, outcome: Outcome) -> None:
    """All objects alike, each created and deleted as often; no attempt more; nothing noted that is not in the reference."""
    told = "\n".join(str(fault) for fault in outcome.fired)
    found = differences(reference.state, outcome.state)
    assert not found, f"after\n{told}\nthe end is another one:\n" + "\n".join(found)
    assert _children(outcome.created) == _children(reference.created), told
    assert outcome.deleted == reference.deleted, told
    more = outcome.events - reference.events
    assert not more, f"after\n{told}\nthe operator also noted {sorted(more)}"


def _children(made: Counter[str]) -> Counter[str]:
    return Counter({name: count for name, count in made.items() if not name.startswith("events ")})


async def prepare(api: Client, namespace: str) -> None:
    """Namespace, claim and gateway."""
    await api.request("POST", "/api/v1/namespaces", {"metadata": {"name": namespace}})
    async with asyncio.timeout(HANGS):
        while not (await api.request("GET", f"/api/v1/namespaces/{namespace}/serviceaccounts"))["items"]:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.05)
    await api.request("POST", f"/api/v1/namespaces/{namespace}/persistentvolumeclaims", a_claim())
    await api.request("POST", GATEWAYS.format(namespace), GATEWAY)


def is_over(view: View, name: str = "run") -> bool:
    """The run has succeeded; the release is ready, and nothing is being changed any more."""
    run, release = view.get("TrainingRun", name), view.get("ModelRelease", RELEASE_NAME)
    ready = condition(release, "Ready")
    done = condition(run, "Succeeded").get("status") == "True"
    return done and (ready.get("status"), ready.get("reason")) == ("True", "Stable") and not condition(release, "Reconciling")


async def _rest(proxy: FaultProxy, seconds: float = 1.0) -> None:
    """Wait until the operator has written nothing for a while, its Lease apart."""
    count = -1
    while count != len(proxy.writes):
        count = len(proxy.writes)
        await asyncio.sleep(seconds)
        count += sum(write.point.resource == "leases" for write in proxy.writes[count:])


async def _end(task: "asyncio.Task[Any]") -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
