"""What the objects of Kubernetes say about themselves: conditions, why a container does not run, whether a node is ready.

Pure readers of what the API server stores. What follows from it stands in `kinds`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any

from videogen_api.resources import number
from videogen_operator.plan import Manifest

PULL_ERRORS = frozenset(  # k8s.io/kubernetes/pkg/kubelet/images/types.go and k8s.io/cri-api/pkg/errors/errors.go
    {
        "ErrImagePull",
        "ImagePullBackOff",
        "ErrImageNeverPull",
        "InvalidImageName",
        "ImageInspectError",
        "RegistryUnavailable",
        "SignatureValidationFailed",
    }
)
SCHEMES = ("docker-pullable://", "docker://", "containerd://")  # before an imageID; older kubelets wrote them
NOTHING: Mapping[str, Any] = {}


def conditions(item: Manifest) -> dict[str, Mapping[str, Any]]:
    """The object's conditions by their type."""
    return {one["type"]: one for one in (item.get("status") or NOTHING).get("conditions") or ()}


def is_true(item: Manifest, *types: str) -> bool:
    """Whether one of these conditions is True."""
    found = conditions(item)
    return any(found.get(one, NOTHING).get("status") == "True" for one in types)


def containers(pod: Manifest) -> list[Mapping[str, Any]]:
    """What the kubelet says of each container of the pod."""
    return (pod.get("status") or NOTHING).get("containerStatuses") or []


def image_id(container: Mapping[str, Any]) -> str:
    """The image that a container runs, as its kubelet tells it: by digest, in at most 512 characters; "" before it has run."""
    told = str(container.get("imageID") or "")
    return next((told.removeprefix(scheme) for scheme in SCHEMES if told.startswith(scheme)), told)[:512]


def pull_error(container: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The `waiting` state of a container whose image cannot be pulled: `reason`, and `message` if there is one."""
    waiting: Mapping[str, Any] = (container.get("state") or NOTHING).get("waiting") or NOTHING
    return waiting if waiting.get("reason") in PULL_ERRORS else None


def ends(container: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The `terminated` states of a container: the present one, then that before the kubelet started it again."""
    for state in ("state", "lastState"):
        if ended := (container.get(state) or NOTHING).get("terminated"):
            yield ended


def has_ended(pod: Manifest) -> bool:
    """Whether all its containers have ended for good."""
    return (pod.get("status") or NOTHING).get("phase") in {"Succeeded", "Failed"}


def without_place(pod: Manifest) -> Mapping[str, Any] | None:
    """The condition of a pod that the scheduler finds no node for."""
    found = conditions(pod).get("PodScheduled", NOTHING)
    return found if found.get("status") == "False" and found.get("reason") == "Unschedulable" else None


def is_ready(item: Manifest) -> bool:
    """Whether a node takes pods, or a pod requests, as its kubelet says."""
    return is_true(item, "Ready")


def allocatable(node: Manifest, resource: str) -> Decimal:
    """How much of a resource the node has for pods."""
    return number(((node.get("status") or NOTHING).get("allocatable") or NOTHING).get(resource, "0"))
