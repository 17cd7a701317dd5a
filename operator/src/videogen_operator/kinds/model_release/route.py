"""The service's one HTTPRoute, its sticky policy, and what the gateway says about them.

Every backend carries a filter that sets the header `x-videogen-release`. It names the release for logs and clients, and
it makes Envoy Gateway render weighted clusters, without which a consistent hash does not choose the side. A request
without the hashed header gets a random side by weight (Envoy falls back to the stream's random number), so the policy
costs nothing to those who do not send it. No session persistence: it keeps users on a release whose weight is 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from videogen_api.meta import LABEL_SERVICE
from videogen_operator.kinds.model_release.objects import PORTS, Settings, owner
from videogen_operator.kinds.model_release.observed import Observed, Release
from videogen_operator.kinds.model_release.quarantine import ANNOTATION, Entry, wire
from videogen_operator.kinds.model_release.states import WARM
from videogen_operator.names import MANAGED_BY, release_child_name
from videogen_operator.plan import Failure, Manifest

HEADER = "x-videogen-release"
USER_HEADER = "x-user-id"
GRPC_PREFIX = "/inference.GRPCInferenceService"  # KServe v2, by which gRPC shares the hostname with HTTP
ANSWER_SECONDS = 5  # more than the server's own time-out, so that the server's answer says what was wrong


def backends(releases: Iterable[Release], weights: Mapping[str, int]) -> tuple[tuple[Release, int], ...]:
    """Releases in the route: those with a Service whose pods shall run, by name, with their weights."""
    listed = [r for r in releases if r.name in weights or (r.rollout.state in WARM and r.service)]
    return tuple((release, weights.get(release.name, 0)) for release in sorted(listed, key=lambda r: r.name))


def route(observed: Observed, split: Sequence[tuple[Release, int]], quarantine: Iterable[Entry], settings: Settings) -> dict[str, Any]:
    """The HTTPRoute, named after the service and owned by all of its releases."""
    timeout = max((release.spec.serving.timeout_seconds for release, _ in split), default=60) + ANSWER_SECONDS
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": _metadata(observed) | {"annotations": {ANNOTATION: wire(quarantine)}},
        "spec": {
            "parentRefs": [parent(settings)],
            "hostnames": [hostname(observed, settings)],
            "rules": [_rule(GRPC_PREFIX, "grpc", split, timeout), _rule("/", "http", split, timeout)],
        },
    }


def sticky_policy(observed: Observed) -> dict[str, Any]:
    """Envoy Gateway: a user stays on a side, and generations, which are neither cheap nor idempotent, are not repeated."""
    return {
        "apiVersion": "gateway.envoyproxy.io/v1alpha1",
        "kind": "BackendTrafficPolicy",
        "metadata": _metadata(observed),
        "spec": {
            "targetRefs": [{"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "name": observed.service}],
            "loadBalancer": {"type": "ConsistentHash", "consistentHash": {"type": "Header", "header": {"name": USER_HEADER}}},
            "retry": {"numRetries": 0},
        },
    }


def hostname(observed: Observed, settings: Settings) -> str:
    """`<service>.<namespace>.<domain>`."""
    return f"{observed.service}.{observed.namespace}.{settings.get('domain') or 'videogen.local'}"


def parent(settings: Settings) -> dict[str, str]:
    """The Gateway, and its listener if one is named."""
    reference = {
        "group": "gateway.networking.k8s.io",
        "kind": "Gateway",
        "name": settings.get("gateway_name", ""),
        "namespace": settings.get("gateway_namespace", ""),
        "sectionName": settings.get("gateway_section", ""),
    }
    return {name: value for name, value in reference.items() if value}


def _metadata(observed: Observed) -> dict[str, Any]:
    owners = [owner(release, controller=False) for release in sorted(observed.releases, key=lambda r: r.name)]
    labels = {LABEL_SERVICE: observed.service, MANAGED_BY[0]: MANAGED_BY[1]}
    return {"name": observed.service, "namespace": observed.namespace, "labels": labels, "ownerReferences": owners}


def _rule(prefix: str, port: str, split: Sequence[tuple[Release, int]], timeout: int) -> dict[str, Any]:
    return {
        "matches": [{"path": {"type": "PathPrefix", "value": prefix}}],
        "timeouts": {"request": f"{timeout}s"},
        "backendRefs": [_backend(release, weight, port) for release, weight in split],
    }


def _backend(release: Release, weight: int, port: str) -> dict[str, Any]:
    named = {"set": [{"name": HEADER, "value": release.name}]}
    return {
        "group": "",
        "kind": "Service",
        "name": release_child_name(release.name),
        "port": PORTS[port],
        "weight": weight,
        "filters": [
            {"type": "RequestHeaderModifier", "requestHeaderModifier": named},
            {"type": "ResponseHeaderModifier", "responseHeaderModifier": named},
        ],
    }


# What the gateway says ---------------------------------------------------------------------------------------------


def problem(observed: Observed, settings: Settings, failures: Iterable[Failure] = ()) -> str:
    """Why no traffic can come through the route, in words, or ""."""
    refused = next((f for f in failures if f.kind == "HTTPRoute"), None)
    if refused:
        return f"HTTPRoute {refused.name} was refused ({refused.code}): {refused.message}; are the Gateway API's CRDs installed?"
    name, namespace = settings.get("gateway_name", ""), settings.get("gateway_namespace", "")
    if not any((g["metadata"]["name"], g["metadata"].get("namespace")) == (name, namespace) for g in observed.gateways):
        return f"Gateway {namespace}/{name} does not exist; create it or set the operator's gatewayName and gatewayNamespace"
    if observed.route is None:
        return ""
    conditions = _conditions(observed.route, name, namespace)
    if not conditions:
        return f"Gateway {namespace}/{name} has not answered for HTTPRoute {observed.service} yet; is its controller running?"
    wrong = next((conditions[kind] for kind in ("Accepted", "ResolvedRefs") if conditions.get(kind, {}).get("status") == "False"), None)
    return f"Gateway {namespace}/{name} does not take HTTPRoute {observed.service}: {wrong.get('message')}" if wrong else ""


def settled(observed: Observed, settings: Settings) -> bool:
    """Whether the gateway has taken over the route as it is now, not as it was."""
    if observed.route is None:
        return False
    conditions = _conditions(observed.route, settings.get("gateway_name", ""), settings.get("gateway_namespace", ""))
    accepted = conditions.get("Accepted", {})
    current = accepted.get("observedGeneration", 0) >= observed.route["metadata"].get("generation", 0)
    return accepted.get("status") == "True" and current


def _conditions(route: Manifest, name: str, namespace: str) -> dict[str, Mapping[str, Any]]:
    parents = (route.get("status") or {}).get("parents") or []
    ours = [p for p in parents if p["parentRef"].get("name") == name and p["parentRef"].get("namespace", namespace) == namespace]
    return {c["type"]: c for p in ours for c in p.get("conditions") or []}
