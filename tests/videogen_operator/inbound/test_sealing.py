"""Results are sealed for the pod that has computed them and for nobody else: the real inbox over HTTP, and a run in a simulated cluster."""

import base64
import json
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import aiohttp
import kopf
import pytest
from aiohttp import web

from videogen_api.evaluation import Metric, MetricResult
from videogen_api.job import TOKEN_AUDIENCE, Report
from videogen_api.pinned import ResolvedDataset
from videogen_api.training_run import Reason
from videogen_operator.api_server.cluster import Cluster
from videogen_operator.inbound import sealing
from videogen_operator.inbound.inbox import AlertTokens, Inbox, Mail
from videogen_operator.inbound.listening import serve
from videogen_operator.inbound.tokens import POD_NAME, POD_UID, PodTokens, claims_of
from videogen_operator.kinds import KINDS
from videogen_operator.resources import TOKEN_REVIEWS
from videogen_operator.seals import Seals
from videogen_testing.run_simulation import Simulation
from videogen_testing.runs import DIGEST, TRAIN, running, trained

SEALS = Seals({"key-1": b"k" * 32})
DONE = trained().model_copy(update={"datasets": [ResolvedDataset(dataset="clips", version="1", digest=DIGEST)]})
NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)


@pytest.fixture
def sim() -> Simulation:
    """A run of two workers at work."""
    started = Simulation(phases=[TRAIN | {"workers": {"replicas": 2}}])
    started.settle()
    started.set_pods(running())
    started.settle()
    return started


@pytest.fixture(autouse=True)
def _as_often_as_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealing, "REPORT_SECONDS", 0.0)


def token_of(pod: Any) -> str:
    """As the API server makes one, but for the signature, which the one below takes for right."""
    bound = {"namespace": "models", "pod": {"name": pod["metadata"]["name"], "uid": pod["metadata"]["uid"]}}
    claims = {"aud": [TOKEN_AUDIENCE], "exp": time.time() + 3600, "kubernetes.io": bound}
    parts = (json.dumps(part).encode() for part in ({"alg": "RS256"}, claims, "signature"))
    return ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts)


async def review(request: web.Request) -> web.Response:
    pod = claims_of((await request.json())["spec"]["token"])["kubernetes.io"]["pod"]
    user = {"username": "system:serviceaccount:models:default", "extra": {POD_NAME: [pod["name"]], POD_UID: [pod["uid"]]}}
    return web.json_response({"status": {"authenticated": True, "audiences": [TOKEN_AUDIENCE], "user": user}})


@asynccontextmanager
async def inbox(sim: Simulation, seals: Seals = SEALS) -> AsyncIterator[str]:
    """Its address."""
    reviews = web.Application()
    reviews.router.add_post("/{path:.*}", review)
    async with AsyncExitStack() as stack:
        api = await serve(reviews, "127.0.0.1", 0)
        stack.push_async_callback(api.cleanup)
        login = kopf.ConnectionInfo(server=f"http://127.0.0.1:{api.addresses[0][1]}")
        cluster = await stack.enter_async_context(Cluster(lambda: login, (TOKEN_REVIEWS,), sim.world))
        tokens = PodTokens(cluster, TOKEN_AUDIENCE, time.time)
        seal = sealing.Sealing(KINDS, sim.world, tokens, lambda: seals, lambda: NOW)
        box = Inbox(KINDS, Mail(), sim.world, tokens, AlertTokens(), lambda _, __: None, sealing=seal)
        server = await serve(box.application(), "127.0.0.1", 0)
        stack.push_async_callback(server.cleanup)
        yield f"http://127.0.0.1:{server.addresses[0][1]}/v1/records"


async def post(url: str, token: str, body: bytes | Report) -> tuple[int, Any]:
    data = body if isinstance(body, bytes) else b'{"report":' + body.model_dump_json(by_alias=True).encode() + b"}"
    async with aiohttp.ClientSession() as session, session.post(url, data=data, headers={"Authorization": f"Bearer {token}"}) as answer:
        return answer.status, await answer.json()


async def test_the_first_pod_gets_its_result_back_sealed(sim: Simulation) -> None:
    async with inbox(sim) as url:
        code, answer = await post(url, token_of(sim.pods()[0]), DONE)
    assert code == 200
    record = answer["record"]
    assert SEALS.problem(record, "models") == ""
    assert (record["run"], record["phase"], record["time"]) == ("run", "train", "2026-11-01T12:00:00Z")
    assert Report.model_validate(record["report"]).artifact == DONE.artifact
    assert record["key"] == sim.keep(DONE)["key"]


async def test_nobody_else_gets_anything_sealed(sim: Simulation) -> None:
    first, second = sim.pods()
    stranger = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "stranger"}}
    sim.put(stranger, "models")
    named = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "run-train-1-worker-7", "labels": first["metadata"]["labels"]}}
    sim.put(named, "models")
    gone = {"metadata": first["metadata"] | {"uid": "of the pod before"}}
    askers = {
        "another worker of the attempt": (token_of(second), 409),
        "a pod that only has the run's labels": (token_of(sim.world.get("Pod", "models", "run-train-1-worker-7")), 409),
        "a pod of no run": (token_of(sim.world.get("Pod", "models", "stranger")), 401),
        "a pod that is gone, whose name another one has": (token_of(gone), 401),
        "no token": ("", 401),
    }
    async with inbox(sim) as url:
        found = {name: (await post(url, token, DONE))[0] for name, (token, _) in askers.items()}
    assert found == {name: code for name, (_, code) in askers.items()}


BODIES: dict[str, tuple[bytes | Report, int, str]] = {
    "no JSON": (b"{", 400, "expected {'report': {...}}"),
    "nested without end": (b"[" * 10_000, 400, "nested too deeply"),
    "more than is read": (b" " * 20_000, 413, "at most 16384 bytes"),
    "no report": (b"[1]", 409, "report"),
    "a report of something else": (b'{"report": {"lastStep": "many"}}', 409, "report.lastStep"),
    "a failure": (Report(reason=Reason.DIVERGED), 409, "the report says Diverged"),
    "without its datasets": (trained(), 409, "no digest of a dataset"),
    "more than could be found again": (
        DONE.model_copy(update={"results": [MetricResult(metric=Metric.FVD, value="1", samples=9, extractor="x" * 60, extractor_digest=DIGEST)] * 16}),
        413,
        "only one of 3840 could be found again",
    ),
}  # fmt: skip


@pytest.mark.parametrize("body, code, said", BODIES.values(), ids=BODIES)
async def test_what_is_no_result_is_refused_and_the_reason_told(sim: Simulation, body: bytes | Report, code: int, said: str) -> None:
    async with inbox(sim) as url:
        found, answer = await post(url, token_of(sim.pods()[0]), body)
    assert (found, said in answer["message"]) == (code, True), answer


async def test_a_pod_asks_one_time_and_then_waits(sim: Simulation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealing, "REPORT_SECONDS", 3600.0)
    async with inbox(sim) as url:
        assert [(await post(url, token_of(sim.pods()[0]), DONE))[0] for _ in range(2)] == [200, 429]


async def test_without_a_key_nothing_is_sealed(sim: Simulation) -> None:
    async with inbox(sim, Seals()) as url:
        code, answer = await post(url, token_of(sim.pods()[0]), DONE)
    assert (code, "reuse.enabled" in answer["message"]) == (404, True)
