"""Bundles: written whole, verified before anything is loaded."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from videogen_api.bundle import MANIFEST, Manifest, canonical_json, manifest_digest
from videogen_api.meta import ModelFamily, ModelIdentity
from videogen_api.recipe import Recipe
from videogen_models.bundle import load_model, verify_bundle, write_bundle
from videogen_models.sealed import CorruptError, describe, sha256_of
from videogen_models.videofusion import VideoFusionModel


@pytest.fixture
def manifest(recipe: Recipe) -> Manifest:
    return Manifest(model=ModelIdentity(family=ModelFamily.VIDEOFUSION, version="1.2.3"), recipe=recipe, step=7, run="r", files=[])


@pytest.fixture
def bundle(tmp_path: Path, manifest: Manifest, model: VideoFusionModel) -> tuple[Path, str]:
    path, digest = write_bundle(tmp_path, manifest, model.config, model.state_dict())
    return tmp_path / path, digest


def test_a_bundle_gives_the_model_back(bundle: tuple[Path, str], model: VideoFusionModel) -> None:
    loaded = load_model(*bundle)
    weights = model.state_dict()
    assert loaded.state_dict().keys() == weights.keys()
    assert all(torch.equal(tensor, weights[name]) for name, tensor in loaded.state_dict().items())
    assert not loaded.training
    assert loaded.config == model.config


def test_a_bundle_lies_where_its_name_and_digest_say(bundle: tuple[Path, str]) -> None:
    folder, digest = bundle
    assert folder.parts[-3:-1] == ("bundles", "pib-videogen-videofusion-v1.2.3-base")
    assert digest == f"sha256:{folder.name}" == manifest_digest((folder / MANIFEST).read_bytes())
    weights = ["base.safetensors", "residual.safetensors", "text.safetensors"]
    assert {path.name for path in folder.iterdir()} == {MANIFEST, "model.json", *weights}
    assert [path for path in folder.parent.iterdir() if path != folder] == []


def test_the_same_bundle_again_changes_nothing(
    bundle: tuple[Path, str], tmp_path: Path, manifest: Manifest, model: VideoFusionModel
) -> None:
    before = (bundle[0] / MANIFEST).stat().st_ino
    assert write_bundle(tmp_path, manifest, model.config, model.state_dict()) == (str(bundle[0].relative_to(tmp_path)), bundle[1])
    assert (bundle[0] / MANIFEST).stat().st_ino == before


def flip_a_byte(folder: Path) -> None:
    data = bytearray((folder / "base.safetensors").read_bytes())
    data[-1] ^= 1
    (folder / "base.safetensors").write_bytes(data)


def list_a_file(folder: Path, path: str) -> None:
    """Add a file to the manifest that is not there, or not allowed."""
    manifest = json.loads((folder / MANIFEST).read_bytes())
    manifest["files"].append({"path": path, "sha256": "0" * 64, "size": 1})
    (folder / MANIFEST).write_bytes(canonical_json(manifest))


def add_a_link(folder: Path) -> None:
    (folder / "base.safetensors").rename(folder.parent / "elsewhere.safetensors")
    (folder / "base.safetensors").symlink_to(folder.parent / "elsewhere.safetensors")


@pytest.mark.parametrize(
    "harm, message",
    [
        (flip_a_byte, "has SHA-256"),
        (lambda folder: (folder / "text.safetensors").unlink(), "is missing"),
        (lambda folder: (folder / "more.json").write_text("{}"), "not in the manifest"),
        (lambda folder: (folder / MANIFEST).unlink(), "is no bundle"),
        (lambda folder: (folder / MANIFEST).write_text("{"), "manifest.json"),
        (lambda folder: list_a_file(folder, "weights.pkl"), "accepted are"),
        (lambda folder: list_a_file(folder, "../elsewhere.json"), "manifest.json"),
        (lambda folder: list_a_file(folder, "absent.json"), "is missing"),
        (add_a_link, "leads out"),
    ],
    ids=[
        "a changed byte",
        "a missing file",
        "an extra file",
        "no manifest",
        "a broken manifest",
        "a pickle",
        "a path that escapes",
        "a listed file that is absent",
        "a link",
    ],
)
def test_a_harmed_bundle_is_refused(bundle: tuple[Path, str], harm: Callable[[Path], object], message: str) -> None:
    harm(bundle[0])
    with pytest.raises(CorruptError, match=message):
        verify_bundle(bundle[0])


def test_a_harmed_bundle_that_is_made_again_is_whole(
    bundle: tuple[Path, str], tmp_path: Path, manifest: Manifest, model: VideoFusionModel
) -> None:
    flip_a_byte(bundle[0])
    assert write_bundle(tmp_path, manifest, model.config, model.state_dict())[1] == bundle[1]
    verify_bundle(*bundle)


def test_another_digest_is_refused(bundle: tuple[Path, str]) -> None:
    with pytest.raises(CorruptError, match="expected sha256:0000"):
        load_model(bundle[0], "sha256:" + "0" * 64)


def test_weights_of_another_size_are_refused(bundle: tuple[Path, str]) -> None:
    config = json.loads((bundle[0] / "model.json").read_bytes())
    config["networks"]["base"]["widths"] = [32, 96]
    (bundle[0] / "model.json").write_bytes(canonical_json(config))
    manifest = json.loads((bundle[0] / MANIFEST).read_bytes())
    manifest["files"] = [file.wire() for file in describe(bundle[0])]
    (bundle[0] / MANIFEST).write_bytes(canonical_json(manifest))
    with pytest.raises(CorruptError, match=r"do not fit model\.json"):
        load_model(bundle[0])


def test_a_files_sum_is_that_of_its_bytes(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    assert sha256_of(tmp_path / "empty") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
