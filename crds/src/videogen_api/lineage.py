"""Where a release's bundle comes from: everything that decided it, by digest, so that it can be found again and compared."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints

from videogen_api.approvals import GivenApproval
from videogen_api.curation import VersionName
from videogen_api.meta import Digest, Model, ObjectName, ShortName, StoragePath, Timestamp, k8s
from videogen_api.noise_shares import Share

MOST_DATASETS, MOST_IMAGES, MOST_LINEAGE_APPROVALS = 64, 16, 32


class LineageDataset(Model):
    """A dataset version that the run read or made."""

    dataset: ShortName = Field(description="Name of the dataset.")
    version: VersionName = Field(description="Version of the dataset.")
    digest: Digest = Field(description="Digest of the version's manifest.")


class LineageWeights(Model):
    """The weights that the run started from."""

    release: ObjectName | None = Field(default=None, description="ModelRelease that they are from; its own lineage tells what came before.")
    run: ObjectName | None = Field(default=None, description="TrainingRun that they are from.")
    digest: Digest = Field(description="Digest of their bundle's manifest.")


class LineageEvaluation(Model):
    """The evaluation that the gates are judged by."""

    phase: ShortName = Field(description="Phase of the run that measured.")
    digest: Digest = Field(
        description="SHA-256 of its results as canonical JSON, without verdicts and messages. The gates are judged by these results alone:"
        " a release whose run shows others is rejected with EvaluationMismatch."
    )
    report: StoragePath | None = Field(
        default=None, description="HTML page about it in the claim of spec.artifact, beside the bundle: lineage, gates and sample clips."
    )


class Lineage(Model):
    """Where the bundle comes from. A run's Release phase writes all of it."""

    run: ObjectName | None = Field(default=None, description="TrainingRun whose evaluation the gates are judged by.")
    recipe_digest: Digest | None = Field(
        default=None, description="SHA-256 of the run's recipe as canonical JSON, defaults and what Tune phases chose included."
    )
    base_noise_shares: list[Share] = Field(
        default=[],
        max_length=128,
        description="λ of a VideoFusion, as Tune phases chose it, or that of each frame; another than the stable release's is approved.",
        json_schema_extra=k8s(atomic=True),
    )
    base_noise_shares_since: Timestamp | None = Field(
        default=None, description="Since when the service's stable releases have had these shares; absent: unknown, or no VideoFusion."
    )
    approvals: list[GivenApproval] = Field(
        default=[],
        max_length=MOST_LINEAGE_APPROVALS,
        description="Who approved what of the run, when, and for which digest.",
        json_schema_extra=k8s(atomic=True),
    )
    datasets: list[LineageDataset] = Field(
        default=[],
        max_length=MOST_DATASETS,
        description="Dataset versions that the run read or made, in the order of its phases.",
        json_schema_extra=k8s(atomic=True),
    )
    init_from: LineageWeights | None = Field(default=None, description="The weights that the run started from; absent: none.")
    images: list[Annotated[str, StringConstraints(min_length=1, max_length=512)]] = Field(
        default=[],
        max_length=MOST_IMAGES,
        description="Images that computed the run's phases, as the kubelet told them.",
        json_schema_extra=k8s(atomic=True),
    )
    evaluation: LineageEvaluation | None = Field(default=None, description="The evaluation that the gates are judged by.")
