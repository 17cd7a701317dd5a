"""What the API server puts off: a request is sent again when it says so, and not before."""

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import kopf
import pytest
from aiohttp import web

from videogen_operator.api_server.cluster import ApiError, Cluster
from videogen_operator.api_server.recorder import Recorder
from videogen_operator.api_server.resync import Resync
from videogen_operator.api_server.world import ObjectWorld
from videogen_operator.inbound.inbox import Mail
from videogen_operator.loops import Retry
from videogen_operator.metrics_query import Prometheus
from videogen_operator.plan import Inputs, Key, Kind, Plan, StatusWrite
from videogen_operator.reconcile import Reconciler
from videogen_operator.resources import CONFIG_MAPS, TRAINING_RUNS

Refusal = tuple[int, dict[str, str]]  # status and headers
SOON: Refusal = (429, {"Retry-After": "1"})
MUCH_LATER: Refusal = (429, {"Retry-After": "60"})
RUN = {
    "apiVersion": TRAINING_RUNS.api_version,
    "kind": "TrainingRun",
    "metadata": {"name": "run", "namespace": "films", "uid": "u", "resourceVersion": "1"},
}


@dataclass
class Busy:
    """An API server that refuses so often before it answers; every list has two pages."""

    refusals: Sequence[Refusal]
    asked: list[tuple[str, str, float]] = field(default_factory=list)  # path, `continue`, when
    bodies: list[Any] = field(default_factory=list)
    world: ObjectWorld = field(default_factory=lambda: ObjectWorld([TRAINING_RUNS, CONFIG_MAPS]))

    async def answer(self, request: web.Request) -> web.Response:
        page = request.query.get("continue", "")
        self.asked.append((request.path.rpartition("/")[2], page, time.monotonic()))
        self.bodies.append(await request.json() if request.can_read_body else None)
        if len(self.asked) <= len(self.refusals):
            status, headers = self.refusals[len(self.asked) - 1]
            return web.json_response({"reason": "Busy", "message": "try again"}, status=status, headers=headers)
        metadata = {"resourceVersion": "9"} | ({} if page else {"continue": "second"})
        return web.json_response({"items": [], "metadata": metadata})

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[Cluster]:
        application = web.Application(client_max_size=4 * 1024 * 1024)
        application.router.add_route("*", "/{path:.*}", self.answer)
        runner = web.AppRunner(application)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        login = kopf.ConnectionInfo(server=f"http://127.0.0.1:{runner.addresses[0][1]}")
        try:
            async with Cluster(lambda: login, [TRAINING_RUNS, CONFIG_MAPS], self.world) as cluster:
                yield cluster
        finally:
            await runner.cleanup()


@pytest.mark.parametrize("refusal", [SOON, (503, {"Retry-After": "1"}), (429, {"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"})], ids=str)
async def test_what_is_put_off_is_sent_again_and_not_before(refusal: Refusal) -> None:
    busy = Busy([refusal])
    async with busy.connected() as cluster:
        assert (await cluster.request("POST", "/api/v1/things", body={}))["items"] == []
    (_, _, first), (_, _, second) = busy.asked
    assert second - first >= 1


async def test_the_time_is_that_of_the_api_servers_answers() -> None:
    busy = Busy([(403, {"Date": "Sun, 01 Nov 2026 00:00:00 GMT"})])
    async with busy.connected() as cluster:
        with pytest.raises(ApiError):
            await cluster.request("GET", "/api/v1/things")
        assert abs(cluster.clock() - datetime(2026, 11, 1, tzinfo=UTC)) < timedelta(minutes=10)


async def test_a_status_of_more_than_a_megabyte_is_sent_whole_each_time_and_without_a_warning() -> None:
    busy, body = Busy([SOON]), {"status": {"message": "x" * 1_500_000}}
    async with busy.connected() as cluster:
        await cluster.request("PATCH", "/api/v1/things/status", body=body)
    assert busy.bodies == [body, body]


@pytest.mark.parametrize(
    ("refusals", "asked", "told"),
    [
        ([MUCH_LATER], 1, 60),  # it is not waited for here, and said to who decides
        ([(429, {"Retry-After": "3"})] * 2, 2, 3),  # five seconds in all
        ([(429, {"Retry-After": "9" * 12})], 1, 300),  # nobody is waited for so long
        ([(503, {})], 1, None),  # it may last
        ([(500, {"Retry-After": "1"})], 1, None),  # it may have been done
    ],
    ids=str,
)
async def test_a_request_fails_with_what_the_api_server_asked_for(refusals: Sequence[Refusal], asked: int, told: float | None) -> None:
    busy = Busy(refusals)
    async with busy.connected() as cluster:
        with pytest.raises(ApiError) as raised:
            await cluster.request("GET", "/api/v1/things")
    assert raised.value.retry_after == told
    assert len(busy.asked) == asked


async def test_a_list_that_is_put_off_does_not_begin_the_round_again() -> None:
    busy = Busy([SOON, (429, {"Retry-After": "2"})])
    async with busy.connected() as cluster:
        await Resync(cluster, busy.world, [(TRAINING_RUNS, None), (CONFIG_MAPS, None)], lambda _: None).once()
    runs, maps = TRAINING_RUNS.plural, CONFIG_MAPS.plural
    assert [asked[:2] for asked in busy.asked] == [(runs, "")] * 3 + [(runs, "second"), (maps, ""), (maps, "second")]


A_MAP = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "job", "namespace": "films"}}


@pytest.mark.parametrize(
    "plan", [Plan(create=(A_MAP,), requeue_after=2.0), Plan(statuses=(StatusWrite(RUN, {}),))], ids=["object", "status"]
)
async def test_a_pass_is_not_repeated_before_the_api_server_wants_it(plan: Plan) -> None:
    busy = Busy([MUCH_LATER])

    def planned(_: object, __: Inputs) -> Plan:
        return plan

    kind: Kind[Any] = Kind(
        name="TrainingRun", resources=(), keys=lambda *_: (), observe=lambda *_: object(), queries=lambda *_: (), plan=planned
    )
    async with busy.connected() as cluster:
        reconciler = Reconciler(
            (kind,),
            world=busy.world,
            cluster=cluster,
            prometheus=Prometheus(""),
            mail=Mail(),
            recorder=Recorder(cluster.record, lambda: datetime.now(UTC)),
            settings=dict,
            clock=lambda: datetime.now(UTC),
        )
        with pytest.raises(Retry) as raised:
            await reconciler.pass_once(Key("TrainingRun", "films", "run"))
    assert raised.value.least == 60
