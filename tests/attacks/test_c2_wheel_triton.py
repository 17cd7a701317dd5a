"""The Triton of a wheel has holes that one request opens: no image may have it by accident."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from videogen_api.job import ExitCode

# What the folder of a Triton says of its version.
REFUSED = {
    "the wheel's, which says nothing": (None, "of an unknown version, such as that of the wheel nvidia-pytriton; accepted is 2.71"),
    "one of the wheel's age": ("2.51.0", "is 2.51; accepted is 2.71 (NVIDIA's container 26.07) or newer"),
    "one month too old": ("2.70.0\n", "is 2.70; accepted is 2.71"),
    "an old generation": ("1.99.0", "is 1.99; accepted is 2.71"),
    "no version": ("latest", "of an unknown version"),
    "bytes": ("\u00b2.71.0", "of an unknown version"),
}


def serving(tmp_path: Path, version: str | None, **more: str) -> tuple[int, str]:
    """Start the server's program on a Triton of that version, without a bundle -> exit code and termination message."""
    message, triton = tmp_path / "message", tmp_path / "triton"
    message.touch()
    triton.mkdir()
    if version is not None:
        (triton / "TRITON_VERSION").write_text(version, encoding="utf-8")
    release = {"RELEASE": "r", "BUNDLE_PATH": str(tmp_path / "bundle"), "BUNDLE_DIGEST": "sha256:" + "0" * 64}
    environment = release | {"TRITON_PATH": str(triton), "TERMINATION_MESSAGE_PATH": str(message)} | more
    done = subprocess.run([sys.executable, "-m", "videogen_serving"], check=False, env=environment, capture_output=True, text=True)
    assert done.stderr.splitlines() == [message.read_text()]
    return done.returncode, message.read_text()


@pytest.mark.parametrize("version, says", REFUSED.values(), ids=REFUSED.keys())
def test_the_server_does_not_start_a_triton_with_known_holes(tmp_path: Path, version: str | None, says: str) -> None:
    code, message = serving(tmp_path, version)
    assert code == ExitCode.INVALID_JOB
    assert says in message
    assert message.endswith("build the serving image on NVIDIA's, or set the chart's serving.development for a trial")


STARTED: dict[str, tuple[str | None, dict[str, str]]] = {
    "NVIDIA's 26.07": ("2.71.0", {}),
    "a newer one": ("2.100.1", {}),
    "a new generation": ("3.0.0", {}),
    "the wheel's, in a trial": (None, {"DEVELOPMENT": "true"}),
    "an old one, in a trial": ("2.51.0", {"DEVELOPMENT": "true"}),
}


@pytest.mark.parametrize("version, more", STARTED.values(), ids=STARTED.keys())
def test_the_server_goes_on_to_verify_the_bundle(tmp_path: Path, version: str | None, more: dict[str, str]) -> None:
    code, message = serving(tmp_path, version, **more)
    assert code == ExitCode.ARTIFACT_INVALID
    assert "cannot be read" in message


ROOT = Path(__file__).resolve().parents[2]
STEP = re.compile(r"^RUN --mount=type=secret,id=index (set -eu; (?:.*\\\n)+?.*fi)$", re.MULTILINE)


def step(tmp_path: Path, development: str) -> subprocess.CompletedProcess[str]:
    """Run the serving image's step that takes the wheel, on a machine that has neither Triton nor any program."""
    found = STEP.findall((ROOT / "serving-image" / "Dockerfile").read_text())
    assert len(found) == 1
    script = found[0].replace("\\\n", " ").replace("/opt/", f"{tmp_path}/opt/")
    return subprocess.run(
        ["/bin/sh", "-c", script], check=False, env={"PATH": str(tmp_path), "DEVELOPMENT": development}, capture_output=True, text=True
    )


@pytest.mark.parametrize("development", ["", "0", "true"])
def test_without_development_mode_the_build_ends_with_what_to_do(tmp_path: Path, development: str) -> None:
    done = step(tmp_path, development)
    assert done.returncode == 1
    assert "has known holes; build on NVIDIA's image" in done.stderr
    assert "python3" not in done.stderr  # nothing was installed


def test_in_development_mode_it_goes_on_to_install(tmp_path: Path) -> None:
    done = step(tmp_path, "1")
    assert done.returncode != 0
    assert "python3" in done.stderr  # which this machine has not


def test_nvidias_own_triton_is_taken_in_every_mode(tmp_path: Path) -> None:
    server = tmp_path / "opt/tritonserver/bin/tritonserver"
    server.parent.mkdir(parents=True)
    server.write_text("")
    server.chmod(0o755)
    assert step(tmp_path, "").returncode == 0
