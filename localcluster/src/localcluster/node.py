"""A node: a containerd and a kubelet with folders, sockets, addresses and a control group of their own.

Several nodes can run on one machine because nothing of theirs is shared: two kubelets under one group would kill each
other's pods, and two containerds in one folder would corrupt it.
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from localcluster import cgroups, files, links, network, pki
from localcluster.commands import run, succeeds
from localcluster.faults import Fault
from localcluster.kubectl import Kubectl
from localcluster.layout import Layout
from localcluster.processes import Part
from localcluster.versions import CONTAINERD, IMAGES, KUBERNETES

FIRST = "node-1"
NAME = re.compile(r"node-([1-9][0-9]?)")
MAX_NODES = 16
CNI_PLUGINS = "/usr/lib/cni"
READY_SECONDS = 90


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """Names, folders and addresses of one node."""

    layout: Layout
    number: int

    @property
    def name(self) -> str:
        return f"node-{self.number}"

    @property
    def home(self) -> Path:
        return self.layout.home / "nodes" / self.name

    @property
    def run(self) -> Path:
        return self.layout.run / self.name

    @property
    def kubelet_root(self) -> Path:
        """The kubelet's folder under a name that is short enough for its sockets, however deep the checkout lies."""
        return self.run / "kubelet"

    @property
    def address(self) -> str:
        return f"{self.layout.pod_prefix}.0.{self.number}"

    @property
    def pod_cidr(self) -> str:
        return f"{self.layout.pod_prefix}.{self.number}.0/24"

    @property
    def cgroup(self) -> str:
        return f"{self.layout.cgroup}/{self.name}"

    @property
    def containerd_socket(self) -> Path:
        return self.run / "containerd.sock"

    @property
    def cni_network(self) -> str:
        """Also the prefix of the files that CNI caches outside of our folders."""
        return f"{self.layout.netns}-{self.name}"

    def ctr(self, *words: str) -> list[str | Path]:
        """A ctr command line in the namespace that Kubernetes uses."""
        return [self.layout.bin / "ctr", "--address", self.containerd_socket, "--namespace", "k8s.io", *words]


def named(layout: Layout, name: str) -> Node:
    """The node with this name."""
    found = NAME.fullmatch(name)
    if not found or int(found[1]) > MAX_NODES:
        raise Fault(f"{name} is no node name: node-1 to node-{MAX_NODES} are")
    return Node(layout=layout, number=int(found[1]))


def all_nodes(layout: Layout) -> list[Node]:
    """The first node, and those that were added."""
    names = {path.name for path in (layout.home / "nodes").glob("node-*") if NAME.fullmatch(path.name)} | {FIRST}
    return sorted((named(layout, name) for name in names), key=lambda node: node.number)


def prepare(node: Node) -> None:
    """Writes a node's configuration and makes its folders, group, address and identity."""
    for folder in (node.home / "kubelet", node.home / "containerd", node.home / "pod-logs", node.run):
        folder.mkdir(parents=True, exist_ok=True)
    _mount_kubelet_root(node)
    cgroups.create(node.cgroup)
    if node.number > 1:
        network.add_node(node.layout, node.number, node.address)
    identity = pki.node_identity(node.name, node.address)
    pki.ensure_identity(node.layout, identity)
    pki.write_kubeconfig(node.layout, identity.name, node.home / "kubeconfig")
    files.write(node.home / "containerd.toml", containerd_config(node))
    files.write_json(node.home / "cni" / "10-pods.conflist", cni_config(node))
    files.write(node.home / "resolv.conf", f"nameserver {node.layout.dns_service}\n")
    files.write_json(node.home / "kubelet.json", kubelet_config(node))


def _mount_kubelet_root(node: Node) -> None:
    # A symbolic link would not do: the kubelet compares its folder with what the kernel says about mounts.
    node.kubelet_root.mkdir(exist_ok=True)
    if not links.is_mounted(node.kubelet_root):
        run(["mount", "--rbind", node.home / "kubelet", node.kubelet_root])
        # Or every mount in one of them would show, and have to be undone, in the other as well.
        run(["mount", "--make-rprivate", node.kubelet_root])


def containerd_config(node: Node) -> str:
    """containerd with the CRI plugin only, and every path below the node's own folders."""
    return f"""version = 3
root = "{node.home / "containerd"}"
state = "{node.run / "containerd"}"

[grpc]
address = "{node.containerd_socket}"

[ttrpc]
address = "{node.containerd_socket}.ttrpc"

# One socket for the whole machine: a second containerd could not start beside this one.
[plugins.'io.containerd.nri.v1.nri']
disable = true

[plugins.'io.containerd.cri.v1.images']
snapshotter = "overlayfs"

[plugins.'io.containerd.cri.v1.images'.pinned_images]
sandbox = "{IMAGES["pause"]}"

[plugins.'io.containerd.cri.v1.runtime']
# Without CAP_SYS_RESOURCE a lower score is refused, and runc dies of it with an unrelated message.
restrict_oom_score_adj = true
netns_mounts_under_state_dir = true

[plugins.'io.containerd.cri.v1.runtime'.cni]
bin_dirs = ["{CNI_PLUGINS}"]
conf_dir = "{node.home / "cni"}"

[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"

[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
BinaryName = "runc"
SystemdCgroup = false

[plugins.'io.containerd.grpc.v1.cri']
stream_server_address = "127.0.0.1"
stream_server_port = "0"
"""


def cni_config(node: Node) -> dict[str, Any]:
    """A routed link for each pod: no bridge, so no dependence on bridge filtering, and nothing to be left behind."""
    ipam = {
        "type": "host-local",
        "dataDir": str(node.home / "ipam"),
        "ranges": [[{"subnet": node.pod_cidr}]],
        "routes": [{"dst": "0.0.0.0/0"}],
    }
    plugins = [
        {"type": "ptp", "ipMasq": False, "mtu": 1500, "ipam": ipam},
        {"type": "portmap", "capabilities": {"portMappings": True}},
    ]
    return {"cniVersion": "1.0.0", "name": node.cni_network, "plugins": plugins}


def kubelet_config(node: Node) -> dict[str, Any]:
    """The kubelet's configuration for a machine that is shared with its owner."""
    layout = node.layout
    identity = pki.node_identity(node.name, node.address).name
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": node.address,
        "port": 10250,
        "healthzBindAddress": node.address,
        "healthzPort": 10248,
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(pki.crt(layout, "ca"))},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": str(pki.crt(layout, identity)),
        "tlsPrivateKeyFile": str(pki.key(layout, identity)),
        "clusterDomain": "cluster.local",
        "clusterDNS": [layout.dns_service],
        "resolvConf": str(node.home / "resolv.conf"),
        "containerRuntimeEndpoint": f"unix://{node.containerd_socket}",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{node.cgroup}",
        "failCgroupV1": False,
        "failSwapOn": False,
        "enforceNodeAllocatable": [],
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        # Images come from load-image only: one that was collected could not be pulled again.
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "imageMaximumGCAge": "0s",
        "maxPods": 250,
        # How soon a changed Secret or ConfigMap shows in a pod; by default a minute, which is what the
        # training-operator would wait for its own certificate.
        "syncFrequency": "10s",
        "podLogsDir": str(node.home / "pod-logs"),
        "volumePluginDir": str(node.home / "volume-plugins"),
        "kubeAPIQPS": 100,
        "kubeAPIBurst": 200,
    }


def containerd(node: Node) -> Part:
    """A node's container runtime."""
    return Part(
        name=f"containerd-{node.name}",
        version=CONTAINERD,
        argv=(node.layout.bin / "containerd", "--config", node.home / "containerd.toml", "--log-level=warn"),
        ready=lambda: succeeds([node.layout.bin / "ctr", "--address", node.containerd_socket, "version"]),
        configs=(node.home / "containerd.toml",),
    )


def kubelet(node: Node) -> Part:
    """A node's kubelet; ready when it says so itself and the API server agrees."""
    asked = datetime.now(UTC).replace(microsecond=0)  # a creation time has no fractions of seconds
    return Part(
        name=f"kubelet-{node.name}",
        version=KUBERNETES,
        argv=(
            node.layout.bin / "kubelet",
            f"--config={node.home / 'kubelet.json'}",
            f"--kubeconfig={node.home / 'kubeconfig'}",
            f"--root-dir={node.kubelet_root}",
            f"--cert-dir={node.kubelet_root / 'pki'}",
            f"--hostname-override={node.name}",
            f"--node-ip={node.address}",
        ),
        ready=lambda: is_ready(node, asked),
        ready_seconds=READY_SECONDS,
        configs=(node.home / "kubelet.json", node.home / "kubeconfig"),
    )


def is_ready(node: Node, since: datetime) -> bool:
    """Whether a node is Ready and has said so after a moment: for 40 s the API server believes in a dead kubelet."""
    kubectl = Kubectl(node.layout.bin / "kubectl", node.layout.kubeconfig)
    found = kubectl.get("node", node.name)
    lease = kubectl.get("lease", node.name, "-n", "kube-node-lease")
    if not found:
        return False
    # A new node's first lease comes ten seconds late, but then its Ready cannot be an old one.
    signs = [found["metadata"]["creationTimestamp"], *([lease["spec"]["renewTime"]] if lease else [])]
    conditions = {condition["type"]: condition["status"] for condition in found["status"].get("conditions", [])}
    return conditions.get("Ready") == "True" and any(datetime.fromisoformat(sign) >= since for sign in signs)


def parts(node: Node) -> tuple[Part, ...]:
    """A node's processes, in the order in which they start."""
    return (containerd(node), kubelet(node))
