"""The clients of these tests leave no connection open, however slow the other side is: pytest would report it in whatever test comes next."""

import asyncio
import gc
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from videogen_testing.control_plane import TOKEN, ControlPlane
from videogen_testing.tls_session import tls_session

SLOW = 0.3  # seconds that each piece of an answer is under way


@asynccontextmanager
async def slow_way_to(port: int) -> AsyncIterator[int]:
    """A port that leads to another one, and back slowly."""

    async def copy(source: asyncio.StreamReader, target: asyncio.StreamWriter, delay: float) -> None:
        with suppress(OSError):
            while data := await source.read(65536):
                await asyncio.sleep(delay)
                target.write(data)
                await target.drain()
        target.close()
        with suppress(OSError):
            await target.wait_closed()

    connections: set[asyncio.Future[Any]] = set()

    async def connect(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", port)
        connections.add(task := asyncio.gather(copy(source, back, 0.0), copy(there, target, SLOW)))
        await task

    server = await asyncio.start_server(connect, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await asyncio.gather(*connections, return_exceptions=True)


def open_to(port: int) -> list[socket.socket]:
    """Sockets of this process that are connected to a port."""
    # By type(), because some proxies warn when they are asked for their class.
    found = [one for one in gc.get_objects() if issubclass(type(one), socket.socket) and one.fileno() >= 0]
    peers = {}
    for one in found:
        with suppress(OSError):
            peers[one] = one.getpeername()
    return [one for one, peer in peers.items() if peer[1:2] == (port,)]


async def test_a_watch_that_is_left_in_the_middle_is_closed_with_its_client(plane: ControlPlane) -> None:
    tls = ssl.create_default_context(cafile=str(plane.ca))
    headers = {"Authorization": f"Bearer {TOKEN}"}
    async with slow_way_to(plane.port) as port:
        url = f"https://127.0.0.1:{port}"
        async with tls_session(tls, url, headers=headers) as session, session.get("/api/v1/namespaces", params={"watch": "1"}) as answer:
            assert await answer.content.readline()
            assert open_to(port)
        assert open_to(port) == []
