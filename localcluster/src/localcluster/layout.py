"""Where everything lies and which addresses it has: a value computed from the checkout and an index.

The index is what lets two checkouts work side by side on one machine. A cluster lives in a network namespace of its
own, so ports are never disputed; only the addresses that the machine routes into the namespace depend on the index.
"""

from dataclasses import dataclass
from pathlib import Path

MAX_INDEX = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Paths, names and addresses of one cluster."""

    repo: Path
    index: int

    @property
    def home(self) -> Path:
        """The one ignored folder that everything is written to."""
        return self.repo / ".localcluster"

    @property
    def bin(self) -> Path:
        return self.home / "bin"

    @property
    def logs(self) -> Path:
        return self.home / "logs"

    @property
    def pki(self) -> Path:
        return self.home / "pki"

    @property
    def state(self) -> Path:
        return self.home / "state"

    @property
    def images(self) -> Path:
        return self.home / "images"

    @property
    def volumes(self) -> Path:
        return self.home / "volumes"

    @property
    def upstream(self) -> Path:
        """Charts and manifests copied out of Go modules."""
        return self.home / "upstream"

    @property
    def kubeconfig(self) -> Path:
        return self.home / "kubeconfig"

    @property
    def go(self) -> Path:
        return self.repo / "localcluster" / "go"

    @property
    def run(self) -> Path:
        """Sockets: outside the checkout, because their paths must be short and must not survive a reboot."""
        return Path("/run/videogen-localcluster") / str(self.index)

    @property
    def netns(self) -> str:
        return f"videogen{self.index}"

    @property
    def host_link(self) -> str:
        return f"videogen{self.index}-host"

    @property
    def cgroup(self) -> str:
        return f"videogen{self.index}"

    @property
    def pod_prefix(self) -> str:
        return f"10.{244 + self.index}"

    @property
    def service_prefix(self) -> str:
        return f"10.{96 + self.index}"

    @property
    def pod_cidr(self) -> str:
        """Pods, nodes and the control plane."""
        return f"{self.pod_prefix}.0.0/16"

    @property
    def service_cidr(self) -> str:
        return f"{self.service_prefix}.0.0/16"

    @property
    def address(self) -> str:
        """The control plane's address, reachable from pods and from the machine."""
        return f"{self.pod_prefix}.0.1"

    @property
    def host_address(self) -> str:
        """The machine as pods see it: what a receiver on the machine has to listen on."""
        return f"{self.pod_prefix}.0.254"

    @property
    def dns_service(self) -> str:
        return f"{self.service_prefix}.0.10"

    @property
    def api_url(self) -> str:
        return f"https://{self.address}:6443"

    @property
    def prometheus_url(self) -> str:
        return f"http://{self.address}:9090"

    @property
    def alertmanager_url(self) -> str:
        return f"http://{self.address}:9093"


def checkout() -> Path:
    """The repository this file belongs to."""
    return Path(__file__).resolve().parents[3]
