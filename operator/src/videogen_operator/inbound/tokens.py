"""Who a projected service-account token belongs to: TokenReview, remembered until the token ends.

Anybody who reaches the inbox may send tokens, and each review costs the API server a signature. So a token is reviewed
only if it says that it was made for a pod and for our audience, and not more than so many in a second: of one namespace a
share, so that who sends forged ones in the name of one pod does not keep other tenants' trainers waiting.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import aiohttp

from videogen_operator.api_server.cluster import ApiError, Cluster, path_of
from videogen_operator.resources import TOKEN_REVIEWS

POD_NAME, POD_UID = "authentication.kubernetes.io/pod-name", "authentication.kubernetes.io/pod-uid"
LONGEST_TOKEN = 8192  # characters
LONGEST_SECONDS = 600.0
RENEWED_SECONDS = 400.0  # before that end it is reviewed again, if there is room: so a thousand that became known together stay known
REFUSED_SECONDS = 10.0
REMEMBERED = 5_000
REVIEWS_AT_ONCE = 8
REVIEWS_PER_SECOND = 20  # four namespaces' worth; pods that report for the first time are soon all known
REVIEWS_OF_A_NAMESPACE = 5  # of those
LEFT_TO_NEW_TOKENS = 2  # of the reviews of a namespace: renewals wait, a pod that reports for the first time does not
LEFT_TO_ALL_NEW_TOKENS = 8  # the same, of all
DOUBTED_SECONDS = 1.0  # after a refused token of a pod none of its others is reviewed
REVIEW_SECONDS = 5.0


class BusyError(Exception):
    """More tokens are to be reviewed than the API server shall be asked about."""


@dataclass(frozen=True, slots=True)
class Caller:
    """The pod that a token was projected into."""

    namespace: str
    pod: str
    pod_uid: str


class PodTokens:
    """Reviews tokens of one audience. `clock` gives seconds since the epoch, as the tokens' `exp` does; reviews are counted by `steady`."""

    def __init__(self, cluster: Cluster, audience: str, clock: Callable[[], float], steady: Callable[[], float] = time.monotonic) -> None:
        self._cluster, self._audience, self._clock, self._steady = cluster, audience, clock, steady
        self._known: dict[str, tuple[float, Caller]] = {}  # hash of the token -> until when, who
        self._refused: dict[str, float] = {}  # hash of the token -> until when; apart, so that a flood displaces nobody
        self._places = asyncio.Semaphore(REVIEWS_AT_ONCE)
        self._asked: deque[tuple[float, str]] = deque(maxlen=REVIEWS_PER_SECOND)  # when, and in which namespace's name
        self._doubted: dict[str, float] = {}  # UID of the pod that a refused token claimed -> until when

    def claimed(self, token: str) -> Caller | None:
        """The pod that the token says it was made for, unverified; None if a review could not say yes."""
        claims = claims_of(token)
        audiences = claims.get("aud")
        for_us = self._audience in audiences if isinstance(audiences, list) else audiences == self._audience
        return pod_of(claims) if for_us and expiry(claims) > self._clock() else None

    async def review(self, token: str) -> Caller | None:
        """The caller, or None if the token is not valid for the audience or not bound to a pod.

        Raises BusyError, ApiError, aiohttp.ClientError or TimeoutError if it cannot be known now.
        """
        claimed = self.claimed(token)
        if claimed is None:
            return None
        digest, now = hashlib.sha256(token.encode()).hexdigest(), self._clock()
        until, known = self._known.get(digest, (0.0, None))
        if known is not None and now < until - RENEWED_SECONDS:
            return known
        if now < self._refused.get(digest, 0.0):
            return None
        try:
            self._count(claimed, renews=known is not None)
            caller = await self._ask(token)
        except (BusyError, ApiError, aiohttp.ClientError, TimeoutError):
            if known is not None and now < until:
                return known  # the next report asks again
            raise
        if caller is None:
            self._known.pop(digest, None)
            _remember(self._refused, digest, now + REFUSED_SECONDS)
            _remember(self._doubted, claimed.pod_uid, self._steady() + DOUBTED_SECONDS)
        else:
            _remember(self._known, digest, (min(now + LONGEST_SECONDS, expiry(claims_of(token))), caller))
        return caller

    async def _ask(self, token: str) -> Caller | None:
        body = {
            "apiVersion": TOKEN_REVIEWS.api_version,
            "kind": TOKEN_REVIEWS.kind,
            "spec": {"token": token, "audiences": [self._audience]},
        }
        async with asyncio.timeout(REVIEW_SECONDS), self._places:
            status = (await self._cluster.request("POST", path_of(TOKEN_REVIEWS), body=body))["status"]
        user = status.get("user", {})
        pod, uid = (user.get("extra", {}).get(key, [""])[0] for key in (POD_NAME, POD_UID))
        parts = user.get("username", "").split(":")
        valid = status.get("authenticated") and self._audience in status.get("audiences", []) and pod and uid
        return Caller(parts[2], pod, uid) if valid and parts[:2] == ["system", "serviceaccount"] and len(parts) == 4 else None

    def _count(self, claimed: Caller, *, renews: bool) -> None:
        """Count a review; a renewal leaves some to new tokens. Raises BusyError if it has to wait."""
        now = self._steady()
        if now < self._doubted.get(claimed.pod_uid, 0.0):
            raise BusyError("another token of this pod was refused a moment ago")
        recent = [namespace for at, namespace in self._asked if now - at < 1.0]
        most = REVIEWS_PER_SECOND - (LEFT_TO_ALL_NEW_TOKENS if renews else 0)
        if len(recent) >= most:
            raise BusyError(f"more than {most} tokens to review in a second")
        most = REVIEWS_OF_A_NAMESPACE - (LEFT_TO_NEW_TOKENS if renews else 0)
        if recent.count(claimed.namespace) >= most:
            raise BusyError(f"more than {most} tokens of this namespace to review in a second")
        self._asked.append((now, claimed.namespace))


def claims_of(token: str) -> dict[str, Any]:
    """The payload of a JSON web token (RFC 7519), unverified; empty if it is none."""
    try:
        _, payload, signature = token[: LONGEST_TOKEN + 1].split(".")
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    except (ValueError, RecursionError):
        return {}
    return claims if isinstance(claims, dict) and signature and len(token) <= LONGEST_TOKEN else {}


def pod_of(claims: dict[str, Any]) -> Caller | None:
    """The pod in the private claims of a bound service-account token (Kubernetes, "Managing Service Accounts"), or None."""
    try:
        bound = claims["kubernetes.io"]
        parts: tuple[Any, ...] = bound["namespace"], bound["pod"]["name"], bound["pod"]["uid"]
    except (KeyError, TypeError):
        return None
    return Caller(*parts) if all(isinstance(part, str) and part for part in parts) else None


def expiry(claims: dict[str, Any]) -> float:
    """`exp` in seconds since the epoch; 0 if there is none."""
    found = claims.get("exp")
    return found if isinstance(found, int | float) else 0.0  # not as a float, which cannot hold each number of JSON


def _remember(entries: dict[str, Any], key: str, entry: object) -> None:
    """Put the newest last; the oldest are forgotten."""
    entries.pop(key, None)
    entries[key] = entry
    while len(entries) > REMEMBERED:
        del entries[next(iter(entries))]
