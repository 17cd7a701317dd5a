"""Room for one worker of a phase: on which nodes it may run, and whether one of them is large enough even when it is empty."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from videogen_api.placement import Placement, TaintEffect, Toleration, TolerationOperator, merged
from videogen_api.resources import GPU, completed, gpus, number
from videogen_api.training_run import Phase
from videogen_operator.kubernetes_objects import allocatable
from videogen_operator.plan import Manifest
from videogen_operator.pod_placement import may_run_on

DEFAULTS = {"cpu": "1", "memory": "4Gi"}  # of a pod that says nothing of them
WORDS = {GPU: "GPUs", "cpu": "CPUs", "memory": "bytes of memory"}
OF_GPUS = Toleration(key=GPU, operator=TolerationOperator.EXISTS, effect=TaintEffect.NO_SCHEDULE)


def placement_of(phase: Phase, settings: Mapping[str, str]) -> Placement:
    """The phase's placement with the administrator's defaults. Pods with GPUs also go where GPUs are kept for those who ask."""
    whole = merged(phase.placement, Placement.model_validate_json(settings.get("trainer_placement") or "{}"))
    kept = [OF_GPUS] if gpus(phase.resources) else []
    return whole.model_copy(update={"tolerations": [*kept, *(whole.tolerations or [])]})


def in_burst_pool(phase: Phase) -> Phase | None:
    """The phase with the placement of its second pool, if it has one."""
    if phase.placement is None or phase.placement.burst is None:
        return None
    own, pool = phase.placement, phase.placement.burst
    tolerations = [*(own.tolerations or []), *(pool.tolerations or [])] or None
    changed = own.model_copy(update={"node_selector": pool.node_selector or own.node_selector, "tolerations": tolerations})
    return phase.model_copy(update={"placement": changed})


def shortage(phase: Phase, nodes: Sequence[Manifest], settings: Mapping[str, str]) -> str:
    """Why no node can take one worker, even if it were empty; "" if some node can. A node that is not ready may become so."""
    placement, other = placement_of(phase, settings), in_burst_pool(phase)
    pools = [placement, *([placement_of(other, settings)] if other else [])]
    asked = completed(phase.resources, **DEFAULTS).requests or {}
    needs = {name: number(text) for name, text in asked.items()}
    meant = [node for node in nodes if any(may_run_on(pool, node) for pool in pools)]
    if any(all(need <= allocatable(node, name) for name, need in needs.items()) for node in meant):
        return ""
    if not meant:
        chosen = ", ".join(f"{key}={value}" for key, value in (placement.node_selector or {}).items())
        labels = f"the labels {chosen} and " if chosen else ""
        return f"no node has {labels}only taints that the phase tolerates; correct its placement, or label a node"
    advice = "add a larger node, or suspend the run and ask for less in the phase's resources"
    for name, need in needs.items():
        largest = max(allocatable(node, name) for node in meant)
        if need > largest:
            return f"one worker asks for {asked[name]} {WORDS.get(name, name)} and the largest node has {largest:f}; {advice}"
    words = ", ".join(f"{text} {WORDS.get(name, name)}" for name, text in asked.items())
    return f"one worker asks for {words}, and no single node has all of it; {advice}"
