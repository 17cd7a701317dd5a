"""One control plane for the session, with our CRDs and PyTorchJob's; a namespace and an operator process for each test."""

import subprocess
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml

from videogen_testing.control_plane import ROOT, Api, ControlPlane, control_plane, eventually
from videogen_testing.operator_process import OperatorProcess

CRD_PATH = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.cluster)


@pytest.fixture(scope="session")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    with control_plane(tmp_path_factory.mktemp("control-plane")) as started:
        for file in (*sorted((ROOT / "crds").glob("*.yaml")), pytorch_job_crd()):
            install_crd(started.api, yaml.safe_load(file.read_text()))
        yield started


def pytorch_job_crd() -> Path:
    """The PyTorchJob CRD of the very training-operator that the local cluster runs."""
    module = "github.com/kubeflow/training-operator"
    command = ["go", "list", "-m", "-f", "{{.Dir}}", module]
    folder = subprocess.run(command, cwd=ROOT / "localcluster/go/training-operator", capture_output=True, text=True, check=True)
    return Path(folder.stdout.strip()) / "manifests/base/crds/kubeflow.org_pytorchjobs.yaml"


def install_crd(api: Api, manifest: dict[str, Any]) -> None:
    """Create a CRD and wait until it is served."""
    name = manifest["metadata"]["name"]
    api.create(CRD_PATH, manifest)

    def established() -> bool:
        conditions = api.get(f"{CRD_PATH}/{name}").get("status", {}).get("conditions") or []
        return any(one["type"] == "Established" and one["status"] == "True" for one in conditions)

    eventually(established)


@pytest.fixture
def api(plane: ControlPlane) -> Api:
    return plane.api


@pytest.fixture
def namespace(api: Api) -> str:
    name = f"test-{uuid.uuid4().hex[:8]}"
    api.create("/api/v1/namespaces", {"metadata": {"name": name}})
    eventually(lambda: api.find(f"/api/v1/namespaces/{name}/serviceaccounts/default"))
    return name


@pytest.fixture
def operator(plane: ControlPlane, namespace: str, tmp_path: Path) -> Iterator[OperatorProcess]:
    """Not started yet: a test calls `start`. Its log is shown when the test fails."""
    with ExitStack() as stack:
        started = OperatorProcess(plane, namespace, tmp_path, stack)
        yield started
    if started.log.exists():
        print(started.log.read_text()[-6000:])
