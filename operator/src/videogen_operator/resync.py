"""Complete lists of all watched objects, again and again: they heal missed events and remove ghosts."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Iterable

import aiohttp

from videogen_operator.cluster import ApiError, Cluster
from videogen_operator.plan import Manifest, Resource
from videogen_operator.world import ObjectWorld

log = logging.getLogger(__name__)


class Resync:
    """Lists resources into the world, and tells which objects are new, newer or gone."""

    def __init__(
        self, cluster: Cluster, world: ObjectWorld, resources: Iterable[Resource], namespaces: tuple[str, ...], told: Callable[[Manifest], None]
    ) -> None:
        self._cluster, self._world, self._told = cluster, world, told
        self._places = [
            (resource, namespace) for resource in resources for namespace in (namespaces if resource.namespaced and namespaces else (None,))
        ]

    async def once(self) -> None:
        """List everything. Raises ApiError, aiohttp.ClientError or TimeoutError if something cannot be listed."""
        for resource, namespace in self._places:
            await self._list(resource, namespace)

    async def run(self, seconds: float, listed: Callable[[], None]) -> None:
        """List for ever, sooner again after a failure."""
        while True:
            try:
                await self.once()
            except (ApiError, aiohttp.ClientError, TimeoutError) as error:
                log.warning("listing the watched objects failed: %r", error)
                await asyncio.sleep(min(seconds, 5.0))
                continue
            listed()
            await asyncio.sleep(seconds * (0.9 + 0.2 * random.random()))

    async def _list(self, resource: Resource, namespace: str | None) -> None:
        try:
            items, version = await self._cluster.list(resource, namespace)
        except ApiError as error:
            if not (error.code == 404 and resource.optional):
                raise
            items, version = [], str(2**62)  # its CRD is gone, and with it all objects
        for changed in self._world.replace(resource.kind, namespace, items, version):
            self._told(changed)
