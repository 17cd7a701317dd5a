"""Where pods may run, as fields of a pod: the same for trainers and servers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from videogen_api.placement import Placement


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
