"""Where pods may run, as fields of a pod, and whether a node is meant (kubernetes.io: Taints and Tolerations): for trainers and servers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from videogen_api.placement import Placement, Toleration, TolerationOperator
from videogen_operator.plan import Manifest


def pod_fields(placement: Placement, own: Mapping[str, str]) -> dict[str, Any]:
    """tolerations, nodeSelector, priorityClassName and spread of pods with the labels `own`; a field that says nothing is left out, so
    that nothing restarts.
    """
    spread = [one.wire() | {"labelSelector": {"matchLabels": dict(own)}} for one in placement.topology_spread or []]
    fields = {
        "tolerations": [toleration.wire() for toleration in placement.tolerations or []],
        "nodeSelector": placement.node_selector,
        "priorityClassName": placement.priority_class_name,
        "topologySpreadConstraints": spread,
    }
    return {name: value for name, value in fields.items() if value}


def may_run_on(placement: Placement, node: Manifest) -> bool:
    """Whether the node has the labels that are asked for, and no taint that is not tolerated."""
    labels = node["metadata"].get("labels") or {}
    chosen = all(labels.get(key) == value for key, value in (placement.node_selector or {}).items())
    taints = [taint for taint in (node.get("spec") or {}).get("taints") or [] if taint.get("effect") != "PreferNoSchedule"]
    return chosen and all(_tolerated(taint, placement.tolerations or []) for taint in taints)


def _tolerated(taint: Mapping[str, Any], by: Iterable[Toleration]) -> bool:
    return any(
        toleration.key == taint.get("key")
        and toleration.effect in {None, taint.get("effect")}
        and (toleration.operator is TolerationOperator.EXISTS or (toleration.value or "") == (taint.get("value") or ""))
        for toleration in by
    )
