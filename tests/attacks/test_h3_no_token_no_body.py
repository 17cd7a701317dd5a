"""Who has no token gets an answer and nothing else: no byte of the body is waited for, inflated or decoded."""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import time
from pathlib import Path
from typing import Any

import pytest

from videogen_api.job import TOKEN_AUDIENCE
from videogen_operator.inbound import answers, inbox, reporters
from videogen_operator.inbound.bodies import Bodies
from videogen_operator.inbound.listening import Listener
from videogen_testing import loopback_inbox
from videogen_testing.patience import HANGS

PATHS = ["/v1/progress", "/v1/records", "/v1/alerts"]
OURS = {"/v1/progress": loopback_inbox.token, "/v1/records": loopback_inbox.token, "/v1/alerts": lambda: "secret"}
BOMB = gzip.compress(b" " * 2**24)


def of_another_pod() -> str:
    """A token that says it was made for a pod that does not exist."""
    claims = {
        "aud": [TOKEN_AUDIENCE],
        "exp": time.time() + 3600,
        "kubernetes.io": {"namespace": "models", "pod": {"name": "x", "uid": "y"}},
    }
    parts = (json.dumps(part).encode() for part in ({"alg": "RS256"}, claims, "signature"))
    return ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts)


STRANGERS = {
    "no header": "",
    "no token": "Authorization: Bearer \r\n",
    "a made-up token": "Authorization: Bearer made.up.token\r\n",
    "a password": f"Authorization: Basic {base64.b64encode(b'secret:secret').decode()}\r\n",
    "the token of a pod that is not there": f"Authorization: Bearer {of_another_pod()}\r\n",
}
BODIES = {
    "a body that never ends": (b"Content-Length: 60000\r\n\r\n", b'{"trainerStatus":'),
    "chunks that never end": (b"Transfer-Encoding: chunked\r\n\r\n", b'5\r\n{"tra\r\n'),
    "a gzip bomb": (b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(BOMB), BOMB),
    "nested lists": (b"Content-Length: 60000\r\n\r\n", b"[" * 60_000),
}


@pytest.fixture
def touched(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was done with bodies: each reading and decoding leaves a word here."""
    words: list[str] = []
    read, decode = Bodies.read, answers.json_of

    async def reading(self: Bodies, *what: Any) -> bytes:
        words.append("read")
        return await read(self, *what)

    def decoding(body: bytes) -> Any:
        words.append("decoded")
        return decode(body)

    monkeypatch.setattr(Bodies, "read", reading)
    for module in (inbox, reporters):
        monkeypatch.setattr(module, "json_of", decoding)
    return words


async def status(server: Listener, path: str, authorization: str, rest: tuple[bytes, bytes]) -> int:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.addresses[0][1])
    writer.write(f"POST {path} HTTP/1.1\r\nHost: x\r\n{authorization}".encode() + b"".join(rest))
    try:
        async with asyncio.timeout(HANGS):
            return int((await reader.readline()).split()[1])
    finally:
        writer.close()


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("body", BODIES)
async def test_a_stranger_is_answered_before_anybody_looks_at_the_body(tmp_path: Path, touched: list[str], path: str, body: str) -> None:
    async with loopback_inbox.inbox(tmp_path) as server:
        for who, authorization in STRANGERS.items():
            assert await status(server, path, authorization, BODIES[body]) == 401, who
    assert touched == []


@pytest.mark.parametrize("path", PATHS)
async def test_of_who_has_a_token_it_is_read_and_decoded(tmp_path: Path, touched: list[str], path: str) -> None:
    async with loopback_inbox.inbox(tmp_path) as server:
        own = f"Authorization: Bearer {OURS[path]()}\r\n"
        assert await status(server, path, own, (b"Content-Length: 2\r\n\r\n", b"[}")) == 400
    assert touched == ["read", "decoded"]


@pytest.mark.parametrize("path", PATHS)
async def test_nor_is_it_inflated_for_anybody(tmp_path: Path, path: str) -> None:
    """aiohttp would, into memory, before the size is counted."""
    whole = gzip.compress(b'{"version": "4", "alerts": [], "trainerStatus": {}}')
    rest = (b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(whole), whole)
    async with loopback_inbox.inbox(tmp_path) as server:
        assert await status(server, path, f"Authorization: Bearer {OURS[path]()}\r\n", rest) == 400
