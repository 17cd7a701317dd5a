"""Changes of nodes and of Gateways are passed on together: each concerns objects of every namespace, whichever it is.

They come at once, and change seldom. One that changes again and again, a node whose kubelet is lost and found each second, is listened to
more and more seldom, and others as before.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from videogen_operator.plan import Manifest

KINDS = frozenset({"Node", "Gateway"})
SECONDS = 1.0  # from a change until it is passed on
LONGEST_SECONDS = 30.0
CALM_SECONDS = 120.0  # without a change, after which one is passed on at once again
REMEMBERED = 10_000  # objects
Name = tuple[str, str, str]  # kind, namespace, name


@dataclass(slots=True)
class Restless:
    """How an object has changed lately."""

    told: float = float("-inf")
    wait: float = SECONDS  # before its next change is passed on


class Gathering:
    """Passes changes on to `tell`: of nodes and of Gateways one for all that have changed, since each wakes the same loops."""

    def __init__(self, tell: Callable[[Manifest], None]) -> None:
        self._tell = tell
        self._known: dict[Name, Restless] = {}  # the one passed on last comes last
        self._due: dict[Name, tuple[float, Manifest]] = {}
        self._ticking: set[str] = set()  # kinds

    def told(self, item: Manifest) -> None:
        """An object has changed."""
        kind = str(item.get("kind"))
        if kind not in KINDS:
            self._tell(item)
            return
        name = (kind, item["metadata"].get("namespace", ""), item["metadata"]["name"])
        now = asyncio.get_running_loop().time()
        since, _ = self._due.get(name, (now, item))
        self._due[name] = since, item
        if kind not in self._ticking:
            self._ticking.add(kind)
            self._tick_later(kind)

    def _tick_later(self, kind: str) -> None:
        asyncio.get_running_loop().call_later(SECONDS, self._tick, kind)

    def _tick(self, kind: str) -> None:
        """Once a second, as long as something waits."""
        now = asyncio.get_running_loop().time()
        ready = [name for name, (since, _) in self._due.items() if name[0] == kind and self._is_ready(name, since, now)]
        items = [self._due.pop(name)[1] for name in ready]
        for name in ready:
            self._remember(name, now)
        if any(name[0] == kind for name in self._due):
            self._tick_later(kind)
        else:
            self._ticking.discard(kind)
        if items:
            self._tell(items[-1])

    def _is_ready(self, name: Name, since: float, now: float) -> bool:
        known = self._known.get(name)
        return known is None or since - known.told > CALM_SECONDS or now - known.told >= known.wait

    def _remember(self, name: Name, now: float) -> None:
        known = self._known.pop(name, Restless())
        calm = now - known.told > CALM_SECONDS
        self._known[name] = Restless(now, SECONDS * 2 if calm else min(2 * known.wait, LONGEST_SECONDS))
        while len(self._known) > REMEMBERED:
            del self._known[next(iter(self._known))]
