"""Videos for emergencies: templates that are made ahead and lie in the bundle, and scenarios that a model is tried with.

`category` and `urgency` are the words that a dataset's clips are annotated with (`videogen_api.curation`, a source's table).
The trainer brings ten categories along; see docs/models.md.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, StringConstraints

from videogen_api.curation import RelevanceFilter, TablePath
from videogen_api.meta import Decimal, Digest, Model, Observation, Sha256, ShortName, StoragePath, k8s
from videogen_api.noise_shares import Share
from videogen_api.recipe import Prompt, Resolution

TEMPLATES = "templates"  # folder of a bundle
TEMPLATE_INDEX = f"{TEMPLATES}/templates.json"

CaptionText = Annotated[str, StringConstraints(min_length=1, max_length=160, pattern=r"^\S(.*\S)?$")]
Urgency = Annotated[str, StringConstraints(min_length=1, max_length=30, pattern=r"^[A-Za-z0-9][A-Za-z0-9 _-]*$")]


class ClipQuality(Model):
    """What a single video must fulfil; real clips of `data` say how much moves and what an artefact is."""

    minimum_coherence: Share = Field(
        default="0.5",
        description="Least temporal coherence, 0 to 1; a video that moves less than a quarter as much as real clips of its category loses.",
    )
    maximum_artefact_rate: Share = Field(
        default="0.1", description="Largest share of frames that flicker, show blocks or are blown out more than those of real clips."
    )
    relevance: RelevanceFilter | None = Field(
        default=None, description="Likeness of prompt and video by a text-video encoder; absent: it is not judged."
    )


class EmergencyType(Model):
    """One kind of emergency and the video that is made of it."""

    category: ShortName = Field(description="Name that the server is asked for, and category of the dataset's clips: flood.")
    urgency: Urgency = Field(default="immediate", description="Urgency that the template is for, as in the dataset: immediate.")
    prompt: Prompt = Field(description="What the video shall show.")
    caption: CaptionText = Field(description="Text that is written into the picture.")


class CaptionFont(Model):
    """A font of the user's own, for captions in other letters than English ones."""

    path: StoragePath = Field(description="TrueType or OpenType file in the storage.")
    digest: Digest = Field(description="sha256: and the SHA-256 of the file, in hex.")

    @property
    def sha256(self) -> str:
        """The digest's 64 hex digits."""
        return self.digest.removeprefix("sha256:")


_WITHIN = (
    "!has(self.minimumVariations) || self.minimumVariations <= self.variations",
    "minimumVariations may not be greater than variations",
)


class Templates(Model):
    """What a BuildTemplates phase makes: a bundle with the same weights, and judged videos in its folder templates/."""

    model_config = ConfigDict(json_schema_extra=k8s(rules=[_WITHIN]))

    types: list[EmergencyType] = Field(
        default=[],
        max_length=20,
        description="Kinds of emergencies; absent: the ten that the trainer brings along, flood to chemical-leak.",
        json_schema_extra=k8s(list_map="category"),
    )
    variations: int = Field(default=5, ge=1, le=20, description="Videos of each type, each of its own noise.")
    attempts_per_template: int = Field(
        default=3, ge=1, le=20, description="Videos that are drawn for one template until one is good enough; then it is left out."
    )
    minimum_variations: int | None = Field(
        default=None,
        ge=1,
        le=20,
        description="Templates that each type must have; a type with fewer fails the phase, and the message names what is lacking. Absent:"
        " all variations.",
    )
    sampling_steps: int = Field(default=50, ge=1, le=1000, description="Denoising steps of a video.")
    quality: ClipQuality = Field(default=ClipQuality(), description="What a video must fulfil to become a template.")
    caption_font: CaptionFont | None = Field(
        default=None, description="Font of the captions; absent: the trainer's own, which has English letters only."
    )

    @property
    def least(self) -> int:
        """Templates that each type must have."""
        return self.minimum_variations or self.variations


class Scenarios(Model):
    """What a TestScenarios phase asks of the server's code, one video after the other."""

    table: TablePath | None = Field(
        default=None,
        description="CSV (with a header) or JSONL file in the storage: prompt, category, urgency, and optionally id; absent: the hundred"
        " that the trainer brings along, ten categories in two urgencies at five places.",
    )
    samples: int | None = Field(default=None, ge=1, le=1000, description="Take this many at even distances; absent: all, at most 1000.")
    maximum_seconds: int = Field(default=60, ge=1, le=3600, description="Time within which a video must be there; the server stops then.")
    sampling_steps: int = Field(default=50, ge=1, le=1000, description="Denoising steps of a video.")
    quality: ClipQuality = Field(default=ClipQuality(), description="What a video must fulfil besides.")


class Template(Observation):
    """One pre-rendered video of a bundle. The server draws the same picture, without caption, from prompt, seed and steps."""

    file: StoragePath  # below the bundle's folder
    sha256: Sha256
    category: ShortName
    urgency: Urgency
    variation: int = Field(ge=1)
    caption: CaptionText
    prompt: Prompt
    seed: int = Field(ge=0, le=2**31 - 1)
    steps: int = Field(ge=1)
    frames: int = Field(ge=1)
    frame_rate: int = Field(ge=1)
    resolution: Resolution  # of the file, which may be enlarged
    coherence: Decimal
    artefact_rate: Decimal
    similarity: Decimal | None = None  # None: the encoder knows no word of the prompt


class TemplateIndex(Observation):
    """`templates/templates.json` of a bundle."""

    format: Literal["videogen-templates/v1"] = "videogen-templates/v1"
    drawn_by: Digest  # the bundle whose model drew them
    templates: list[Template]
