"""HTTP servers that strangers reach: few connections, little time, and the newcomer before him who only waits.

aiohttp limits the size of headers, not their time nor the number of connections, and asyncio counts none before its TLS
handshake. So sockets are accepted here, counted, and given to aiohttp's protocol. A connection that has no complete request
yet may be closed for a newer one: whoever sends a request at once is served, however many others hold half of one.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from videogen_operator.inbound.certificates import Certificate
from videogen_operator.telemetry import HTTP_REFUSED, Closed

ACCEPTS = 128  # in a turn of the event loop, so that a flood leaves room for other work
BACKLOG = 4096  # the kernel drops who comes beyond it, and he tries again after a second only
PAUSE_SECONDS = 0.5  # when the process has no file descriptor left
SWEEP_SECONDS = 0.5
HANDSHAKE_SECONDS = 5.0
FAREWELL_SECONDS = 2.0  # for TLS' closing words
READ_BYTES = 16 * 1024  # of a body that is waiting to be read, for each connection
log = logging.getLogger(__name__)
Handler = Callable[[web.Request], Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What all clients of one port may take. Seconds."""

    connections: int = 256
    per_address: int = 32
    header_seconds: float = 5.0  # from the connection to its first complete header, TLS handshake included
    idle_seconds: float = 60.0  # between requests
    answer_seconds: float = 30.0  # from a complete header to the end of the answer


class _Connection(web.RequestHandler):
    """aiohttp's protocol, which tells when it ends and logs nothing that a client did wrong."""

    __slots__ = ("address", "connecting", "ended", "port", "until")

    def __init__(self, server: web.Server, port: str, address: str, ended: Callable[[_Connection], None]) -> None:
        loop = asyncio.get_running_loop()
        super().__init__(server, loop=loop, lingering_time=1.0, read_bufsize=READ_BYTES, auto_decompress=False)
        self.access_logger, self._logging_enabled = None, False
        self.port, self.address, self.ended = port, address, ended
        self.until = 0.0
        self.connecting: asyncio.Task[None] | None = None

    def connection_lost(self, exc: BaseException | None) -> None:
        """The connection is gone, by whomever."""
        self.ended(self)
        super().connection_lost(exc)

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        """The answer to what is no HTTP, in one line; an error of our own is aiohttp's to log."""
        if status != 400:
            return super().handle_error(request, status, exc, message)
        HTTP_REFUSED.labels(self.port, Closed.MALFORMED).inc()
        words = "".join(letter for letter in (message or "").partition("\n")[0] if letter.isprintable())[:200]
        answer = web.Response(status=400, text=f"no valid HTTP/1.1 request: {words.rstrip(':')}\n")
        answer.force_close()
        return answer


class Listener:
    """Serves one application on one port within limits; `port` names it in metrics."""

    def __init__(self, app: web.Application, port: str, limits: Limits, certificate: Certificate | None = None) -> None:
        self._port, self._limits, self._certificate = port, limits, certificate
        app.middlewares.append(self._watched())
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=5.0)
        self._open: set[_Connection] = set()
        self._waiting: dict[_Connection, None] = {}  # without a complete request so far, the longest first
        self._idle: dict[_Connection, None] = {}  # between requests, the longest first: they go after those who never sent one
        self._addresses: Counter[str] = Counter()
        self._sweeping: asyncio.Task[None] | None = None
        self._resuming: asyncio.TimerHandle | None = None

    @property
    def addresses(self) -> list[tuple[Any, ...]]:
        """Where it listens: host and port first."""
        return [self._socket.getsockname()]

    async def start(self, host: str, port: int) -> None:
        """Listen. Raises OSError if the port is taken."""
        await self._runner.setup()
        self._socket = _listening(host, port)
        asyncio.get_running_loop().add_reader(self._socket, self._accept)
        self._sweeping = asyncio.create_task(self._sweep(), name=f"sweeping {self._port}")

    async def cleanup(self) -> None:
        """Listen no more, give running requests a few seconds, and close every connection."""
        if self._resuming is not None:
            self._resuming.cancel()
        asyncio.get_running_loop().remove_reader(self._socket)
        self._socket.close()
        for connection in [*self._waiting, *self._idle]:
            self._close(connection)
        await self._runner.cleanup()
        for connection in list(self._open):
            self._close(connection)
        if self._sweeping is not None:
            self._sweeping.cancel()
            await asyncio.gather(self._sweeping, return_exceptions=True)

    def _accept(self) -> None:
        for _ in range(ACCEPTS):
            try:
                accepted, address = self._socket.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                log.warning("port %s accepts nothing for %s s: %s", self._port, PAUSE_SECONDS, error)
                loop = asyncio.get_running_loop()
                loop.remove_reader(self._socket)
                self._resuming = loop.call_later(PAUSE_SECONDS, loop.add_reader, self._socket, self._accept)
                return
            accepted.setblocking(False)
            self._admit(accepted, str(address[0]))

    def _admit(self, accepted: socket.socket, address: str) -> None:
        if self._addresses[address] >= self._limits.per_address and not self._make_room(Closed.MANY_OF_ONE_ADDRESS, address):
            return accepted.close()
        if len(self._open) >= self._limits.connections and not self._make_room(Closed.MANY_CONNECTIONS):
            return accepted.close()
        assert self._runner.server is not None
        connection = _Connection(self._runner.server, self._port, address, self._forget)
        connection.until = asyncio.get_running_loop().time() + self._limits.header_seconds
        self._open.add(connection)
        self._waiting[connection] = None
        self._addresses[address] += 1
        connection.connecting = asyncio.create_task(self._connect(connection, accepted))
        connection.connecting.add_done_callback(lambda task: self._connected(task, connection, accepted))
        return None

    def _make_room(self, reason: Closed, address: str = "") -> bool:
        """Close who has waited longest, of this address if one is given; False if all have sent a request."""
        HTTP_REFUSED.labels(self._port, reason).inc()
        found = next((one for one in (*self._waiting, *self._idle) if not address or one.address == address), None)
        if found is not None:
            self._close(found)
        return found is not None

    async def _connect(self, connection: _Connection, accepted: socket.socket) -> None:
        secured: dict[str, Any] = {}
        if self._certificate is not None:
            secured["ssl"] = self._certificate.context()
            secured |= {"ssl_handshake_timeout": HANDSHAKE_SECONDS, "ssl_shutdown_timeout": FAREWELL_SECONDS}
        await asyncio.get_running_loop().connect_accepted_socket(lambda: connection, accepted, **secured)

    def _connected(self, task: asyncio.Task[None], connection: _Connection, accepted: socket.socket) -> None:
        connection.connecting = None
        if task.cancelled() or task.exception() is not None:
            if not task.cancelled():
                HTTP_REFUSED.labels(self._port, Closed.HANDSHAKE).inc()
            self._forget(connection)
            accepted.close()

    def _forget(self, connection: _Connection) -> None:
        if connection in self._open:
            self._open.discard(connection)
            self._waiting.pop(connection, None)
            self._idle.pop(connection, None)
            self._addresses[connection.address] -= 1
            if not self._addresses[connection.address]:
                del self._addresses[connection.address]

    def _close(self, connection: _Connection) -> None:
        """Without a word, and without waiting for the peer."""
        self._forget(connection)
        if connection.connecting is not None:
            connection.connecting.cancel()
        if connection.transport is not None:
            connection.transport.abort()

    def _watched(self) -> Any:
        @web.middleware
        async def watched(request: web.Request, handler: Handler) -> web.StreamResponse:
            connection, loop = request.protocol, asyncio.get_running_loop()
            assert isinstance(connection, _Connection)
            self._waiting.pop(connection, None)
            self._idle.pop(connection, None)
            connection.until = loop.time() + self._limits.answer_seconds
            try:
                answer: web.StreamResponse = await handler(request)
            finally:
                if connection in self._open:
                    self._idle[connection] = None
                    connection.until = loop.time() + self._limits.idle_seconds
            return answer

        return watched

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            now = asyncio.get_running_loop().time()
            for connection in [one for one in self._open if now > one.until]:
                HTTP_REFUSED.labels(self._port, Closed.TOO_SLOW).inc()
                self._close(connection)


async def serve(
    app: web.Application, host: str, port: int, *, name: str = "inbox", limits: Limits | None = None, certificate: Certificate | None = None
) -> Listener:
    """Start serving, over TLS with a certificate; `cleanup` of what is returned ends it. Raises OSError if the port is taken."""
    listener = Listener(app, name, limits or Limits(), certificate)
    await listener.start(host, port)
    return listener


def _listening(host: str, port: int) -> socket.socket:
    """A listening socket; `::` takes IPv4 too."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    both = host == "::" and socket.has_dualstack_ipv6()
    made = socket.create_server((host, port), family=family, backlog=BACKLOG, dualstack_ipv6=both)
    made.setblocking(False)
    return made
