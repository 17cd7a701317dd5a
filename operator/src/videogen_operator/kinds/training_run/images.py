"""The trainer image of a run: the one that its first pods ran, by digest where a pod has told it, until somebody asks for a retry.

A tag may mean another image tomorrow, and the operator's own setting changes with each upgrade; a run goes on with the code with which it
began. Nothing is pinned before a pod has run, so that a wrong name can be corrected.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from videogen_api.pinned import RunImages
from videogen_api.training_run import PhaseStatus
from videogen_operator.kinds.training_run.failure_policy import CONTAINER
from videogen_operator.kinds.training_run.sources import value_at
from videogen_operator.kubernetes_objects import NOTHING, image_id
from videogen_operator.plan import Manifest

SETTING = "trainer_image"


@dataclass(frozen=True, slots=True)
class Ran:
    """The image that a pod asked for, and what the kubelet says it ran."""

    image: str
    image_id: str


def ran(pods: tuple[Manifest, ...]) -> Ran | None:
    """The trainer image of the first of the pods that has started; None if none has."""
    for pod in pods:
        asked = _container(value_at(pod, "spec", "containers"))
        told = image_id(_container(value_at(pod, "status", "containerStatuses")) or NOTHING)
        if told and (image := value_at(asked, "image")):
            return Ran(str(image), told)
    return None


def noted(status: PhaseStatus, pods: tuple[Manifest, ...]) -> PhaseStatus:
    """The phase with the image that its current attempt runs."""
    found = ran(pods)
    return status if found is None else status.model_copy(update={"image_id": found.image_id})


def pinned(images: RunImages | None, pods: tuple[Manifest, ...]) -> RunImages | None:
    """The images of the run, once a pod has run one."""
    found = ran(pods)
    return images if images is not None or found is None else RunImages(trainer=exact(found)[:512])


def exact(found: Ran) -> str:
    """The image by digest, where the kubelet names it in the repository that was asked for; else as it was asked for.

    An image that was loaded into a node without a registry has an ID that no other node could pull.
    """
    repository, at, digest = found.image_id.partition("@")
    name = found.image.rpartition(":")[0] if ":" in found.image.rpartition("/")[2] else found.image
    same = repository == name or repository.endswith(f"/{name}")  # a short name was completed by the kubelet's runtime
    return f"{name}@{digest}" if at and same and "@" not in name else found.image


def settings_of(images: RunImages | None, settings: Mapping[str, str]) -> Mapping[str, str]:
    """The operator's settings with the run's own image in place of the chart's."""
    return settings if images is None else {**settings, SETTING: images.trainer}


def _container(listed: object) -> Manifest | None:
    rows: list[Manifest] = listed if isinstance(listed, list) else []
    return next((one for one in rows if value_at(one, "name") == CONTAINER), None)
