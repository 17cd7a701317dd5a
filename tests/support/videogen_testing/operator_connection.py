"""The operator's own connection to the API server, for tests of what it writes."""

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import kopf

from videogen_operator.api_server.cluster import Cluster
from videogen_operator.api_server.world import ObjectWorld
from videogen_operator.kinds import KINDS
from videogen_operator.main import WRITTEN, merged
from videogen_testing.chart_rights import operator_kubeconfig
from videogen_testing.control_plane import ControlPlane
from videogen_testing.fault_proxy import FaultProxy

WATCHED = merged(resource for kind in KINDS for resource in kind.resources)


@asynccontextmanager
async def connected(plane: ControlPlane, namespace: str) -> AsyncIterator[tuple[FaultProxy, Cluster]]:
    """The operator's own connection, with the chart's rights, through a proxy with faults."""
    async with AsyncExitStack() as stack:
        proxy = await stack.enter_async_context(FaultProxy(plane).serving())
        user = json.loads(operator_kubeconfig(plane, namespace, proxy.url).read_text())["users"][0]["user"]
        login = kopf.ConnectionInfo(server=proxy.url, scheme="Bearer", token=user["token"])
        yield proxy, await stack.enter_async_context(Cluster(lambda: login, (*WATCHED, *WRITTEN), ObjectWorld(WATCHED)))
