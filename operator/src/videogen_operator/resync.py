"""Complete lists of all watched objects, again and again: they heal missed events and remove ghosts."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Iterable

import aiohttp

from videogen_operator.cluster import ApiError, Cluster
from videogen_operator.plan import Manifest, Resource
from videogen_operator.world import Name, ObjectWorld, name_of

log = logging.getLogger(__name__)


class Resync:
    """Lists resources into the world, and tells which objects are new, newer or gone.

    It tells so only when all of them have been listed: a decision about a run whose jobs are not known yet would take
    them for deleted.
    """

    def __init__(
        self,
        cluster: Cluster,
        world: ObjectWorld,
        resources: Iterable[Resource],
        namespaces: tuple[str, ...],
        told: Callable[[Manifest], None],
    ) -> None:
        self._cluster, self._world, self._told = cluster, world, told
        self._changed: list[Manifest] = []  # not told yet, also when a list has failed in between
        self._places = [
            (resource, namespace) for resource in resources for namespace in (namespaces if resource.namespaced and namespaces else (None,))
        ]

    async def once(self) -> None:
        """List everything. Raises ApiError, aiohttp.ClientError or TimeoutError if something cannot be listed."""
        for resource, namespace in self._places:
            await self._list(resource, namespace)
        changed, self._changed = self._changed, []
        for item in changed:
            self._told(item)

    async def run(self, seconds: float, listed: Callable[[], None]) -> None:
        """List for ever, the first time after a period; sooner again after a failure."""
        wait = seconds
        while True:
            await asyncio.sleep(wait * (0.9 + 0.2 * random.random()))
            try:
                await self.once()
            except (ApiError, aiohttp.ClientError, TimeoutError) as error:
                log.warning("listing the watched objects failed: %r", error)
                wait = min(seconds, 5.0)
            else:
                listed()
                wait = seconds

    async def _list(self, resource: Resource, namespace: str | None) -> None:
        listed: set[Name] = set()
        version = str(2**62)  # if its CRD is gone, all objects are
        try:
            async for items, version in self._cluster.pages(resource, namespace):  # noqa: B007 - the last page's, for pruning
                listed |= {name_of(item) for item in items}
                stored = [name_of(item) for item in items if self._world.store(item)]
                self._changed += [one for name in stored if (one := self._world.get(resource.kind, *name))]
        except ApiError as error:
            if not (error.code == 404 and resource.optional):
                raise
        self._changed += self._world.prune(resource.kind, namespace, listed, version)
