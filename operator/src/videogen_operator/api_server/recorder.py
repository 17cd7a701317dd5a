"""Sends Events beside the passes, one after the other, as client-go's recorder does: no decision waits for an Event. While passes
wait for a place, an Event waits too, for a while: of many runs that are created together the jobs come first.

An Event that is lost with the process is lost; what it said stands in the object's conditions.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import datetime

from videogen_operator.api_server.cluster import ApiError, event_of
from videogen_operator.plan import Manifest, Note

WAITING = 10_000  # Events
STANDS_BACK_SECONDS, LOOKS_SECONDS = 5.0, 0.1
log = logging.getLogger(__name__)


class Recorder:
    """`take` never waits; `run` sends for ever; `close` sends what is left."""

    def __init__(self, send: Callable[[Manifest], Awaitable[None]], clock: Callable[[], datetime]) -> None:
        self._send, self._clock = send, clock
        self._waiting: deque[tuple[Note, datetime, float]] = deque()  # with when it was noted by both clocks
        self._news = asyncio.Event()
        self.is_busy: Callable[[], bool] = lambda: False  # whether passes wait for a place

    def take(self, note: Note) -> None:
        """Log the note, and send it as soon as those before it are sent."""
        metadata = note.object["metadata"]
        log.info("%s %s/%s: %s: %s", note.object["kind"], metadata.get("namespace", ""), metadata["name"], note.reason, note.message)
        if len(self._waiting) == WAITING:
            log.warning("event %s of %s is dropped: %d others wait", note.reason, metadata["name"], WAITING)
            return
        self._waiting.append((replace(note, object=named(note.object)), self._clock(), asyncio.get_running_loop().time()))
        self._news.set()

    async def run(self) -> None:
        """Send for ever."""
        while await self._news.wait():
            while self._waiting:
                await self._stand_back(self._waiting[0][2])
                await self._send_first()
            self._news.clear()

    async def close(self, seconds: float) -> None:
        """Send what waits, for so long at most. Call it when `run` has ended."""
        try:
            async with asyncio.timeout(seconds):
                while self._waiting:
                    await self._send_first()
        except TimeoutError:
            log.warning("%d events were not sent", len(self._waiting))

    async def _stand_back(self, since: float) -> None:
        clock = asyncio.get_running_loop().time
        while self.is_busy() and clock() - since < STANDS_BACK_SECONDS:  # noqa: ASYNC110 - the loops do not say when nothing waits
            await asyncio.sleep(LOOKS_SECONDS)

    async def _send_first(self) -> None:
        """One that was being sent when the task was cancelled stays: its name is the same when it is sent again."""
        note, noted, _ = self._waiting[0]
        try:
            await self._send(event_of(note, noted))
        except ApiError as error:
            level = logging.DEBUG if error.is_of_an_ending_namespace or error.code == 404 else logging.WARNING
            log.log(level, "event %s of %s cannot be recorded: %r", note.reason, note.object["metadata"]["name"], error)
        except Exception as error:  # noqa: BLE001 - whatever it is, an Event must not end the operator
            log.warning("event %s of %s cannot be recorded: %r", note.reason, note.object["metadata"]["name"], error)
        self._waiting.popleft()


def named(item: Manifest) -> Manifest:
    """What an Event says of its object; the rest would keep an old state of it in memory."""
    metadata = {key: item["metadata"][key] for key in ("namespace", "name", "uid") if key in item["metadata"]}
    return {"apiVersion": item["apiVersion"], "kind": item["kind"], "metadata": metadata}
