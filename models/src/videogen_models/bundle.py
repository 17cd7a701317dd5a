"""Trained models on disk: written at once, verified before anything of them is loaded; see `videogen_api.bundle`.

`model.json` says of which family the model is; what other files there are is the family's affair.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir

import torch
from torch import Tensor

from videogen_api.bundle import ALLOWED_SUFFIXES, MANIFEST, Manifest, canonical_json, manifest_digest
from videogen_api.meta import ModelFamily, release_name
from videogen_models import video_model
from videogen_models.autoencoder import load_autoencoder
from videogen_models.bundle_manifest import read_manifest
from videogen_models.latent_video import AlignYourLatentsModel
from videogen_models.networks import ModelConfig
from videogen_models.quantization import read_weights
from videogen_models.sealed import CorruptError, copy_verified, describe, publish_content, staging, verify
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


@contextmanager
def own_copy(folder: Path, digest: str | None = None) -> Iterator[tuple[Path, Manifest]]:
    """A bundle's copy that nobody else writes to, hashed while it was copied into the folder for temporary files, and its manifest.

    It is there in the context only, and one at a time for a bundle and a machine, so that the processes of a pod do not need the room once
    each. Raises CorruptError as `verify_bundle` does, OSError with its name if there is no room.
    """
    data, manifest = read_manifest(folder, digest)
    with _alone(manifest_digest(data)), TemporaryDirectory(prefix="bundle-") as scratch:
        copy = Path(scratch) / folder.name
        copy_verified(folder, manifest.files, copy, ALLOWED_SUFFIXES)
        (copy / MANIFEST).write_bytes(data)
        yield copy, manifest


@contextmanager
def _alone(digest: str) -> Iterator[None]:
    """No other process of this user on this machine is in this context with the digest."""
    name = f"bundle-{os.getuid()}-{digest.removeprefix('sha256:')}.lock"
    descriptor = os.open(Path(gettempdir()) / name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def verify_bundle(folder: Path, digest: str | None = None) -> Manifest:
    """Check every file against the manifest, and the manifest against `digest` if given.

    What is used after it may have changed meanwhile: where others write, use `own_copy`.
    Raises CorruptError if the bundle is missing, has another digest, or holds anything but what its manifest lists.
    """
    _, manifest = read_manifest(folder, digest)
    verify(folder, manifest.files, ALLOWED_SUFFIXES)
    return manifest


def read_config(folder: Path) -> ModelConfig:
    """A VideoFusion model's sizes. Raises CorruptError if `model.json` is no valid description."""
    return video_model.read_config(folder, ModelConfig)


def read_family(folder: Path) -> ModelFamily:
    """Of which family a bundle's model is; bundles that do not say it are VideoFusion's. Raises CorruptError."""
    try:
        return ModelFamily(json.loads((folder / CONFIG).read_bytes()).get("family", ModelFamily.VIDEOFUSION))
    except (OSError, ValueError, AttributeError) as error:
        raise CorruptError(f"{folder / CONFIG}: {error}; accepted families are {', '.join(ModelFamily)}") from error


def load_model(folder: Path, digest: str | None = None, device: str | torch.device = "cpu") -> VideoModel:
    """Verify a bundle and build its model, in evaluation mode, with its (EMA) weights, on `device`, from a copy of its own.

    Raises CorruptError, OSError.
    """
    with own_copy(folder, digest) as (copy, _):
        return read_model(copy).eval().requires_grad_(False).to(device)


def read_model(folder: Path) -> VideoModel:
    """The model of a bundle that the caller has verified. Raises CorruptError."""
    try:
        match read_family(folder):
            case ModelFamily.VIDEOFUSION:
                config = read_config(folder)
                model = VideoFusionModel(config, load_autoencoder(folder) if config.latent else None)
                load_weights(model, folder)
                return model
            case ModelFamily.ALIGN_YOUR_LATENTS:
                return AlignYourLatentsModel.load(folder)
            case ModelFamily.TEXT2VIDEO_ZERO:
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
