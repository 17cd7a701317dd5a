"""What a token says about itself, before anybody is asked: only what a review could confirm costs one."""

import base64
import json
from typing import Any

import kopf
import pytest
from hypothesis import given
from hypothesis import strategies as st

from videogen_operator.api_server.cluster import Cluster
from videogen_operator.api_server.world import ObjectWorld
from videogen_operator.inbound.tokens import LONGEST_TOKEN, Caller, PodTokens

NOW = 1_000.0
BOUND = {"namespace": "models", "pod": {"name": "run-train-1-worker-0", "uid": "u1"}}
CLAIMS = {"aud": ["videogen"], "exp": 2_000, "kubernetes.io": BOUND}
CALLER = Caller("models", "run-train-1-worker-0", "u1")


@pytest.fixture(scope="module")
def tokens() -> PodTokens:
    nowhere = Cluster(lambda: kopf.ConnectionInfo(server="http://127.0.0.1:1"), (), ObjectWorld([]))
    return PodTokens(nowhere, "videogen", lambda: NOW)


def token(claims: object) -> str:
    return f"{_part({'alg': 'RS256'})}.{_part(claims)}.signature"


def _part(content: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(content).encode()).decode().rstrip("=")


@pytest.mark.parametrize("audience", [["videogen"], "videogen", ["other", "videogen"]])
def test_a_token_says_which_pod_it_was_made_for(tokens: PodTokens, audience: object) -> None:
    assert tokens.claimed(token(CLAIMS | {"aud": audience})) == CALLER


NO_CLAIMS: dict[str, Any] = {
    "nothing": "",
    "a word": "secret",
    "two parts": token(CLAIMS).rpartition(".")[0],
    "four parts": token(CLAIMS) + ".more",
    "no signature": token(CLAIMS).removesuffix("signature"),
    "another audience": token(CLAIMS | {"aud": ["https://kubernetes.default.svc"]}),
    "no audience": token({key: value for key, value in CLAIMS.items() if key != "aud"}),
    "one that has ended": token(CLAIMS | {"exp": 999}),
    "no end": token(CLAIMS | {"exp": None}),
    "no pod": token(CLAIMS | {"kubernetes.io": {"namespace": "models", "serviceaccount": {"name": "default"}}}),
    "a pod that is a list": token(CLAIMS | {"kubernetes.io": BOUND | {"pod": ["a", "b"]}}),
    "a UID that is a number": token(CLAIMS | {"kubernetes.io": BOUND | {"pod": {"name": "a", "uid": 7}}}),
    "claims that are a list": token([CLAIMS]),
    "nested claims": "a." + base64.urlsafe_b64encode(b"[" * 5000).decode().rstrip("=") + ".b",
    "too long": token(CLAIMS | {"padding": "x" * LONGEST_TOKEN}),
}


@pytest.mark.parametrize("text", NO_CLAIMS.values(), ids=NO_CLAIMS.keys())
async def test_no_review_is_asked_for(tokens: PodTokens, text: str) -> None:
    assert tokens.claimed(text) is None
    assert await tokens.review(text) is None, "an error would tell that it asked the API server, which is not there"


def test_an_end_that_no_float_can_hold_is_an_end(tokens: PodTokens) -> None:
    assert tokens.claimed(token(CLAIMS | {"exp": 10**400})) == CALLER


@given(st.text() | st.lists(st.text(), min_size=3, max_size=3).map(".".join) | st.recursive(st.none() | st.text(), st.lists).map(token))
def test_whatever_is_sent_is_no_error(tokens: PodTokens, text: str) -> None:
    assert tokens.claimed(text) is None
