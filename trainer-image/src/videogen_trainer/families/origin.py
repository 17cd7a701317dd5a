"""Weights that a training begins with: those of a bundle, of a pretrained image model in the storage, or new ones."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL

from videogen_api.job import Job
from videogen_api.meta import ModelFamily
from videogen_api.recipe import PredictionType
from videogen_api.training_run import Reason
from videogen_models.autoencoder import load_autoencoder
from videogen_models.backbone_folder import load_backbone
from videogen_models.bundle import own_copy, read_family
from videogen_models.image_backbone import PRESETS, ImageBackbone, build_backbone
from videogen_models.sealed import CorruptError
from videogen_trainer.distributed import World
from videogen_trainer.failure import Failure
from videogen_trainer.named_files import check_backbone


@contextmanager
def initial_bundle(job: Job, storage: Path, *accepted: ModelFamily) -> Iterator[Path | None]:
    """A copy of `initFrom` that this process has verified, as long as the context lasts, or None.

    Processes of a pod take turns: nothing in the context may wait for another process.
    Raises Failure: ArtifactInvalid, also for a CorruptError in the context, InvalidJob for another family.
    """
    if job.init_from is None:
        yield None
        return
    try:
        with own_copy(storage / job.init_from.path, job.init_from.digest) as (folder, _):
            if (family := read_family(folder)) not in accepted:
                raise Failure(
                    Reason.INVALID_JOB,
                    f"initFrom: {folder.name} is a model of family {family}; a run of family {job.model.family} accepts"
                    f" {' and '.join(accepted)}",
                )
            yield folder
    except CorruptError as error:
        raise Failure(Reason.ARTIFACT_INVALID, f"initFrom: {error}") from error


@dataclass(frozen=True, slots=True)
class Origin:
    """An image model, and where it comes from."""

    backbone: ImageBackbone
    bundle: Path | None  # the copy of initFrom
    is_new: bool  # its weights were just drawn


@contextmanager
def image_model(job: Job, storage: Path, world: World, *accepted: ModelFamily) -> Iterator[Origin]:
    """The image model of `initFrom`, else of `recipe.backbone`, else a new one, drawn from the recipe's seed.

    Its bundle is there as long as the context lasts, in which nothing may wait for another process.
    A run's second Train phase has the first's bundle as `initFrom`, also if the recipe names a backbone.

    Raises Failure: ArtifactInvalid if what is there is damaged or another model, InvalidJob, also if a given one predicts
    something else than the recipe says.
    """
    torch.manual_seed(job.recipe.seed)
    with initial_bundle(job, storage, *accepted) as bundle:
        origin = Origin(_loaded(bundle, "initFrom"), bundle, is_new=False) if bundle else _image_model(job, storage, world)
        if wanted := job.recipe.loss.prediction_type:
            _settle_prediction(origin, wanted, "initFrom" if origin.bundle else "recipe.backbone")
        yield origin


_PREDICTIONS = {PredictionType.EPSILON: "epsilon", PredictionType.V_PREDICTION: "v_prediction"}  # diffusers' names


def _settle_prediction(origin: Origin, wanted: PredictionType, field: str) -> None:
    schedule = origin.backbone.schedule
    found = schedule.get("prediction_type", "epsilon")
    if origin.is_new:
        schedule["prediction_type"] = _PREDICTIONS[wanted]
    elif found != _PREDICTIONS[wanted]:
        raise Failure(
            Reason.INVALID_JOB,
            f"recipe.loss.predictionType is {wanted}; the image model of {field} was trained with prediction_type {found}, which decides:"
            " leave the field out",
        )


def _image_model(job: Job, storage: Path, world: World) -> Origin:
    """That of `recipe.backbone`, or a new one."""
    recipe = job.recipe
    if recipe.backbone:
        if world.leads:
            check_backbone(recipe.backbone, storage)
        world.from_leader(None)
        return Origin(_loaded(storage / recipe.backbone.path, "recipe.backbone"), None, is_new=False)
    try:
        return Origin(build_backbone(PRESETS[recipe.architecture], recipe.resolution), None, is_new=True)
    except ValueError as error:
        raise Failure(Reason.INVALID_JOB, f"recipe.resolution: {error}") from error


def autoencoder(job: Job, storage: Path, world: World, bundle: Path | None) -> AutoencoderKL:
    """The frozen autoencoder of `bundle`, which is verified, else of `recipe.backbone`.

    Raises Failure: ArtifactInvalid if what is there is damaged or another one, or has no autoencoder.
    """
    if bundle:
        return _autoencoder(bundle, "initFrom")
    backbone = job.recipe.backbone
    assert backbone is not None, "a recipe in space Latent without an autoencoder was let through"
    if world.leads:
        check_backbone(backbone, storage)
    world.from_leader(None)
    return _autoencoder(storage / backbone.path, "recipe.backbone")


def _autoencoder(folder: Path, field: str) -> AutoencoderKL:
    try:
        return load_autoencoder(folder)
    except CorruptError as error:
        raise Failure(Reason.ARTIFACT_INVALID, f"{field}: {error}") from error


def _loaded(folder: Path, field: str) -> ImageBackbone:
    try:
        return load_backbone(folder)
    except CorruptError as error:
        raise Failure(Reason.ARTIFACT_INVALID, f"{field}: {error}") from error
