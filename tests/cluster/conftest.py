"""One control plane for the session, with our CRDs and PyTorchJob's; a namespace and an operator process for each test."""

import os
import subprocess
import sys
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml
from videogen_testing.control_plane import ROOT, Api, ControlPlane, control_plane, end, eventually, free_port, process

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


class OperatorProcess:
    """The real operator as a process that can be killed and started again."""

    def __init__(self, plane: ControlPlane, namespace: str, folder: Path, stack: ExitStack, **changes: str) -> None:
        self.namespace, self.log, self._stack = namespace, folder / "operator.log", stack
        self.metrics_port, self.inbox_port = free_port(), free_port()
        tokens = folder / "alert-token"
        tokens.write_text("alertmanager-secret\n")
        own = {
            "KUBECONFIG": str(plane.kubeconfig),
            "VIDEOGEN_NAMESPACES": namespace,
            "VIDEOGEN_OPERATOR_NAMESPACE": namespace,
            "VIDEOGEN_IDENTITY": "operator-under-test",
            "VIDEOGEN_METRICS_HOST": "127.0.0.1",
            "VIDEOGEN_METRICS_PORT": str(self.metrics_port),
            "VIDEOGEN_INBOX_HOST": "127.0.0.1",
            "VIDEOGEN_INBOX_PORT": str(self.inbox_port),
            "VIDEOGEN_PROGRESS_URL": f"http://127.0.0.1:{self.inbox_port}",
            "VIDEOGEN_ALERT_TOKEN_FILES": str(tokens),
        }
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("VIDEOGEN_", "KUBE"))}
        self.environment = kept | own | changes
        self.child: subprocess.Popen[bytes] | None = None

    def start(self, *, ready: bool = True) -> "OperatorProcess":
        command = [sys.executable, "-W", "error", "-m", "videogen_operator"]
        self.child = self._stack.enter_context(process(command, self.log, self.environment))
        if ready:
            eventually(lambda: self.probe("readyz") == 200, 30)
        return self

    def stop(self, with_signal: int) -> int:
        assert self.child is not None
        return end(self.child, with_signal)

    def probe(self, path: str) -> int:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}/{path}", timeout=2) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            return 0

    def metrics(self) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=5) as answer:
            return str(answer.read().decode())

    def requests(self, *verbs: str) -> float:
        """Requests to the API server so far; the Lease's apart."""
        lines = [line for line in self.metrics().splitlines() if line.startswith("videogen_api_requests_total{")]
        wanted = [line for line in lines if 'resource="leases"' not in line and any(f'verb="{verb}"' in line for verb in verbs)]
        return sum(float(line.rpartition(" ")[2]) for line in wanted)


@pytest.fixture
def operator(plane: ControlPlane, namespace: str, tmp_path: Path) -> Iterator[OperatorProcess]:
    """Not started yet: a test calls `start`. Its log is shown when the test fails."""
    with ExitStack() as stack:
        started = OperatorProcess(plane, namespace, tmp_path, stack)
        yield started
    if started.log.exists():
        print(started.log.read_text()[-6000:])
