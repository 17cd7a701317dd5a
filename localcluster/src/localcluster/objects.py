"""What the cluster itself consists of as Kubernetes objects: plain values, applied at every start."""

import json
from collections.abc import Iterable
from typing import Any

from localcluster import files
from localcluster.layout import Layout

Manifest = dict[str, Any]

STORAGE_CLASS = "standard"
PROVISIONER = "localcluster.videogen/host-path"
MONITORING = "monitoring"
PROXIES = "envoy-gateway-system"  # where Envoy Gateway runs its proxies
STAMP = "localcluster-objects"


def all_objects(layout: Layout) -> list[Manifest]:
    """Everything but the add-ons."""
    return [
        namespace(MONITORING),
        storage_class(),
        *reader_role("coredns", [("", "endpoints services pods namespaces"), ("discovery.k8s.io", "endpointslices")]),
        *reader_role("network-policies", [("", "pods namespaces"), ("networking.k8s.io", "networkpolicies")]),
        *proxy_roles(),
        *host_service(layout, "kube-system", "kube-dns", {"dns": ("UDP", 53), "dns-tcp": ("TCP", 53)}, layout.dns_service),
        *host_service(layout, MONITORING, "prometheus", {"http": ("TCP", 9090)}),
        *host_service(layout, MONITORING, "alertmanager", {"http": ("TCP", 9093)}),
    ]


def stamp(manifests: list[Manifest]) -> Manifest:
    """What tells, inside the cluster, which objects were applied to it."""
    data = {"digest": files.digest(as_list(manifests))}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": STAMP, "namespace": "kube-system"}, "data": data}


def as_list(manifests: Iterable[Manifest]) -> str:
    """Several objects as one document."""
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": list(manifests)}, sort_keys=True)


def namespace(name: str, labels: dict[str, str] | None = None) -> Manifest:
    """A namespace."""
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels or {}}}


def storage_class() -> Manifest:
    """The default class; the keeper is its provisioner."""
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {
            "name": STORAGE_CLASS,
            "annotations": {"storageclass.kubernetes.io/is-default-class": "true"},
        },
        "provisioner": PROVISIONER,
        "reclaimPolicy": "Delete",
        "volumeBindingMode": "Immediate",
    }


def reader_role(user: str, resources: list[tuple[str, str]]) -> list[Manifest]:
    """Lets one of our own processes read some kinds, and nothing else."""
    name = f"localcluster-{user}"
    rules = [{"apiGroups": [group], "resources": kinds.split(), "verbs": ["get", "list", "watch"]} for group, kinds in resources]
    return [
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRole",
            "metadata": {"name": name},
            "rules": rules,
        },
        role_binding(name, name, f"localcluster:{user}"),
    ]


def proxy_roles() -> list[Manifest]:
    """kube-proxy's built-in role, bound to the user of its certificate."""
    return [role_binding("localcluster-kube-proxy", "system:node-proxier", "system:kube-proxy")]


def role_binding(name: str, role: str, user: str) -> Manifest:
    """Gives a role to a user, everywhere."""
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}],
    }


def host_service(layout: Layout, space: str, name: str, ports: dict[str, tuple[str, int]], cluster_ip: str | None = None) -> list[Manifest]:
    """A Service without a selector, whose one endpoint is a process of ours at the control plane's address."""
    service_ports = [{"name": port, "protocol": protocol, "port": number} for port, (protocol, number) in ports.items()]
    return [
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": name, "namespace": space},
            "spec": {"ports": service_ports} | ({"clusterIP": cluster_ip} if cluster_ip else {}),
        },
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "name": f"{name}-host",
                "namespace": space,
                "labels": {
                    "kubernetes.io/service-name": name,
                    "endpointslice.kubernetes.io/managed-by": "localcluster",
                },
            },
            "addressType": "IPv4",
            "endpoints": [{"addresses": [layout.address], "conditions": {"ready": True}}],
            "ports": service_ports,
        },
    ]
