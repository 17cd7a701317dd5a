"""The NetworkPolicy of one release: viewers reach its server through the gateway alone."""

from __future__ import annotations

from typing import Any

from videogen_api.meta import LABEL_RELEASE
from videogen_operator import network_policies
from videogen_operator.kinds.model_release.objects import PORTS, Settings, metadata
from videogen_operator.kinds.model_release.observed import Release

METRICS = "metrics"


def children(release: Release, others: tuple[dict[str, Any], ...], settings: Settings) -> tuple[dict[str, Any], ...]:
    """The policy and then the other children. These wait until it exists, unless there are pods already, which need it even more."""
    if not network_policies.wanted(settings):
        return others
    first = release.policy is None and release.deployment is None
    return (policy(release, settings), *(() if first else others))


def policy(release: Release, settings: Settings) -> dict[str, Any]:
    """Requests come from the gateway and from servers of the namespace, scrapes from Prometheus; the operator may both."""
    requests = [port for name, port in PORTS.items() if name != METRICS]
    servers = {"podSelector": {"matchExpressions": [{"key": LABEL_RELEASE, "operator": "Exists"}]}}
    ingress = (
        *network_policies.rule([*network_policies.peers(settings, "gateway_peers"), servers], requests),
        *network_policies.rule(network_policies.peers(settings, "monitoring_peers"), [PORTS[METRICS]]),
        *network_policies.rule([network_policies.operator(settings)], PORTS.values()),
    )
    return network_policies.policy(metadata(release), {LABEL_RELEASE: release.name}, ingress)
