"""The service's one HTTPRoute, its sticky policy, and what the gateway says about them.

Every backend carries a filter that sets the header `x-videogen-release`. It names the release for logs and clients, and
it makes Envoy Gateway render weighted clusters, without which a consistent hash does not choose the side. A request
without the hashed header gets a random side by weight (Envoy falls back to the stream's random number), so the policy
costs nothing to those who do not send it. No session persistence: it keeps users on a release whose weight is 0.

Envoy Gateway makes one cluster for each backend, named after its position, and none for weight 0; a change of the
clusters reaches Envoy before that of the weights. A request in between would be answered with 500 if its cluster has
just gone or is not there yet, and by another release if the positions have moved. So a release keeps its position for
as long as it is in the route; it comes and goes with the smallest weight, at which nobody is there to notice; and a
position that became free is kept, with weight 0, for the next one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from videogen_api.meta import LABEL_SERVICE
from videogen_operator.kinds.model_release.objects import PORTS, Settings, owner
from videogen_operator.kinds.model_release.observed import Observed, Release
from videogen_operator.kinds.model_release.quarantine import ANNOTATION, Entry, wire
from videogen_operator.kinds.model_release.states import WARM, State
from videogen_operator.names import MANAGED_BY, release_child_name
from videogen_operator.plan import Failure, Manifest

HEADER = "x-videogen-release"
USER_HEADER = "x-user-id"
GRPC_PREFIX = "/inference.GRPCInferenceService"  # KServe v2, by which gRPC shares the hostname with HTTP
PERCENT = 10_000  # weight of one percent; the Gateway API allows 1,000,000 for a backend
IDLE = 1  # weight of a release that takes nothing: of a million requests it may get one
LEAVING_SECONDS = 3  # a release whose traffic was taken back stays in the route until Envoy certainly knows that
ANSWER_SECONDS = 5  # more than the server's own time-out, so that the server's answer says what was wrong


Split = Sequence[tuple[Release, int]]


def backends(releases: Iterable[Release], percent: Mapping[str, int], before: Sequence[str], now: datetime) -> Split:
    """The route's backends with their weights, by position. `before` are the releases at the positions of the present
    route: who is in it stays where it is, newcomers take positions that were free, and a position that becomes free now
    is kept with weight 0.
    """
    by_name = {release.name: release for release in releases}
    weights = {name: weight for name, release in sorted(by_name.items()) if (weight := _weight(release, percent, now))}
    if not weights:  # nobody has served yet: the gateway is asked whether it takes the route
        return tuple((release, 0) for name, release in sorted(by_name.items()) if release.rollout.state in WARM and release.service)
    places = [name if name in weights else "" for name in before]
    for name in [name for name in weights if name not in places]:
        free = next((place for place, old in enumerate(before) if not old and not places[place]), None)
        if free is None:
            places.append(name)
        else:
            places[free] = name
    while not places[-1]:
        places.pop()
    keeper = max(weights, key=lambda name: weights[name])
    return tuple((by_name[name or keeper], weights.get(name, 0)) for name in places)


def _weight(release: Release, percent: Mapping[str, int], now: datetime) -> int:
    """Its share; IDLE for one that could take traffic, or had some a moment ago, while another one takes it; or 0."""
    if share := percent.get(release.name, 0):
        return share * PERCENT
    leaves = leaves_at(release)
    near = release.rollout.state in WARM or release.weight > 0 or (leaves is not None and now < leaves)
    return IDLE if near and release.ready and release.service and any(percent.values()) else 0


def leaves_at(release: Release) -> datetime | None:
    """When a release whose traffic was taken back leaves the route; None if it was not."""
    if release.rollout.state not in {State.ROLLED_BACK, State.QUEUED} or release.rollout.retired is None:
        return None
    return release.rollout.retired + timedelta(seconds=LEAVING_SECONDS)


def route(observed: Observed, split: Split, quarantine: Iterable[Entry], settings: Settings) -> dict[str, Any]:
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


def _rule(prefix: str, port: str, split: Split, timeout: int) -> dict[str, Any]:
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
        cure = "; are the Gateway API's CRDs installed?" if refused.code == 404 else ""
        return f"HTTPRoute {refused.name} was refused ({refused.code}): {refused.message}{cure}"
    name, namespace = settings.get("gateway_name", ""), settings.get("gateway_namespace", "")
    if not any((g["metadata"]["name"], g["metadata"].get("namespace")) == (name, namespace) for g in observed.gateways):
        return f"Gateway {namespace}/{name} does not exist; create it, or set the chart's gateway.name and gateway.namespace"
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
