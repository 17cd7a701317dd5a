"""One tenant's objects: what they may cost the operator, and so all other tenants."""

import asyncio
import json
import tracemalloc
from collections.abc import Callable
from typing import Any

import kopf
import pytest
from aiohttp import web
from prometheus_client import CollectorRegistry

from videogen_api.meta import ANNOTATION_REQUEST, GROUP
from videogen_operator.api_server.cluster import LONGEST_PAGE, PAGE, Cluster
from videogen_operator.api_server.world import ObjectWorld
from videogen_operator.exporter import MOST_SERIES, WorldCollector
from videogen_operator.inbound.listening import serve
from videogen_operator.kinds import KINDS
from videogen_operator.loops import Loops
from videogen_operator.main import merged
from videogen_operator.plan import Key
from videogen_operator.resources import NETWORK_POLICIES, NODES, PODS
from videogen_operator.waking import Gathering
from videogen_testing.releases import a_node, a_release
from videogen_testing.runs import a_run

WATCHED = merged(resource for kind in KINDS for resource in kind.resources)


def named(item: dict[str, Any], number: int, **metadata: Any) -> dict[str, Any]:
    head = {"name": f"hostile-{number:04}", "namespace": "hostile", "uid": f"uid-{number}", "resourceVersion": "1"}
    return item | {"metadata": head | metadata}


def kept(make: Callable[[int], dict[str, Any]], count: int = 100) -> float:
    """Bytes for each object in the operator's memory."""
    world, before = ObjectWorld(WATCHED), ObjectWorld(WATCHED)
    for number in range(count):
        before.store(make(number))
    del before  # Python's table of short strings has its size now, whatever ran earlier
    tracemalloc.start()
    for number in range(count):
        world.store(make(number))
    used = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert sum(world.count(resource.kind) for resource in WATCHED) == count
    return used / count


LARGE = 200 * 1024
OWNER = {"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u"}
HOSTILE: dict[str, Callable[[int], dict[str, Any]]] = {
    "an annotation that nobody reads": lambda n: named(a_run(), n, annotations={"x": f"{n}" + "x" * LARGE}),
    "an annotation that is read": lambda n: named(a_run(), n, annotations={ANNOTATION_REQUEST: f"{n}" + "x" * LARGE}),
    "one with our prefix": lambda n: named(a_release(), n, annotations={f"{GROUP}/x": f"{n}" + "x" * LARGE}),
    "ten thousand labels": lambda n: named(a_run(), n, labels={f"label-{n}-{i}": "x" * 40 for i in range(10_000)}),
    "finalizers": lambda n: named(a_run(), n, finalizers=[f"example.org/{n}-{i}" + "x" * 40 for i in range(3_000)]),
    "owners": lambda n: named(
        a_run(), n, ownerReferences=[{"kind": "Pod", "name": f"{n}-{i}" + "x" * 40, "uid": f"{n}-{i}"} for i in range(3_000)]
    ),
    **{
        f"an owner with a long {field}": lambda n, field=field: named(  # type: ignore[misc]
            a_run(), n, ownerReferences=[OWNER | {field: f"{n}" + "x" * LARGE}]
        )
        for field in ("apiVersion", "kind", "name", "uid")
    },
    "an owner with fields that nobody reads": lambda n: named(
        a_run(), n, ownerReferences=[OWNER | {"blockOwnerDeletion": True, "x": f"{n}" + "x" * LARGE}]
    ),
    "a policy for thousands of addresses": lambda n: named(
        {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy"}
        | {"spec": {"ingress": [{"from": [{"ipBlock": {"cidr": f"10.{n}.{i // 256}.{i % 256}/32"}} for i in range(5_000)]}]}},
        n,
    ),
    "a Deployment's template": lambda n: named(
        {"apiVersion": "apps/v1", "kind": "Deployment"}
        | {"spec": {"template": {"metadata": {"annotations": {"x": f"{n}" + "x" * LARGE}}}}, "status": {"readyReplicas": 1}},
        n,
    ),
    "a Gateway": lambda n: named(
        {"apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway", "spec": {"listeners": [{"name": f"{n}" + "x" * LARGE}]}}, n
    ),
    "a pod's command": lambda n: named(
        {"apiVersion": "v1", "kind": "Pod", "spec": {"containers": [{"name": "c", "command": [f"{n}" + "x" * LARGE]}]}}, n
    ),
}


def resources(number: int, count: int = 10_000) -> dict[str, str]:
    return {f"example.org/{number}-{i}": "1" for i in range(count)}


HOSTILE |= {
    "a pod's resources": lambda n: named(
        {"apiVersion": "v1", "kind": "Pod", "spec": {"containers": [{"name": "c", "resources": {"limits": resources(n)}}]}}, n
    ),
    "a job's policy": lambda n: named(
        {"apiVersion": "kubeflow.org/v1", "kind": "PyTorchJob"}
        | {"spec": {"runPolicy": {"schedulingPolicy": {"minResources": resources(n)}}, "pytorchReplicaSpecs": {"Master": {}}}},
        n,
    ),
    "a policy for a thousand addresses": lambda n: named(
        {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy"}
        | {"spec": {"ingress": [{"from": [{"ipBlock": {"cidr": f"10.{n}.{i // 256}.{i % 256}/32"}} for i in range(1_500)]}]}},
        n,
    ),
    "a Service's ports": lambda n: named(
        {"apiVersion": "v1", "kind": "Service", "spec": {"ports": [{"port": i + 1} for i in range(4_000)]}}, n
    ),
}


@pytest.mark.parametrize("make", HOSTILE.values(), ids=HOSTILE.keys())
def test_what_nobody_reads_is_not_kept(make: Callable[[int], dict[str, Any]]) -> None:
    assert kept(make) < 32 * 1024


def test_of_an_owner_is_kept_what_says_whose_an_object_is() -> None:
    world = ObjectWorld(WATCHED)
    longest = OWNER | {"name": "n" * 253, "uid": "u" * 253, "controller": True, "blockOwnerDeletion": True}
    world.store(named(a_run(), 0, ownerReferences=[longest | {"more": "x"}, OWNER | {"name": "n" * 254}, OWNER]))
    (item,) = world.list("TrainingRun")
    assert item["metadata"]["ownerReferences"] == [longest, OWNER]


async def test_a_page_of_large_objects_is_not_read_to_its_end_but_asked_for_in_smaller_ones() -> None:
    """A hundred policies of 1.3 MB, which one tenant may write, are 1.5 GB in memory while they are read at once."""
    large = {"metadata": {"name": "x"}, "spec": {"x": "x" * 1_300_000}}
    small, asked = {"metadata": {"name": "x"}}, list[tuple[int, int]]()
    items = [small] * 50 + [large] * 40 + [small] * 50

    async def listed(request: web.Request) -> web.Response:
        start, limit = int(request.query.get("continue", 0)), int(request.query["limit"])
        asked.append((start, limit))
        end = start + limit
        more = {"continue": str(end)} if end < len(items) else {}
        return web.json_response({"items": items[start:end], "metadata": {"resourceVersion": "1"} | more})

    application = web.Application()
    application.router.add_get("/{path:.*}", listed)
    server = await serve(application, "127.0.0.1", 0)
    login = kopf.ConnectionInfo(server=f"http://127.0.0.1:{server.addresses[0][1]}")
    async with Cluster(lambda: login, (NETWORK_POLICIES,), ObjectWorld(WATCHED)) as cluster:
        pages = [page async for page, _ in cluster.pages(NETWORK_POLICIES, None)]
    await server.cleanup()
    assert [item.get("spec") for page in pages for item in page] == [item.get("spec") for item in items], "each once, in their order"
    assert all(len(json.dumps(page)) <= LONGEST_PAGE * 1.1 for page in pages)
    assert asked[0] == (0, PAGE)
    assert len(asked) < len(items) / 2


def test_of_many_labels_ours_are_kept_and_of_a_node_all() -> None:
    world = ObjectWorld([PODS, NODES])
    labels = {f"label-{number}": "x" for number in range(1_000)}
    world.store(named({"apiVersion": "v1", "kind": "Pod", "spec": {}}, 0, labels=labels | {f"{GROUP}/run": "run"}))
    assert [item["metadata"]["name"] for item in world.list("Pod", labels={f"{GROUP}/run": "run"})] == ["hostile-0000"]
    node = a_node()
    world.store(node | {"metadata": node["metadata"] | {"labels": labels}})
    assert world.list("Node", labels=labels) != ()


def test_heartbeats_of_nodes_are_no_news_and_what_decides_about_room_is() -> None:
    world, version = ObjectWorld([NODES]), iter(range(1, 100))

    def state(heartbeat: int = 0, **changes: Any) -> bool:
        node = a_node(**changes)
        times = {"lastHeartbeatTime": f"2026-11-01T00:00:{heartbeat:02}Z", "reason": "KubeletReady"}
        node["status"] |= {"conditions": [one | times for one in node["status"]["conditions"]], "images": [{"names": [f"{heartbeat}"]}]}
        node["metadata"] |= {"resourceVersion": str(next(version)), "annotations": {"heartbeat": str(heartbeat)}}
        return world.store(node)

    assert state(0)
    assert [state(second) for second in range(1, 30)] == [False] * 29
    assert state(gpus=2)
    assert state(gpus=2, unschedulable=True)
    assert state(gpus=2, taints=[{"key": "k", "effect": "NoSchedule"}])
    assert world.store(a_node() | {"metadata": {"name": "node-1", "resourceVersion": "99"}, "status": {"conditions": []}})


def test_a_strangers_gateway_is_news_once() -> None:
    world = ObjectWorld(WATCHED)
    gateway = {"apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway", "spec": {}}
    states = [named(gateway, 0, labels={"x": str(version)}, generation=version, resourceVersion=str(version)) for version in range(1, 30)]
    assert [world.store(state) for state in states] == [True] + [False] * 28


def test_a_thousand_changed_nodes_wake_each_waiting_service_once(virtual_loop: Any) -> None:
    told: list[str] = []

    async def scene() -> None:
        tell = Gathering(lambda item: told.append(item["metadata"]["name"])).told
        for number in range(1_000):
            tell(a_node(f"node-{number}"))
        tell(a_release())
        assert told == ["pib-videogen-videofusion-v1.0.0-base"], "everything but nodes is told at once"
        await asyncio.sleep(10)

    virtual_loop.run_until_complete(scene())
    assert told[1:] == ["node-999"]


def test_a_namespace_with_a_thousand_objects_takes_turns_with_one_that_has_one(virtual_loop: Any) -> None:
    done: list[Key] = []

    async def work(key: Key) -> None:
        await asyncio.sleep(1)
        done.append(key)

    async def scene() -> None:
        loops = Loops[Key](work, limit=2, random=lambda: 0.0, share=lambda key: key.namespace)
        for number in range(1_000):
            loops.wake(Key("TrainingRun", "hostile", f"run-{number}"))
        for namespace in ("models", "films"):
            for name in "ab":
                loops.wake(Key("TrainingRun", namespace, name))
        await asyncio.sleep(5_000)
        await loops.close()

    virtual_loop.run_until_complete(scene())
    assert len(done) == 1_004
    others = [index for index, key in enumerate(done) if key.namespace != "hostile"]
    assert others[-1] < 10, "each waits for one key of every other namespace"


def series(*items: dict[str, Any]) -> dict[str, list[dict[str, str]]]:
    """Labels of each metric's series."""
    world, registry = ObjectWorld(WATCHED), CollectorRegistry()
    for item in items:
        world.store(item)
    registry.register(WorldCollector(world, KINDS))
    return {metric.name: [sample.labels for sample in metric.samples] for metric in registry.collect()}


def test_a_tenant_has_so_many_series_and_says_nothing_for_others() -> None:
    progress = {"metrics": [{"name": f"metric-{number}", "value": "1"} for number in range(100)], "progressPercentage": 1}
    status = {"conditions": [{"type": "Succeeded", "reason": "Training"}], "phases": [{"name": "p", "progress": progress}]}
    hostile = [named(a_run() | {"status": status}, number) for number in range(50)]
    good = named(a_run() | {"status": status}, 0, namespace="zoo", uid="good")
    found = series(*hostile, good)
    of_metric = [labels["namespace"] for labels in found["videogen_training_metric"]]
    assert (of_metric.count("hostile"), of_metric.count("zoo")) == (MOST_SERIES, 100)
    assert found["videogen_series_left_out"] == [{"namespace": "hostile", "metric": "videogen_training_metric"}]
