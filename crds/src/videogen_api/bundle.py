"""A trained model on disk: what a manifest must say so that it can be verified and served.

A bundle is the folder `bundles/<release name>/<digest hex>/`. Its digest is the SHA-256 of manifest.json as it lies
there (canonical JSON: sorted keys, no spaces, UTF-8, one final newline), and the manifest has the SHA-256 of every
other file, so one comparison verifies all of it. Only safetensors, JSON, ONNX (with its external data), TensorRT plans and
media are allowed.
"""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from videogen_api.meta import Digest, ModelIdentity, Observation, Sha256, StoragePath
from videogen_api.optimization import Quantization
from videogen_api.pinned import ResolvedDataset
from videogen_api.recipe import Recipe

MANIFEST = "manifest.json"
ALLOWED_SUFFIXES = (".safetensors", ".json", ".onnx", ".data", ".plan", ".mp4", ".png", ".txt")


class BundleFile(Observation):
    """One file of a bundle."""

    path: StoragePath
    sha256: Sha256
    size: int = Field(ge=0)


class Manifest(Observation):
    """What the bundle is and where it comes from."""

    format: Literal["videogen-bundle/v1"] = "videogen-bundle/v1"
    model: ModelIdentity
    recipe: Recipe
    step: int = Field(ge=0)
    run: Annotated[str, StringConstraints(max_length=253)] = ""
    init_from: Digest | None = None
    datasets: list[ResolvedDataset] = []
    files: list[BundleFile]
    optimized_from: Digest | None = None  # the bundle that an Optimize phase made this one of
    quantization: Quantization | None = None


def canonical_json(value: object) -> bytes:
    """Bytes that are the same for equal values: sorted keys, no spaces, UTF-8, one final newline."""
    return (json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False) + "\n").encode()


def content_digest(value: object) -> str:
    """`sha256:<hex>` of a value's canonical JSON."""
    return manifest_digest(canonical_json(value))


def manifest_digest(manifest: bytes) -> str:
    """`sha256:<hex>` of a manifest's bytes."""
    return "sha256:" + hashlib.sha256(manifest).hexdigest()
