"""A namespace that is being deleted takes its objects along: a pass that would make something in it ends quietly, for good."""

import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import kopf
import pytest

from videogen_api.meta import API_VERSION
from videogen_operator.api_server.cluster import Cluster
from videogen_operator.api_server.recorder import Recorder
from videogen_operator.api_server.world import ObjectWorld
from videogen_operator.inbound.inbox import Mail
from videogen_operator.kinds import KINDS
from videogen_operator.main import WRITTEN, merged
from videogen_operator.metrics_query import Prometheus
from videogen_operator.plan import Key, Kind, Note, Plan, StatusWrite
from videogen_operator.reconcile import Reconciler
from videogen_testing.control_plane import TOKEN, Api, ControlPlane, eventually
from videogen_testing.fault_proxy import FaultProxy
from videogen_testing.runs import RUNS, a_run

WATCHED = merged(resource for kind in KINDS for resource in kind.resources)
HELD = {"metadata": {"name": "held", "finalizers": ["example.org/held"]}}


@pytest.fixture
def ending(api: Api, namespace: str) -> Any:
    """The name of a namespace that is being deleted and does not get to its end while the test lasts."""
    path = f"/api/v1/namespaces/{namespace}"
    api.create(f"{path}/configmaps", HELD)
    api.delete(path)
    eventually(lambda: api.get(path)["status"]["phase"] == "Terminating")
    yield namespace
    api.merge(f"{path}/configmaps/held", {"metadata": {"finalizers": None}})


@asynccontextmanager
async def reconciling(plane: ControlPlane, plan: Plan) -> AsyncIterator[tuple[Reconciler, Recorder]]:
    """A shell whose one kind has this plan in each pass."""
    kind: Kind[object] = Kind(
        name="Any", resources=(), keys=lambda *_: (), observe=lambda *_: object(), queries=lambda *_: (), plan=lambda *_: plan
    )
    async with AsyncExitStack() as stack:
        proxy = await stack.enter_async_context(FaultProxy(plane).serving())
        login, world = kopf.ConnectionInfo(server=proxy.url, scheme="Bearer", token=TOKEN), ObjectWorld(WATCHED)
        cluster = await stack.enter_async_context(Cluster(lambda: login, (*WATCHED, *WRITTEN), world))
        recorder = Recorder(cluster.record, lambda: datetime.now(UTC))
        shell = Reconciler(
            (kind,),
            world=world,
            cluster=cluster,
            prometheus=Prometheus(""),
            mail=Mail(),
            recorder=recorder,
            settings=dict,
            clock=lambda: datetime.now(UTC),
        )
        yield shell, recorder


async def test_nothing_is_made_repeated_or_complained_about(plane: ControlPlane, ending: str, caplog: pytest.LogCaptureFixture) -> None:
    job = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "job", "namespace": ending}}
    policy = {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "job", "namespace": ending}, "spec": {}}
    run = {"apiVersion": API_VERSION, "kind": "TrainingRun", "metadata": {"name": "run", "namespace": ending, "uid": "u"}}
    for plan in (Plan(create=(job,), requeue_after=1.0), Plan(apply=(policy,)), Plan(beside=(policy,), requeue_after=1.0)):
        with caplog.at_level(logging.DEBUG):
            async with reconciling(plane, plan) as (shell, recorder):
                assert await shell.pass_once(Key("Any", ending, "any")) is None
                recorder.take(Note(run, "Tested", "some words"))
                await recorder.close(30)
    assert [record.getMessage() for record in caplog.records if record.levelno > logging.INFO] == []
    assert sum("because it is being terminated" in record.getMessage() for record in caplog.records) >= 3


async def test_the_status_of_a_run_that_is_gone_is_not_written_again(
    plane: ControlPlane, api: Api, namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    made = api.create(RUNS.format(namespace), a_run(namespace=namespace))
    api.delete(f"{RUNS.format(namespace)}/run")
    eventually(lambda: api.find(f"{RUNS.format(namespace)}/run") is None)
    with caplog.at_level(logging.DEBUG):
        async with reconciling(plane, Plan(statuses=(StatusWrite(made, {"observedGeneration": 1}),), requeue_after=0.0)) as (shell, _):
            assert await shell.pass_once(Key("Any", namespace, "any")) is None
    assert [record.getMessage() for record in caplog.records if record.levelno > logging.INFO] == []
