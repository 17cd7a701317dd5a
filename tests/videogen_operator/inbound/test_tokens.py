"""What a token says about itself, before anybody is asked: only what a review could confirm costs one."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import kopf
import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from videogen_operator.api_server.cluster import Cluster
from videogen_operator.api_server.world import ObjectWorld
from videogen_operator.inbound.listening import serve
from videogen_operator.inbound.tokens import (
    DOUBTED_SECONDS,
    LEFT_TO_ALL_NEW_TOKENS,
    LEFT_TO_NEW_TOKENS,
    LONGEST_SECONDS,
    LONGEST_TOKEN,
    POD_NAME,
    POD_UID,
    RENEWED_SECONDS,
    REVIEWS_OF_A_NAMESPACE,
    REVIEWS_PER_SECOND,
    BusyError,
    Caller,
    PodTokens,
    claims_of,
    pod_of,
)

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


REVOKED: set[str] = set()  # names of pods


def of_pod(namespace: str, pod: str, salt: str = "", *, genuine: bool = True, life: int = 1_000) -> str:
    bound = {"namespace": namespace, "pod": {"name": pod, "uid": f"uid-of-{namespace}-{pod}"}}
    return token(CLAIMS | {"kubernetes.io": bound, "salt": salt, "genuine": genuine, "exp": NOW + life})


@asynccontextmanager
async def reviewing() -> AsyncIterator[tuple[PodTokens, list[str], Callable[[float], None]]]:
    """Tokens with an API server that says yes to those that call themselves genuine; the namespaces that it was asked about; and
    what moves the time by which reviews are counted.
    """
    at = [100.0]

    def later(seconds: float) -> None:
        at[0] += seconds

    asked: list[str] = []

    async def reviewed(request: web.Request) -> web.Response:
        claims = claims_of((await request.json())["spec"]["token"])
        caller = pod_of(claims)
        assert caller
        asked.append(caller.namespace)
        user = {
            "username": f"system:serviceaccount:{caller.namespace}:default",
            "extra": {POD_NAME: [caller.pod], POD_UID: [caller.pod_uid]},
        }
        return web.json_response(
            {"status": {"authenticated": claims["genuine"] and caller.pod not in REVOKED, "audiences": ["videogen"], "user": user}}
        )

    application = web.Application()
    application.router.add_post("/{path:.*}", reviewed)
    server = await serve(application, "127.0.0.1", 0)
    login = kopf.ConnectionInfo(server=f"http://127.0.0.1:{server.addresses[0][1]}")
    async with Cluster(lambda: login, (), ObjectWorld([])) as cluster:
        yield PodTokens(cluster, "videogen", lambda: NOW + at[0] - 100.0, lambda: at[0]), asked, later
    await server.cleanup()


async def answers(tokens: PodTokens, *sent: str) -> list[str]:
    """What becomes of each: known, refused or busy. All are sent at one time of the loop's clock."""
    found = await asyncio.gather(*(tokens.review(one) for one in sent), return_exceptions=True)
    assert all(one is None or isinstance(one, Caller | BusyError) for one in found), found
    return ["refused" if one is None else "known" if isinstance(one, Caller) else "busy" for one in found]


async def test_one_namespace_takes_a_share_of_the_reviews() -> None:
    async with reviewing() as (tokens, asked, later):
        flood = [of_pod("hostile", f"pod-{number}", genuine=False) for number in range(100)]
        assert (await answers(tokens, *flood)).count("busy") == 100 - REVIEWS_OF_A_NAMESPACE
        assert await answers(tokens, of_pod("models", "run-train-1-worker-0")) == ["known"]
        assert asked == ["hostile"] * REVIEWS_OF_A_NAMESPACE + ["models"]
        later(1.0)
        assert await answers(tokens, of_pod("hostile", "run-train-1-worker-0")) == ["known"]


async def test_all_namespaces_together_ask_only_so_often() -> None:
    async with reviewing() as (tokens, asked, later):
        found = await answers(tokens, *(of_pod(f"tenant-{number}", "pod") for number in range(REVIEWS_PER_SECOND + 1)))
        assert found == ["known"] * REVIEWS_PER_SECOND + ["busy"]
        later(1.0)
        assert await answers(tokens, of_pod("models", "pod")) == ["known"]
        assert len(asked) == REVIEWS_PER_SECOND + 1


async def test_after_a_refused_token_of_a_pod_none_of_its_others_is_reviewed_for_a_while() -> None:
    async with reviewing() as (tokens, asked, later):
        assert await answers(tokens, of_pod("models", "a"), of_pod("models", "b", "forged", genuine=False)) == ["known", "refused"]
        assert await answers(tokens, *(of_pod("models", "b", str(number), genuine=False) for number in range(10))) == ["busy"] * 10
        assert await answers(tokens, of_pod("models", "a"), of_pod("models", "c")) == ["known", "known"]
        later(DOUBTED_SECONDS)
        assert await answers(tokens, of_pod("models", "b")) == ["known"]
        assert len(asked) == 4


async def test_many_live_pods_of_one_namespace_stay_known_when_what_is_known_of_all_ends_at_once() -> None:
    """Each reports every 5 s; all became known within a short time, and none is refused when that ends for all of them."""
    pods = [of_pod("models", f"pod-{number}", life=10**6) for number in range(100)]
    async with reviewing() as (tokens, asked, later):
        while "busy" in await answers(tokens, *pods):
            later(5.0)
        first = len(asked)
        for _ in range(int(LONGEST_SECONDS / 5)):
            later(5.0)
            assert "busy" not in await answers(tokens, *pods)
        assert len(asked) - first <= LONGEST_SECONDS * (REVIEWS_OF_A_NAMESPACE - LEFT_TO_NEW_TOKENS)


async def test_renewals_leave_reviews_to_pods_that_report_for_the_first_time() -> None:
    async with reviewing() as (tokens, asked, later):
        old = [of_pod("models", f"pod-{number}", life=10**6) for number in range(REVIEWS_OF_A_NAMESPACE)]
        assert await answers(tokens, *old) == ["known"] * len(old)
        later(LONGEST_SECONDS - RENEWED_SECONDS + 1)
        assert await answers(tokens, *old, of_pod("models", "new", life=10**6)) == ["known"] * (len(old) + 1)
        assert len(asked) == len(old) + REVIEWS_OF_A_NAMESPACE - LEFT_TO_NEW_TOKENS + 1


async def test_renewals_of_many_namespaces_leave_reviews_to_a_new_one() -> None:
    async with reviewing() as (tokens, asked, later):
        old = [of_pod(f"tenant-{number}", "pod", life=10**6) for number in range(REVIEWS_PER_SECOND)]
        assert await answers(tokens, *old) == ["known"] * len(old)
        later(LONGEST_SECONDS - RENEWED_SECONDS + 1)
        assert await answers(tokens, *old, of_pod("models", "new", life=10**6)) == ["known"] * (len(old) + 1)
        assert len(asked) == len(old) + REVIEWS_PER_SECOND - LEFT_TO_ALL_NEW_TOKENS + 1


async def test_a_token_that_is_no_longer_valid_is_forgotten_when_it_is_reviewed_again() -> None:
    async with reviewing() as (tokens, _, later):
        sent = of_pod("models", "a", life=10**6)
        assert await answers(tokens, sent) == ["known"]
        REVOKED.add("a")
        try:
            later(LONGEST_SECONDS - RENEWED_SECONDS + 1)
            assert await answers(tokens, sent) == ["refused"]
        finally:
            REVOKED.discard("a")
