"""Where a run works, what it starts from and reads, with which code, what it makes, and how long it keeps what it no longer needs."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field, StringConstraints

from videogen_api.curation import VersionName
from videogen_api.meta import Digest, DnsLabel, Model, ObjectName, Observation, Sha256, ShortName, StoragePath, Text, Timestamp


class Storage(Model):
    """Where datasets, checkpoints and bundles live."""

    claim_name: DnsLabel = Field(description="Persistent volume claim in the namespace; ReadWriteMany if workers run on several nodes.")


class CheckpointRetention(StrEnum):
    """How long the checkpoints of a run's phases stay."""

    WHILE_NEEDED = "WhileNeeded"  # until their phase is done; the next phase's pod removes them
    ALWAYS = "Always"


class InitFrom(Model):
    """Weights to start from: exactly one of them."""

    release: ObjectName | None = Field(default=None, description="A ModelRelease in this namespace.")
    run: ObjectName | None = Field(
        default=None, description="A TrainingRun in this namespace; its end is waited for, and it must have succeeded and made a bundle."
    )


class ReusedFrom(Observation):
    """Where the result of a phase is from that was computed before."""

    run: Annotated[str, StringConstraints(max_length=253)] = Field(description="TrainingRun that computed it; it may be gone.")
    phase: ShortName = Field(description="Its phase.")
    time: Timestamp = Field(description="When it was computed.")
    key: Sha256 = Field(description="SHA-256 of all that decides the result; its record is records/<key>.json in the storage.")


class RunImages(Observation):
    """The images of the run's pods."""

    trainer: Annotated[str, StringConstraints(min_length=1, max_length=512)] = Field(
        description="Image of its attempts since a first pod has run it, by digest where the kubelet named one; a retry request lets the"
        " next attempt have the chart's again."
    )


class PinnedWeights(Observation):
    """The weights that the run starts from, as spec.initFrom led to them at first; nothing changes them any more."""

    release: ObjectName | None = Field(default=None, description="ModelRelease that they are from.")
    run: ObjectName | None = Field(default=None, description="TrainingRun that they are from.")
    path: StoragePath = Field(description="Folder in the storage.")
    digest: Digest = Field(description="Digest of the bundle's manifest.")
    message: Text = Field(default="", description="That the release or run has another bundle by now, if so.")


class RunArtifact(Observation):
    """A bundle that the run has produced."""

    path: StoragePath = Field(description="Folder in the storage.")
    digest: Digest = Field(description="Digest of the bundle's manifest.")


class ResolvedDataset(Observation):
    """Exactly which data a phase read or wrote."""

    dataset: ShortName = Field(description="Name of the dataset.")
    version: VersionName = Field(description="Version of the dataset.")
    digest: Digest = Field(description="Digest of the version's manifest.")
    clips: int = Field(default=0, ge=0, le=10**12, description="Clips in the version or in the part of it that was read.")
    in_place_of: VersionName | None = Field(default=None, description="Version that was rejected, and in whose place this one is used.")
    rejected: int | None = Field(default=None, ge=0, le=10**12, description="Curate: clips and videos that were rejected.")
