"""What is built, from which module, and with which flags: the one place where a version is written.

The Go versions are pinned in go/<name>/go.mod; a test keeps both in step.
"""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class GoPart:
    """Some binaries built by one `go build` in one module under localcluster/go/."""

    module: str  # folder under localcluster/go/
    version: str
    source: str  # Go module that carries the version, empty for our own code
    packages: dict[str, str]  # binary name -> package
    cgo: bool = False
    tags: str = ""
    stamps: dict[str, str] = field(default_factory=dict)  # Go variable -> value, so that --version tells the truth
    in_cluster: bool = True  # False: only tests call it, and `up` does not build it


KUBERNETES = "1.36.3"
ETCD = "3.6.16"
CONTAINERD = "2.2.9"
COREDNS = "1.15.0"
TRAINING_OPERATOR = "1.8.1"
ENVOY_GATEWAY = "1.9.1"
ENVOY = "1.40.0"
NETWORK_POLICIES = "0.8.0"
# Where a cluster of somebody else's has none; our own runs Debian's.
PROMETHEUS = "3.5.0"
ALERTMANAGER = "0.28.1"
HELM = "4.3.1"
ARGO_CD = "3.1.16"
KUEUE = "0.17.0"
PAUSE = "1"
PYTHON_BASE = "2"

_MAJOR, _MINOR, _ = KUBERNETES.split(".")
_K8S_BINARIES = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy", "kubectl")
_CONTAINERD_BINARIES = ("containerd", "containerd-shim-runc-v2", "ctr")

GO_PARTS = (
    GoPart(
        module="kubernetes",
        version=KUBERNETES,
        source="k8s.io/kubernetes",
        packages={name: f"k8s.io/kubernetes/cmd/{name}" for name in _K8S_BINARIES},
        cgo=True,
        stamps={
            "k8s.io/component-base/version.gitVersion": f"v{KUBERNETES}",
            "k8s.io/component-base/version.gitMajor": _MAJOR,
            "k8s.io/component-base/version.gitMinor": _MINOR,
        },
    ),
    GoPart(
        module="etcd",
        version=ETCD,
        source="go.etcd.io/etcd/server/v3",
        packages={"etcd": "go.etcd.io/etcd/server/v3"},
        cgo=True,
    ),
    GoPart(
        module="containerd",
        version=CONTAINERD,
        source="github.com/containerd/containerd/v2",
        packages={name: f"github.com/containerd/containerd/v2/cmd/{name}" for name in _CONTAINERD_BINARIES},
        # Their C libraries are not installed, and overlayfs is all we use.
        tags="no_btrfs no_devmapper no_zfs",
        stamps={"github.com/containerd/containerd/v2/version.Version": f"v{CONTAINERD}"},
    ),
    GoPart(
        module="coredns",
        version=COREDNS,
        source="github.com/coredns/coredns",
        packages={"coredns": "github.com/coredns/coredns"},
    ),
    GoPart(
        module="network-policies",
        version=NETWORK_POLICIES,
        source="sigs.k8s.io/kube-network-policies",
        packages={"network-policies": "localcluster/network-policies"},
    ),
    GoPart(module="pause", version=PAUSE, source="", packages={"pause": "localcluster/pause"}),
    GoPart(
        module="training-operator",
        version=TRAINING_OPERATOR,
        source="github.com/kubeflow/training-operator",
        packages={"training-operator": "github.com/kubeflow/training-operator/cmd/training-operator.v1"},
    ),
    GoPart(
        module="helm",
        version=HELM,
        source="helm.sh/helm/v4",
        packages={
            "helm": "helm.sh/helm/v4/cmd/helm",
            "kstatus": "localcluster/helm/kstatus",  # the library that helm waits by
            "flux-health": "localcluster/helm/flux-health",  # by which Flux waits where a Kustomization has expressions
        },
        stamps={"helm.sh/helm/v4/internal/version.version": f"v{HELM}"},
    ),
    GoPart(
        module="argo-cd",
        version=ARGO_CD,
        source="github.com/argoproj/argo-cd/v3",
        packages={
            "argocd": "localcluster/argo-cd/argocd",  # application controller and repo server
            "argocd-lua": "localcluster/argo-cd/argocd-lua",
            "argocd-redis": "localcluster/argo-cd/argocd-redis",
        },
        stamps={"github.com/argoproj/argo-cd/v3/common.version": ARGO_CD},
        in_cluster=False,
    ),
    GoPart(
        module="kueue",
        version=KUEUE,
        source="sigs.k8s.io/kueue",
        packages={"kueue": "sigs.k8s.io/kueue/cmd/kueue"},
        stamps={"sigs.k8s.io/kueue/pkg/version.GitVersion": f"v{KUEUE}"},
        in_cluster=False,
    ),
    GoPart(
        module="envoy-gateway",
        version=ENVOY_GATEWAY,
        source="github.com/envoyproxy/gateway",
        packages={"envoy-gateway": "github.com/envoyproxy/gateway/cmd/envoy-gateway"},
    ),
)

# Debian package -> a file it installs. The file is asked for, so that any other way to have it counts as well.
APT_PACKAGES = {
    "runc": "/usr/sbin/runc",
    "containernetworking-plugins": "/usr/lib/cni/ptp",
    "nftables": "/usr/sbin/nft",
    "conntrack": "/usr/sbin/conntrack",
    "iproute2": "/usr/sbin/ip",
    "iptables": "/usr/sbin/iptables",
    "openssl": "/usr/bin/openssl",
    "util-linux": "/usr/bin/nsenter",
    "mount": "/usr/bin/mount",
    "procps": "/usr/sbin/sysctl",
    "ca-certificates": "/etc/ssl/certs/ca-certificates.crt",
    "gcc": "/usr/bin/gcc",
    "libc6-dev": "/usr/include/stdlib.h",
    "prometheus": "/usr/bin/prometheus",
    "prometheus-alertmanager": "/usr/bin/prometheus-alertmanager",
    "buildah": "/usr/bin/buildah",
    "mmdebstrap": "/usr/bin/mmdebstrap",
}
APT_PYTHON_PIP = "python3-pip"
# The compiler that cgo calls.
APT_CGO = ("gcc", "libc6-dev")
# promtool, amtool, and keys for the control planes of tests.
APT_TOOLS = ("prometheus", "prometheus-alertmanager", "openssl", "ca-certificates")

# Upstream's own images, for clusters that can pull. Short names: which registry they mean is the cluster's setting.
UPSTREAM_IMAGES = {
    "training-operator": "kubeflow/training-operator:v1-04f9f13",  # what its manifests of 1.8.1 name
    "init-container": "python:3.11-slim-bookworm",
    "envoy-gateway": f"envoyproxy/gateway:v{ENVOY_GATEWAY}",
    "envoy": f"envoyproxy/envoy:distroless-v{ENVOY}",
    "prometheus": f"prom/prometheus:v{PROMETHEUS}",
    "alertmanager": f"prom/alertmanager:v{ALERTMANAGER}",
}

IMAGE_PREFIX = "localhost/videogen"
IMAGES = {
    "pause": f"{IMAGE_PREFIX}/pause:{PAUSE}",
    "python-base": f"{IMAGE_PREFIX}/python-base:{PYTHON_BASE}",
    "training-operator": f"{IMAGE_PREFIX}/training-operator:{TRAINING_OPERATOR}",
    "envoy-gateway": f"{IMAGE_PREFIX}/envoy-gateway:{ENVOY_GATEWAY}",
    "envoy": f"{IMAGE_PREFIX}/envoy:{ENVOY}",
    "kueue": f"{IMAGE_PREFIX}/kueue:{KUEUE}",
}
