"""The inbox's Service leads to the replica that holds the Lease: the leader writes the Service's EndpointSlice itself.

Readiness cannot say it, because a standby that is never ready stops every rollout. The slice goes with the leader's pod.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import aiohttp

from videogen_api.meta import FIELD_MANAGER
from videogen_operator.api_server.cluster import APPLY, ApiError, Cluster, path_of
from videogen_operator.api_server.leadership import NotLeadingError
from videogen_operator.resources import ENDPOINT_SLICES
from videogen_operator.settings import Settings

REPEAT_SECONDS = 30.0  # somebody may have deleted it
RETRY_SECONDS = 1.0
log = logging.getLogger(__name__)


async def point_at_us(cluster: Cluster, settings: Settings) -> None:
    """Keep the Service of `settings.inbox_service` pointed at this replica, for ever; without one do nothing, for ever."""
    name = f"{settings.inbox_service}-leader"
    path, query = path_of(ENDPOINT_SLICES, settings.operator_namespace, name), {"fieldManager": FIELD_MANAGER, "force": "true"}
    while settings.inbox_service and settings.pod_address:
        wait = REPEAT_SECONDS
        try:
            async with asyncio.timeout(cluster.fence()):
                await cluster.request("PATCH", path, body=slice_of(settings), content=APPLY, query=query)
        except (ApiError, aiohttp.ClientError, TimeoutError, NotLeadingError) as error:
            log.warning("EndpointSlice %s cannot be written, so alerts and progress may not reach this replica: %r", name, error)
            wait = RETRY_SECONDS
        await asyncio.sleep(wait)
    await asyncio.Event().wait()


def slice_of(settings: Settings) -> dict[str, Any]:
    """The EndpointSlice (discovery.k8s.io/v1); ports have the names of the Service's."""
    pod = {"kind": "Pod", "name": settings.identity} | ({"uid": settings.pod_uid} if settings.pod_uid else {})
    labels = {
        "kubernetes.io/service-name": settings.inbox_service,
        "endpointslice.kubernetes.io/managed-by": FIELD_MANAGER,
    }
    return {
        "apiVersion": ENDPOINT_SLICES.api_version,
        "kind": ENDPOINT_SLICES.kind,
        "metadata": {
            "name": f"{settings.inbox_service}-leader",
            "namespace": settings.operator_namespace,
            "labels": labels,
            "ownerReferences": [{"apiVersion": "v1"} | pod] if settings.pod_uid else [],
        },
        "addressType": "IPv6" if ":" in settings.pod_address else "IPv4",
        "endpoints": [
            {
                "addresses": [settings.pod_address],
                "conditions": {"ready": True},
                "targetRef": pod | {"namespace": settings.operator_namespace},
            }
        ],
        "ports": [
            {"name": name, "port": port, "protocol": "TCP"}
            for name, port in (("inbox", settings.inbox_port), ("metrics", settings.metrics_port))
        ],
    }
