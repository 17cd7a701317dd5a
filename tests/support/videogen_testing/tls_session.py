"""HTTP clients of an API server whose connections are really closed when the client is.

TLS says goodbye and waits for the other side's goodbye. aiohttp waits for that of a connection that is idle or in use, not of one whose
answer was left in the middle, as a watch is. On a busy machine the event loop would end before, and pytest reports the open socket.
"""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

from videogen_testing.patience import HANGS


@asynccontextmanager
async def tls_session(tls: ssl.SSLContext, *args: Any, limit: int = 0, **options: Any) -> AsyncIterator[aiohttp.ClientSession]:
    """A session, `args` and `options` as of aiohttp.ClientSession; `limit`: connections at a time, 0 for any number."""
    opened: list[socket.socket] = []

    def open_socket(address: Any) -> socket.socket:
        family, kind, protocol, *_ = address
        opened[:] = [one for one in opened if one.fileno() >= 0]
        opened.append(made := socket.socket(family, kind, protocol))
        return made

    connector = aiohttp.TCPConnector(ssl=tls, limit=limit, socket_factory=open_socket)
    async with aiohttp.ClientSession(*args, connector=connector, **options) as session:
        yield session
    async with asyncio.timeout(HANGS):
        while any(one.fileno() >= 0 for one in opened):  # noqa: ASYNC110 - nobody is told when a socket closes
            await asyncio.sleep(0.01)
