"""NetworkPolicies of children: who may open connections to their pods. Pure.

A policy selects pods by labels, so it is made before them; and what selects a pod denies all that no rule allows.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

Peer = Mapping[str, Any]  # a NetworkPolicyPeer (networking.k8s.io/v1)
KIND = "NetworkPolicy"
OPERATOR_PODS = {"app.kubernetes.io/name": "videogen-operator"}


def wanted(settings: Mapping[str, str]) -> bool:
    """Whether children get policies."""
    return settings.get("network_policies") == "true"


def peers(settings: Mapping[str, str], name: str) -> list[Peer]:
    """The peers that an administrator has set under this name."""
    return list(json.loads(settings.get(name) or "[]"))


def operator(settings: Mapping[str, str]) -> Peer:
    """The operator's own pods."""
    namespace = {"kubernetes.io/metadata.name": settings["operator_namespace"]}
    return {"namespaceSelector": {"matchLabels": namespace}, "podSelector": {"matchLabels": OPERATOR_PODS}}


def rule(sources: Iterable[Peer], ports: Iterable[int] = ()) -> tuple[dict[str, Any], ...]:
    """One rule: these sources reach these TCP ports, or all ports if none is given. No rule if there is no source: an empty list
    would admit everybody.
    """
    listed, numbers = list(sources), [{"port": port, "protocol": "TCP"} for port in ports]
    if not listed:
        return ()
    return ({"from": listed} | ({"ports": numbers} if numbers else {}),)


def policy(metadata: Mapping[str, Any], selected: Mapping[str, str], ingress: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """A policy for the pods with these labels. Only connections to them are judged, none that they open. Without rules it denies all."""
    rules = list(ingress)  # the API server leaves an empty list out
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": KIND,
        "metadata": dict(metadata),
        "spec": {"podSelector": {"matchLabels": dict(selected)}, "policyTypes": ["Ingress"]} | ({"ingress": rules} if rules else {}),
    }
