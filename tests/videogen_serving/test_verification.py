"""A bundle that is not what the release says is refused before anything is loaded."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import pytest

from videogen_api.bundle import canonical_json, manifest_digest
from videogen_api.job import ExitCode
from videogen_serving.verification import take_bundle
from videogen_testing.patience import HANGS


class Bundle(Protocol):
    folder: Path
    digest: str

    def environment(self) -> dict[str, str]: ...


def resign(bundle: Bundle, manifest: bytes) -> str:
    (bundle.folder / "manifest.json").write_bytes(manifest)
    return manifest_digest(manifest)


def flip(bundle: Bundle) -> str:
    weights = bundle.folder / "base.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    return bundle.digest


def without_weights(bundle: Bundle) -> str:
    (bundle.folder / "base.safetensors").unlink()
    return bundle.digest


def with_a_stranger(bundle: Bundle) -> str:
    (bundle.folder / "extra.json").write_text("{}")
    return bundle.digest


def without_manifest(bundle: Bundle) -> str:
    (bundle.folder / "manifest.json").unlink()
    return bundle.digest


DAMAGED: dict[str, tuple[Callable[[Bundle], str], str]] = {
    "another digest": (lambda _: "sha256:" + "0" * 64, "has the digest sha256:[0-9a-f]{64}, the release says sha256:0{64}"),
    "one bit of the weights": (flip, "base.safetensors has SHA-256 .*, the manifest says"),
    "weights missing": (without_weights, "base.safetensors is missing, although the manifest lists it"),
    "a file that nobody listed": (with_a_stranger, "extra.json is not in the manifest"),
    "no manifest": (without_manifest, "cannot be read: manifest.json: No such file or directory; is artifact.path right"),
    "a manifest of something else": (lambda bundle: resign(bundle, canonical_json({})), "is no bundle's manifest: model: Field required"),
    "a manifest that is no JSON": (lambda bundle: resign(bundle, b"\x00"), "is no bundle's manifest: the file: Invalid JSON"),
}


def test_an_intact_bundle_is_accepted(bundle: Bundle, tmp_path: Path) -> None:
    assert take_bundle(bundle.folder, bundle.digest, tmp_path / "copy").model.version == "1.0.0"


@pytest.mark.parametrize("damage, message", DAMAGED.values(), ids=DAMAGED.keys())
def test_damaged(own_bundle: Bundle, damage: Callable[[Bundle], str], message: str, tmp_path: Path) -> None:
    digest = damage(own_bundle)
    with pytest.raises(ValueError, match=message):
        take_bundle(own_bundle.folder, digest, tmp_path / "copy")


ENDS = {
    "a wrong digest": ({"BUNDLE_DIGEST": "sha256:" + "0" * 64}, ExitCode.ARTIFACT_INVALID, "the release says sha256:00"),
    "a bundle that is not there": ({"BUNDLE_PATH": "/nowhere"}, ExitCode.ARTIFACT_INVALID, "the bundle /nowhere cannot be read"),
    "a variable that is not set": ({"RELEASE": ""}, ExitCode.INVALID_JOB, "RELEASE is not set"),
}


@pytest.mark.parametrize("change, code, sentence", ENDS.values(), ids=ENDS.keys())
def test_the_server_ends_with_one_sentence(bundle: Bundle, tmp_path: Path, change: dict[str, str], code: ExitCode, sentence: str) -> None:
    log = tmp_path / "termination-log"
    log.touch()
    environment = bundle.environment(tmp_path) | {"TERMINATION_MESSAGE_PATH": str(log)} | change
    ended = subprocess.run(
        [sys.executable, "-m", "videogen_serving"], env=environment, capture_output=True, text=True, check=False, timeout=HANGS
    )
    assert ended.returncode == code
    assert sentence in log.read_text()
    assert ended.stderr.splitlines() == [log.read_text()]
