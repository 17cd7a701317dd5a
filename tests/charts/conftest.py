"""The chart as Helm renders it."""

import json
import shutil
import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from videogen_testing.patience import HANGS

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts/videogen"
Objects = list[dict[str, Any]]


@cache
def _helm() -> str:
    found = shutil.which(ROOT / ".localcluster/bin/helm") or shutil.which("helm")
    assert found, "no helm: `make check` builds .localcluster/bin/helm from localcluster/go/helm"
    return found


@cache
def _run(command: str, values: str) -> subprocess.CompletedProcess[str]:
    arguments = [_helm(), command, "videogen", str(CHART), "--namespace", "system", "--values", "-"]
    arguments += ["--dry-run=client"] if command == "install" else ["--kube-version", "1.36.0"]
    return subprocess.run(
        arguments,
        input=values,
        capture_output=True,
        text=True,
        check=False,
        timeout=HANGS,
        env={"KUBECONFIG": "/dev/null", "HOME": "/nonexistent"},
    )


@pytest.fixture(scope="session")
def helm() -> Callable[..., subprocess.CompletedProcess[str]]:
    """`helm("template", {values})`: what helm prints."""
    return lambda command, values: _run(command, json.dumps(values))


@cache
def _objects(values: str) -> Objects:
    result = _run("template", values)
    assert result.returncode == 0, result.stderr
    return [document for document in yaml.load_all(result.stdout, Loader=yaml.CSafeLoader) if document]


@pytest.fixture(scope="session")
def render() -> Callable[..., Objects]:
    """`render({values})`: the objects that the chart makes."""
    return lambda values: _objects(json.dumps(values))
