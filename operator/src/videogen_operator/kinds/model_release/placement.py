"""Where a release's pods may run: the fields of the pod, and whether a node is meant (kubernetes.io: Taints and Tolerations)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from videogen_api.model_release import Serving
from videogen_api.placement import Toleration, TolerationOperator
from videogen_operator.plan import Manifest
from videogen_operator.quantities import GPU

OF_GPUS = Toleration.model_validate({"key": GPU, "operator": "Exists", "effect": "NoSchedule"})


def pod_fields(serving: Serving) -> dict[str, Any]:
    """tolerations, nodeSelector and priorityClassName of the pods; a field that says nothing is left out, so that nothing restarts."""
    fields = {
        "tolerations": [toleration.wire() for toleration in tolerations(serving)],
        "nodeSelector": serving.node_selector,
        "priorityClassName": serving.priority_class_name,
    }
    return {name: value for name, value in fields.items() if value}


def tolerations(serving: Serving) -> list[Toleration]:
    """Those of the release; pods with GPUs also tolerate the taint that keeps others away from GPUs."""
    return [*([OF_GPUS] if serving.gpus else []), *serving.tolerations]


def may_run_on(serving: Serving, node: Manifest) -> bool:
    """Whether the node has the labels that are asked for, and no taint that is not tolerated."""
    labels = node["metadata"].get("labels") or {}
    chosen = all(labels.get(key) == value for key, value in (serving.node_selector or {}).items())
    taints = [taint for taint in (node.get("spec") or {}).get("taints") or [] if taint.get("effect") != "PreferNoSchedule"]
    return chosen and all(_tolerated(taint, tolerations(serving)) for taint in taints)


def may_give_way(serving: Serving, pod: Manifest) -> bool:
    """Whether the scheduler may take a pod's place for the release: one of another priority class, which may be lower."""
    own = serving.priority_class_name
    return own is not None and (pod.get("spec") or {}).get("priorityClassName") != own


def _tolerated(taint: Mapping[str, Any], by: Iterable[Toleration]) -> bool:
    return any(
        toleration.key == taint.get("key")
        and toleration.effect in {None, taint.get("effect")}
        and (toleration.operator is TolerationOperator.EXISTS or (toleration.value or "") == (taint.get("value") or ""))
        for toleration in by
    )
