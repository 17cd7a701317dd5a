"""etcd, API server, controller manager and scheduler: one process each, inside the cluster's network namespace.

What only they use listens on that namespace's loopback, which no pod can reach. The API server listens on the
cluster's own address, the same for pods and for the machine.
"""

from localcluster import pki
from localcluster.commands import succeeds
from localcluster.kubectl import Kubectl
from localcluster.layout import Layout
from localcluster.processes import Part
from localcluster.versions import ETCD, KUBERNETES

ETCD_URL = "http://127.0.0.1:2379"
ETCD_PEER_URL = "http://127.0.0.1:2380"
ISSUER = "https://kubernetes.default.svc.cluster.local"
API_READY_SECONDS = 120


def parts(layout: Layout) -> tuple[Part, ...]:
    """The control plane, in the order in which it starts."""
    return (etcd(layout), apiserver(layout), controller_manager(layout), scheduler(layout))


def etcd(layout: Layout) -> Part:
    """The store. Its data survives `down`, as a real control plane's survives a reboot."""

    def healthy() -> bool:
        probe = f"exec 3<>/dev/tcp/127.0.0.1/{ETCD_URL.rpartition(':')[2]}"
        return succeeds(["nsenter", f"--net=/run/netns/{layout.netns}", "bash", "-c", probe])

    return Part(
        name="etcd",
        version=ETCD,
        argv=(
            layout.bin / "etcd",
            "--name=localcluster",
            f"--data-dir={layout.state / 'etcd'}",
            f"--listen-client-urls={ETCD_URL}",
            f"--advertise-client-urls={ETCD_URL}",
            f"--listen-peer-urls={ETCD_PEER_URL}",
            f"--initial-advertise-peer-urls={ETCD_PEER_URL}",
            f"--initial-cluster=localcluster={ETCD_PEER_URL}",
            "--auto-compaction-mode=periodic",
            "--auto-compaction-retention=30m",
            "--quota-backend-bytes=4294967296",
            "--log-level=warn",
        ),
        ready=healthy,
    )


def apiserver(layout: Layout) -> Part:
    """The API server with every admission plugin that a production cluster has by default."""
    kubectl = Kubectl(layout.bin / "kubectl", layout.kubeconfig)
    signing_key = layout.pki / "service-accounts.key"
    return Part(
        name="kube-apiserver",
        version=KUBERNETES,
        argv=(
            layout.bin / "kube-apiserver",
            f"--advertise-address={layout.address}",
            f"--bind-address={layout.address}",
            "--secure-port=6443",
            f"--etcd-servers={ETCD_URL}",
            f"--service-cluster-ip-range={layout.service_cidr}",
            "--allow-privileged=true",
            "--anonymous-auth=true",  # health checks only: RBAC gives an anonymous caller nothing else
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            f"--client-ca-file={pki.crt(layout, 'ca')}",
            f"--tls-cert-file={pki.crt(layout, 'apiserver')}",
            f"--tls-private-key-file={pki.key(layout, 'apiserver')}",
            f"--service-account-issuer={ISSUER}",
            f"--service-account-key-file={signing_key.with_suffix('.pub')}",
            f"--service-account-signing-key-file={signing_key}",
            f"--kubelet-certificate-authority={pki.crt(layout, 'ca')}",
            f"--kubelet-client-certificate={pki.crt(layout, 'apiserver-kubelet-client')}",
            f"--kubelet-client-key={pki.key(layout, 'apiserver-kubelet-client')}",
            "--kubelet-preferred-address-types=InternalIP",
            f"--proxy-client-cert-file={pki.crt(layout, 'front-proxy-client')}",
            f"--proxy-client-key-file={pki.key(layout, 'front-proxy-client')}",
            f"--requestheader-client-ca-file={pki.crt(layout, 'front-proxy-ca')}",
            "--requestheader-allowed-names=front-proxy-client",
            "--requestheader-extra-headers-prefix=X-Remote-Extra-",
            "--requestheader-group-headers=X-Remote-Group",
            "--requestheader-username-headers=X-Remote-User",
            "--event-ttl=6h",
            "--profiling=false",
        ),
        ready=lambda: kubectl.works("get", "--raw", "/readyz"),
        ready_seconds=API_READY_SECONDS,
    )


def controller_manager(layout: Layout) -> Part:
    """All controllers; one instance, so no leader election."""
    kubeconfig = layout.pki / "controller-manager.kubeconfig"
    return Part(
        name="kube-controller-manager",
        version=KUBERNETES,
        argv=(
            layout.bin / "kube-controller-manager",
            f"--kubeconfig={kubeconfig}",
            f"--authentication-kubeconfig={kubeconfig}",
            f"--authorization-kubeconfig={kubeconfig}",
            "--bind-address=127.0.0.1",
            "--leader-elect=false",
            "--use-service-account-credentials=true",
            f"--service-account-private-key-file={layout.pki / 'service-accounts.key'}",
            f"--root-ca-file={pki.crt(layout, 'ca')}",
            f"--cluster-signing-cert-file={pki.crt(layout, 'ca')}",
            f"--cluster-signing-key-file={pki.key(layout, 'ca')}",
            "--kube-api-qps=200",
            "--kube-api-burst=400",
            "--profiling=false",
        ),
    )


def scheduler(layout: Layout) -> Part:
    """The scheduler; one instance, so no leader election."""
    kubeconfig = layout.pki / "scheduler.kubeconfig"
    return Part(
        name="kube-scheduler",
        version=KUBERNETES,
        argv=(
            layout.bin / "kube-scheduler",
            f"--kubeconfig={kubeconfig}",
            f"--authentication-kubeconfig={kubeconfig}",
            f"--authorization-kubeconfig={kubeconfig}",
            "--bind-address=127.0.0.1",
            "--leader-elect=false",
            "--kube-api-qps=200",
            "--kube-api-burst=400",
            "--profiling=false",
        ),
    )
