"""Pods that say something of their work: who they are, by their projected tokens, and one body at a time, not too often."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import aiohttp
from aiohttp import web

from videogen_operator.api_server.cluster import ApiError
from videogen_operator.api_server.world import ObjectWorld
from videogen_operator.inbound.answers import bearer, json_of
from videogen_operator.inbound.bodies import Bodies, CrowdedError
from videogen_operator.inbound.tokens import BusyError, Caller, PodTokens
from videogen_operator.plan import Key, Kind, Manifest
from videogen_operator.telemetry import Received

REMEMBERED = 10_000  # pods of which it is known when they reported last
log = logging.getLogger(__name__)


class RefusedError(Exception):
    """The request is answered with this result, HTTP status and message."""

    def __init__(self, result: Received, status: int, message: str) -> None:
        super().__init__(message)
        self.result, self.status, self.message = result, status, message


@dataclass(frozen=True, slots=True)
class Reporter:
    """A pod that exists now, and whom it reports to."""

    pod: Manifest
    kind: Kind[Any]
    key: Key

    @property
    def uid(self) -> str:
        """The pod's UID."""
        return str(self.pod["metadata"]["uid"])


class Reporters:
    """Reads what pods post, `largest` bytes at most, from each at most once in `seconds`."""

    def __init__(self, kinds: Iterable[Kind[Any]], world: ObjectWorld, tokens: PodTokens, *, seconds: float, largest: int) -> None:
        self._kinds, self._world, self._tokens = tuple(kinds), world, tokens
        self._seconds, self._largest = seconds, largest
        self._bodies = Bodies()
        self._reported: dict[str, float] = {}  # by the pod's UID: when a report of it was accepted last

    async def read(self, request: web.Request) -> tuple[Reporter, Any]:
        """Who posts, and the body's JSON. Raises RefusedError; ValueError if the body is none."""
        reporter = await self._reporter(bearer(request))
        often = time.monotonic() - self._reported.get(reporter.uid, float("-inf")) < self._seconds
        if often or self._bodies.reads(reporter.uid):
            raise RefusedError(Received.TOO_OFTEN, 429, f"report at most every {self._seconds} s, one at a time")
        try:
            return reporter, json_of(await self._bodies.read(request, reporter.uid, self._largest))
        except CrowdedError as error:
            raise RefusedError(Received.CROWDED, 503, f"send it again: {error}") from error
        except web.HTTPRequestEntityTooLarge:
            raise RefusedError(Received.TOO_LARGE, 413, f"a report has at most {self._largest} bytes") from None

    def accepted(self, reporter: Reporter) -> None:
        """From now on its next report is counted as too soon for a while."""
        self._reported.pop(reporter.uid, None)
        self._reported[reporter.uid] = time.monotonic()
        while len(self._reported) > REMEMBERED:
            del self._reported[next(iter(self._reported))]

    async def _reporter(self, token: str) -> Reporter:
        try:
            # A token that does not even claim to be a living reporter's costs no review.
            caller = await self._tokens.review(token) if self._known(self._tokens.claimed(token)) else None
        except BusyError as error:
            raise RefusedError(Received.UNREVIEWED, 503, f"the token cannot be checked now: {error}") from error
        except (ApiError, aiohttp.ClientError, TimeoutError) as error:
            log.warning("the token of a trainer's pod cannot be checked: %r", error)  # not for strangers: it names our API server
            raise RefusedError(Received.UNREVIEWED, 503, "the token cannot be checked now; send the report again") from error
        if (known := self._known(caller)) is None:
            raise RefusedError(Received.UNAUTHORIZED, 401, "the token is not that of a trainer's pod")
        return known

    def _known(self, caller: Caller | None) -> Reporter | None:
        """The pod that exists now and is the caller, not a namesake; None if it is no reporter of any kind."""
        pod = self._world.get("Pod", caller.namespace, caller.pod) if caller else None
        if caller is None or pod is None or pod["metadata"].get("uid") != caller.pod_uid:
            return None
        return next((Reporter(pod, kind, key) for kind in self._kinds if (key := kind.reporter(pod))), None)
