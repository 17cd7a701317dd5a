"""Curation: how a dataset version is made from videos. A filter that is absent is off and costs nothing."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints

from videogen_api.meta import Model, PositiveDecimal, ShortName, StoragePath, k8s

VersionName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$", max_length=40)]
TablePath = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*\.(csv|jsonl)$", max_length=256)
]
LicenceName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9 .+()-]*$", max_length=64)]


class Source(Model):
    """A folder of mp4 or webm files, each with its caption in a text file of the same name, or with one table of them all."""

    path: StoragePath = Field(description="Folder in the storage; without a table it is read recursively.")
    table: TablePath | None = Field(
        default=None,
        description="CSV (with a header) or JSONL file, relative to path, that lists the videos: path, caption, and optionally"
        " transcript, category, urgency, licence.",
    )
    licence: LicenceName | None = Field(default=None, description="Licence of the videos for which the table names none.")


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
        default=12, ge=0, le=50, description="Share of the bits set in either of two hashes that may differ for the clips to be the same."
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
    motion: MotionFilter | None = Field(default=None, description="By how much moves.")
    darkness: DarknessFilter | None = Field(default=None, description="By brightness.")
    duplicates: DuplicateFilter | None = Field(default=None, description="By likeness to clips that come before.")


class SceneCuts(Model):
    """Where a scene ends: two frames that follow each other and differ much."""

    threshold: int = Field(default=30, ge=1, le=255, description="Mean absolute difference of two reduced frames, of 255, that is a cut.")


class Curate(Model):
    """How a dataset version is made from videos."""

    dataset: ShortName = Field(description="Name of the dataset.")
    version: VersionName = Field(description="Name of the new version; an existing one must have the same content.")
    parent: VersionName | None = Field(
        default=None,
        description="Version that this one follows: recorded in the manifest, and used in its place if the new one is rejected.",
    )
    sources: list[Source] = Field(min_length=1, max_length=16, description="Folders of videos.", json_schema_extra=k8s(atomic=True))
    frame_stride: int = Field(default=1, ge=1, le=60, description="Take every n-th frame of a video.")
    scene_cuts: SceneCuts | None = Field(default=None, description="No clip reaches over a cut between scenes; absent: none are sought.")
    filters: Filters = Field(default=Filters(), description="What is kept out.")
    held_out_percent: int = Field(
        default=20, ge=0, le=90, description="Share of clips kept for evaluation; which ones depends on their content alone."
    )
    minimum_clips: int = Field(default=1, ge=1, le=100_000_000, description="With fewer clips the version is rejected.")
    maximum_rejected_percent: int = Field(
        default=20,
        ge=0,
        le=100,
        description="With a larger share rejected the version is rejected; a video that gives no clip counts like one clip.",
    )
    maximum_clips_per_video: int = Field(default=64, ge=1, le=100_000, description="Clips that are cut out of one video at most.")
