"""Is there room for a release's pods: a full GPU pool is said with numbers, instead of pods that are pending for ever."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal

from videogen_api.meta import LABEL_RELEASE
from videogen_api.resources import GPU, completed, number
from videogen_operator.kinds.model_release.objects import DEFAULTS
from videogen_operator.kinds.model_release.observed import Release
from videogen_operator.kinds.model_release.placement import may_give_way, placement_of
from videogen_operator.kubernetes_objects import allocatable, has_ended, is_ready
from videogen_operator.plan import Manifest
from videogen_operator.pod_placement import may_run_on

PODS_OF_A_NODE = 110  # the kubelet's own bound (maxPods), for pods that ask for nothing


def shortage(release: Release, nodes: Sequence[Manifest], pods: Iterable[Manifest], settings: Mapping[str, str]) -> str:
    """Why the release's pods do not fit, with numbers, or "". Without any known node nothing can be said: ""."""
    if not nodes:
        return ""
    serving, placement = release.spec.serving, placement_of(release, settings)
    asked = {name: number(amount) for name, amount in (completed(serving.resources, **DEFAULTS).requests or {}).items()}
    own = {LABEL_RELEASE: release.name}.items()
    others = [pod for pod in pods if not own <= (pod["metadata"].get("labels") or {}).items() and not may_give_way(placement, pod)]
    free = {node["metadata"]["name"]: _free(node, others, asked) for node in nodes if _ready(node) and may_run_on(placement, node)}
    for pod in others:
        if not pod["spec"].get("nodeName") and not has_ended(pod) and not _has_verdict(pod):
            _reserve(pod, free)
    fitting = sum(_fits(asked, room) for room in free.values())
    if fitting >= serving.replicas:
        return ""
    return (
        f"{serving.replicas} pods of {_words(asked, asked)} each are asked for, and there is room for {fitting}; {_free_words(asked, free)}"
    )


def _has_verdict(pod: Manifest) -> bool:
    """Whether the scheduler has looked for a node, in vain: such a pod holds nothing. One that was made just now will."""
    conditions = (pod.get("status") or {}).get("conditions") or []
    return any(c["type"] == "PodScheduled" for c in conditions)


def _reserve(pod: Manifest, free: Mapping[str, dict[str, Decimal]]) -> None:
    """Take what the pod asks for from the first node that has it."""
    needs: dict[str, Decimal] = {}
    for container in pod["spec"].get("containers") or []:
        for name, text in _requests(container).items():
            needs[name] = needs.get(name, Decimal(0)) + number(text)
    place = next((room for room in free.values() if all(room[name] >= amount for name, amount in needs.items() if name in room)), None)
    if place is not None:
        for name, amount in needs.items():
            place[name] = place.get(name, Decimal(0)) - amount


def _ready(node: Manifest) -> bool:
    return is_ready(node) and not (node.get("spec") or {}).get("unschedulable")


def _free(node: Manifest, pods: Sequence[Manifest], asked: Iterable[str]) -> dict[str, Decimal]:
    room = {name: allocatable(node, name) for name in asked}
    for pod in pods:
        if pod["spec"].get("nodeName") == node["metadata"]["name"] and not has_ended(pod):
            for container in pod["spec"].get("containers") or []:
                for name, text in _requests(container).items():
                    room[name] = room.get(name, Decimal(0)) - number(text)
    return room


def _requests(container: Mapping[str, Mapping[str, Mapping[str, str]]]) -> dict[str, str]:
    resources = container.get("resources") or {}
    return {**(resources.get("limits") or {}), **(resources.get("requests") or {})}


def _fits(asked: Mapping[str, Decimal], room: Mapping[str, Decimal]) -> int:
    return max(0, min((int(room[name] // amount) for name, amount in asked.items() if amount > 0), default=PODS_OF_A_NODE))


def _words(amounts: Mapping[str, Decimal], asked: Iterable[str]) -> str:
    extended = "".join(f"{amounts[name]} {'GPUs' if name == GPU else name}, " for name in sorted(asked) if "/" in name)
    return f"{extended}{_plain(amounts['cpu'])} CPUs and {_plain(amounts['memory'] / 2**30)} GiB"


def _free_words(asked: Mapping[str, Decimal], free: Mapping[str, Mapping[str, Decimal]]) -> str:
    if not free:
        return "no node is ready and schedulable"
    scarce = next((name for name in sorted(asked) if "/" in name), "memory")
    best = sorted(free, key=lambda name: (-free[name][scarce], name))[:3]
    return "free: " + ", ".join(f"{name} {_words(free[name], asked)}" for name in best)


def _plain(number: Decimal) -> str:
    return f"{number:.1f}".removesuffix(".0")
