"""What the shell makes of a plan: the order of its writes, and which questions an alert waits for."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, nullcontext
from datetime import UTC, datetime
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from kopf import ConnectionInfo

from videogen_operator import metrics_query
from videogen_operator.api_server.cluster import Cluster
from videogen_operator.api_server.leadership import NotLeadingError
from videogen_operator.api_server.recorder import Recorder
from videogen_operator.api_server.world import ObjectWorld
from videogen_operator.inbound.inbox import Mail
from videogen_operator.loops import Retry
from videogen_operator.metrics_query import Prometheus
from videogen_operator.plan import Inputs, Key, Kind, Plan, Query, Ref, StatusWrite
from videogen_operator.reconcile import Reconciler, ended, writes
from videogen_operator.resources import MODEL_RELEASES
from videogen_operator.telemetry import STATUS_WRITES, Written
from videogen_testing.patience import HANGS

ARRIVED = datetime(2026, 1, 1, tzinfo=UTC)
ALERT = {"fingerprint": "f", "receivedAt": ARRIVED.isoformat(), "labels": {"release": "bad"}}


def test_only_a_refused_route_or_job_keeps_the_rest_from_being_written() -> None:
    """The second element of each pair: whether nothing may be written after a refusal."""
    gone = Ref("v1", "Pod", "films", "gone", "uid")
    plan = Plan(apply=({"kind": "HTTPRoute"},), create=({"kind": "PyTorchJob"},), beside=({"kind": "Deployment"},), delete=(gone,))
    cluster = Cluster(lambda: ConnectionInfo(server="https://127.0.0.1"), (), ObjectWorld(()))
    ordered = [(how, what, decisive) for how, what, decisive in writes(plan, cluster)]
    assert [(what if isinstance(what, Ref) else what["kind"], decisive) for _, what, decisive in ordered] == [
        ("HTTPRoute", True), ("PyTorchJob", True), ("Deployment", False), (gone, False),
    ]  # fmt: skip
    assert [how for how, _, _ in ordered] == [cluster.apply, cluster.create, cluster.apply, cluster.delete]


KEY = Key("ModelRelease", "films", "standard")


@asynccontextmanager
async def mute_prometheus() -> AsyncIterator[tuple[str, list[str], asyncio.Event]]:
    """A Prometheus that takes every question and answers none: its URL, what it was asked, and whether it was asked at all."""
    connections: list[asyncio.StreamWriter] = []
    asked, begun = list[str](), asyncio.Event()

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(writer)
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(next(line for line in head.splitlines() if line.lower().startswith(b"content-length:")).split(b":")[1])
        asked.append((await reader.readexactly(length)).decode())
        begun.set()

    server = await asyncio.start_server(take, "127.0.0.1", 0)
    yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", asked, begun
    for connection in connections:
        connection.close()
        await connection.wait_closed()
    server.close()
    await server.wait_closed()


def a_reconciler(url: str, mail: Mail, plan: Callable[[object, Inputs], Plan]) -> Reconciler:
    """Of a kind that asks `doubt` while an alert waits that is to be verified, nothing for any other alert, and else `round`."""

    def queries(_: object, inputs: Inputs) -> tuple[Query, ...]:
        verified = all(alert.get("verify") for alert in inputs.alerts)
        return () if not verified else (Query("doubt", "doubt"),) if inputs.alerts else (Query("round", "round"),)

    kind: Kind[object] = Kind(name=KEY.kind, resources=(), keys=lambda *_: (), observe=lambda *_: object(), queries=queries, plan=plan)
    world = ObjectWorld(())
    cluster = Cluster(lambda: ConnectionInfo(server="https://127.0.0.1"), (), world)
    return Reconciler(
        (kind,),
        world=world,
        cluster=cluster,
        prometheus=Prometheus(url),
        mail=mail,
        recorder=Recorder(cluster.record, lambda: ARRIVED),
        settings=dict,
        clock=lambda: ARRIVED,
    )


@pytest.mark.parametrize(
    ("alert", "answer", "asked"),
    [
        (ALERT, "RolledBack", ["query=round"]),  # nothing of it is asked
        (ALERT | {"verify": True}, "Unverified", ["query=round", "query=doubt"]),  # its question does not wait behind another
    ],
)
async def test_an_alert_waits_for_no_other_question_and_for_its_own_only_so_long(
    monkeypatch: pytest.MonkeyPatch, alert: dict[str, Any], answer: str, asked: list[str]
) -> None:
    monkeypatch.setattr(metrics_query, "TIMEOUT", aiohttp.ClientTimeout(total=None))  # it is waited for without end
    monkeypatch.setattr("videogen_operator.reconcile.VERIFY_SECONDS", 1.0)
    mail, seen = Mail(), list[Inputs]()

    def plan(_: object, inputs: Inputs) -> Plan:
        seen.append(inputs)
        said = "Unverified" if any(one.get("verify") for one in inputs.alerts) and "doubt" not in inputs.measurements else "RolledBack"
        return Plan(answers={one["fingerprint"]: said for one in inputs.alerts})

    async with mute_prometheus() as (url, questions, begun), asyncio.timeout(HANGS):
        going = asyncio.create_task(a_reconciler(url, mail, plan).pass_once(KEY))
        await begun.wait()
        decision = mail.expect(KEY, alert)
        assert await decision == answer
        await going
        assert questions == asked
    assert [inputs.measurements for inputs in seen] == [{}]


@pytest.mark.parametrize(
    ("error", "result"),
    [
        (Retry("refused"), "Retry"),
        (TimeoutError(), "Unanswered"),
        (aiohttp.ServerDisconnectedError(), "Unanswered"),
        (asyncio.CancelledError(), "Stopped"),
        (NotLeadingError(), "Stopped"),
        (KeyError("spec"), "Error"),
    ],
)
def test_how_a_pass_has_ended_is_one_of_few_words(error: BaseException, result: str) -> None:
    assert ended(error) == result


@pytest.mark.parametrize(("code", "result"), [(200, "Done"), (404, "Gone"), (409, "Conflict"), (500, "Failed")])
async def test_a_status_is_counted_by_what_has_become_of_it(code: int, result: str) -> None:
    metadata = {"name": "one", "namespace": "films", "uid": "1", "resourceVersion": "1"}
    item = {"apiVersion": MODEL_RELEASES.api_version, "kind": MODEL_RELEASES.kind, "metadata": metadata}

    async def answer(_: web.Request) -> web.Response:
        return web.json_response(item | {"status": {"observedGeneration": 1}} if code == 200 else {}, status=code)

    def counted(one: str) -> float:
        samples = [found for metric in STATUS_WRITES.collect() for found in metric.samples if found.name.endswith("_total")]
        return sum(found.value for found in samples if found.labels["result"] == one)

    application = web.Application()
    application.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    login = ConnectionInfo(server=f"http://127.0.0.1:{runner.addresses[0][1]}")
    world, before = ObjectWorld([MODEL_RELEASES]), {one: counted(one) for one in Written}
    try:
        async with Cluster(lambda: login, [MODEL_RELEASES], world) as cluster:
            recorder = Recorder(cluster.record, lambda: ARRIVED)
            parts = {"settings": dict, "clock": lambda: ARRIVED, "prometheus": Prometheus(""), "mail": Mail(), "recorder": recorder}
            writing = Reconciler((), world=world, cluster=cluster, **parts)._write_status(StatusWrite(item, {"observedGeneration": 1}))  # type: ignore[arg-type]
            with nullcontext() if code in {200, 404} else pytest.raises(Retry):
                assert await writing is (code == 200)
    finally:
        await runner.cleanup()
    new = {one: counted(one) - before[one] for one in Written}
    assert [one for one, count in new.items() if count] == [result]
