"""Which loops a changed object wakes, and when.

Changes of nodes and of Gateways are passed on together: each concerns objects of every namespace, whichever it is. They come at once, and
change seldom. One that changes again and again, a node whose kubelet is lost and found each second, is listened to more and more seldom,
and others as before.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from videogen_operator.plan import Key, Kind, Manifest, World
from videogen_operator.telemetry import MALFORMED

REMEMBERED_MALFORMED = 10_000  # objects; one that was forgotten is named again
GATHERED = frozenset({"Node", "Gateway"})
SECONDS = 1.0  # from a change until it is passed on
LONGEST_SECONDS = 30.0
CALM_SECONDS = 120.0  # without a change, after which one is passed on at once again
REMEMBERED = 10_000  # objects
Name = tuple[str, str, str]  # kind, namespace, name
log = logging.getLogger(__name__)


class Concerns:
    """Whose keys a changed object concerns. Of an object of which a kind's plans read a part alone, only changes of that part are news."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._read: dict[tuple[str, Name], tuple[str, object]] = {}  # by the reading kind and the object: UID, and what was read last

    def of(self, kind: Kind[Any], item: Manifest) -> Iterable[Key]:
        """Loops of the kind that would see something new. Raises what reading a malformed object raises."""
        reads = kind.reads.get(item["kind"])
        if reads is None:
            return kind.keys(item, self._world)
        name = (kind.name, _name_of(item))
        now = self._world.get(*name[1])  # a list may tell of a state that a watch has overtaken
        if now is None:
            self._read.pop(name, None)
            return kind.keys(item, self._world)
        part = (str(now["metadata"].get("uid")), reads(now))
        if self._read.get(name) == part:
            return ()
        keys = tuple(kind.keys(now, self._world))  # all of them, before it counts as known
        self._read[name] = part
        return keys


class Waking:
    """Wakes the loops that a changed object concerns. It never raises: an object that some other version of the schema let in must not end
    the listing, a watcher or the pass that came across it.
    """

    def __init__(self, kinds: Iterable[Kind[Any]], world: World, wake: Callable[[Key], None], passing: Callable[[], Key | None]) -> None:
        """`passing`: whose pass it is that makes the change; it knows what it has itself written."""
        self._kinds, self._wake, self._passing = tuple(kinds), wake, passing
        self._concerns = Concerns(world)
        self._named: dict[tuple[str, ...], None] = {}  # malformed objects, in the order in which they were named

    def told(self, item: Manifest) -> None:
        """An object has changed, or is gone."""
        for kind in self._kinds:
            try:
                for key in self._concerns.of(kind, item):
                    if key != self._passing():
                        self._wake(key)
            except (AttributeError, LookupError, TypeError, ValueError) as error:
                MALFORMED.labels(str(item.get("kind"))).inc()
                self._say(kind, item, error)

    def _say(self, kind: Kind[Any], item: Manifest, error: Exception) -> None:
        name = (kind.name, *_name_of(item))
        if name in self._named:
            return
        self._named[name] = None
        if len(self._named) > REMEMBERED_MALFORMED:
            del self._named[next(iter(self._named))]
        text = "%s %s/%s is malformed, or what %ss know beside it; its change is ignored"
        log.error(text, *name[1:], kind.name, exc_info=error)


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
        if kind not in GATHERED:
            self._tell(item)
            return
        name = _name_of(item)
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


def _name_of(item: Manifest) -> Name:
    return str(item.get("kind")), item["metadata"].get("namespace", ""), item["metadata"]["name"]
