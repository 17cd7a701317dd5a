"""Everything that a plan may know of one service: its releases with their objects, its route, and what they depend on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from pydantic import ValidationError

from videogen_api.fine_tune_cycle import LABEL_MEASURES
from videogen_api.measurement import Measurement
from videogen_api.meta import LABEL_RELEASE, LABEL_SERVICE
from videogen_api.model_release import ModelReleaseSpec, ModelReleaseStatus
from videogen_operator.kinds.model_release import remembered
from videogen_operator.kinds.model_release.judging import measured
from videogen_operator.kinds.model_release.rollout import Rollout
from videogen_operator.kinds.model_release.states import State
from videogen_operator.names import release_child_name
from videogen_operator.plan import Index, Key, Manifest, Resource, World
from videogen_operator.resources import (
    APPLIED,
    CLAIMS,
    FINE_TUNE_CYCLES,
    GATEWAYS,
    MODEL_RELEASES,
    NETWORK_POLICIES,
    NODES,
    OURS,
    PODS,
    QUARANTINED,
    TEMPLATED,
    TRAINING_RUNS,
)

KIND = "ModelRelease"
RESOURCES = (
    MODEL_RELEASES,
    TRAINING_RUNS,
    FINE_TUNE_CYCLES,
    PODS,
    NODES,
    CLAIMS,
    NETWORK_POLICIES,
    Resource("apps", "v1", "deployments", "Deployment", selector=OURS, annotations=TEMPLATED),
    Resource("apps", "v1", "replicasets", "ReplicaSet", selector=OURS, keep=("spec.replicas",)),
    Resource("", "v1", "services", "Service", selector=OURS, annotations=APPLIED),
    Resource("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget", selector=OURS, annotations=APPLIED),
    Resource(GATEWAYS.group, "v1", "httproutes", "HTTPRoute", optional=True, selector=OURS, annotations=QUARANTINED),
    GATEWAYS,
    Resource(
        "gateway.envoyproxy.io",
        "v1alpha1",
        "backendtrafficpolicies",
        "BackendTrafficPolicy",
        optional=True,
        selector=OURS,
        annotations=APPLIED,
    ),
    Resource("gateway.envoyproxy.io", "v1alpha1", "httproutefilters", "HTTPRouteFilter", optional=True, selector=OURS, annotations=APPLIED),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """One ModelRelease with what exists for it."""

    manifest: Manifest
    spec: ModelReleaseSpec
    status: ModelReleaseStatus
    rollout: Rollout
    deployment: Manifest | None = None
    service: Manifest | None = None
    budget: Manifest | None = None
    policy: Manifest | None = None  # NetworkPolicy
    labelled: bool = False  # some pod has its label: one of its own that ends when its Deployment is gone already, or anybody's
    pods: tuple[Manifest, ...] = ()
    run: Manifest | None = None
    claim: Manifest | None = None
    measured: tuple[Measurement, ...] = ()  # in production, by runs of cycles
    weight: int = 0  # percent of the service's traffic, read back from the route
    listed: bool = False  # in the route, with whatever weight

    @property
    def name(self) -> str:
        """metadata.name: the version."""
        return str(self.manifest["metadata"]["name"])

    @property
    def uid(self) -> str:
        """metadata.uid."""
        return str(self.manifest["metadata"]["uid"])

    @property
    def created(self) -> str:
        """metadata.creationTimestamp."""
        return str(self.manifest["metadata"].get("creationTimestamp", ""))

    @property
    def line(self) -> tuple[str, str]:
        """Type and specialization: versions are ordered within one line, never across."""
        return self.spec.model.type, self.spec.model.specialization

    @property
    def version(self) -> tuple[int, ...]:
        """The semantic version as numbers, for ordering within its line."""
        return tuple(int(part) for part in self.spec.model.version.split("."))

    @property
    def ready(self) -> int:
        """Pods whose model is ready. An old count for a newer Deployment still counts: those pods answer."""
        return _ready(self.deployment)

    @property
    def available(self) -> int:
        """Pods that have been ready for minReadySeconds."""
        return int(((self.deployment or {}).get("status") or {}).get("availableReplicas") or 0)

    @property
    def reachable(self) -> int:
        """Available pods, once the release is in the route: the gateway knows them by now."""
        return self.available if self.listed else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Unreadable:
    """A ModelRelease whose spec this version of the operator does not understand."""

    manifest: Manifest
    message: str
    weight: int = 0  # percent of the service's traffic, read back from the route
    ready: int = 0  # pods of its Deployment that are ready

    @property
    def name(self) -> str:
        """metadata.name."""
        return str(self.manifest["metadata"]["name"])

    @property
    def uid(self) -> str:
        """metadata.uid."""
        return str(self.manifest["metadata"]["uid"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """The snapshot of one service."""

    namespace: str
    service: str
    releases: tuple[Release, ...]
    unreadable: tuple[Unreadable, ...] = ()
    route: Manifest | None = None
    others: tuple[Manifest, ...] = ()  # routes of other services
    policy: Manifest | None = None
    gateways: tuple[Manifest, ...] = ()
    nodes: tuple[Manifest, ...] = ()
    pods: tuple[Manifest, ...] = ()  # all known pods; only gathered while a release waits to start


def observe(world: World, key: Key) -> Observed | None:
    """The snapshot, or None when the service has no release any more."""
    manifests = [m for m in world.find(OF_SERVICE, key.name, key.namespace) if not _deleting(m)]
    if not manifests:
        return None
    route = world.get("HTTPRoute", key.namespace, key.name)
    weights = route_weights(route)
    read = [_release(world, manifest, weights) for manifest in manifests]
    releases = tuple(release for release in read if isinstance(release, Release))
    start_pending = any(r.rollout.state in {State.PENDING, State.GATING, State.REJECTED, State.QUEUED} for r in releases)
    return Observed(
        namespace=key.namespace,
        service=key.name,
        releases=releases,
        unreadable=tuple(release for release in read if isinstance(release, Unreadable)),
        route=route,
        others=tuple(one for one in world.list("HTTPRoute") if _place(one) != (key.namespace, key.name)),
        policy=world.get("BackendTrafficPolicy", key.namespace, key.name),
        gateways=world.list("Gateway"),
        nodes=world.list("Node") if start_pending else (),
        pods=world.list("Pod") if start_pending else (),
    )


def _place(manifest: Manifest) -> tuple[str, str]:
    return manifest["metadata"].get("namespace", ""), manifest["metadata"]["name"]


def _deleting(manifest: Manifest) -> bool:
    return bool(manifest["metadata"].get("deletionTimestamp"))


def _release(world: World, manifest: Manifest, weights: Mapping[str, int]) -> Release | Unreadable:
    namespace, name = manifest["metadata"]["namespace"], manifest["metadata"]["name"]
    child = release_child_name(name)
    deployment = _owned(world.get("Deployment", namespace, child), manifest)
    try:
        spec, status = _read(world, manifest)
    except ValueError as error:
        return Unreadable(manifest=manifest, message=str(error), weight=weights.get(name, 0), ready=_ready(deployment))
    run = spec.lineage.run
    return Release(
        manifest=manifest,
        spec=spec,
        status=status,
        rollout=remembered.read(status.rollout),
        deployment=deployment,
        service=_owned(world.get("Service", namespace, child), manifest),
        budget=_owned(world.get("PodDisruptionBudget", namespace, child), manifest),
        policy=_owned(world.get("NetworkPolicy", namespace, child), manifest),
        labelled=bool(world.list("Pod", namespace, {LABEL_RELEASE: name})),
        pods=_pods(world, deployment, namespace, name),
        run=world.get("TrainingRun", namespace, run) if run else None,
        claim=world.get("PersistentVolumeClaim", namespace, spec.artifact.claim_name),
        measured=measured.of_release(world, manifest, spec, status),
        weight=weights.get(name, 0),
        listed=name in weights,
    )


def _read(world: World, manifest: Manifest) -> tuple[ModelReleaseSpec, ModelReleaseStatus]:
    """Raises ValueError that says why this operator cannot read the release."""
    try:
        spec = world.read(ModelReleaseSpec, manifest, "spec")
        status = world.read(ModelReleaseStatus, manifest, "status")
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise ValueError(f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}") from None
    if status.rollout is not None and status.rollout.state not in set(State):
        raise ValueError(f"status.rollout.state is {status.rollout.state}, accepted are {', '.join(State)}")
    return spec, status


def _pods(world: World, deployment: Manifest | None, namespace: str, release: str) -> tuple[Manifest, ...]:
    """The pods that the Deployment has made, by way of its ReplicaSets and by their UIDs: labels are anybody's to write."""
    if deployment is None:
        return ()
    labels, made_by = {LABEL_RELEASE: release}, {deployment["metadata"].get("uid")}
    sets = {one["metadata"].get("uid") for one in world.list("ReplicaSet", namespace, labels) if _controller(one) in made_by}
    return tuple(pod for pod in world.list("Pod", namespace, labels) if _controller(pod) in sets)


def _ready(deployment: Manifest | None) -> int:
    return int(((deployment or {}).get("status") or {}).get("readyReplicas") or 0)


def _controller(child: Manifest) -> str | None:
    """UID of the object's controller, or None."""
    owners = child["metadata"].get("ownerReferences") or []
    return next((owner.get("uid") for owner in owners if owner.get("controller")), None)


def _owned(child: Manifest | None, owner: Manifest) -> Manifest | None:
    """The child, unless it belongs to a deleted namesake of its owner and is about to be collected."""
    owners = (child or {}).get("metadata", {}).get("ownerReferences") or []
    return child if any(reference.get("uid") == owner["metadata"]["uid"] for reference in owners) else None


def route_weights(route: Manifest | None) -> dict[str, int]:
    """Percent of the traffic by release, as the route says now; 0 if it is there without taking any."""
    found = list(_backends(route))
    total = sum(weight for _, weight in found)
    return {name: round(100 * weight / total) for name, weight in found if weight and name}


def slots(route: Manifest | None) -> tuple[str, ...]:
    """The release at each position of the route; "" where a position is only kept."""
    return tuple(name if weight else "" for name, weight in _backends(route))


def blocking(observed: Observed) -> str:
    """The release that cannot be read and is in the route, so that everything else in it stays as it is; "" if there is none."""
    listed = set(slots(observed.route))
    return next((broken.name for broken in observed.unreadable if broken.name in listed), "")


def generating_rules(route: Manifest | None) -> tuple[int, ...]:
    """The positions of the route's rules that let generations through, and not only the question whether a server is ready."""
    rules = ((route or {}).get("spec") or {}).get("rules") or []
    return tuple(number for number, rule in enumerate(rules) if any(not path.endswith("/ready") for path in _paths(rule)))


def _paths(rule: Mapping[str, Any]) -> list[str]:
    return [str((match.get("path") or {}).get("value", "/")) for match in rule.get("matches") or [{}]]


def _backends(route: Manifest | None) -> Iterable[tuple[str, int]]:
    """(release, weight) by position; a backend names its release in the header it sets."""
    rules = ((route or {}).get("spec") or {}).get("rules") or []
    for backend in rules[-1].get("backendRefs") or [] if rules else []:
        yield release_of(backend), int(backend.get("weight", 1))


def release_of(backend: Mapping[str, Any]) -> str:
    """The release that a backend of the route belongs to: the header that it sets names it."""
    for item in backend.get("filters") or []:
        for header in (item.get("requestHeaderModifier") or {}).get("set") or []:
            if header.get("name") == "x-videogen-release":
                return str(header["value"])
    return ""


def with_rollout(release: Release, rollout: Rollout) -> Release:
    """The release as it is after this pass."""
    return replace(release, rollout=rollout)


def keys(changed: Manifest, world: World) -> Iterable[Key]:
    """The services that an object's change may concern."""
    namespace = changed["metadata"].get("namespace", "")
    match changed.get("kind"):
        case "ModelRelease":
            return [_key(changed)]
        case "TrainingRun":
            of = world.get(KIND, namespace, (changed["metadata"].get("labels") or {}).get(LABEL_MEASURES, ""))
            measures = [_key(of)] if of and (of.get("spec") or {}).get("service") else []
            return [*_services(world.find(OF_RUN, changed["metadata"]["name"], namespace)), *measures]
        case "FineTuneCycle":
            return []  # that a run is its own it says before the run has measured anything
        case "PersistentVolumeClaim":
            return _services(world.find(ON_CLAIM, changed["metadata"]["name"], namespace))
        case "Gateway":
            return sorted({_key(release) for release in world.list(KIND)})
        case "Node":
            return _services(release for state in WAITING_FOR_ROOM for release in world.find(IN_STATE, state))
        case "ReplicaSet":
            return []  # it says whose the pods are, and its Deployment says the rest
        case _:
            service = (changed["metadata"].get("labels") or {}).get(LABEL_SERVICE)
            return [Key(KIND, namespace, service)] if service else []


def _key(release: Manifest) -> Key:
    return Key(KIND, release["metadata"]["namespace"], release["spec"]["service"])


def _services(releases: Iterable[Manifest]) -> list[Key]:
    return sorted({_key(release) for release in releases if release["spec"].get("service")})


WAITING_FOR_ROOM = (State.QUEUED.value, State.STARTING.value)
OF_SERVICE = Index(KIND, "service", lambda release: [release["spec"]["service"]])
OF_RUN = Index(KIND, "lineage.run", lambda release: [release["spec"]["lineage"]["run"]])
ON_CLAIM = Index(KIND, "claim", lambda release: [release["spec"]["artifact"]["claimName"]])
IN_STATE = Index(KIND, "state", lambda release: [release["status"]["rollout"]["state"]])
INDEXES = (OF_SERVICE, OF_RUN, ON_CLAIM, IN_STATE)
