"""kube-proxy and CoreDNS: what makes Services and names work. Both run on the machine, once for all nodes."""

from typing import Any

from localcluster import files
from localcluster.layout import Layout
from localcluster.processes import Part
from localcluster.versions import COREDNS, KUBERNETES


def prepare(layout: Layout) -> None:
    """Writes both configurations."""
    files.write_json(layout.state / "kube-proxy.json", proxy_config(layout))
    files.write(layout.state / "Corefile", corefile(layout))


def proxy_config(layout: Layout) -> dict[str, Any]:
    """nftables, and hands off the machine's connection tracking limits."""
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        "clientConnection": {"kubeconfig": str(layout.pki / "kube-proxy.kubeconfig")},
        "clusterCIDR": layout.pod_cidr,
        "bindAddress": layout.address,
        "healthzBindAddress": f"{layout.address}:10256",
        "metricsBindAddress": "127.0.0.1:10249",
        "hostnameOverride": "node-1",
        "conntrack": {"maxPerCore": 0, "min": 0},
        "nftables": {"minSyncPeriod": "100ms"},
    }


def corefile(layout: Layout) -> str:
    """Cluster names only: pods have no way to the internet, so every other name fails at once instead of late."""
    return f"""cluster.local in-addr.arpa {{
    bind {layout.address}
    errors
    ready {layout.address}:8181
    kubernetes {{
        kubeconfig {layout.pki / "coredns.kubeconfig"}
        pods insecure
        ttl 5
    }}
    cache 5 {{
        disable denial
    }}
}}
. {{
    bind {layout.address}
    errors
    template ANY ANY {{
        rcode NXDOMAIN
    }}
}}
"""


def parts(layout: Layout) -> tuple[Part, ...]:
    """Both processes."""
    return (
        Part(
            name="kube-proxy",
            version=KUBERNETES,
            argv=(layout.bin / "kube-proxy", f"--config={layout.state / 'kube-proxy.json'}"),
            configs=(layout.state / "kube-proxy.json",),
        ),
        Part(
            name="coredns",
            version=COREDNS,
            argv=(layout.bin / "coredns", "-conf", layout.state / "Corefile"),
            configs=(layout.state / "Corefile",),
        ),
    )
