"""What the shell adds to a plan: how long a rollback took."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from kopf import ConnectionInfo

from videogen_operator.cluster import Cluster
from videogen_operator.inbox import Mail
from videogen_operator.metrics_query import Prometheus
from videogen_operator.plan import Inputs, Key, Kind, Plan, Query, Ref, StatusWrite
from videogen_operator.reconcile import Reconciler, timed, writes
from videogen_operator.recorder import Recorder
from videogen_operator.world import ObjectWorld

ARRIVED = datetime(2026, 1, 1, tzinfo=UTC)
ALERT = {"fingerprint": "f", "receivedAt": ARRIVED.isoformat(), "labels": {"release": "bad"}}


def statuses(plan: Plan) -> list[str]:
    return [write.status.get("rollback", {}).get("seconds", "-") for write in plan.statuses]


@pytest.mark.parametrize(
    ("answer", "recorded", "expected"),
    [
        ("RolledBack", "", "0.042"),
        ("RolledBack", "0.007", "0.007"),  # a repeated alert does not change what was measured
        ("Stale", "", ""),
    ],
)
def test_the_seconds_of_a_rollback_run_from_the_alert_that_caused_it(answer: str, recorded: str, expected: str) -> None:
    bad = StatusWrite({"metadata": {"name": "bad"}}, {"rollback": {"reason": "Alert", "seconds": recorded}})
    good = StatusWrite({"metadata": {"name": "good"}}, {})
    plan = Plan(statuses=(bad, good), answers={"f": answer})
    assert statuses(timed(plan, (ALERT,), ARRIVED + timedelta(milliseconds=42))) == [expected, "-"]


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


async def test_an_alert_does_not_wait_for_a_prometheus_that_does_not_answer() -> None:
    asked, key, seen = asyncio.Event(), Key("ModelRelease", "films", "standard"), []

    connections: list[asyncio.StreamWriter] = []

    async def mute(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(writer)
        asked.set()

    def plan(_observed: object, inputs: Inputs) -> Plan:
        seen.append(inputs)
        return Plan(answers={alert["fingerprint"]: "RolledBack" for alert in inputs.alerts})

    kind: Kind[object] = Kind(
        name=key.kind, resources=(), keys=lambda *_: (), observe=lambda *_: object(), queries=lambda *_: (Query("up", "up"),), plan=plan
    )
    server, world, mail = await asyncio.start_server(mute, "127.0.0.1", 0), ObjectWorld(()), Mail()
    port = server.sockets[0].getsockname()[1]
    cluster = Cluster(lambda: ConnectionInfo(server="https://127.0.0.1"), (), world)
    reconciler = Reconciler(
        (kind,),
        world=world,
        cluster=cluster,
        prometheus=Prometheus(f"http://127.0.0.1:{port}"),
        mail=mail,
        recorder=Recorder(cluster.record, lambda: ARRIVED),
        settings={},
        clock=lambda: ARRIVED,
    )
    going = asyncio.create_task(reconciler.pass_once(key))
    await asyncio.wait_for(asked.wait(), 10)
    decision = mail.expect(key, ALERT)
    assert await asyncio.wait_for(decision, 2) == "RolledBack"
    await going
    for connection in connections:
        connection.close()
        await connection.wait_closed()
    server.close()
    await server.wait_closed()
    assert [inputs.measurements for inputs in seen] == [{}]
