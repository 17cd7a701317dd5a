"""Bearer tokens: anybody may send any text in place of one, before anything is verified."""

from __future__ import annotations

import base64
import json

from videogen_testing.fuzzing import fuzz, instrumented

with instrumented("videogen_operator.inbound.tokens"):
    from videogen_operator.inbound.tokens import LONGEST_TOKEN, Caller, PodTokens

from videogen_operator.api_server.cluster import Cluster
from videogen_operator.api_server.world import ObjectWorld

NOW = 1_800_000_000.0
AUDIENCE = "videogen.pib.gov.in/operator"
TOKENS = PodTokens(Cluster(lambda: None, (), ObjectWorld(())), AUDIENCE, lambda: NOW)  # type: ignore[arg-type, return-value] - asked nothing
BOUND = {"namespace": "models", "pod": {"name": "pod", "uid": "u"}}
CLAIMS = {"aud": [AUDIENCE], "exp": NOW + 60, "kubernetes.io": BOUND}
TEXT, PAYLOAD = b"\0", b"\1"


def token_of(payload: bytes) -> str:
    """A token whose payload is this, whatever it is."""
    parts = (base64.urlsafe_b64encode(part).decode().rstrip("=") for part in (b"{}", payload, b"signature"))
    return ".".join(parts)


def one(data: bytes) -> None:
    token = token_of(data[1:]) if data[:1] == PAYLOAD else data[1:].decode("latin-1")
    caller = TOKENS.claimed(token)
    assert caller is None or isinstance(caller, Caller)
    if caller is not None:
        assert len(token) <= LONGEST_TOKEN
        assert all(isinstance(part, str) and part for part in (caller.namespace, caller.pod, caller.pod_uid))
        hash(caller)


assert TOKENS.claimed(token_of(json.dumps(CLAIMS).encode())) == Caller("models", "pod", "u"), "the seed is a good token"
SEEDS = [
    PAYLOAD + json.dumps(CLAIMS).encode(),
    PAYLOAD + json.dumps(CLAIMS | {"aud": AUDIENCE, "exp": 10**400}).encode(),
    TEXT + token_of(json.dumps(CLAIMS).encode()).encode(),
]
fuzz(one, SEEDS, [b'"aud":', b'"exp":', b'"kubernetes.io":', b'"pod":', b'"uid":', AUDIENCE.encode(), b"NaN", b"Infinity", b"1e999"])
