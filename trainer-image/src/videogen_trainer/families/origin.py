"""Weights that a training begins with: those of a bundle, of a pretrained image model in the storage, or new ones."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL

from videogen_api.job import Job
from videogen_api.meta import ModelType
from videogen_api.recipe import Backbone
from videogen_api.training_run import Reason
from videogen_models.autoencoder import load_autoencoder
from videogen_models.backbone_folder import folder_sha256, load_backbone
from videogen_models.bundle import read_family, verify_bundle
from videogen_models.image_backbone import PRESETS, ImageBackbone, build_backbone
from videogen_models.sealed import CorruptError
from videogen_trainer.distributed import World
from videogen_trainer.failure import Failure


def initial_bundle(job: Job, storage: Path, world: World, *accepted: ModelType) -> Path | None:
    """Folder of `initFrom`, verified by rank 0, or None. Raises Failure: ArtifactInvalid, InvalidJob for another family."""
    if job.init_from is None:
        return None
    folder = storage / job.init_from.path
    try:
        if world.leads:
            verify_bundle(folder, job.init_from.digest)
        world.from_leader(None)
        family = read_family(folder)
    except CorruptError as error:
        raise Failure(Reason.ARTIFACT_INVALID, f"initFrom: {error}") from error
    if family not in accepted:
        raise Failure(
            Reason.INVALID_JOB,
            f"initFrom: {folder.name} is a model of type {family}; a run of type {job.model.type} accepts {' and '.join(accepted)}",
        )
    return folder


@dataclass(frozen=True, slots=True)
class Origin:
    """An image model, and where it comes from."""

    backbone: ImageBackbone
    bundle: Path | None  # initFrom
    is_new: bool  # its weights were just drawn


def image_model(job: Job, storage: Path, world: World, *accepted: ModelType) -> Origin:
    """The image model of `initFrom`, else of `recipe.backbone`, else a new one, drawn from the recipe's seed.

    A run's second Train phase has the first's bundle as `initFrom`, also if the recipe names a backbone.

    Raises Failure: ArtifactInvalid if what is there is damaged or another model, InvalidJob.
    """
    recipe = job.recipe
    torch.manual_seed(recipe.seed)
    if bundle := initial_bundle(job, storage, world, *accepted):
        return Origin(_loaded(bundle, "initFrom"), bundle, is_new=False)
    if recipe.backbone:
        if world.leads:
            _verify(storage / recipe.backbone.path, recipe.backbone)
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
        _verify(storage / backbone.path, backbone)
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


def _verify(folder: Path, wanted: Backbone) -> None:
    try:
        found = folder_sha256(folder)
    except CorruptError as error:
        raise Failure(Reason.ARTIFACT_INVALID, f"recipe.backbone.path: {error}") from error
    if found != wanted.sha256:
        raise Failure(
            Reason.ARTIFACT_INVALID,
            f"recipe.backbone.sha256 is {wanted.sha256}, {folder} has {found}; restore the folder, or take this sum if you trust it",
        )
