"""What pods ask for, in Kubernetes' own words, and how many pods a phase has."""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, Any

from pydantic import BeforeValidator, ConfigDict, Field, StringConstraints

from videogen_api.meta import Model, k8s

ALL_REPLICAS_SECONDS = 600  # as long as a release's pods may take to start; node pools have grown by then, or will not
GPU, GPU_SLICES = "nvidia.com/gpu", "nvidia.com/mig-"  # a whole one, and slices of one (nvidia.com/mig-1g.10gb)
_NUMBER = r"[+]?([0-9]+([.][0-9]*)?|[.][0-9]+)"
QUANTITY = rf"^{_NUMBER}([numkMGTPE]|[KMGTPE]i|[eE][-+]?[0-9]{{1,2}})?$"  # k8s.io/apimachinery/pkg/api/resource, and no minus


def _as_text(given: Any) -> Any:
    return str(given) if isinstance(given, int) and not isinstance(given, bool) else given


Quantity = Annotated[
    str,
    StringConstraints(pattern=QUANTITY, max_length=32),
    BeforeValidator(_as_text),
    Field(json_schema_extra={"x-kubernetes-int-or-string": True}),
]
_SHORT_NAMES = (
    "self.all(k, k.size() <= 317)",
    "the name of a resource has at most 317 characters: a domain of 253, a slash and a name of 63; shorten it",
)
_NAMES = (
    "self.all(k, k in ['cpu', 'memory', 'ephemeral-storage'] || k.startsWith('hugepages-')"
    " || k.matches('^[a-z0-9]([-a-z0-9.]*[a-z0-9])?/[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$'))",
    "a resource is cpu, memory, ephemeral-storage, hugepages-<size>, or an extended one with its domain, for example nvidia.com/gpu",
)
_NOT_NEGATIVE = (
    "self.all(k, !isQuantity(string(self[k])) || !quantity(string(self[k])).isLessThan(quantity('0')))",
    "a quantity may not be negative",
)
_WHOLE = (
    "self.all(k, !k.contains('/') || !isQuantity(string(self[k])) || quantity(string(self[k])).isInteger())",
    "an extended resource such as nvidia.com/gpu is counted in whole numbers",
)
_BOTH = "!has(self.requests) || self.requests.all(k, {})"
_COMPARED = "quantity(string(self.requests[k])).compareTo(quantity(string(self.limits[k])))"
_ARE_QUANTITIES = "isQuantity(string(self.requests[k])) && isQuantity(string(self.limits[k]))"
_RULES = [
    (
        _BOTH.format(f"!has(self.limits) || !(k in self.limits) || !({_ARE_QUANTITIES}) || {_COMPARED} <= 0"),
        "a request may not be greater than the limit of the same resource",
    ),
    (
        _BOTH.format(f"!k.contains('/') || (has(self.limits) && k in self.limits && (!({_ARE_QUANTITIES}) || {_COMPARED} == 0))"),
        "an extended resource such as nvidia.com/gpu stands in limits; its request is the same, and may be left out",
    ),
]


class Resources(Model):
    """What each pod asks for."""

    model_config = ConfigDict(json_schema_extra=k8s(rules=_RULES))

    requests: dict[str, Quantity] | None = Field(
        default=None,
        max_length=16,
        description="What a node must have free for a pod, for example {cpu: 4, memory: 16Gi}. Absent: as limits, and for CPU and memory"
        " that stand in neither, the product's default.",
        json_schema_extra=k8s(rules=[_SHORT_NAMES, _NAMES, _NOT_NEGATIVE, _WHOLE]),
    )
    limits: dict[str, Quantity] | None = Field(
        default=None,
        max_length=16,
        description="What a pod may use at most, for example {nvidia.com/gpu: 8, memory: 512Gi}: GPUs, slices of them, network devices and"
        " other extended resources stand here. Leave cpu out, unless your namespace wants it: a throttled process slows all others.",
        json_schema_extra=k8s(rules=[_SHORT_NAMES, _NAMES, _NOT_NEGATIVE, _WHOLE]),
    )


def completed(asked: Resources | None, *, cpu: str, memory: str) -> Resources:
    """Requests and limits of a container: requests default to limits, as in Kubernetes; CPUs and memory that are not named at all are
    those given here, memory also as limit.
    """
    limits = dict((asked.limits if asked else None) or {})
    requests = limits | dict((asked.requests if asked else None) or {})
    if "memory" not in requests:
        requests["memory"] = limits["memory"] = memory
    return Resources(requests={"cpu": cpu} | requests, limits=limits)


def gpus(asked: Resources | None) -> int:
    """GPUs, or slices of them, that a pod has."""
    return gpus_in((asked.limits if asked else None) or {})


def gpus_in(limits: Mapping[str, str | int]) -> int:
    """GPUs, or slices of them, among the limits of a container."""
    return sum(int(number(amount)) for name, amount in limits.items() if name == GPU or name.startswith(GPU_SLICES))


_DECIMAL = {"n": -9, "u": -6, "m": -3, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY = {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40, "Pi": 50, "Ei": 60}
_FACTORS = {suffix: Decimal(10) ** power for suffix, power in _DECIMAL.items()}
_FACTORS |= {suffix: Decimal(2) ** power for suffix, power in _BINARY.items()}


def number(text: str | int) -> Decimal:
    """A quantity as a number: 500m is 0.5, 2Gi is 2147483648, 1E is 10 ** 18, 1e3 is 1000. Raises ValueError for anything else."""
    amount = str(text)
    if not re.fullmatch(QUANTITY, amount):
        raise ValueError(f"{amount!r} is no quantity; accepted are numbers, alone or with {', '.join(_FACTORS)}, for example 500m or 2Gi")
    suffix = next((suffix for suffix in (amount[-2:], amount[-1:]) if suffix in _FACTORS), "")
    return Decimal(amount.removesuffix(suffix)) * _FACTORS.get(suffix, Decimal(1))


class Workers(Model):
    """How many pods and processes work on a phase together."""

    model_config = ConfigDict(
        json_schema_extra=k8s(
            rules=[
                ("!has(self.minReplicas) || self.minReplicas <= self.replicas", "minReplicas may not be greater than replicas"),
                (
                    "!has(self.allReplicasDeadlineSeconds) || self.replicas > 1",
                    "allReplicasDeadlineSeconds says how long some pods hold nodes while others have none; raise replicas, or leave it out",
                ),
            ]
        )
    )

    replicas: int = Field(default=1, ge=1, le=128, description="Pods; each asks for the phase's resources.")
    processes: int | None = Field(
        default=None, ge=1, le=64, description="Processes of each pod; absent: one for each GPU in the limits of resources, or one."
    )
    min_replicas: int | None = Field(
        default=None,
        ge=1,
        le=128,
        description="Training phases: the fewest pods to train with while the cluster has no room for all replicas; absent: as many as"
        " replicas. Each pod keeps its micro-batch and takes more of them one after the other, so batch and memory stay, and only counts"
        " that divide replicas * recipe.gradientAccumulationSteps are used, of which it must be one: 4 replicas may become 2 or 1, not 3.",
    )
    all_replicas_deadline_seconds: int | None = Field(
        default=None,
        ge=1,
        le=86_400,
        description="An attempt of which some pods have nodes and others find none ends after so long. The next one begins with fewer,"
        " where minReplicas lets it, or a little later, so that others have the nodes meanwhile; absent:"
        f" {ALL_REPLICAS_SECONDS}. Every attempt after another end tries all replicas again. A phase's window must be longer, or"
        " it ends first.",
    )


# CEL, of a phase p.
REPLICAS = "(has(p.workers) ? p.workers.replicas : 1)"
GPUS = (
    "(has(p.resources) && has(p.resources.limits) && p.resources.limits.exists(k, k == 'nvidia.com/gpu' || k.startsWith('nvidia.com/mig-'))"
    " ? p.resources.limits.filter(k, k == 'nvidia.com/gpu' || k.startsWith('nvidia.com/mig-'))"
    ".map(k, isQuantity(string(p.resources.limits[k])) && quantity(string(p.resources.limits[k])).isInteger()"
    " ? quantity(string(p.resources.limits[k])).asInteger() : 0).sum() : 0)"
)
PROCESSES = f"(has(p.workers) && has(p.workers.processes) ? p.workers.processes : [{GPUS}].map(n, n > 0 ? n : 1)[0])"

# CEL over a TrainingRun's spec, message, field. The guards are for values that the schema refuses as well, in words of its own.
RUN_RULES: tuple[tuple[str, str, str], ...] = (
    (
        "phases.all(p, !has(p.workers) || !has(p.workers.minReplicas) || p.workers.minReplicas < 1"
        " || (p.workers.replicas * recipe.gradientAccumulationSteps) % p.workers.minReplicas == 0)",
        "workers.minReplicas must divide workers.replicas * recipe.gradientAccumulationSteps, because fewer pods take the same"
        " micro-batches in more steps of accumulation",
        "phases",
    ),
)
