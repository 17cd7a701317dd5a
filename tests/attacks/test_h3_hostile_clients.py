"""Clients that send half of a request, or too many, from many loopback addresses: the operator's own HTTP servers outlive them."""

import asyncio
import json
import logging
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import kopf
import pytest
from aiohttp import web
from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from videogen_api.job import TOKEN_AUDIENCE
from videogen_operator.api_server.cluster import Cluster
from videogen_operator.api_server.world import ObjectWorld
from videogen_operator.inbound import bodies
from videogen_operator.inbound.endpoints import RENDERING_SECONDS, Renderings, metrics, probes
from videogen_operator.inbound.inbox import REPORT_BYTES, WEBHOOK_BYTES, AlertTokens, Inbox, Mail
from videogen_operator.inbound.listening import Limits, Listener, serve
from videogen_operator.inbound.tokens import PodTokens
from videogen_operator.kinds import KINDS
from videogen_operator.plan import Key
from videogen_operator.resources import PODS, TOKEN_REVIEWS
from videogen_operator.watchdog import Watchdog
from videogen_testing.loopback_inbox import POD, inbox, token

Client = tuple[asyncio.StreamReader, asyncio.StreamWriter]


def address(number: int) -> str:
    """One of many loopback addresses."""
    return f"127.0.{1 + number // 200}.{1 + number % 200}"


async def connect(server: Listener, source: str = "127.0.0.1") -> Client:
    return await asyncio.open_connection("127.0.0.1", server.addresses[0][1], local_addr=(source, 0))


async def send(server: Listener, data: bytes, source: str = "127.0.0.1") -> Client | None:
    """A client that has sent this; None if it was refused at once."""
    try:
        reader, writer = await connect(server, source)
        writer.write(data)
        await writer.drain()
    except ConnectionError:
        return None
    return reader, writer


async def status(client: Client | None) -> int:
    """Status of the answer; 0 if the connection ends without one."""
    if client is None:
        return 0
    try:
        line = await client[0].readline()
    except ConnectionError:
        return 0
    finally:
        client[1].close()
    return int(line.split()[1]) if line else 0


async def until(ask: Callable[[], bool]) -> None:
    """Wait until it is so; the test's time limit is for hangs."""
    while not ask():  # noqa: ASYNC110 - the server has no event for it
        await asyncio.sleep(0.05)


def head(path: str, bearer: str, length: int) -> bytes:
    return f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {bearer}\r\nContent-Length: {length}\r\n\r\n".encode()


def refused(reason: str, port: str = "inbox") -> float:
    return REGISTRY.get_sample_value("videogen_http_refused_total", {"port": port, "reason": reason}) or 0.0


async def test_of_one_token_one_report_is_read_at_a_time_and_not_for_ever(tmp_path: Path) -> None:
    woken: list[Key] = []
    async with inbox(tmp_path, woken) as server:
        begun = time.monotonic()
        half = head("/v1/progress", token(), REPORT_BYTES) + b"{" * (REPORT_BYTES // 2)
        clients = [await send(server, half, address(number // 25)) for number in range(200)]
        answers = Counter(await asyncio.gather(*map(status, clients)))
        assert answers.keys() == {400, 429}
        assert answers[400] <= 1 + (time.monotonic() - begun) / bodies.BODY_SECONDS, "the next one is read when the last one is late"
        whole = json.dumps({"trainerStatus": {"progressPercentage": 3}}).encode()
        assert await status(await send(server, head("/v1/progress", token(), len(whole)) + whole)) == 200
        assert woken == [Key("TrainingRun", "models", "run")]


async def test_half_webhooks_wait_in_line_while_their_bytes_stay_outside(tmp_path: Path) -> None:
    async with inbox(tmp_path, []) as server:
        half = head("/v1/alerts", "secret", WEBHOOK_BYTES) + b" " * 100_000
        clients = [await send(server, half, address(number // 25)) for number in range(50)]
        assert set(await asyncio.gather(*map(status, clients))) <= {400, 503}
        whole = json.dumps({"version": "4", "alerts": []}).encode()
        assert await status(await send(server, head("/v1/alerts", "secret", len(whole)) + whole)) == 200


async def test_bodies_of_many_senders_have_so_many_bytes_together(tmp_path: Path) -> None:
    room, answers = bodies.Bodies(total=3 * REPORT_BYTES), list[int]()

    async def take(request: web.Request) -> web.Response:
        try:
            await room.read(request, request.headers["Sender"], REPORT_BYTES)
        except bodies.CrowdedError:
            return web.Response(status=503)
        return web.Response()

    app = web.Application()
    app.router.add_post("/", take)
    server = await serve(app, "127.0.0.1", 0)
    start = f"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\nSender: {{}}\r\n\r\n{'x' * 5}"
    held = [await send(server, start.format(number).encode()) for number in range(3)]
    while len(answers) < 5:  # until the first three are being read
        answers.append(await status(await send(server, start.format("another").encode())))
    for client in held:
        assert client is not None
        client[1].write(b"x" * 5)
    assert [await status(client) for client in held] == [200] * 3
    assert set(answers) == {503}
    await server.cleanup()


async def test_half_headers_from_many_addresses_are_closed_and_keep_nobody_out(tmp_path: Path) -> None:
    limits = Limits(connections=64, per_address=8, header_seconds=3.0)
    before = refused("TooSlow"), refused("ManyConnections")
    async with inbox(tmp_path, [], limits) as server:
        clients = [await send(server, b"POST /v1/progress HTTP/1.1\r\nHost: x\r\nX: ", address(number % 40)) for number in range(400)]
        whole = json.dumps({"version": "4", "alerts": []}).encode()
        assert await status(await send(server, head("/v1/alerts", "secret", len(whole)) + whole, address(0))) == 200
        assert len(server._open) <= 64
        assert set(await asyncio.gather(*map(status, clients))) == {0}, "all are closed"
        await until(lambda: not server._open)
    after = refused("TooSlow"), refused("ManyConnections")
    assert all(now > then for now, then in zip(after, before, strict=True))


async def test_one_address_has_so_many_connections(tmp_path: Path) -> None:
    async with inbox(tmp_path, [], Limits(connections=64, per_address=8, header_seconds=120)) as server:
        stranger = await send(server, b"GET / HTTP/1.1\r\n", address(1))
        clients = [await send(server, b"GET / HTTP/1.1\r\n", address(0)) for _ in range(30)]
        ended = [asyncio.create_task(status(client)) for client in clients]
        done: set[Any] = set()
        while len(done) < 22:
            done, _ = await asyncio.wait(ended, timeout=0.1)
        assert len(server._open) == 9
        assert ended[:22] == [task for task in ended if task in done], "the oldest go first"
        assert stranger is not None
        stranger[1].write(b"Host: x\r\n\r\n")
        assert await status(stranger) == 404


async def test_who_does_not_read_the_answer_is_closed(tmp_path: Path) -> None:
    app = web.Application()

    async def much(_: web.Request) -> web.Response:
        return web.Response(body=b"x" * 2**24)

    app.router.add_get("/", much)
    server = await serve(app, "127.0.0.1", 0, limits=Limits(idle_seconds=1.0))
    client = await send(server, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert client is not None
    await until(lambda: len(server._open) > 0)
    await until(lambda: not server._open)
    client[1].close()
    await server.cleanup()


MALFORMED = [
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 hello of TLS\r\n\r\n",
    b"BREW /pot HTTP/1.1\r\nHost : x\r\n\r\n",
    b"POST /v1/alerts HTTP/9.9\r\n\r\n",
    b"POST /v1/alerts HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
    b"POST /v1/alerts HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"GET /" + b"x" * 20_000 + b" HTTP/1.1\r\n\r\n",
    b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 500 + b"\r\n",
]


async def test_malformed_requests_are_answered_in_one_line_and_leave_no_traceback(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    before = refused("Malformed")
    async with inbox(tmp_path, []) as server:
        for data in MALFORMED * 5:
            client = await send(server, data)
            assert client is not None
            answer = (await client[0].read()).decode()
            client[1].close()
            first, body = answer.partition("\r\n")[0], answer.partition("\r\n\r\n")[2]
            assert first.endswith(" 400 Bad Request"), answer
            assert body.startswith("no valid HTTP/1.1 request: ")
            assert body.count("\n") == 1
        assert refused("Malformed") - before == len(MALFORMED) * 5
        broken = b"POST /v1/alerts HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer secret\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"
        assert await status(await send(server, broken)) == 400
    assert [record for record in caplog.records if record.exc_info or record.name.startswith("aiohttp")] == []


class Slow(Collector):
    """Takes its time, and remembers in which thread."""

    def __init__(self) -> None:
        self.seen: list[bool] = []

    def collect(self) -> Iterator[GaugeMetricFamily]:
        self.seen.append(threading.current_thread() is threading.main_thread())
        time.sleep(0.2)
        yield GaugeMetricFamily("slow", "Of the test.", value=len(self.seen))


async def test_fifty_clients_of_metrics_share_one_rendering_a_second_beside_the_event_loop() -> None:
    slow, registry = Slow(), CollectorRegistry()
    registry.register(slow)
    slow.seen.clear()  # registering has asked it for its names
    server = await serve(metrics(Renderings(registry)), "127.0.0.1", 0, name="metrics", limits=Limits(connections=64, per_address=4))

    async def ask(source: str) -> list[bytes]:
        found = []
        for _ in range(3):
            client = await send(server, b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", source)
            assert client is not None
            found.append((await client[0].read()).rpartition(b"slow ")[2])
            client[1].close()
        return found

    begun = time.monotonic()
    told = await asyncio.gather(*(ask(address(number)) for number in range(50)))
    seconds = time.monotonic() - begun
    await server.cleanup()
    assert sum(map(len, told)) == 150
    assert all(numbers == sorted(set(numbers), key=float) for numbers in told), "nobody is told old figures again"
    assert not any(slow.seen), "none in the thread of the event loop"
    assert (len(slow.seen) - 1) * RENDERING_SECONDS <= seconds, "at most one begins in a second"


async def test_the_kubelet_is_answered_while_the_metrics_port_is_full() -> None:
    dog = Watchdog(60, lambda: True)
    full = await serve(metrics(Renderings()), "127.0.0.1", 0, name="metrics", limits=Limits(connections=8, per_address=4))
    health = await serve(probes(dog), "127.0.0.1", 0, name="health")
    clients = [await send(full, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n", address(number)) for number in range(40)]
    assert await status(await send(health, b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")) == 200
    for client in clients:
        if client:
            client[1].close()
    for server in (full, health):
        await server.cleanup()


async def test_a_process_without_file_descriptors_accepts_again_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("videogen_operator.inbound.listening.PAUSE_SECONDS", 0.2)
    health = await serve(probes(Watchdog(60, lambda: True)), "127.0.0.1", 0, name="health")
    real, failures = health._socket, iter([OSError(24, "Too many open files")] * 2)

    class Exhausted:
        def accept(self) -> tuple[socket.socket, Any]:
            if error := next(failures, None):
                raise error
            return real.accept()

        def fileno(self) -> int:
            return real.fileno()

        def close(self) -> None:
            real.close()

    port = real.getsockname()[1]
    monkeypatch.setattr(health, "_socket", Exhausted())
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
    assert await status((reader, writer)) == 200
    await health.cleanup()


async def test_an_api_server_that_cannot_be_asked_is_not_named_to_whoever_sends_a_token() -> None:
    world = ObjectWorld([PODS])
    world.store(POD)
    async with Cluster(lambda: kopf.ConnectionInfo(server="http://127.0.0.1:1"), (TOKEN_REVIEWS,), world) as nowhere:
        tokens = PodTokens(nowhere, TOKEN_AUDIENCE, time.time)
        box = Inbox(KINDS, Mail(), world, tokens, AlertTokens(), lambda _, __: None)
        server = await serve(box.application(), "127.0.0.1", 0)
        client = await send(server, head("/v1/progress", token(), 2).replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n") + b"{}")
        assert client is not None
        answer = (await client[0].read()).decode()
        client[1].close()
        await server.cleanup()
    assert answer.startswith("HTTP/1.1 503 ")
    said = json.loads(answer.partition("\r\n\r\n")[2])
    assert said == {"result": "Unreviewed", "message": "the token cannot be checked now; send the report again"}
