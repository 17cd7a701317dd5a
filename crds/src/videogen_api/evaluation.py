"""Metrics, their results and the gates that judge them: shared by runs, releases and the trainer's contract."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field, StringConstraints

from videogen_api.meta import Decimal, Digest, DnsLabel, Model, Observation, ShortName, StoragePath, Text, k8s
from videogen_api.recipe import Resolution


class Metric(StrEnum):
    """Offline metrics of a model."""

    FVD = "FVD"
    INCEPTION_SCORE = "InceptionScore"
    CLIP_SCORE = "CLIPScore"
    TEMPORAL_COHERENCE = "TemporalCoherence"
    ARTEFACT_RATE = "ArtefactRate"
    GENERATION_SECONDS = "GenerationSeconds"
    SCENARIO_PASS_RATIO = "ScenarioPassRatio"
    LANGUAGE_SCORE = "LanguageScore"


class Normalization(StrEnum):
    """How CLIPScore is scaled: Raw is the mean cosine, ClipScore25 is 2.5 * max(cosine, 0) (Hessel et al., 2021)."""

    RAW = "Raw"
    CLIP_SCORE_25 = "ClipScore25"


class Operator(StrEnum):
    """How a gate compares."""

    LESS_THAN = "LessThan"
    GREATER_THAN = "GreaterThan"


class Verdict(StrEnum):
    """Outcome of a gate or of a live check. Only Passed lets a release go on."""

    PASSED = "Passed"
    FAILED = "Failed"
    INCONCLUSIVE = "Inconclusive"
    ERROR = "Error"


class ExtractorArchitecture(StrEnum):
    """Feature networks that the trainer can build; their weights are mounted by the user."""

    I3D = "I3D"
    C3D = "C3D"
    CLIP = "CLIP"


DEFAULT_EXTRACTORS = ("video-classifier", "text-video-encoder")  # the networks that the trainer brings along


TIMED_CLIPS = 64  # that Evaluate and Optimize generate one at a time, of all that they generate


class Extractor(Model):
    """A feature network of the user's own, read from the run's storage and verified by its digest."""

    name: ShortName = Field(description="Name that gates refer to, for example i3d-kinetics400.")
    architecture: ExtractorArchitecture = Field(description="I3D (for FVD), C3D (for InceptionScore) or CLIP (for CLIPScore).")
    path: StoragePath = Field(description="Safetensors file in the storage; for CLIP a folder as Hugging Face saves it.")
    digest: Digest = Field(
        description="sha256: and the SHA-256 of the file, in hex; for CLIP of what sha256sum prints for the folder's .json, .safetensors"
        " and .txt files, sorted by name: ls | LC_ALL=C sort | grep -E '[.](json|safetensors|txt)$' | xargs sha256sum | sha256sum"
    )

    @property
    def sha256(self) -> str:
        """The digest's 64 hex digits."""
        return self.digest.removeprefix("sha256:")


class Gate(Model):
    """A condition on one metric that must hold before a release."""

    metric: Metric = Field(
        description="What is judged: FVD, InceptionScore, CLIPScore, TemporalCoherence, ArtefactRate (share of frames), GenerationSeconds"
        " (95 % of the clips take at most so long, each generated alone; Evaluate and Optimize time 64 of them)"
        " or, of TestScenarios alone, ScenarioPassRatio (share that passed); LanguageScore:"
        " CLIPScore of the captions in the script that fares worst, by an extractor of yours, where captions are in two scripts or more."
    )
    operator: Operator = Field(description="LessThan: the value must be below the threshold. GreaterThan: above it.")
    threshold: Decimal = Field(description="The bound, a decimal number as a string, for example 200 or 0.7.")
    minimum_samples: int = Field(
        default=64, ge=2, le=1_000_000, description="With fewer samples than this the verdict is Inconclusive, never Passed."
    )
    extractor: DnsLabel | None = Field(
        default=None, description="Feature network that must have been used; absent: the default one of the trainer."
    )
    normalization: Normalization = Field(default=Normalization.CLIP_SCORE_25, description="Scale of CLIPScore; other metrics ignore it.")


class MetricResult(Observation):
    """One measured metric, with all that makes it comparable."""

    metric: Metric = Field(description="What was measured.")
    value: Decimal = Field(description="The value, a decimal number.")
    low: Decimal | None = Field(default=None, description="Lower end of the bootstrap 95 % interval.")
    high: Decimal | None = Field(default=None, description="Upper end of the bootstrap 95 % interval.")
    samples: int = Field(ge=0, le=10_000_000, description="Generated clips that the value rests on.")
    extractor: Annotated[str, StringConstraints(max_length=63)] = Field(default="", description="Name of the feature network.")
    extractor_digest: Annotated[str, StringConstraints(pattern=r"^(sha256:[0-9a-f]{64})?$", max_length=71)] = Field(
        default="", description="Digest of the feature network's weights; empty: none was used."
    )
    normalization: Normalization | None = Field(default=None, description="Scale, for CLIPScore.")
    verdict: Verdict | None = Field(default=None, description="What the run's gate on this metric said, if it has one.")
    message: Text = Field(default="", description="The verdict in words.")
    frames: int | None = Field(default=None, ge=1, le=100_000, description="Frames of each generated clip.")
    resolution: Resolution | None = Field(default=None, description="Size of the generated frames.")
    maximum: Decimal | None = Field(
        default=None, description="InceptionScore: what it cannot exceed with so many samples and this network's classes."
    )


# What is measured must fit into a pod's termination message: one result for each I3D or C3D, three for each CLIP network.
_CLIP_NETWORKS = (
    "self.filter(e, e.architecture == 'CLIP').size() <= 1",
    "at most 1 of the extractors may be a CLIP network; measure with another in a second Evaluate phase",
)
_OWN_NAMES = (
    f"self.all(e, !(e.name in {list(DEFAULT_EXTRACTORS)}))",
    f"{' and '.join(DEFAULT_EXTRACTORS)} are the trainer's own networks, which are always used; give yours another name",
)


class Evaluation(Model):
    """How an Evaluate phase measures."""

    samples: int = Field(default=256, ge=2, le=1_000_000, description="Clips to generate.")
    sampling_steps: int = Field(default=50, ge=1, le=1000, description="Denoising steps (DDIM) of one generation.")
    extractors: list[Extractor] = Field(
        default=[],
        max_length=4,
        description="Feature networks of the user's own, at most 1 of them CLIP; the trainer's small default networks are used as well.",
        json_schema_extra=k8s(list_map="name", rules=[_CLIP_NETWORKS, _OWN_NAMES]),
    )
