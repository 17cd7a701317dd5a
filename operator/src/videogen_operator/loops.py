"""One serial, wakeable loop per key with back-off. Knows neither Kubernetes nor what the work is.

A key is idle, queued, running, or waiting for its next time. Waking a running key lets it run once more. At most
`limit` keys run at the same time; urgent ones start at once and are not counted, so that a rollback never queues behind
a thousand runs that a restart has woken. Keys that wait take turns by their share (a namespace): each share waits for one key
of every other, however many keys the others have. A running key may stand back for those that wait, and takes its turn with them.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
log = logging.getLogger(__name__)


class Retry(Exception):
    """The work could not be finished: repeat it after a back-off, at the latest after `within` and never before `least` seconds."""

    def __init__(self, message: str, within: float | None = None, least: float = 0.0) -> None:
        super().__init__(message)
        self.within, self.least = within, least


@dataclass(frozen=True, slots=True)
class BackOff:
    """Seconds before repeat n = 1, 2, ...: doubling from `first` to `longest`, times 1 to 1 + `spread` at random."""

    first: float = 1.0
    longest: float = 60.0
    spread: float = 0.2

    def delay(self, repeats: int, random: float) -> float:
        """`random` is from [0, 1)."""
        return min(self.first * 2.0 ** min(repeats - 1, 30), self.longest) * (1 + self.spread * random)


class Loops(Generic[K]):
    """Runs `work(key)`, which returns the seconds until its next run, or None to wait until it is woken."""

    def __init__(
        self,
        work: Callable[[K], Awaitable[float | None]],
        *,
        limit: int,
        random: Callable[[], float],
        back_off: BackOff | None = None,
        share: Callable[[K], Hashable] = lambda _: "",
    ) -> None:
        """`random` is from [0, 1); keys with equal `share` are first come, first served."""
        self._work, self._limit, self._random, self._back_off = work, limit, random, back_off or BackOff()
        self._share = share
        self._queues: dict[Hashable, deque[K]] = {}  # in the order of their turns; none is empty
        self._queued: set[K] = set()
        self._since: dict[K, float] = {}  # when what waits for a place began to
        self._running: dict[K, asyncio.Task[None]] = {}
        self._urgent: set[K] = set()  # running outside the limit
        self._standing_back: dict[K, asyncio.Future[None]] = {}  # running, but without a place until their turn comes
        self._again: dict[K, bool] = {}  # woken while running -> whether urgently
        self._timers: dict[K, asyncio.TimerHandle] = {}
        self._failures: dict[K, int] = {}
        self._closed = False

    def wake(self, key: K, urgent: bool = False) -> None:
        """Run the key soon; urgently: at once, or as soon as its present run ends."""
        if timer := self._timers.pop(key, None):
            timer.cancel()
        if self._closed:
            return
        if key in self._running:
            self._again[key] = urgent or self._again.get(key, False)
            if urgent and key in self._standing_back:
                self._urgent.add(key)
                self._resume(key)
        elif urgent:
            self._start(key, urgent=True)
        elif key not in self._queued:
            self._queued.add(key)
            self._wait(key)

    async def stand_back(self, key: K) -> None:
        """Of a running key: give its place to the keys that wait now, and return when its turn has come. An urgent key does not wait."""
        if key in self._urgent or not self._queues:
            return
        turn = self._standing_back[key] = asyncio.get_running_loop().create_future()
        self._wait(key)
        try:
            await turn
        finally:
            self._standing_back.pop(key, None)
            self._since.pop(key, None)

    @property
    def depth(self) -> int:
        """Keys that wait for a place."""
        return len(self._since)

    def waiting(self) -> list[tuple[K, float]]:
        """Keys that wait for a place, and for how many seconds."""
        now = asyncio.get_running_loop().time()
        return [(key, now - since) for key, since in self._since.items()]

    async def close(self) -> None:
        """Cancel what runs or waits, and wait for its end."""
        self._closed = True
        for timer in self._timers.values():
            timer.cancel()
        running = list(self._running.values())
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    def _wait(self, key: K) -> None:
        self._since[key] = asyncio.get_running_loop().time()
        self._queues.setdefault(self._share(key), deque()).append(key)
        self._fill()

    def _fill(self) -> None:
        while self._queues and len(self._running) - len(self._urgent) - len(self._standing_back) < self._limit:
            key = self._pop()
            if key in self._standing_back:
                self._resume(key)
            elif key in self._queued:  # else it was started urgently in the meantime
                self._start(key)

    def _resume(self, key: K) -> None:
        turn = self._standing_back.pop(key)
        del self._since[key]
        if not turn.done():  # else its run is being cancelled
            turn.set_result(None)

    def _pop(self) -> K:
        """The first key of the share whose turn it is, which comes last now."""
        share = next(iter(self._queues))
        queue = self._queues.pop(share)
        key = queue.popleft()
        if queue:
            self._queues[share] = queue
        return key

    def _start(self, key: K, urgent: bool = False) -> None:
        self._queued.discard(key)
        self._since.pop(key, None)
        if urgent:
            self._urgent.add(key)
        self._running[key] = asyncio.get_running_loop().create_task(self._run(key), name=f"pass of {key}")

    async def _run(self, key: K) -> None:
        try:
            delay = await self._attempt(key)
        finally:
            del self._running[key]
            self._urgent.discard(key)
        self._schedule(key, delay)
        self._fill()

    async def _attempt(self, key: K) -> float | None:
        try:
            delay = await self._work(key)
        except Retry as error:
            log.warning("%s: %s", key, error)
            repeat = self._failed(key)
            return max(error.least, repeat if error.within is None else min(repeat, error.within))
        except Exception:
            log.exception("%s: unexpected error, will be repeated", key)
            return self._failed(key)
        self._failures.pop(key, None)
        return delay

    def _failed(self, key: K) -> float:
        self._failures[key] = self._failures.get(key, 0) + 1
        return self._back_off.delay(self._failures[key], self._random())

    def _schedule(self, key: K, delay: float | None) -> None:
        if key in self._again:
            self.wake(key, urgent=self._again.pop(key))
        elif delay is not None and not self._closed:
            self._timers[key] = asyncio.get_running_loop().call_later(delay, self._timed_out, key)

    def _timed_out(self, key: K) -> None:
        self._timers.pop(key, None)
        self.wake(key)
