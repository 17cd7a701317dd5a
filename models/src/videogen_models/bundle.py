"""Trained models on disk: written at once, verified before anything of them is loaded; see `videogen_api.bundle`.

`model.json` says of which family the model is; what other files there are is the family's affair.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from pydantic import ValidationError
from torch import Tensor

from videogen_api.bundle import ALLOWED_SUFFIXES, MANIFEST, Manifest, canonical_json, manifest_digest
from videogen_api.meta import ModelType, release_name
from videogen_models import video_model
from videogen_models.autoencoder import load_autoencoder
from videogen_models.latent_video import AlignYourLatentsModel
from videogen_models.networks import ModelConfig
from videogen_models.quantization import read_weights
from videogen_models.sealed import CorruptError, describe, publish_content, staging, verify
from videogen_models.text2video_zero import Text2VideoZeroModel
from videogen_models.video_model import CONFIG, VideoModel
from videogen_models.videofusion import PARTS, VideoFusionModel, save_weights


def bundle_path(manifest: Manifest, digest: str) -> str:
    """A bundle's folder, relative to the storage's root."""
    return f"bundles/{release_name(manifest.model)}/{digest.removeprefix('sha256:')}"


def write_bundle(storage: Path, manifest: Manifest, config: ModelConfig, weights: Mapping[str, Tensor]) -> tuple[str, str]:
    """`seal_bundle` of the VideoFusion model whose state dict is `weights`."""
    return seal_bundle(storage, manifest, lambda folder: save_weights(folder, config, weights))


def seal_bundle(storage: Path, manifest: Manifest, save: Callable[[Path], None]) -> tuple[str, str]:
    """Write a bundle, whole or not at all -> (path below the storage, digest).

    The same bundle, if it is there, is verified and left as it is; a damaged one is replaced.
    `save` writes all other files, as `VideoModel.save` does; `manifest.files` is filled in here.
    """
    with staging(storage / "bundles" / release_name(manifest.model)) as staged:
        save(staged)
        manifest = manifest.model_copy(update={"files": describe(staged)})
        (staged / MANIFEST).write_bytes(data := canonical_json(manifest.wire()))
        digest = manifest_digest(data)
        path = bundle_path(manifest, digest)
        publish_content(staged, storage / path, manifest.files, ALLOWED_SUFFIXES)
    return path, digest


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
    """A VideoFusion model's sizes. Raises CorruptError if `model.json` is no valid description."""
    return video_model.read_config(folder, ModelConfig)


def read_family(folder: Path) -> ModelType:
    """Of which family a bundle's model is; bundles that do not say it are VideoFusion's. Raises CorruptError."""
    try:
        return ModelType(json.loads((folder / CONFIG).read_bytes()).get("family", ModelType.VIDEOFUSION))
    except (OSError, ValueError, AttributeError) as error:
        raise CorruptError(f"{folder / CONFIG}: {error}; accepted families are {', '.join(ModelType)}") from error


def load_model(folder: Path, digest: str | None = None, device: str | torch.device = "cpu") -> VideoModel:
    """Verify a bundle and build its model, in evaluation mode, with its (EMA) weights, on `device`. Raises CorruptError."""
    verify_bundle(folder, digest)
    return read_model(folder).eval().requires_grad_(False).to(device)


def read_model(folder: Path) -> VideoModel:
    """The model of a bundle that the caller has verified. Raises CorruptError."""
    try:
        match read_family(folder):
            case ModelType.VIDEOFUSION:
                config = read_config(folder)
                model = VideoFusionModel(config, load_autoencoder(folder) if config.latent else None)
                load_weights(model, folder)
                return model
            case ModelType.ALIGN_YOUR_LATENTS:
                return AlignYourLatentsModel.load(folder)
            case ModelType.TEXT2VIDEO_ZERO:
                return Text2VideoZeroModel.load(folder)
    except CorruptError:
        raise
    except ValueError as error:  # sizes that do not go together
        raise CorruptError(f"{folder}: {error}") from error


def load_weights(model: VideoFusionModel, folder: Path) -> None:
    """Load a bundle's weights, which the caller has verified. Raises CorruptError if they are of another size."""
    try:
        for part in PARTS:
            model.get_submodule(part).load_state_dict(read_weights(folder / f"{part}.safetensors"))
    except (OSError, RuntimeError) as error:
        raise CorruptError(f"{folder}: the weights do not fit {CONFIG}: {error}") from error
