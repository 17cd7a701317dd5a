"""What every kind of the API shares: group, label keys, the strict base model, conditions.

Names follow the Kubernetes API conventions (sig-architecture/api-conventions.md). Not here: anything that
one kind alone uses.
"""

from __future__ import annotations

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
    `x-kubernetes-validations`; every other keyword is taken over as it is.
    """
    extra: dict[str, Any] = {}
    if key := keywords.pop("list_map", None):
        extra |= {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": [key]}
    if keywords.pop("atomic", False):
        extra["x-kubernetes-list-type"] = "atomic"
    if rules := keywords.pop("rules", None):
        extra["x-kubernetes-validations"] = [{"rule": rule, "message": message} for rule, message in rules]
    return extra | keywords


DnsLabel = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", min_length=1, max_length=63)]
ObjectName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$", min_length=1, max_length=63)]
ShortName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", min_length=1, max_length=30)]
StoragePath = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*$", max_length=256)]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$", max_length=64)]
Digest = Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$", max_length=71)]
PositiveDecimal = Annotated[str, StringConstraints(pattern=r"^[0-9]{1,9}(\.[0-9]{1,9})?(e-?[0-9]{1,2})?$", max_length=24)]
Decimal = Annotated[str, StringConstraints(pattern=r"^-?[0-9]{1,9}(\.[0-9]{1,9})?(e-?[0-9]{1,2})?$", max_length=24)]
Quantity = Annotated[str, StringConstraints(pattern=r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?$", max_length=16)]
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


class ModelType(StrEnum):
    """The model families that the trainer implements."""

    VIDEOFUSION = "videofusion"
    ALIGN_YOUR_LATENTS = "align-your-latents"
    TEXT2VIDEO_ZERO = "text2video-zero"


_LONGEST_PARTS = 45  # characters of type, version and specialization together; a release name has 16 more
_TOO_LONG = "type, version and specialization may have 45 characters together, because pods are named after them; shorten specialization"


class ModelIdentity(Model):
    """Which version of which model: the parts of its release name."""

    model_config = ConfigDict(
        json_schema_extra=k8s(rules=[(f"size(self.type) + size(self.version) + size(self.specialization) <= {_LONGEST_PARTS}", _TOO_LONG)])
    )

    type: ModelType = Field(
        description="Model family. videofusion: VideoFusion, decomposed diffusion (arXiv 2303.08320). align-your-latents: an image"
        " model with temporal layers (arXiv 2304.08818). text2video-zero: an image model that draws videos (arXiv 2303.13439)."
    )
    version: Annotated[
        str, StringConstraints(pattern=r"^(0|[1-9][0-9]{0,3})\.(0|[1-9][0-9]{0,3})\.(0|[1-9][0-9]{0,3})$", max_length=14)
    ] = Field(description="Semantic version, major.minor.patch, without a leading v.")
    specialization: Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", min_length=1, max_length=20)] = Field(
        default="base", description="What this version is specialised in: base, multilingual, ..."
    )

    @model_validator(mode="after")
    def _fits_a_name(self) -> ModelIdentity:
        if (found := len(self.type.value + self.version + self.specialization)) > _LONGEST_PARTS:
            raise ValueError(f"{_TOO_LONG}; found are {found}")
        return self


def release_name(model: ModelIdentity) -> str:
    """`pib-videogen-{type}-v{major}.{minor}.{patch}-{specialization}`, at most 61 characters."""
    return f"pib-videogen-{model.type.value}-v{model.version}-{model.specialization}"


def parse_release_name(name: str) -> ModelIdentity:
    """The inverse of `release_name`. Raises ValueError with the accepted form if the name has another one."""
    head, _, rest = name.removeprefix("pib-videogen-").partition("-v")
    version, _, specialization = rest.partition("-")
    if not name.startswith("pib-videogen-") or not specialization:
        raise ValueError(f"{name!r} is no release name; expected pib-videogen-<type>-v<major>.<minor>.<patch>-<specialization>")
    return ModelIdentity.model_validate({"type": head, "version": version, "specialization": specialization})
