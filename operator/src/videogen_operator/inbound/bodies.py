"""Bodies of requests: one of each sender at a time, within some seconds, and only so many bytes of all together."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable

from aiohttp import web

BODY_SECONDS = 5.0
TOTAL_BYTES = 16 * 1024 * 1024


class CrowdedError(Exception):
    """The body cannot be read now; the message says why."""


class Bodies:
    """Reads bodies. `total` bytes may be in memory at the same time, each body counted by the most that it may have."""

    def __init__(self, total: int = TOTAL_BYTES, seconds: float = BODY_SECONDS) -> None:
        self._room, self._seconds = total, seconds
        self._senders: set[Hashable] = set()

    def reads(self, sender: Hashable) -> bool:
        """Whether a body of this sender is being read."""
        return sender in self._senders

    async def read(self, request: web.Request, sender: Hashable, largest: int) -> bytes:
        """The body.

        Raises CrowdedError if another one of this sender is being read or there is no room, ValueError if it does not come in
        time or breaks off, and web.HTTPRequestEntityTooLarge (413) beyond `largest` bytes.
        """
        if sender in self._senders:
            raise CrowdedError("another request with this token is being read")
        if largest > self._room:
            raise CrowdedError("too many others send now")
        self._senders.add(sender)
        self._room -= largest
        try:
            async with asyncio.timeout(self._seconds):
                return await request.clone(client_max_size=largest).read()
        except TimeoutError:
            raise ValueError(f"the whole body within {self._seconds:g} s") from None
        except (ConnectionError, web.RequestPayloadError):
            raise ValueError("a whole body, and it broke off") from None
        finally:
            self._room += largest
            self._senders.discard(sender)
