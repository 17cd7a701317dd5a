"""What was released last, which people upgrade from: its sources, out of git."""

from __future__ import annotations

import io
import subprocess
import tarfile
from pathlib import Path

import pytest

from videogen_demo.kubectl import REPOSITORY

COMMIT = "e5cc2a6f5b22bad6bb892da0da1515049a6df00b"  # raised with each release (CONTRIBUTING.md)
TAG = COMMIT[:12]  # of its images


def sources(folder: Path, commit: str = COMMIT) -> Path:
    """The repository as it was at that commit, written into the folder. Fails the test if the clone does not reach back so far."""
    done = subprocess.run(["git", "-C", REPOSITORY, "archive", "--format=tar", commit], capture_output=True, check=False)
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip()
        pytest.fail(f"git has no commit {commit}, the version to upgrade from; run `git fetch --unshallow` ({said})", pytrace=False)
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        archive.extractall(folder, filter="data")
    return folder
