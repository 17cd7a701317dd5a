"""Complete lists of all watched objects, again and again: they heal missed events and remove ghosts."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Iterable
from functools import partial

import aiohttp

from videogen_operator.api_server.cluster import ApiError, Cluster
from videogen_operator.api_server.world import Name, ObjectWorld, name_of
from videogen_operator.loops import BackOff
from videogen_operator.plan import Manifest, Resource
from videogen_operator.telemetry import LIST_AGE, LISTS, Listed

Place = tuple[Resource, str | None]
FIRST_SECONDS, LONGEST_SECONDS = 2.0, 15.0  # before a failed list is begun anew
DOUBT_SECONDS = 1.0  # before a kind that the API server does not serve is asked for again
EXPIRED = 410  # the API server has forgotten the version that the pages of a list are of; it remembers one for 5 minutes
ANEW = 3  # times that one resource's list is begun anew because of that
log = logging.getLogger(__name__)


class Resync:
    """Lists resources into the world, and tells which objects are new, newer or gone.

    It tells so only when all of them have been listed: a decision about a run whose jobs are not known yet would take
    them for deleted. For the same reason an optional resource counts as absent only when discovery denies it too, and does so
    again `doubt` seconds later.
    """

    def __init__(
        self,
        cluster: Cluster,
        world: ObjectWorld,
        places: Iterable[Place],
        told: Callable[[Manifest], None],
        heard: Callable[[], None] = lambda: None,
        doubt: float = DOUBT_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`heard` is called for each page."""
        self._heard, self._doubt = heard, doubt
        self._cluster, self._world, self._told = cluster, world, told
        self._changed: list[Manifest] = []  # not told yet, also when a list has failed in between
        self._absent: frozenset[Place] = frozenset()  # where the last round found no such resource
        self._places = tuple(places)
        self._clock = clock
        self._begun: float | None = None  # a standby lists nothing
        self._listed: dict[Place, float] = {}  # when last
        for plural in {resource.plural for resource, _ in self._places}:
            LIST_AGE.labels(plural).set_function(partial(self._age, plural))

    async def once(self) -> None:
        """List everything. Raises ApiError, aiohttp.ClientError or TimeoutError if something cannot be listed."""
        self._begun = self._clock() if self._begun is None else self._begun
        absent = await self._absent_of(self._places)
        if new := [place for place in absent if place not in self._absent]:
            await asyncio.sleep(self._doubt)
            absent = [place for place in absent if place in self._absent] + await self._absent_of(new)
        self._absent = frozenset(absent)
        for place in absent:
            self._forget(*place)
        changed, self._changed = self._changed, []
        for item in changed:
            self._told(item)

    async def run(self, seconds: float, listed: Callable[[], None], failed: Callable[[], None] = lambda: None) -> None:
        """List for ever, the first time after a period. What has failed is repeated until it has not."""
        while True:
            await asyncio.sleep(seconds * (0.9 + 0.2 * random.random()))
            await self.until_done(failed)
            listed()

    async def until_done(self, failed: Callable[[], None] = lambda: None) -> None:
        """One complete list, begun anew after each failure, not before the API server asks for it."""
        failures, back_off = 0, BackOff(first=FIRST_SECONDS, longest=LONGEST_SECONDS)
        while True:
            try:
                return await self.once()
            except (ApiError, aiohttp.ClientError, TimeoutError) as error:
                log.warning("listing the watched objects failed: %r", error)
                failed()
                failures += 1
                asked = error.retry_after if isinstance(error, ApiError) else None
                await asyncio.sleep(max(back_off.delay(failures, random.random()), asked or 0.0))

    def _age(self, plural: str) -> float:
        """Seconds since the resource was listed, or found absent, where that is longest ago. May be asked by a thread."""
        if self._begun is None:
            return 0.0
        return self._clock() - min(self._listed.get(place, self._begun) for place in self._places if place[0].plural == plural)

    async def _absent_of(self, places: Iterable[Place]) -> list[Place]:
        """Those whose resource the API server does not serve; the others are listed."""
        return [place for place in places if not await self._counted(*place)]

    async def _counted(self, resource: Resource, namespace: str | None) -> bool:
        """One list, as `_list`, and what became of it."""
        result = Listed.FAILED
        try:
            served = await self._list(resource, namespace)
            result = Listed.DONE if served else Listed.ABSENT
        finally:
            LISTS.labels(resource.plural, result).inc()
        self._listed[resource, namespace] = self._clock()
        return served

    async def _list(self, resource: Resource, namespace: str | None) -> bool:
        """Whether the API server serves the resource."""
        for attempt in range(1 + ANEW):
            try:
                await self._list_once(resource, namespace)
            except ApiError as error:
                if error.code == EXPIRED and attempt < ANEW:
                    log.info("the list of %s has taken so long that its version has expired; it is begun anew", resource.plural)
                    continue
                if error.code != 404 or not resource.optional or await self._cluster.serves(resource):
                    raise
                return False
            break
        return True

    async def _list_once(self, resource: Resource, namespace: str | None) -> None:
        """All pages of one list: names of an earlier one that was not finished would keep what has gone since."""
        listed, version = set[Name](), ""
        async for items, version in self._cluster.pages(resource, namespace):  # noqa: B007 - the last page's, for pruning
            self._heard()
            listed |= {name_of(item) for item in items}
            stored = [name_of(item) for item in items if self._world.store(item)]
            self._changed += [one for name in stored if (one := self._world.get(resource.kind, *name))]
        self._changed += self._world.prune(resource.kind, namespace, listed, version)

    def _forget(self, resource: Resource, namespace: str | None) -> None:
        if gone := self._world.forget(resource.kind, namespace):
            log.warning("the API server serves no %s any more; %d objects are forgotten", resource.plural, len(gone))
        self._changed += gone
