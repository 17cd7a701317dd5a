"""Curation: how a dataset version is made from videos. A filter that is absent is off and costs nothing."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import ConfigDict, Field, StringConstraints

from videogen_api.evaluation import Extractor
from videogen_api.meta import Decimal, Model, Observation, PositiveDecimal, ShortName, StoragePath, k8s

VersionName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$", max_length=40)]
TablePath = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*\.(csv|jsonl)$", max_length=256)
]
ShardPattern = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9*?{][A-Za-z0-9._*?{},/-]*\.tar$", max_length=256)]
CaptionKey = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_]([A-Za-z0-9_ .-]*[A-Za-z0-9_])?$", max_length=64)]
LONGEST_CLIP = 1024  # frames of a video that a clip may span if some are held out: the longest block of the split
LicenceName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9 .+()-]*$", max_length=64)]


class Source(Model):
    """A folder of mp4 or webm files: each with its caption in a text file, or with one table of them all, or in webdataset shards."""

    model_config = ConfigDict(
        json_schema_extra=k8s(
            rules=[
                ("!(has(self.table) && has(self.shards))", "table and shards exclude each other; make two sources"),
                ("!has(self.captionKey) || has(self.shards)", "captionKey is for shards; a table has the column caption"),
            ]
        )
    )

    path: StoragePath = Field(description="Folder in the storage; without a table or shards it is read recursively.")
    table: TablePath | None = Field(
        default=None,
        description="CSV (with a header) or JSONL file, relative to path, that lists the videos: path, caption, and optionally"
        " transcript, category, urgency, licence.",
    )
    shards: ShardPattern | None = Field(
        default=None,
        description="Uncompressed tar files, relative to path, in webdataset's layout (key.mp4 or key.webm, key.txt, key.json): one name,"
        " or several by * and ?, {a,b} or {000..127}. Every name that braces spell must exist.",
    )
    caption_key: CaptionKey | None = Field(
        default=None, description="Shards: field of key.json that has the caption; absent: key.txt, else the field caption."
    )
    licence: LicenceName | None = Field(
        default=None, description="Licence of the videos for which the table or the sample's json names none."
    )


class ResolutionFilter(Model):
    """Rejects videos of small pictures."""

    minimum_shorter_side: int = Field(default=128, ge=8, le=8192, description="Pixels that the shorter side must have.")


class LengthFilter(Model):
    """Rejects videos that are too short or too long, before they are decoded."""

    minimum_seconds: int = Field(default=1, ge=0, le=86_400, description="Shortest video.")
    maximum_seconds: int = Field(default=3600, ge=1, le=86_400, description="Longest video.")


class CaptionFilter(Model):
    """Rejects videos whose caption says too little or too much."""

    minimum_characters: int = Field(default=10, ge=1, le=100_000, description="Shortest caption.")
    maximum_characters: int = Field(default=1000, ge=1, le=100_000, description="Longest caption.")


class Language(StrEnum):
    """Languages whose script can be told: English and those of India's Press Information Bureau."""

    ENGLISH = "en"
    HINDI = "hi"
    ASSAMESE = "as"
    BENGALI = "bn"
    GUJARATI = "gu"
    KANNADA = "kn"
    MALAYALAM = "ml"
    MANIPURI = "mni"
    MARATHI = "mr"
    ODIA = "or"
    PUNJABI = "pa"
    TAMIL = "ta"
    TELUGU = "te"
    URDU = "ur"


class LanguageFilter(Model):
    """Rejects captions that are not written in the script of an accepted language. Languages of one script are not told apart."""

    accepted: list[Language] = Field(
        min_length=1,
        max_length=14,
        description="Languages whose script is accepted: en is all that is in Latin letters, hi and mr all in Devanagari, as and bn all in"
        " Bengali, and so on.",
        json_schema_extra=k8s(**{"x-kubernetes-list-type": "set"}),
    )
    minimum_percent: int = Field(default=80, ge=1, le=100, description="Share of a caption's letters that must be in accepted scripts.")


class MotionFilter(Model):
    """Rejects clips in which hardly anything moves."""

    minimum: PositiveDecimal = Field(
        default="0.5", description="Least mean absolute difference between a clip's frames and the ones after them, of 255."
    )


class DarknessFilter(Model):
    """Rejects dark clips."""

    minimum_brightness: int = Field(default=16, ge=1, le=255, description="Least mean brightness of a clip, of 255.")


class DuplicateFilter(Model):
    """Rejects clips that look like an earlier one, by a difference hash of 576 bits over three frames."""

    maximum_difference_percent: int = Field(
        default=12,
        ge=0,
        le=50,
        description="Share of the bits set in either of two hashes that may differ for the clips to be the same; where fewer than 10 are"
        " set, also share of 72 mean colours that may differ by more than 8 of 255.",
    )


class TextOverlayFilter(Model):
    """Rejects clips with captions, tickers or logos in letters over the picture, by a search for still lines of strokes."""

    maximum_percent: PositiveDecimal = Field(
        default="0.5",
        description="Largest share of the picture, in percent, that boxes around lines of text may cover.",
        json_schema_extra=k8s(rules=[("double(self) <= 100.0", "must be at most 100")]),
    )


class RelevanceFilter(Model):
    """Rejects clips that do not show what their caption says, by a text-video encoder."""

    minimum_similarity: Decimal = Field(
        description="Least mean cosine, -1 to 1, of the caption's embedding with those of the clip; the scale is the encoder's own.",
        json_schema_extra=k8s(rules=[("double(self) >= -1.0 && double(self) <= 1.0", "must be from -1 to 1")]),
    )
    extractor: Extractor | None = Field(
        default=None,
        description="A CLIP of the user's own; absent: the trainer's small default encoder, which knows only words of the synthetic clips.",
        json_schema_extra=k8s(rules=[("self.architecture == 'CLIP'", "architecture must be CLIP: it compares texts with pictures")]),
    )


class Filters(Model):
    """What is kept out of a dataset; each filter is off unless it is named, `{}` takes its defaults."""

    resolution: ResolutionFilter | None = Field(default=None, description="By the size of the video's pictures.")
    length: LengthFilter | None = Field(
        default=None,
        description="By the video's length.",
        json_schema_extra=k8s(rules=[("self.minimumSeconds <= self.maximumSeconds", "minimumSeconds may not be above maximumSeconds")]),
    )
    caption: CaptionFilter | None = Field(
        default=None,
        description="By the caption's length.",
        json_schema_extra=k8s(
            rules=[("self.minimumCharacters <= self.maximumCharacters", "minimumCharacters may not be above maximumCharacters")]
        ),
    )
    language: LanguageFilter | None = Field(default=None, description="By the script that the caption is written in.")
    motion: MotionFilter | None = Field(default=None, description="By how much moves.")
    darkness: DarknessFilter | None = Field(default=None, description="By brightness.")
    text_overlay: TextOverlayFilter | None = Field(default=None, description="By text over the picture.")
    relevance: RelevanceFilter | None = Field(default=None, description="By likeness of caption and clip.")
    duplicates: DuplicateFilter | None = Field(default=None, description="By likeness to clips that come before.")


class SceneCuts(Model):
    """Where a scene ends: two frames that follow each other and differ much."""

    threshold: int = Field(default=30, ge=1, le=255, description="Mean absolute difference of two reduced frames, of 255, that is a cut.")


class WhenBelow(StrEnum):
    """What a Curate phase does with fewer new clips than it needs."""

    FAIL = "Fail"
    WAIT = "Wait"


class NewClips(Model):
    """New clips since another version of the dataset, and how many the phase needs. A clip is new if its frames are not in that version."""

    previous: VersionName | None = Field(
        default=None,
        description="Version of the dataset that clips are compared with; absent: none, and all clips are new. It must have the recipe's"
        " frames and resolution. Clips of the same frames count once, whatever their captions.",
    )
    minimum: int = Field(
        default=0,
        ge=0,
        le=100_000_000,
        description="With fewer new clips nothing is published, and no later phase begins; parent is not used in place of the version.",
    )
    when_below: WhenBelow = Field(
        default=WhenBelow.FAIL,
        description="Fail ends the run with TooFewNewClips. Wait curates again every hour, until the phase's window closes; no video is"
        " decoded twice.",
    )


class NewClipsFound(Observation):
    """What a Curate phase has counted."""

    found: int = Field(ge=0, le=10**12, description="New clips; those of the same frames count once.")
    minimum: int = Field(default=0, ge=0, le=100_000_000, description="New clips that the phase needs.")
    previous: VersionName | None = Field(default=None, description="Version that does not have them; absent: all clips are new.")

    @property
    def words(self) -> str:
        """What was found, and since which version."""
        return f"{self.found:,} new clips" + (f" since {self.previous}" if self.previous else "")


class Curate(Model):
    """How a dataset version is made from videos."""

    dataset: ShortName = Field(description="Name of the dataset.")
    version: VersionName = Field(description="Name of the new version; an existing one must have the same content.")
    parent: VersionName | None = Field(
        default=None,
        description="Version that this one follows: recorded in the manifest, and used in its place if the new one is rejected.",
    )
    sources: list[Source] = Field(min_length=1, max_length=16, description="Folders of videos.", json_schema_extra=k8s(atomic=True))
    frame_stride: int = Field(
        default=1,
        ge=1,
        le=60,
        description="Take every n-th frame of a video. Unless heldOutPercent is 0, a clip spans at most 1024 frames of it.",
    )
    scene_cuts: SceneCuts | None = Field(default=None, description="No clip reaches over a cut between scenes; absent: none are sought.")
    filters: Filters = Field(default=Filters(), description="What is kept out.")
    held_out_percent: int = Field(
        default=20,
        ge=0,
        le=90,
        description="Share of clips kept for evaluation. Which frames these are depends on the video file and this share alone.",
    )
    new_clips: NewClips | None = Field(default=None, description="New clips since another version; absent: they are not counted.")
    minimum_clips: int = Field(default=1, ge=1, le=100_000_000, description="With fewer clips the version is rejected.")
    maximum_rejected_percent: int = Field(
        default=20,
        ge=0,
        le=100,
        description="With a larger share rejected the version is rejected; a video that gives no clip counts like one clip.",
    )
    maximum_clips_per_video: int = Field(default=64, ge=1, le=100_000, description="Clips that are cut out of one video at most.")
