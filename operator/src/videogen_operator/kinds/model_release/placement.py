"""Where a release's pods may run, and whether a node is meant (kubernetes.io: Taints and Tolerations)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from videogen_api.meta import LABEL_RELEASE
from videogen_api.placement import Placement, Spread, Toleration, Unsatisfiable, merged
from videogen_api.resources import GPU, gpus
from videogen_operator.kinds.model_release.observed import Release
from videogen_operator.plan import Manifest
from videogen_operator.pod_placement import pod_fields

OF_GPUS = Toleration.model_validate({"key": GPU, "operator": "Exists", "effect": "NoSchedule"})
OVER_NODES = Spread(topology_key="kubernetes.io/hostname", when_unsatisfiable=Unsatisfiable.SCHEDULE_ANYWAY)


def placement_of(release: Release, settings: Mapping[str, str]) -> Placement:
    """The release's placement, with the administrator's defaults; pods with GPUs also tolerate the taint that keeps others away."""
    serving = release.spec.serving
    whole = merged(serving.placement, Placement.model_validate_json(settings.get("serving_placement") or "{}"))
    tolerations = [*([OF_GPUS] if gpus(serving.resources) else []), *(whole.tolerations or [])]
    return whole.model_copy(update={"tolerations": tolerations, "topology_spread": whole.topology_spread or [OVER_NODES]})


def placed(release: Release, settings: Mapping[str, str]) -> dict[str, Any]:
    """The fields of the pods."""
    secrets = json.loads(settings.get("image_pull_secrets") or "[]")
    own = {LABEL_RELEASE: release.name}
    return pod_fields(placement_of(release, settings), own) | ({"imagePullSecrets": secrets} if secrets else {})


def may_give_way(placement: Placement, pod: Manifest) -> bool:
    """Whether the scheduler may take a pod's place for the release: one of another priority class, which may be lower."""
    own = placement.priority_class_name
    return own is not None and (pod.get("spec") or {}).get("priorityClassName") != own
