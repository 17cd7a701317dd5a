"""The service's one HTTPRoute, its traffic policy, and what the gateway says about them.

Every backend carries a filter that sets the header `x-videogen-release`. It names the release for logs and clients, and
it makes Envoy Gateway render weighted clusters, without which a consistent hash does not choose the side. A request
without the hashed header gets a random side by weight (Envoy falls back to the stream's random number), so the policy
costs nothing to those who do not send it. No session persistence: it keeps users on a release whose weight is 0.

Only what a viewer needs is routed: a request for a video, and whether the service is ready. The policy bounds what a viewer
may do to the pods behind it (docs/decisions/0018-limits-at-the-gateway.md).

Envoy Gateway makes one cluster for each backend, named after its position, and none for weight 0; a change of the
clusters reaches Envoy before that of the weights. A request in between would be answered with 500 if its cluster has
just gone or is not there yet, and by another release if the positions have moved. So a release keeps its position for
as long as it is in the route; it comes and goes with the smallest weight, at which nobody is there to notice; and a
position that became free is kept, with weight 0, for the next one.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from videogen_api.meta import LABEL_SERVICE
from videogen_operator.kinds.model_release.judging.quarantine import ANNOTATION, Entry, wire
from videogen_operator.kinds.model_release.objects import INFER, MODEL_READY, PORTS, Settings, owner
from videogen_operator.kinds.model_release.observed import Observed, Release, Unreadable, slots
from videogen_operator.kinds.model_release.remembered import moment
from videogen_operator.kinds.model_release.states import WARM, State
from videogen_operator.names import MANAGED_BY, release_child_name
from videogen_operator.plan import Failure, Manifest

HOSTNAME = "<service>-<namespace>.<domain>"
LONGEST_LABEL = 63  # of a part of a host name (RFC 1035)
HEADER = "x-videogen-release"
USER_HEADER = "x-user-id"
ENCODED = "content-encoding"  # the body's limit is of what came: without it Triton inflates nothing, and refuses the body as no JSON
PATHS = (("POST", INFER), ("GET", MODEL_READY))  # all that is routed; the gateway answers everything else with 404
PERCENT = 10_000  # weight of one percent; the Gateway API allows 1,000,000 for a backend
IDLE = 1  # weight of a release that takes nothing: of a million requests it may get one
LEAVING_SECONDS = 3  # a release whose traffic was taken back stays in the route until Envoy certainly knows that
AWAITED_SECONDS = 60  # after which a second signal is certainly given up (judging/judgement.py)
REFUSED = 503  # what a service answers that nobody serves
ANSWER_SECONDS = 5  # more than the server's own time-out, so that the server's answer says what was wrong
BODY_LIMIT = "64Ki"  # ten times the longest request: a prompt of 500 characters is 6 KB as JSON with every character escaped
REQUESTS_A_SECOND = 2  # for which a pod has room while one request's time-out lasts, and as many that wait: stored videos are fast
MOST_REQUESTS = 128  # of a pod, and as many that wait: 16 MiB of the gateway's memory with the largest bodies
ANY_ADDRESS = ("0.0.0.0/0", "::/0")


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
    # Without a ready pod, too: the gateway's measurements of it are still wanted. Those of one that has left are forgotten already.
    leaving = leaves is not None and now < leaves and (release.listed or release.ready > 0)
    near = leaving or (release.ready and (release.rollout.state in WARM or release.weight > 0))
    return IDLE if near and release.service and any(percent.values()) else 0


def leaves_at(release: Release) -> datetime | None:
    """When a release whose traffic was taken back leaves the route; None if it was not. Envoy forgets what it has measured of
    a release that is not in the route, so one stays until what the second signal says is written, however late its last answer.
    """
    if release.rollout.state not in {State.ROLLED_BACK, State.WITHDRAWN, State.QUEUED} or release.rollout.retired is None:
        return None
    record, leaves = release.status.rollback, release.rollout.retired + timedelta(seconds=LEAVING_SECONDS)
    awaited = moment(record.awaits_until) if record and release.rollout.state == State.ROLLED_BACK else None
    return max(leaves, awaited + timedelta(seconds=AWAITED_SECONDS)) if awaited else leaves


def closed(observed: Observed, split: Split) -> bool:
    """Whether the service refuses requests: what served was withdrawn or deleted, and nobody has taken over since."""
    if any(weight for _, weight in split):
        return False
    rules = ((observed.route or {}).get("spec") or {}).get("rules") or []
    was_closed = any(not rule.get("backendRefs") for rule in rules)
    return not split or was_closed or any(slots(observed.route))


def route(observed: Observed, split: Split, quarantine: Iterable[Entry], settings: Settings, *, closed: bool = False) -> dict[str, Any]:
    """The HTTPRoute, named after the service and owned by all of its releases."""
    return {
        **identity(observed, quarantine),
        "spec": {
            "parentRefs": [parent(settings)],
            "hostnames": [hostname(observed, settings)],
            "rules": [_refusing(observed, settings) if closed else _rule(split)],
        },
    }


def identity(observed: Observed, quarantine: Iterable[Entry]) -> dict[str, Any]:
    """What makes the HTTPRoute this service's, and the quarantine that it keeps."""
    metadata = _metadata(observed) | {"annotations": {ANNOTATION: wire(quarantine)}}
    return {"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": metadata}


def traffic_policy(observed: Observed, serving: Iterable[Release], settings: Settings) -> dict[str, Any]:
    """Envoy Gateway: a user stays on a side, generations, which are neither cheap nor idempotent, are not repeated, and nobody
    gets more of the pods than a viewer needs. `serving` are the releases that may take traffic now.
    """
    sizes = [release.spec.serving for release in serving]
    requests = max((s.replicas * min(MOST_REQUESTS, REQUESTS_A_SECOND * s.timeout_seconds) for s in sizes), default=MOST_REQUESTS)
    timeout = max((s.timeout_seconds for s in sizes), default=60) + ANSWER_SECONDS
    return {
        "apiVersion": "gateway.envoyproxy.io/v1alpha1",
        "kind": "BackendTrafficPolicy",
        "metadata": _metadata(observed),
        "spec": {
            "targetRefs": [{"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "name": observed.service}],
            "mergeType": "StrategicMerge",  # what the administrator's policy of the Gateway says besides goes on
            "loadBalancer": {"type": "ConsistentHash", "consistentHash": {"type": "Header", "header": {"name": USER_HEADER}}},
            "retry": {"numRetries": 0},
            # The whole request is here before a pod hears of it; larger ones are answered with 413.
            "requestBuffer": {"limit": BODY_LIMIT},
            # Of one release each; what is above is answered with 503 at once.
            "circuitBreaker": {
                "maxConnections": requests,
                "maxPendingRequests": requests,
                "maxParallelRequests": requests,
                "maxParallelRetries": 0,
            },
            # Else an upload that stands still is kept for an hour; more than the route's time-out, which answers better.
            "timeout": {"http": {"streamIdleTimeout": f"{timeout + ANSWER_SECONDS}s"}},
            **_rate_limit(int(settings.get("requests_per_minute") or 0)),
        },
    }


def _rate_limit(requests_per_minute: int) -> dict[str, Any]:
    """For each address, not for each user: the header with the user is the client's own word."""
    if not requests_per_minute:
        return {}
    limit = {"requests": requests_per_minute, "unit": "Minute"}
    rules = [{"clientSelectors": [{"sourceCIDR": {"type": "Distinct", "value": every}}], "limit": limit} for every in ANY_ADDRESS]
    return {"rateLimit": {"local": {"rules": rules}}}


def refusal(observed: Observed) -> dict[str, Any]:
    """Envoy Gateway's own answer for a service that nobody serves. It is there before it is needed."""
    words = f"no release serves {observed.service} now; ask the service's owner, or try again later"
    return {
        "apiVersion": "gateway.envoyproxy.io/v1alpha1",
        "kind": "HTTPRouteFilter",
        "metadata": _metadata(observed),
        "spec": {
            "directResponse": {
                "statusCode": REFUSED,
                "contentType": "application/json",
                "body": {"type": "Inline", "inline": json.dumps({"error": words})},
            }
        },
    }


def hostname(observed: Observed, settings: Settings) -> str:
    """The chart's template with the service's names in it."""
    names = {"<service>": observed.service, "<namespace>": observed.namespace, "<domain>": settings.get("domain") or "videogen.local"}
    host = settings.get("hostname") or HOSTNAME
    for place, name in names.items():
        host = host.replace(place, name)
    return host


def taken(observed: Observed, settings: Settings) -> str:
    """Which service answers at this one's host name since longer, in words, or "". Of two routes the gateway follows the older one."""
    host = hostname(observed, settings)
    if any(len(label) > LONGEST_LABEL for label in host.split(".")):
        return f"host name {host} has a part of more than {LONGEST_LABEL} characters; shorten spec.service, or the chart's hostname"
    others = [one for one in observed.others if host in ((one.get("spec") or {}).get("hostnames") or [])]
    first = min([*others, *([observed.route] if observed.route else [])], key=_age, default=None)
    if first is None or first is observed.route:
        return ""
    name, namespace = first["metadata"]["name"], first["metadata"]["namespace"]
    return (
        f"host name {host} is that of service {name} in namespace {namespace}, which had it first; rename spec.service, or make the"
        " chart's hostname tell them apart, for example <service>.<namespace>.<domain>"
    )


def _age(route: Manifest) -> tuple[str, str, str]:
    return str(route["metadata"].get("creationTimestamp", "")), route["metadata"]["namespace"], route["metadata"]["name"]


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
    everybody: list[Release | Unreadable] = [*observed.releases, *observed.unreadable]
    owners = [owner(release, controller=False) for release in sorted(everybody, key=lambda r: r.name)]
    labels = {LABEL_SERVICE: observed.service, MANAGED_BY[0]: MANAGED_BY[1]}
    return {"name": observed.service, "namespace": observed.namespace, "labels": labels, "ownerReferences": owners}


def _rule(split: Split) -> dict[str, Any]:
    """The only rule: the names of Envoy's clusters have its number in them."""
    timeout = max((release.spec.serving.timeout_seconds for release, _ in split), default=60) + ANSWER_SECONDS
    return {
        "matches": [{"method": method, "path": {"type": "Exact", "value": path}} for method, path in PATHS],
        "timeouts": {"request": f"{timeout}s"},
        "backendRefs": [_backend(release, weight) for release, weight in split],
    }


def _refusing(observed: Observed, settings: Settings) -> dict[str, Any]:
    """The rule of a service that nobody serves. A gateway other than Envoy's answers a rule without backends by itself, with 500."""
    own = {"group": "gateway.envoyproxy.io", "kind": "HTTPRouteFilter", "name": observed.service}
    filters = [{"type": "ExtensionRef", "extensionRef": own}] if settings.get("traffic_policy") == "true" else []
    return {
        "matches": [{"method": method, "path": {"type": "Exact", "value": path}} for method, path in PATHS],
        **({"filters": filters} if filters else {}),
    }


def _backend(release: Release, weight: int) -> dict[str, Any]:
    named = {"set": [{"name": HEADER, "value": release.name}]}
    return {
        "group": "",
        "kind": "Service",
        "name": release_child_name(release.name),
        "port": PORTS["http"],
        "weight": weight,
        "filters": [
            {"type": "RequestHeaderModifier", "requestHeaderModifier": named | {"remove": [ENCODED]}},
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
    conditions = _conditions(observed.route, settings)
    if not conditions:
        others = sorted({str(answer.get("controllerName")) for answer in (observed.route.get("status") or {}).get("parents") or []})
        heard = f" (answers of {', '.join(others)} count for nothing: see the chart's gateway.controllerName)" if others else ""
        return f"Gateway {namespace}/{name} has not answered for HTTPRoute {observed.service} yet; is its controller running?{heard}"
    wrong = next((conditions[kind] for kind in ("Accepted", "ResolvedRefs") if conditions.get(kind, {}).get("status") == "False"), None)
    return f"Gateway {namespace}/{name} does not take HTTPRoute {observed.service}: {wrong.get('message')}" if wrong else ""


def settled(observed: Observed, settings: Settings) -> bool:
    """Whether the gateway has taken over the route as it is now, not as it was."""
    if observed.route is None:
        return False
    conditions = _conditions(observed.route, settings)
    accepted = conditions.get("Accepted", {})
    current = accepted.get("observedGeneration", 0) >= observed.route["metadata"].get("generation", 0)
    return accepted.get("status") == "True" and current


def policy_problem(observed: Observed, settings: Settings) -> str:
    """Why Envoy Gateway does not hold itself to the traffic policy, in words, or "": most often another one has the route already."""
    policy = observed.policy
    if policy is None:
        return ""
    answers = ((policy.get("status") or {}).get("ancestors") or []) if settings.get("traffic_policy") == "true" else []
    said = [c for answer in answers if _answers(answer, settings) for c in answer.get("conditions") or [] if c.get("type") == "Accepted"]
    wrong = next((c for c in said if c.get("status") == "False"), None)
    if wrong is None:
        return ""
    name = policy["metadata"]["name"]
    cure = "; delete the other policy, or let it target the Gateway, whose policies are merged with this one"
    return f"BackendTrafficPolicy {name} is not in force ({wrong.get('reason')}): {wrong.get('message')}{cure}"


def _conditions(route: Manifest, settings: Settings) -> dict[str, Mapping[str, Any]]:
    """What the controller of our Gateway says of the route as attached to our listener; others may answer for other parents."""
    ours, home = parent(settings), route["metadata"].get("namespace", "")
    answers = [
        answer
        for answer in (route.get("status") or {}).get("parents") or []
        if _answers(answer, settings) and _reference(answer.get("parentRef") or {}, home) == _reference(ours, home)
    ]
    return {condition["type"]: condition for answer in answers for condition in answer.get("conditions") or []}


def _reference(reference: Mapping[str, Any], home: str) -> tuple[str, ...]:
    """A parent reference with the Gateway API's defaults: a Gateway, in the route's namespace, with all of its listeners."""
    defaults = {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "", "namespace": home, "sectionName": ""}
    return tuple(str(reference.get(name) or default) for name, default in defaults.items())


def _answers(answer: Mapping[str, Any], settings: Settings) -> bool:
    """Whether it is our gateway's controller that speaks."""
    controller = settings.get("gateway_controller", "")
    return controller in {"", answer.get("controllerName")}
