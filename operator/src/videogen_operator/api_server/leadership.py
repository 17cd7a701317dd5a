"""Leader election on a coordination.k8s.io Lease, with a fence in front of every write.

The rules are client-go's: a replica leads while it renewed the Lease less than `lease_seconds` ago by its own monotonic
clock; another one takes over when it saw no change for that long by its own clock, so clocks need not agree. A process
that was frozen and wakes up finds the fence closed. Our own few lines, because kubernetes.aio.leaderelection compares
wall clocks, writes local time as UTC, ends on a network error and tells nobody whether it still leads.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import aiohttp

from videogen_operator.api_server.cluster import ApiError, Cluster, path_of
from videogen_operator.resources import LEASES
from videogen_operator.telemetry import LEADER, LEASE_TRANSITIONS

MARGIN = 2 / 3  # writes stop, and the process exits, after this share of the lease's duration without a renewal
log = logging.getLogger(__name__)

RETRY_SECONDS = 0.5  # after a renewal that failed: one slow answer must not cost the Lease


class NotLeadingError(Exception):
    """A write was tried without the Lease."""


class Leadership:
    """Acquires and renews one Lease; `check` is the fence."""

    def __init__(
        self, cluster: Cluster, *, namespace: str, name: str, identity: str, seconds: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._cluster, self._identity, self._seconds, self._clock = cluster, identity, seconds, clock
        self._namespace, self._name = namespace, name
        self._renewed = float("-inf")  # when our last renewal was sent
        self._seen: tuple[object, float] = (None, 0.0)  # the Lease's version as another holds it, and since when
        self._looked = float("-inf")  # when the Lease was last seen in another's hand

    def remaining(self) -> float:
        """Seconds for which writes are safe without another renewal; 0 or less: none is."""
        return self._renewed + self._seconds * MARGIN - self._clock()

    def holds(self) -> bool:
        """Whether a write is safe now."""
        return self.remaining() > 0

    def knows_leader(self) -> bool:
        """Whether another replica was seen to hold the Lease not longer ago than the Lease lasts."""
        return self._clock() - self._looked < self._seconds

    def check(self) -> float:
        """Seconds within which a write must have ended. Raises NotLeadingError unless the Lease is held."""
        remaining = self.remaining()
        if remaining <= 0:
            raise NotLeadingError(f"the Lease {self._namespace}/{self._name} is not held by {self._identity}")
        return remaining

    async def acquire(self) -> None:
        """Wait until the Lease is ours."""
        while not await self._try():  # noqa: ASYNC110 - the Lease is another process's to give up
            await asyncio.sleep(min(1.0, self._seconds / 5))
        LEADER.set(1)
        log.info("leading as %s", self._identity)

    async def keep(self) -> None:
        """Renew until that fails for too long; then return, and the process must end."""
        while self.holds():
            renewed = await self._try()
            await asyncio.sleep(self._seconds / 6 if renewed else RETRY_SECONDS)
        LEADER.set(0)

    async def release(self) -> None:
        """Give the Lease up, so that the next replica need not wait for its end."""
        if self.holds():
            self._renewed = float("-inf")
            lease = await self._cluster.request("GET", self._path())
            lease["spec"] |= {"holderIdentity": "", "leaseDurationSeconds": 1}
            await self._cluster.request("PUT", self._path(), body=lease)

    async def _try(self) -> bool:
        started = self._clock()
        try:
            async with asyncio.timeout(self._seconds / 4):
                taken = await self._take()
        except (ApiError, aiohttp.ClientError, TimeoutError) as error:
            log.warning("the Lease %s/%s could not be renewed: %s", self._namespace, self._name, repr(error))
            return False
        if taken:
            self._renewed = started
        return taken

    async def _take(self) -> bool:
        try:
            lease = await self._cluster.request("GET", self._path())
        except ApiError as error:
            if error.code != 404:
                raise
            body = {"apiVersion": LEASES.api_version, "kind": "Lease", "metadata": {"name": self._name}, "spec": self._spec({})}
            await self._cluster.request("POST", path_of(LEASES, self._namespace), body=body)
            return True
        LEASE_TRANSITIONS.set(lease["spec"].get("leaseTransitions", 0))
        if not self._is_free(lease):
            return False
        spec = self._spec(lease["spec"])
        await self._cluster.request("PUT", self._path(), body=lease | {"spec": spec})
        LEASE_TRANSITIONS.set(spec["leaseTransitions"])
        return True

    def _is_free(self, lease: dict[str, Any]) -> bool:
        holder: str = lease["spec"].get("holderIdentity", "")
        if not holder or holder == self._identity:
            return True
        self._looked = self._clock()
        version = lease["metadata"]["resourceVersion"]
        if self._seen[0] != version:
            self._seen = (version, self._clock())
        return self._clock() - self._seen[1] > float(lease["spec"].get("leaseDurationSeconds", self._seconds))

    def _spec(self, old: dict[str, Any]) -> dict[str, Any]:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        kept = old.get("holderIdentity") == self._identity
        return {
            "holderIdentity": self._identity,
            "leaseDurationSeconds": self._seconds,
            "renewTime": now,
            "acquireTime": old.get("acquireTime", now) if kept else now,
            "leaseTransitions": old.get("leaseTransitions", 0) + (0 if kept else 1),
        }

    def _path(self) -> str:
        return path_of(LEASES, self._namespace, self._name)
