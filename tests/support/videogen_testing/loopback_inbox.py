"""The operator's inbox alone, on a loopback port, with a small API server that knows every trainer's token."""

import base64
import json
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import kopf
from aiohttp import web

from videogen_api.job import TOKEN_AUDIENCE
from videogen_api.meta import LABEL_RUN
from videogen_operator.api_server.cluster import Cluster
from videogen_operator.api_server.world import ObjectWorld
from videogen_operator.inbound.inbox import AlertTokens, Inbox, Mail
from videogen_operator.inbound.listening import Limits, Listener, serve
from videogen_operator.inbound.sealing import Sealing
from videogen_operator.inbound.tokens import POD_NAME, POD_UID, PodTokens
from videogen_operator.kinds import KINDS
from videogen_operator.plan import Key
from videogen_operator.resources import MODEL_RELEASES, PODS, TOKEN_REVIEWS
from videogen_operator.seals import Seals
from videogen_operator.steady_clock import wall

POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "pod", "namespace": "models", "uid": "uid-of-pod", "resourceVersion": "1", "labels": {LABEL_RUN: "run"}},
}


def token() -> str:
    bound = {"namespace": "models", "pod": {"name": "pod", "uid": "uid-of-pod"}}
    claims = {"aud": [TOKEN_AUDIENCE], "exp": time.time() + 3600, "kubernetes.io": bound}
    parts = (json.dumps(part).encode() for part in ({"alg": "RS256"}, claims, "signature"))
    return ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts)


async def review(_: web.Request) -> web.Response:
    """An API server that knows every token as the pod's."""
    user = {"username": "system:serviceaccount:models:default", "extra": {POD_NAME: ["pod"], POD_UID: ["uid-of-pod"]}}
    return web.json_response({"status": {"authenticated": True, "audiences": [TOKEN_AUDIENCE], "user": user}})


@asynccontextmanager
async def inbox(folder: Path, woken: list[Key] | None = None, limits: Limits | None = None) -> AsyncIterator[Listener]:
    """The real inbox on a free port. A trainer's `token()` and, for alerts, "secret" are its tokens; `woken` gets the keys of reports."""
    heard = [] if woken is None else woken
    (folder / "token").write_text("secret\n")
    world = ObjectWorld([MODEL_RELEASES, PODS])
    world.store(POD)
    reviews = web.Application()
    reviews.router.add_post("/{path:.*}", review)
    async with AsyncExitStack() as stack:
        api = await serve(reviews, "127.0.0.1", 0)
        stack.push_async_callback(api.cleanup)
        login = kopf.ConnectionInfo(server=f"http://127.0.0.1:{api.addresses[0][1]}")
        cluster = await stack.enter_async_context(Cluster(lambda: login, (TOKEN_REVIEWS,), world))
        tokens = PodTokens(cluster, TOKEN_AUDIENCE, time.time)
        sealing = Sealing(KINDS, world, tokens, Seals, wall)
        box = Inbox(KINDS, Mail(), world, tokens, AlertTokens((folder / "token",)), lambda key, _: heard.append(key), sealing=sealing)
        server = await serve(box.application(), "127.0.0.1", 0, limits=limits)
        stack.push_async_callback(server.cleanup)
        yield server
