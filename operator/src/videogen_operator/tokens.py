"""Who a projected service-account token belongs to: TokenReview, remembered until the token ends."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass

from videogen_operator.cluster import Cluster, path_of
from videogen_operator.resources import TOKEN_REVIEWS

POD_NAME, POD_UID = "authentication.kubernetes.io/pod-name", "authentication.kubernetes.io/pod-uid"
LONGEST_SECONDS = 600.0
REFUSED_SECONDS = 10.0
REMEMBERED = 5_000


@dataclass(frozen=True, slots=True)
class Caller:
    """The pod that a token was projected into."""

    namespace: str
    pod: str
    pod_uid: str


class PodTokens:
    """Reviews tokens of one audience. `clock` gives seconds since the epoch, as the tokens' `exp` does."""

    def __init__(self, cluster: Cluster, audience: str, clock: Callable[[], float]) -> None:
        self._cluster, self._audience, self._clock = cluster, audience, clock
        self._known: dict[str, tuple[float, Caller | None]] = {}  # hash of the token -> until when, who

    async def review(self, token: str) -> Caller | None:
        """The caller, or None if the token is not valid for the audience or not bound to a pod. Raises ApiError."""
        if not token or len(token) > 8192:
            return None
        digest, now = hashlib.sha256(token.encode()).hexdigest(), self._clock()
        until, caller = self._known.get(digest, (0.0, None))
        if now < until:
            return caller
        caller = await self._ask(token)
        self._known.pop(digest, None)
        self._known[digest] = (min(now + LONGEST_SECONDS, expiry(token)) if caller else now + REFUSED_SECONDS, caller)
        while len(self._known) > REMEMBERED:
            del self._known[next(iter(self._known))]
        return caller

    async def _ask(self, token: str) -> Caller | None:
        body = {
            "apiVersion": TOKEN_REVIEWS.api_version,
            "kind": TOKEN_REVIEWS.kind,
            "spec": {"token": token, "audiences": [self._audience]},
        }
        status = (await self._cluster.request("POST", path_of(TOKEN_REVIEWS), body=body))["status"]
        user = status.get("user", {})
        pod, uid = (user.get("extra", {}).get(key, [""])[0] for key in (POD_NAME, POD_UID))
        parts = user.get("username", "").split(":")
        valid = status.get("authenticated") and self._audience in status.get("audiences", []) and pod and uid
        return Caller(parts[2], pod, uid) if valid and parts[:2] == ["system", "serviceaccount"] and len(parts) == 4 else None


def expiry(token: str) -> float:
    """`exp` of a JSON web token whose signature the API server has just verified; 0 if there is none."""
    try:
        payload = token.split(".")[1]
        return float(json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))["exp"])
    except (IndexError, KeyError, TypeError, ValueError):
        return 0.0
