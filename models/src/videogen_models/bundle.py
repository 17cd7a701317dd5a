"""Trained models on disk: written at once, verified before anything of them is loaded; see `videogen_api.bundle`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from videogen_api.bundle import ALLOWED_SUFFIXES, MANIFEST, Manifest, canonical_json, manifest_digest
from videogen_api.meta import release_name
from videogen_models.networks import ModelConfig
from videogen_models.sealed import CorruptError, describe, publish, staging, verify
from videogen_models.videofusion import PARTS, VideoFusionModel

CONFIG = "model.json"


def bundle_path(manifest: Manifest, digest: str) -> str:
    """A bundle's folder, relative to the storage's root."""
    return f"bundles/{release_name(manifest.model)}/{digest.removeprefix('sha256:')}"


def write_bundle(storage: Path, manifest: Manifest, config: ModelConfig, weights: Mapping[str, Tensor]) -> tuple[str, str]:
    """Write a bundle, whole or not at all -> (path below the storage, digest). The same bundle again is left as it is.

    `weights` is a VideoFusionModel's state dict; `manifest.files` is filled in here.
    """
    with staging(storage / "bundles" / release_name(manifest.model)) as staged:
        for part in PARTS:
            save_file(_of_part(weights, part), staged / f"{part}.safetensors")
        (staged / CONFIG).write_bytes(canonical_json(config.wire()))
        manifest = manifest.model_copy(update={"files": describe(staged)})
        (staged / MANIFEST).write_bytes(data := canonical_json(manifest.wire()))
        digest = manifest_digest(data)
        path = bundle_path(manifest, digest)
        if not (storage / path).exists():
            publish(staged, storage / path)
    return path, digest


def _of_part(weights: Mapping[str, Tensor], part: str) -> dict[str, Tensor]:
    prefix = f"{part}."
    return {name.removeprefix(prefix): tensor.contiguous() for name, tensor in weights.items() if name.startswith(prefix)}


def verify_bundle(folder: Path, digest: str | None = None) -> Manifest:
    """Check every file against the manifest, and the manifest against `digest` if given.

    Raises CorruptError if the bundle is missing, has another digest, or holds anything but what its manifest lists.
    """
    if not (folder / MANIFEST).is_file():
        raise CorruptError(f"{folder} is no bundle: it has no {MANIFEST}")
    data = (folder / MANIFEST).read_bytes()
    if digest and (found := manifest_digest(data)) != digest:
        raise CorruptError(f"{folder} has digest {found}, expected {digest}; it was changed or is another bundle")
    try:
        manifest = Manifest.model_validate_json(data)
    except ValidationError as error:
        raise CorruptError(f"{folder / MANIFEST}: {error}") from error
    verify(folder, manifest.files, ALLOWED_SUFFIXES)
    return manifest


def read_config(folder: Path) -> ModelConfig:
    """The model's sizes. Raises CorruptError if `model.json` is no valid description."""
    try:
        return ModelConfig.model_validate_json((folder / CONFIG).read_bytes())
    except (OSError, ValidationError) as error:
        raise CorruptError(f"{folder / CONFIG}: {error}") from error


def load_model(folder: Path, digest: str | None = None, device: str | torch.device = "cpu") -> VideoFusionModel:
    """Verify a bundle and build its model, in evaluation mode, with its (EMA) weights, on `device`. Raises CorruptError."""
    verify_bundle(folder, digest)
    model = VideoFusionModel(read_config(folder))
    load_weights(model, folder)
    return model.eval().requires_grad_(False).to(device)


def load_weights(model: VideoFusionModel, folder: Path) -> None:
    """Load a bundle's weights, which the caller has verified. Raises CorruptError if they are of another size."""
    try:
        for part in PARTS:
            model.get_submodule(part).load_state_dict(load_file(folder / f"{part}.safetensors"))
    except (OSError, RuntimeError, SafetensorError) as error:
        raise CorruptError(f"{folder}: the weights do not fit {CONFIG}: {error}") from error
