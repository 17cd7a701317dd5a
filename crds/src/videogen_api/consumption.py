"""What a phase uses up: GPUs over time. The total is for people and budgets; the pods are what must be remembered to count each once."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints

from videogen_api.meta import Observation, PositiveDecimal, Timestamp, k8s

MOST_PODS = 256  # of the attempt that ends and the one after it


class GpuHolder(Observation):
    """A pod that has GPUs, or had them and still exists."""

    uid: Annotated[str, StringConstraints(max_length=64)] = Field(description="UID of the pod.")
    gpus: int = Field(ge=1, le=1000, description="Its GPUs, or slices of them.")
    since: Timestamp = Field(description="When the scheduler gave it a node.")
    seconds: PositiveDecimal | None = Field(default=None, description="How long it had them; absent: it has them.")


class GpuTime(Observation):
    """From which gpuHours follows."""

    settled_seconds: PositiveDecimal = Field(default="0", description="Seconds, times GPUs, of pods that are gone.")
    pods: list[GpuHolder] = Field(default=[], max_length=MOST_PODS, description="The others.", json_schema_extra=k8s(list_map="uid"))
    counted: Timestamp | None = Field(default=None, description="When that was so.")
