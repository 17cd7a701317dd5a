"""One control plane for the session, with our CRDs, PyTorchJob's and the chart's policies; a namespace and an operator process for each test."""

import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from videogen_testing.chart_rights import install_policies, operator_kubeconfig
from videogen_testing.control_plane import Api, ControlPlane, control_plane, eventually
from videogen_testing.operator_process import OperatorProcess
from videogen_testing.upstream_crds import install, own_definitions, pytorch_job_definition


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.cluster)


@pytest.fixture(scope="session")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    with control_plane(tmp_path_factory.mktemp("control-plane")) as started:
        install(started.api, [*own_definitions(), pytorch_job_definition()])
        install_policies(started.api)
        yield started


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
    """Not started yet: a test calls `start`. It has the chart's rights. Its log is shown when the test fails."""
    with ExitStack() as stack:
        started = OperatorProcess(plane, namespace, tmp_path, stack, KUBECONFIG=str(operator_kubeconfig(plane, namespace)))
        yield started
    if started.log.exists():
        print(started.log.read_text()[-6000:])
