"""The inbox over its socket: headers that say anything, and bodies of senders who have a token.

Each input is sent to the real server, which must end the connection or answer, log no traceback, and answer a good request after it.
"""

from __future__ import annotations

import asyncio
import json
import logging

from videogen_testing.fuzzing import fuzz, instrumented, scratch

with instrumented(
    "videogen_operator.inbound.inbox", "videogen_operator.inbound.listening", "videogen_operator.inbound.bodies", "aiohttp.web_protocol"
):
    from videogen_testing.loopback_inbox import inbox, token

RAW, REPORT, WEBHOOK = b"\0", b"\1", b"\2"
ANSWER_SECONDS = 60.0  # for a hang alone; the server itself waits no longer than 5 s for a body


class Tracebacks(logging.Handler):
    """Raises what the server logs as an error, where it is found."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.found.append(logging.Formatter().format(record))


def request(data: bytes) -> bytes:
    """What is sent: the input itself, or a good head with the input as its body."""
    kind, rest = data[:1], data[1:]
    if kind not in {REPORT, WEBHOOK}:
        return rest
    path, bearer = ("progress", TOKEN) if kind == REPORT else ("alerts", "secret")
    head = (
        f"POST /v1/{path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {bearer}\r\nConnection: close\r\nContent-Length: {len(rest)}\r\n\r\n"
    )
    return head.encode() + rest


async def exchange(data: bytes, *, more: bool = True) -> bytes:
    """Send, say that nothing `more` comes, and read to the end. The server drops who says so before he is answered."""
    reader, writer = await asyncio.open_connection("127.0.0.1", PORT)
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            writer.write(data)
            if not more:
                writer.write_eof()
            return await reader.read()
    except ConnectionError:
        return b""
    finally:
        writer.close()


async def attack(data: bytes) -> None:
    answer = await exchange(request(data), more=data[:1] in {REPORT, WEBHOOK})
    if data[:1] == WEBHOOK:
        assert answer.startswith((b"HTTP/1.1 200", b"HTTP/1.1 400")), answer
    if data[:1] == REPORT:
        assert answer.startswith((b"HTTP/1.1 200", b"HTTP/1.1 400", b"HTTP/1.1 429")), answer
    assert (await exchange(GOOD)).startswith(b"HTTP/1.1 200"), "a good webhook after it"
    assert not LOGGED.found, LOGGED.found[0]


def one(data: bytes) -> None:
    LOOP.run_until_complete(attack(data))


LOOP, LOGGED, TOKEN = asyncio.new_event_loop(), Tracebacks(), token()
logging.getLogger().addHandler(LOGGED)
BOX = inbox(scratch())  # kept, or the server would end with it
SERVER = LOOP.run_until_complete(BOX.__aenter__())
PORT = SERVER.addresses[0][1]
GOOD = request(WEBHOOK + b'{"version": "4", "alerts": []}')
ALERT = {"status": "firing", "labels": {"alertname": "a", "namespace": "n", "release": "r"}, "startsAt": "2026-11-01T00:00:00Z"}
STATUS = {"progressPercentage": 3, "metrics": [{"name": "loss", "value": "1"}], "lastUpdatedTime": "2026-11-01T00:00:00Z"}
SEEDS = [
    RAW + GOOD,
    RAW + b"POST /v1/progress HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    RAW + b"GET / HTTP/1.0\r\n\r\n",
    WEBHOOK + json.dumps({"version": "4", "alerts": [ALERT, ALERT | {"status": "resolved"}]}).encode(),
    REPORT + json.dumps({"trainerStatus": STATUS}).encode(),
]
WORDS = [
    b"Content-Length: ",
    b"Transfer-Encoding: chunked",
    b"Authorization: Bearer secret",
    b"Expect: 100-continue",
    b"Upgrade: h2c",
    b"\r\n\r\n",
]
fuzz(one, SEEDS, [*WORDS, b'"alerts":', b'"labels":', b'"trainerStatus":', b'"startsAt":'])
