"""On which nodes a release's pods may run, and before whom: a closed list of a pod's own fields, with Kubernetes' names."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import ConfigDict, Field, StringConstraints

from videogen_api.meta import Model, k8s

LabelValue = Annotated[str, StringConstraints(pattern=r"^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$", max_length=63)]
_TAINT_KEY = r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$"
TaintKey = Annotated[str, StringConstraints(pattern=_TAINT_KEY, min_length=1, max_length=200)]
PriorityClassName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$", min_length=1, max_length=63)]

# Both would let whoever may create a release press out, or move in with, what keeps the cluster alive.
NOT_THE_SYSTEMS = ("!self.startsWith('system-')", "priority classes that begin with system- are Kubernetes' own; name one of yours")
_TOLERATION_RULES = [
    ("self.operator != 'Exists' || !has(self.value)", "a toleration with operator Exists has no value; leave it out, or take Equal"),
    (
        "!has(self.key) || !self.key.startsWith('node-role.kubernetes.io/')",
        "taints of node-role.kubernetes.io, the control plane's, are not tolerated; taint the release's nodes with a key of yours",
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
