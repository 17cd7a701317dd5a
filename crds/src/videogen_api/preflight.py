"""What is looked at before the first attempt of a run: everything that any of its phases will need."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints

from videogen_api.meta import Observation, Text, Timestamp, k8s

MOST_PROBLEMS = 16


class Problem(Observation):
    """Something that a phase would fail for."""

    path: Annotated[str, StringConstraints(max_length=128)] = Field(description="Field that it is about: spec.phases[2].data[0].")
    message: Text = Field(description="What is wrong, what was found, and what to do.")


class PreflightResult(Observation):
    """What a preflight has found."""

    checked: int = Field(default=0, ge=0, le=10_000, description="Things that were looked at.")
    problems: list[Problem] = Field(
        default=[],
        max_length=MOST_PROBLEMS,
        description="What is wrong; the run begins when this is empty.",
        json_schema_extra=k8s(atomic=True),
    )


class Preflight(PreflightResult):
    """The preflight of a run, with what must be remembered of it."""

    phase: Annotated[str, StringConstraints(max_length=30)] = Field(
        default="", description="Phase before which it is: the first one, or a later one that may have been computed before."
    )
    number: int = Field(default=0, ge=0, le=100_000, description="Of the newest preflight, from 1; each has a PyTorchJob of its own.")
    job_name: Annotated[str, StringConstraints(max_length=63)] = Field(default="", description="PyTorchJob of the newest one.")
    generation: int = Field(default=0, ge=0, le=2**53, description="Generation of the spec that it looks at.")
    start_time: Timestamp | None = Field(default=None, description="When it began.")
    completion_time: Timestamp | None = Field(default=None, description="When it was done.")
    retry_time: Timestamp | None = Field(default=None, description="When the next one may begin; absent: none will, or one is at work.")
    message: Text = Field(default="", description="Why the newest one could not be done, if so.")
