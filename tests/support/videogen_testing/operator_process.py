"""The real operator as a process that tests start, kill and ask."""

import os
import subprocess
import sys
import urllib.request
from contextlib import ExitStack
from pathlib import Path

from videogen_testing.control_plane import ControlPlane, end, eventually, free_port, process, status_of
from videogen_testing.patience import HANGS


class OperatorProcess:
    """The real operator as a process that can be killed and started again."""

    def __init__(self, plane: ControlPlane, namespace: str, folder: Path, stack: ExitStack, **changes: str) -> None:
        self.namespace, self.log, self._stack = namespace, folder / "operator.log", stack
        self.metrics_port, self.inbox_port, self.health_port = free_port(), free_port(), free_port()
        tokens = folder / "alert-token"
        tokens.write_text("alertmanager-secret\n")
        own_tokens = folder / "namespace-tokens"
        own_tokens.mkdir(exist_ok=True)
        (own_tokens / namespace).write_text("namespace-secret\n")
        own = {
            "KUBECONFIG": str(plane.kubeconfig),
            "VIDEOGEN_NAMESPACES": namespace,
            "VIDEOGEN_OPERATOR_NAMESPACE": namespace,
            "VIDEOGEN_GATEWAY_NAMESPACE": namespace,
            "VIDEOGEN_IDENTITY": "operator-under-test",
            "VIDEOGEN_METRICS_HOST": "127.0.0.1",
            "VIDEOGEN_METRICS_PORT": str(self.metrics_port),
            "VIDEOGEN_HEALTH_HOST": "127.0.0.1",
            "VIDEOGEN_HEALTH_PORT": str(self.health_port),
            "VIDEOGEN_INBOX_HOST": "127.0.0.1",
            "VIDEOGEN_INBOX_PORT": str(self.inbox_port),
            "VIDEOGEN_PROGRESS_URL": f"http://127.0.0.1:{self.inbox_port}",
            "VIDEOGEN_ALERT_TOKEN_FILES": str(tokens),
            "VIDEOGEN_ALERT_NAMESPACE_TOKENS": str(own_tokens),
        }
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("VIDEOGEN_", "KUBE"))}
        self.environment = kept | own | changes
        self.child: subprocess.Popen[bytes] | None = None

    def start(self, *, ready: bool = True) -> "OperatorProcess":
        """Start it, and wait until it leads and has listed everything."""
        command = [sys.executable, "-W", "error", "-m", "videogen_operator"]
        self.child = self._stack.enter_context(process(command, self.log, self.environment))
        if ready:
            eventually(lambda: self.probe("leaderz") == 200)
        return self

    def stop(self, with_signal: int) -> int:
        assert self.child is not None
        return end(self.child, with_signal, HANGS)

    def probe(self, path: str) -> int:
        """Status of healthz, readyz or leaderz; 0 if nobody answers."""
        return status_of(f"http://127.0.0.1:{self.health_port}/{path}")

    def metrics(self) -> str:
        return metrics_of(self.metrics_port, self.environment["VIDEOGEN_METRICS_HOST"])

    def requests(self, *verbs: str) -> float:
        """Requests to the API server so far; the Lease's apart."""
        return requests_of(self.metrics_port, *verbs)


def metrics_of(port: int, host: str = "127.0.0.1") -> str:
    """What the operator tells Prometheus."""
    with urllib.request.urlopen(f"http://{host}:{port}/metrics", timeout=HANGS) as answer:
        return str(answer.read().decode())


def requests_of(port: int, *verbs: str) -> float:
    """Requests of an operator to the API server so far, by its own metric; the Lease's apart."""
    lines = [line for line in metrics_of(port).splitlines() if line.startswith("videogen_api_requests_total{")]
    wanted = [line for line in lines if 'resource="leases"' not in line and any(f'verb="{verb}"' in line for verb in verbs)]
    return sum(float(line.rpartition(" ")[2]) for line in wanted)
