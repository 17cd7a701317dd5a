"""How far a running phase is, as its trainer reports it."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints

from videogen_api.meta import Observation, Timestamp, k8s


class ProgressMetric(Observation):
    """One value that the trainer reported."""

    name: Annotated[str, StringConstraints(min_length=1, max_length=64)] = Field(description="Name of the value.")
    value: Annotated[str, StringConstraints(max_length=64)] = Field(description="The value.")


class Progress(Observation):
    """Progress of a running phase, with the field names of Kubeflow Trainer's trainerStatus."""

    progress_percentage: int | None = Field(default=None, ge=0, le=100, description="Share of the phase that is done.")
    estimated_remaining_seconds: int | None = Field(default=None, ge=0, le=2**31 - 1, description="Time to the end at the present speed.")
    metrics: list[ProgressMetric] = Field(
        default=[], max_length=16, description="Newest values: step, steps, loss, ...", json_schema_extra=k8s(list_map="name")
    )
    last_updated_time: Timestamp | None = Field(default=None, description="When the trainer reported.")


class RunSummary(Observation):
    """Preformatted for printer columns; no logic reads it."""

    model: Annotated[str, StringConstraints(max_length=63)] = Field(default="", description="Name of the version that the run makes.")
    phase: Annotated[str, StringConstraints(max_length=64)] = Field(default="", description="Number and name of the phase.")
    team: Annotated[str, StringConstraints(max_length=128)] = Field(default="", description="Whose turn it is.")
    progress: Annotated[str, StringConstraints(max_length=16)] = Field(default="", description="Percent of the phase.")
    step: Annotated[str, StringConstraints(max_length=40)] = Field(default="", description="Step of all steps.")
    loss: Annotated[str, StringConstraints(max_length=16)] = Field(default="", description="Newest loss.")
    eta: Annotated[str, StringConstraints(max_length=16)] = Field(default="", description="Time to the end of the phase.")
