"""Is there room for a release's pods: a full GPU pool is said with numbers, instead of pods that are pending for ever."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal

from videogen_api.meta import LABEL_RELEASE
from videogen_operator.kinds.model_release.observed import Release
from videogen_operator.kinds.model_release.placement import may_give_way, may_run_on
from videogen_operator.plan import Manifest
from videogen_operator.quantities import GPU, quantity


def shortage(release: Release, nodes: Sequence[Manifest], pods: Iterable[Manifest]) -> str:
    """Why the release's pods do not fit, with numbers, or "". Without any known node nothing can be said: ""."""
    if not nodes:
        return ""
    serving = release.spec.serving
    asked = {"cpu": quantity(serving.cpu), "memory": quantity(serving.memory), GPU: Decimal(serving.gpus)}
    own = {LABEL_RELEASE: release.name}.items()
    others = [pod for pod in pods if not own <= (pod["metadata"].get("labels") or {}).items() and not may_give_way(serving, pod)]
    free = {node["metadata"]["name"]: _free(node, others) for node in nodes if _ready(node) and may_run_on(serving, node)}
    fitting = sum(_fits(asked, room) for room in free.values())
    if fitting >= serving.replicas:
        return ""
    return f"{serving.replicas} pods of {_words(asked)} each are asked for, and there is room for {fitting}; {_free_words(asked, free)}"


def _ready(node: Manifest) -> bool:
    conditions = (node.get("status") or {}).get("conditions") or []
    ready = any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
    return ready and not (node.get("spec") or {}).get("unschedulable")


def _free(node: Manifest, pods: Sequence[Manifest]) -> dict[str, Decimal]:
    allocatable = (node.get("status") or {}).get("allocatable") or {}
    room = {name: quantity(allocatable.get(name, 0)) for name in ("cpu", "memory", GPU)}
    for pod in pods:
        ended = (pod.get("status") or {}).get("phase") in {"Succeeded", "Failed"}
        if pod["spec"].get("nodeName") == node["metadata"]["name"] and not ended:
            for container in pod["spec"].get("containers") or []:
                for name, text in _requests(container).items():
                    room[name] -= quantity(text)
    return room


def _requests(container: Mapping[str, Mapping[str, Mapping[str, str]]]) -> dict[str, str]:
    resources = container.get("resources") or {}
    merged = {**(resources.get("limits") or {}), **(resources.get("requests") or {})}
    return {name: text for name, text in merged.items() if name in {"cpu", "memory", GPU}}


def _fits(asked: Mapping[str, Decimal], room: Mapping[str, Decimal]) -> int:
    return max(0, min(int(room[name] // amount) for name, amount in asked.items() if amount > 0))


def _words(amounts: Mapping[str, Decimal]) -> str:
    gpus = f"{amounts[GPU]} GPUs, " if amounts[GPU] else ""
    return f"{gpus}{_plain(amounts['cpu'])} CPUs and {_plain(amounts['memory'] / 2**30)} GiB"


def _free_words(asked: Mapping[str, Decimal], free: Mapping[str, Mapping[str, Decimal]]) -> str:
    if not free:
        return "no node is ready and schedulable"
    best = sorted(free, key=lambda name: (-(free[name][GPU] if asked[GPU] else free[name]["memory"]), name))[:3]
    return "free: " + ", ".join(f"{name} {_words({**free[name], GPU: free[name][GPU] if asked[GPU] else Decimal(0)})}" for name in best)


def _plain(number: Decimal) -> str:
    return f"{number:.1f}".removesuffix(".0")
