"""Stages of a FineTuneCycle: parts of each run that a team answers for, how far they are and what they took."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field, StringConstraints

from videogen_api.meta import Digest, Model, Observation, PositiveDecimal, ShortName, Timestamp, k8s


class Stage(Model):
    """A part of each run: who answers for it, and until when."""

    name: ShortName = Field(description="Name of the stage, such as curation.")
    owner: ShortName = Field(description="Team that answers for it, such as data-science.")
    start_day: int = Field(ge=0, le=400, description="First day of its window, counted from the scheduled time.")
    days: int = Field(ge=1, le=400, description="Days of its window. The stage begins when the one before is done, however early.")
    phases: list[ShortName] = Field(
        min_length=1,
        max_length=16,
        description="Phases of the run that belong to it.",
        json_schema_extra=k8s(**{"x-kubernetes-list-type": "set"}),
    )


class StageState(StrEnum):
    """How far a stage is."""

    WAITING = "Waiting"
    WORKING = "Working"
    DONE = "Done"
    FAILED = "Failed"


class Delivery(Observation):
    """Something that a stage has made."""

    kind: Annotated[str, StringConstraints(max_length=16)] = Field(description="Dataset, Bundle, Report or Release.")
    name: Annotated[str, StringConstraints(max_length=256)] = Field(
        description="Dataset and version, folder of the bundle, file of the report, or name of the release."
    )
    digest: Digest | None = Field(default=None, description="Of a dataset's or bundle's manifest.")


class StageUse(Observation):
    """What a stage has taken, beside its plan."""

    name: ShortName = Field(description="Name of the stage.")
    planned_seconds: int = Field(ge=0, le=2**31 - 1, description="Length of its window.")
    wall_seconds: int | None = Field(
        default=None, ge=0, le=2**31 - 1, description="From the beginning of its first phase to the end of its last; absent: it goes on."
    )
    gpu_hours: PositiveDecimal | None = Field(default=None, description="GPU hours of its phases.")
    bytes_written: int | None = Field(default=None, ge=0, le=2**53, description="Bytes that its phases have written into the storage.")


class StageStatus(StageUse):
    """How far a stage of the run at work is."""

    owner: ShortName = Field(description="Team that answers for it.")
    state: StageState = Field(description="Waiting, Working, Done or Failed.")
    due: Timestamp = Field(description="End of its window.")
    start_time: Timestamp | None = Field(default=None, description="When its first phase began.")
    end_time: Timestamp | None = Field(default=None, description="When its last phase was done.")
    delivered: list[Delivery] = Field(
        default=[], max_length=16, description="What it has made, with digests.", json_schema_extra=k8s(atomic=True)
    )
