"""What every kind of the API shares: group, label keys, the strict base model, conditions.

Names follow the Kubernetes API conventions (sig-architecture/api-conventions.md). Not here: anything that
one kind alone uses.
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator
from pydantic.alias_generators import to_camel

GROUP = "videogen.pib.gov.in"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
CATEGORY = "videogen"

LABEL_RUN = f"{GROUP}/run"
LABEL_PHASE = f"{GROUP}/phase"
LABEL_ATTEMPT = f"{GROUP}/attempt"
LABEL_SERVICE = f"{GROUP}/service"
LABEL_RELEASE = f"{GROUP}/release"
LABEL_STORAGE = f"{GROUP}/storage"  # on a claim, with the value STORAGE_ALLOWED: runs and releases may mount it
STORAGE_ALLOWED = "true"
ANNOTATION_REQUEST = f"{GROUP}/request"

FIELD_MANAGER = "videogen-operator"


class Model(BaseModel):
    """Base of everything a user may write: frozen, camelCase on the wire, unknown fields refused."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True, extra="forbid", use_enum_values=False)

    def wire(self) -> dict[str, Any]:
        """The value as it stands in JSON: camelCase keys, enums as strings, absent fields left out."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


class Observation(Model):
    """Base of everything the operator or the trainer writes: readers ignore fields of a newer writer."""

    model_config = ConfigDict(extra="ignore")


def k8s(**keywords: Any) -> dict[str, Any]:
    """Kubernetes' schema extensions for `Field(json_schema_extra=...)`: `list_map="name"`, `rules=[(cel, message)]`.

    `list_map` makes a list a map keyed by that property, `atomic=True` an atomic list, `rules` become
    `x-kubernetes-validations`, those of `cel.merged` as they are; every other keyword is taken over as it is.
    """
    extra: dict[str, Any] = {}
    if key := keywords.pop("list_map", None):
        extra |= {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": [key]}
    if keywords.pop("atomic", False):
        extra["x-kubernetes-list-type"] = "atomic"
    if rules := keywords.pop("rules", None):
        extra["x-kubernetes-validations"] = [rule if isinstance(rule, dict) else {"rule": rule[0], "message": rule[1]} for rule in rules]
    return extra | keywords


DnsLabel = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", min_length=1, max_length=63)]
ObjectName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$", min_length=1, max_length=63)]
ShortName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", min_length=1, max_length=30)]
StoragePath = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*$", max_length=256)]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$", max_length=64)]
Digest = Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$", max_length=71)]
PositiveDecimal = Annotated[str, StringConstraints(pattern=r"^[0-9]{1,9}(\.[0-9]{1,9})?(e-?[0-9]{1,2})?$", max_length=24)]
Decimal = Annotated[str, StringConstraints(pattern=r"^-?[0-9]{1,9}(\.[0-9]{1,9})?(e-?[0-9]{1,2})?$", max_length=24)]
Text = Annotated[str, StringConstraints(max_length=1024)]
Timestamp = Annotated[str, StringConstraints(max_length=40), Field(json_schema_extra={"format": "date-time"})]


class ConditionStatus(StrEnum):
    """The three values of a Kubernetes condition."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


class Condition(Observation):
    """One observation about an object, in the shape of `metav1.Condition`."""

    type: Annotated[str, StringConstraints(max_length=316)] = Field(description="Name of the condition.")
    status: ConditionStatus = Field(description="True, False or Unknown.")
    reason: Annotated[str, StringConstraints(min_length=1, max_length=128)] = Field(
        description="One CamelCase word that says why; message has the details."
    )
    message: Annotated[str, StringConstraints(max_length=2048)] = Field(
        default="", description="The same for a person: what, where, what was found, what to do."
    )
    observed_generation: int = Field(default=0, ge=0, le=2**53, description="metadata.generation that this condition judges.")
    last_transition_time: Timestamp = Field(description="When status last changed its value.")


class ModelFamily(StrEnum):
    """The architectures that the trainer implements."""

    VIDEOFUSION = "VideoFusion"
    ALIGN_YOUR_LATENTS = "AlignYourLatents"
    TEXT2VIDEO_ZERO = "Text2VideoZero"


NamePart = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", min_length=1, max_length=20)]
VersionNumber = Annotated[str, StringConstraints(pattern=r"^(0|[1-9][0-9]{0,3})\.(0|[1-9][0-9]{0,3})\.(0|[1-9][0-9]{0,3})$", max_length=14)]
TYPES: dict[str, str] = {  # by family: the type of a model that names none
    ModelFamily.VIDEOFUSION: "videofusion",
    ModelFamily.ALIGN_YOUR_LATENTS: "align-your-latents",
    ModelFamily.TEXT2VIDEO_ZERO: "text2video-zero",
}
_LONGEST_PARTS = 45  # characters of type, version and specialization together; a release name has 16 more
_TOO_LONG = "type, version and specialization may have 45 characters together, because pods are named after them; shorten specialization"
_FOREIGN = "type is the default of another family, whose models it would be taken for; choose another word, or leave it out"
_LIKE_A_VERSION = "type must not contain -v and a digit: it would be taken for the version in the names of pods; choose another word"


def _default_type(model: str) -> str:
    """CEL: the type that a model has by its family; "" for one that the schema refuses anyway, or none in an object of an older API."""
    return (
        f"(!has({model}.family) ? '' : " + "".join(f"{model}.family == '{family}' ? '{word}' : " for family, word in TYPES.items()) + "'')"
    )


def type_of(model: str) -> str:
    """CEL: the type of the model identity `model`, also where it is left out."""
    return f"(has({model}.type) ? {model}.type : {_default_type(model)})"


_IS_NOT_FOREIGN = f"!has(self.type) || !has(self.family) || !(self.type in {list(TYPES.values())}) || self.type == {_default_type('self')}"


class ModelIdentity(Model):
    """Which version of which model: the parts of its release name, `pib-videogen-{type}-v{version}-{specialization}`."""

    model_config = ConfigDict(
        json_schema_extra=k8s(
            rules=[
                (f"size({type_of('self')}) + size(self.version) + size(self.specialization) <= {_LONGEST_PARTS}", _TOO_LONG),
                (_IS_NOT_FOREIGN, _FOREIGN),
                ("!has(self.type) || !self.type.matches('-v[0-9]')", _LIKE_A_VERSION),
            ]
        )
    )

    family: ModelFamily = Field(
        description="Architecture. VideoFusion: decomposed diffusion (arXiv 2303.08320). AlignYourLatents: an image model with temporal"
        " layers (arXiv 2304.08818). Text2VideoZero: an image model that draws videos (arXiv 2303.13439)."
    )
    type: NamePart = Field(
        default_factory=str,  # so that the schema has no default; see _type_by_family
        description="The word for the model in the release's name, for example base. Absent: videofusion, align-your-latents or"
        " text2video-zero, by family. Versions are compared within one type and specialization only.",
    )
    version: VersionNumber = Field(description="Semantic version, major.minor.patch, without a leading v.")
    specialization: NamePart = Field(
        default="base",
        description="What this version is specialised in: base, english, multilingual, ... The last part of the release's name.",
    )

    @model_validator(mode="before")
    @classmethod
    def _type_by_family(cls, given: Any) -> Any:
        return _with_type(given)

    @model_validator(mode="after")
    def _fits_a_name(self) -> ModelIdentity:
        if (found := len(self.type + self.version + self.specialization)) > _LONGEST_PARTS:
            raise ValueError(f"{_TOO_LONG}; found are {found}")
        if self.type in TYPES.values() and self.type != TYPES[self.family]:
            raise ValueError(f"{_FOREIGN}; found is {self.type} for family {self.family}")
        if re.search(r"-v\d", self.type):
            raise ValueError(f"{_LIKE_A_VERSION}; found is {self.type}")
        return self


class ModelLine(Model):
    """A model of which there are many versions: type and specialization name it."""

    model_config = ConfigDict(
        json_schema_extra=k8s(
            rules=[
                (_IS_NOT_FOREIGN, _FOREIGN),
                ("!has(self.type) || !self.type.matches('-v[0-9]')", _LIKE_A_VERSION),
            ]
        )
    )

    family: ModelFamily = Field(description="Architecture: VideoFusion, AlignYourLatents or Text2VideoZero.")
    type: NamePart = Field(
        default_factory=str,
        description="The word for the model in the names of its releases. Absent: videofusion, align-your-latents or text2video-zero, by"
        " family.",
    )
    specialization: NamePart = Field(default="base", description="What the model is specialised in: base, english, multilingual, ...")

    @model_validator(mode="before")
    @classmethod
    def _type_by_family(cls, given: Any) -> Any:
        return _with_type(given)

    def at(self, version: str) -> ModelIdentity:
        """The model's version. Raises ValidationError if it has no name."""
        return ModelIdentity(family=self.family, type=self.type, version=version, specialization=self.specialization)


def _with_type(given: Any) -> Any:
    """What was given, with the type that its family has where it names none."""
    word = TYPES.get(given.get("family", "")) if isinstance(given, dict) and not given.get("type") else None
    return {**given, "type": word} if word else given


def release_name(model: ModelIdentity) -> str:
    """`pib-videogen-{type}-v{major}.{minor}.{patch}-{specialization}`, at most 61 characters."""
    return f"pib-videogen-{model.type}-v{model.version}-{model.specialization}"


class NameParts(Model):
    """What a release name says of its model; the family is not in it."""

    type: NamePart
    version: VersionNumber
    specialization: NamePart


def parse_release_name(name: str) -> NameParts:
    """The inverse of `release_name`. Raises ValueError with the accepted form if the name has another one."""
    found = re.fullmatch(r"pib-videogen-(?P<type>[^.]+)-v(?P<version>[0-9]+\.[0-9]+\.[0-9]+)-(?P<specialization>[^.]+)", name)
    if not found:
        raise ValueError(f"{name!r} is no release name; expected pib-videogen-<type>-v<major>.<minor>.<patch>-<specialization>")
    return NameParts.model_validate(found.groupdict())
