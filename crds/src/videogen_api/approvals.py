"""Approvals: who must agree before a run goes on, and who has.

A person approves by an annotation of the run, `approve.videogen.pib.gov.in/<kind>.<team>: "<digest> <user name>"`. The API server refuses
any other name than the writer's own, and writers without the RBAC verb `approve` on trainingruns/approvals of that team.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints

from videogen_api.meta import GROUP, Digest, Model, NamePart, Observation, ShortName, Timestamp

ANNOTATION_APPROVE = f"approve.{GROUP}/"  # and then <kind>.<team>
LONGEST_USER = 256
MOST_APPROVALS = 8
LAMBDA = "lambda"  # kind of the approvals that another share of the noise needs


class Approval(Model):
    """An approval that is needed."""

    kind: NamePart = Field(description="What is approved: lambda, release, data, or a word of yours.")
    team: ShortName = Field(
        description="Team whose approval it is: people with the RBAC verb approve on trainingruns/approvals and this resourceName."
    )

    @property
    def annotation(self) -> str:
        """The annotation that gives it."""
        return f"{ANNOTATION_APPROVE}{self.kind}.{self.team}"


class Subject(Observation):
    """What approvals are for."""

    digest: Digest = Field(
        description="What approvers name: SHA-256 of the run's UID, the phase, what the run does, what Tune phases chose, and the bundle."
    )
    spec: Digest = Field(description="SHA-256 of what the run does; when it changes, approvals are void.")


class GivenApproval(Observation):
    """An approval that counts."""

    kind: NamePart = Field(description="What was approved.")
    team: ShortName = Field(description="For which team.")
    user: Annotated[str, StringConstraints(min_length=1, max_length=LONGEST_USER)] = Field(
        description="Who approved, by the name that the API server knows."
    )
    digest: Digest = Field(description="What it is for: subject.digest of that time.")
    time: Timestamp = Field(description="When the operator saw it first.")
