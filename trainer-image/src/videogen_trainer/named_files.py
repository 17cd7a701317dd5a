"""Files of the storage that a spec names with their digests: whether they are there, and are those.

The phase that needs them and the preflight ask here, so that they cannot disagree. Needs no torch.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from safetensors import SafetensorError, safe_open

from videogen_api.evaluation import Extractor, ExtractorArchitecture
from videogen_api.recipe import Backbone
from videogen_api.training_run import Reason
from videogen_models.backbone_digest import folder_sha256
from videogen_models.sealed import CorruptError, sha256_of
from videogen_trainer.failure import Failure

CLIP_WEIGHTS = "model.safetensors"
CLIP_FILES = frozenset({".json", ".safetensors", ".txt"})  # suffixes of all that is read of the folder


def check_backbone(wanted: Backbone, storage: Path) -> None:
    """Raises Failure(ArtifactInvalid) if the folder of an image model is not there or has another digest."""
    folder = storage / wanted.path
    try:
        found = folder_sha256(folder)
    except CorruptError as error:
        raise Failure(Reason.ARTIFACT_INVALID, f"recipe.backbone.path: {error}") from error
    if found != wanted.sha256:
        raise Failure(
            Reason.ARTIFACT_INVALID,
            f"recipe.backbone.digest is {wanted.digest}, {folder} has sha256:{found}; restore the folder, or take this digest if you"
            " trust it",
        )


def check_extractor(wanted: Extractor, storage: Path, field: str) -> None:
    """Raises Failure(ExtractorMissing) if a feature network is not there or has another digest."""
    path = storage / wanted.path
    extractor_weights(wanted, storage, field)
    if wanted.architecture is not ExtractorArchitecture.CLIP:
        check_digest(path, wanted.sha256, field)
        return
    if (found := clip_sha256(path)) != wanted.sha256:
        said = f"{field}: {path} has the digest sha256:{found} over its {', '.join(sorted(CLIP_FILES))} files, expected {wanted.digest}"
        raise _missing(f"{said}; restore the files or correct digest, which covers config and tokenizer too")


def extractor_weights(wanted: Extractor, storage: Path, field: str) -> Path:
    """The file of a feature network's weights. Raises Failure(ExtractorMissing) if it is not there."""
    path, what = storage / wanted.path, "weights"
    if wanted.architecture is ExtractorArchitecture.CLIP:
        path, what = path / CLIP_WEIGHTS, "folder"
    if not path.is_file():
        raise _missing(f"{field}: there is no file {path}; put the {what} there or correct the path")
    return path


def check_header(path: Path, reason: Reason) -> None:
    """Raises Failure(reason) if a file is no safetensors file, or is shorter or longer than its header says. Reads the header alone."""
    try:
        with safe_open(str(path), framework="numpy"):
            pass
    except (SafetensorError, OSError) as error:
        raise Failure(reason, f"{path} is no whole safetensors file ({error}); put another copy there") from error


def clip_sha256(folder: Path) -> str:
    """SHA-256, hex, of all that decides the scores: of the lines that `sha256sum` prints for the folder's CLIP_FILES, sorted by name.

    Hidden files do not count, so that a shell computes the same (docs/datasets.md).
    """
    names = sorted(path.name for path in folder.iterdir() if path.suffix in CLIP_FILES and path.is_file() and not path.name.startswith("."))
    return hashlib.sha256("".join(f"{sha256_of(folder / name)}  {name}\n" for name in names).encode()).hexdigest()


def check_digest(path: Path, sha256: str, field: str) -> None:
    """Raises Failure(ExtractorMissing) if the file is not there or has another SHA-256."""
    if not path.is_file():
        raise _missing(f"{field}: there is no file {path}; put the weights there or correct the path")
    if (found := sha256_of(path)) != sha256:
        raise _missing(f"{field}: {path} has the digest sha256:{found}, expected sha256:{sha256}; restore the file or correct digest")


def _missing(message: str) -> Failure:
    return Failure(Reason.EXTRACTOR_MISSING, message)
