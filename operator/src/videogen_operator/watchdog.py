"""Is the operator deaf? Liveness and readiness that fail when it is, and the end of the process when nothing else helps.

kopf runs one task for each watched resource, named `watcher for <resource>@<namespace>`. One that ends is not started
again by every version of kopf; without it changes are seen only by the periodic list. So the process ends, and
Kubernetes starts a new one.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable

from videogen_operator.telemetry import LOOP_LAG, RESYNC_AGE

PERIODS = 3  # without a page for so many periods, or with so many failed lists in a row over that time, the API server cannot be read
TICK_SECONDS = 1.0
WATCHER = "watcher for "
log = logging.getLogger(__name__)


class DeafError(Exception):
    """The operator no longer sees what changes; the process must end."""


class Watchdog:
    """Knows what keeps the operator from seeing or acting. `clock` is monotonic, in seconds."""

    def __init__(
        self,
        resync_seconds: float,
        holds_lease: Callable[[], bool],
        clock: Callable[[], float] = time.monotonic,
        knows_leader: Callable[[], bool] = lambda: False,
    ) -> None:
        """`holds_lease`: this replica leads; `knows_leader`: it has seen lately that another one does."""
        self._resync_seconds, self._holds_lease, self._knows_leader, self._clock = resync_seconds, holds_lease, knows_leader, clock
        self._ticked = clock()
        self._since: float | None = None  # it leads, and so should have listed
        self._listed: float | None = None
        self._heard = clock()  # last page of any list
        self._failed = 0  # lists in a row
        self._watchers: set[str] = set()

    def leads(self) -> None:
        """The Lease was won: from now on lists are due. A standby reads nothing but the Lease."""
        self._since = self._heard = self._clock()

    def heard(self) -> None:
        """A page of a list has come: a list of many objects may take longer than all periods together."""
        self._heard = self._clock()

    def failed(self) -> None:
        """A list was given up, and is begun anew."""
        self._failed += 1

    def listed(self) -> None:
        """All watched objects have been listed."""
        self._listed = self._heard = self._clock()
        self._failed = 0

    def tick(self, task_names: Iterable[str]) -> None:
        """The event loop is alive; these tasks run. Raises DeafError if a watcher is gone or lists fail for too long."""
        now = self._clock()
        LOOP_LAG.set(max(0.0, now - self._ticked - TICK_SECONDS))
        RESYNC_AGE.set(self._age())
        self._ticked = now
        running = {name for name in task_names if name.startswith(WATCHER)}
        if gone := sorted(self._watchers - running):
            raise DeafError(f"{gone[0]} has ended")
        self._watchers = running
        if self.is_stale():
            raise DeafError(f"no complete list of the watched objects for {PERIODS * self._resync_seconds:.0f} s")

    def is_stale(self) -> bool:
        """Whether lists have failed for too long; never of a standby. One that takes long, and goes on, has not."""
        silent = self._clock() - self._heard > PERIODS * self._resync_seconds
        return self._age() > PERIODS * self._resync_seconds and (silent or self._failed >= PERIODS)

    def _age(self) -> float:
        begun = self._since if self._listed is None else self._listed
        return 0.0 if begun is None else self._clock() - begun

    def dead(self) -> str:
        """Why the process should be restarted; empty if it is alive."""
        if self._clock() - self._ticked > 30:
            return "the event loop has stalled"
        return "the watched objects cannot be listed" if self.is_stale() else ""

    def unready(self) -> str:
        """Why it can neither work nor take over; empty if it can. A standby is ready, or rollouts would wait for it for ever."""
        if problem := self.dead():
            return problem
        if self._holds_lease():
            return self.idle()
        return "" if self._knows_leader() else "the Lease is not held, and nobody is known to hold it"

    def idle(self) -> str:
        """Why it does not do the work now; empty if it does."""
        if problem := self.dead():
            return problem
        if not self._holds_lease():
            return "the Lease is not held"
        return "the watched objects have not been listed yet" if self._listed is None else ""

    async def run(self) -> None:
        """Tick for ever; ends with DeafError."""
        while True:
            await asyncio.sleep(TICK_SECONDS)
            self.tick(task.get_name() for task in asyncio.all_tasks())
