"""On which nodes pods may run, and before whom: a closed list of a pod's own fields, with Kubernetes' names."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import ConfigDict, Field, StringConstraints

from videogen_api.meta import DnsLabel, Model, k8s

LabelValue = Annotated[str, StringConstraints(pattern=r"^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$", max_length=63)]
_TAINT_KEY = r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$"
TaintKey = Annotated[str, StringConstraints(pattern=_TAINT_KEY, min_length=1, max_length=200)]
PriorityClassName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$", min_length=1, max_length=63)]

# Both would let whoever may create a run or a release press out, or move in with, what keeps the cluster alive.
NOT_THE_SYSTEMS = ("!self.startsWith('system-')", "priority classes that begin with system- are Kubernetes' own; name one of yours")
_TOLERATION_RULES = [
    (
        "!has(self.operator) || self.operator != 'Exists' || !has(self.value)",
        "a toleration with operator Exists has no value; leave it out, or take Equal",
    ),
    (
        "!has(self.key) || !self.key.startsWith('node-role.kubernetes.io/')",
        "taints of node-role.kubernetes.io, the control plane's, are not tolerated; taint your nodes with a key of yours",
    ),
]


class TolerationOperator(StrEnum):
    """How a toleration is compared with a taint."""

    EQUAL = "Equal"  # same key and value
    EXISTS = "Exists"  # same key


class TaintEffect(StrEnum):
    """What a taint does to pods that do not tolerate it."""

    NO_SCHEDULE = "NoSchedule"
    PREFER_NO_SCHEDULE = "PreferNoSchedule"
    NO_EXECUTE = "NoExecute"


class Toleration(Model):
    """A taint that the pods tolerate."""

    model_config = ConfigDict(json_schema_extra=k8s(rules=_TOLERATION_RULES))

    key: TaintKey = Field(description="Key of the taint; not one of the control plane's.")
    operator: TolerationOperator = Field(default=TolerationOperator.EQUAL, description="Equal: of this value; Exists: of any.")
    value: LabelValue | None = Field(default=None, description="Value of the taint, of operator Equal; absent: the empty one.")
    effect: TaintEffect | None = Field(
        default=None, description="Effect of the taint: NoSchedule, PreferNoSchedule or NoExecute; absent: any."
    )


class Unsatisfiable(StrEnum):
    """What happens to a pod that would make the spread too uneven."""

    DO_NOT_SCHEDULE = "DoNotSchedule"
    SCHEDULE_ANYWAY = "ScheduleAnyway"


class Spread(Model):
    """How evenly pods lie over nodes, zones or whatever a node's label tells apart."""

    topology_key: TaintKey = Field(
        description="Label of nodes that tells places apart: kubernetes.io/hostname for nodes, topology.kubernetes.io/zone for zones."
    )
    max_skew: int = Field(default=1, ge=1, le=64, description="By how many pods the places may differ at most.")
    when_unsatisfiable: Unsatisfiable = Field(
        default=Unsatisfiable.DO_NOT_SCHEDULE, description="DoNotSchedule: the pod waits; ScheduleAnyway: it only prefers an even place."
    )


_SHORT_KEYS = (
    "self.all(k, k.size() <= 317)",
    "the key of a label has at most 317 characters: a domain of 253, a slash and a name of 63; shorten it",
)
_LABEL_KEYS = (
    "self.all(k, k.matches('^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$'))",
    "the key of a label is a name, alone or after a domain and a slash, for example nvidia.com/gpu.product",
)


class Placement(Model):
    """On which nodes pods may run, and before whom: fields of a pod, with Kubernetes' names. What the chart sets for all pods is added."""

    node_selector: dict[str, LabelValue] | None = Field(
        default=None,
        max_length=8,
        description="Labels that a node must have to run the pods, for example {nvidia.com/gpu.product: A100-SXM4-80GB}; absent: any node.",
        json_schema_extra=k8s(rules=[_SHORT_KEYS, _LABEL_KEYS]),
    )
    tolerations: list[Toleration] | None = Field(
        default=None,
        max_length=8,
        description="Taints that the pods tolerate, beside that of GPUs, which pods with GPUs tolerate anyway.",
        json_schema_extra=k8s(atomic=True),
    )
    priority_class_name: PriorityClassName | None = Field(
        default=None,
        description="PriorityClass of the pods, not one of Kubernetes' own (system-...); absent: the cluster's default. Pods of a lower"
        " class give way to them.",
        json_schema_extra=k8s(rules=[NOT_THE_SYSTEMS]),
    )
    topology_spread: list[Spread] | None = Field(
        default=None,
        max_length=4,
        description="How the pods are spread. Absent: those of a release prefer different nodes, those of a phase lie where there is room.",
        json_schema_extra=k8s(list_map="topologyKey"),
    )


class Burst(Model):
    """Where a phase's pods go when they have waited in vain: a pool that grows on demand and costs more."""

    after_seconds: int = Field(
        ge=1, le=2_592_000, description="The attempt whose pods have waited so long for a node ends, and the next one is for the pool."
    )
    node_selector: dict[str, LabelValue] | None = Field(
        default=None,
        max_length=8,
        description="Labels of the pool's nodes, in place of placement.nodeSelector; absent: the same nodes, with tolerations.",
        json_schema_extra=k8s(rules=[_LABEL_KEYS]),
    )
    tolerations: list[Toleration] | None = Field(
        default=None,
        max_length=8,
        description="Taints of the pool that the pods tolerate, beside placement.tolerations.",
        json_schema_extra=k8s(atomic=True),
    )


class PhasePlacement(Placement):
    """Placement of a phase's pods."""

    burst: Burst | None = Field(
        default=None,
        description="A second pool of nodes for attempts that find no room; what follows any other end tries the first one again. Absent:"
        " they wait.",
        json_schema_extra=k8s(
            rules=[("has(self.nodeSelector) || has(self.tolerations)", "burst needs nodeSelector, tolerations or both to name other nodes")]
        ),
    )

    queue_name: DnsLabel | None = Field(
        default=None,
        description="Kueue's LocalQueue, in the namespace, that admits the phase's jobs; absent: none. Each is made suspended, and admitted"
        " with all of its pods or not at all (label kueue.x-k8s.io/queue-name of the PyTorchJob). Without Kueue and its PyTorchJob"
        " integration it does not begin.",
    )


def merged(own: Placement | None, defaults: Placement) -> Placement:
    """A placement with the administrator's defaults: labels and tolerations of both, of the rest what is not said."""
    own = own or Placement()
    selector = {**(defaults.node_selector or {}), **(own.node_selector or {})}
    tolerations = [*(own.tolerations or []), *(one for one in defaults.tolerations or [] if one not in (own.tolerations or []))]
    return Placement(
        node_selector=selector or None,
        tolerations=tolerations or None,
        priority_class_name=own.priority_class_name or defaults.priority_class_name,
        topology_spread=own.topology_spread or defaults.topology_spread,
    )
