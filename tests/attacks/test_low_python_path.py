"""The working folder /tmp is writable: a file argparse.py in it, or in the user's site folder, must not be what `python3 -m` imports."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from videogen_testing.images import build

ROOT = Path(__file__).resolve().parents[2]
VERSION = f"python{sys.version_info.major}.{sys.version_info.minor}"
MODULES = {"trainer": "videogen_trainer", "serving": "videogen_serving", "operator": "videogen_operator"}


def variables(name: str) -> dict[str, str]:
    """The environment that the image's Dockerfile, and that of its parent, give a process."""
    image = build.IMAGES[name]
    own = {}
    for words in re.findall(r"^ENV ((?:.*\\\n)*.*)$", (ROOT / image.dockerfile).read_text(), re.MULTILINE):
        own |= dict(word.split("=", 1) for word in words.replace("\\\n", " ").split())
    return (variables(image.parent) if image.parent else {}) | own


@pytest.mark.parametrize("name", MODULES)
def test_nothing_is_imported_from_the_working_folder_or_the_home(name: str, tmp_path: Path) -> None:
    trap = f"open({str(tmp_path / 'ran')!r}, 'w').close()\n"
    site = tmp_path / ".local/lib" / VERSION / "site-packages"
    site.mkdir(parents=True)
    (site / "usercustomize.py").write_text(trap)
    for module in ("argparse", "asyncio", "json", "secrets", "sysconfig", "logging"):
        (tmp_path / f"{module}.py").write_text(trap)
    environment = {**variables(name), "HOME": str(tmp_path), "PATH": os.environ["PATH"]}
    done = subprocess.run(
        [sys.executable, "-m", MODULES[name], "--help"], check=False, cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert not (tmp_path / "ran").exists()
    assert environment["PYTHONNOUSERSITE"] == "1"  # a virtual environment, such as that of this test, has no user site anyway
    # It is the program that answers: how to call it, or what is missing in its environment.
    assert "usage" in done.stdout or "environment" in done.stderr or "KUBERNETES" in done.stderr or "kubeconfig" in done.stderr.lower()
