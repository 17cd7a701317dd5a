"""From nothing to an installed product: a cluster (ours, or the one of KUBECONFIG), images, the chart, the alerts.

Every step is repeatable and quick when there is nothing to do.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from videogen_demo import delivery, reach
from videogen_demo.kubectl import REPOSITORY, Cluster, CommandError, run

SYSTEM = "videogen-system"
RELEASE = "videogen"  # of Helm
PATIENTLY = ("--wait", "--timeout", "5m")  # until the operator is there
TOKEN_SECRET = "videogen-alertmanager-token"
INBOX_NAME = f"videogen-operator.{SYSTEM}.svc"  # in its certificate
INBOX_AUTHORITY = "videogen-inbox-ca"
GATEWAY_NAMESPACE = "videogen-gateway"
GATEWAY = "videogen"
STATE = REPOSITORY / ".demo"
OWN_KUBECONFIG = REPOSITORY / ".localcluster/kubeconfig"
FAST_ALERTS = ("alerts.interval=2s", "alerts.window=15s")  # for a Prometheus that scrapes every 2 s, as ours do

LOCAL_NODES = 16  # as many as the local cluster can have

Say = Callable[[str], None]
Peer = dict[str, dict[str, str]]  # a NetworkPolicyPeer
NO_LISTS: Mapping[str, list[Peer]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Installation:
    """An installed product."""

    cluster: Cluster
    images: dict[str, str]  # operator, trainer, serving -> image name
    local: bool  # the cluster of localcluster/, whose Prometheus and Alertmanager are ours to configure


def local_cluster(*arguments: str) -> None:
    """Run localcluster, its output passed through."""
    done = subprocess.run([str(REPOSITORY / "localcluster/localcluster"), *arguments], check=False)
    if done.returncode:
        raise CommandError(f"localcluster {' '.join(arguments)} failed with {done.returncode}; its last lines say why")


def ensure(say: Say = print, values: tuple[str, ...] = ()) -> Installation:
    """Everything up and current. `values`: more `key=value` settings of the chart."""
    local = means_local_cluster(os.environ.get("KUBECONFIG", ""))
    local_cluster("up" if local else "install-addons")
    cluster = Cluster(OWN_KUBECONFIG if local else None)
    say("images: building what has changed")
    images = delivery.to_local_cluster() if local else delivery.to_other_cluster(cluster, os.environ)
    installation = Installation(cluster, images, local)
    upgrade(installation, values=values)
    wire_alerts(cluster, local)
    return installation


def upgrade(installation: Installation, source: Path = REPOSITORY, values: tuple[str, ...] = ()) -> None:
    """Install the chart of these sources, or upgrade to it, with the images of the installation and what its cluster needs."""
    cluster, local = installation.cluster, installation.local
    settings = (*(FAST_ALERTS if local or own_monitoring(cluster) else ()), *values)
    chart(cluster, installation.images, settings, peers_of_local_cluster(cluster) if local else {}, source)


def roll_back(cluster: Cluster) -> None:
    """To the chart, images and values of before the last upgrade."""
    run([_helm(), *cluster.flags, "rollback", RELEASE, "--namespace", SYSTEM, *PATIENTLY])


def means_local_cluster(kubeconfig: str) -> bool:
    """Whether a value of KUBECONFIG is empty, or the local cluster's own file; one file of a list is another cluster's."""
    return not kubeconfig or Path(kubeconfig).resolve() == OWN_KUBECONFIG


def own_monitoring(cluster: Cluster) -> bool:
    """Whether Prometheus is, or will be, the one that `localcluster install-monitoring` makes."""
    service = cluster.get("service", "prometheus", "monitoring")
    return service is None or (service["metadata"].get("labels") or {}).get("app.kubernetes.io/managed-by") == "localcluster"


def peers_of_local_cluster(cluster: Cluster) -> dict[str, list[Peer]]:
    """Whom the chart's NetworkPolicies let in there."""
    slices = cluster.list("endpointslice", "monitoring", "kubernetes.io/service-name=prometheus")
    if not slices:
        raise CommandError("the local cluster has no Service prometheus in monitoring; run `make cluster`")
    peers = peers_at(slices[0]["endpoints"][0]["addresses"][0])
    return {"networkPolicy.monitoring": peers, "networkPolicy.alerting": peers}


def peers_at(control_plane: str) -> list[Peer]:
    """Where Prometheus and Alertmanager come from, which are no pods there: a pod sees the first address of its node, or the control
    plane's where they went through a Service. Benchmarks and people come from the machine itself.
    """
    prefix = ".".join(control_plane.split(".")[:2])
    addresses = [*(f"{prefix}.{node}.1" for node in range(1, LOCAL_NODES + 1)), control_plane, f"{prefix}.0.254"]
    return [{"ipBlock": {"cidr": f"{address}/32"}} for address in addresses]


def chart(
    cluster: Cluster,
    images: dict[str, str],
    values: tuple[str, ...] = (),
    lists: Mapping[str, list[Peer]] = NO_LISTS,
    source: Path = REPOSITORY,
) -> None:
    """Install or upgrade the chart, with a token for Alertmanager that is made once. `lists`: values that are lists of objects."""
    namespace = {"apiVersion": "v1", "kind": "Namespace",
                 "metadata": {"name": SYSTEM, "labels": {"pod-security.kubernetes.io/enforce": "restricted"}}}  # fmt: skip
    cluster.apply(namespace)
    if not cluster.get("secret", TOKEN_SECRET, SYSTEM):
        cluster("create", "secret", "generic", TOKEN_SECRET, "-n", SYSTEM, f"--from-literal=token={secrets.token_urlsafe(32)}")
    texts = [
        *(f"image.{key}={value}" for key, value in _split(images["operator"]).items()),
        *(f"{name}.image.{key}={value}" for name in ("trainer", "serving") for key, value in _split(images[name]).items()),
    ]
    settings = [
        "serving.development=true",  # the image has the Triton of a wheel: delivery.build
        f"alertWebhook.existingSecret={TOKEN_SECRET}",
        f"gateway.name={GATEWAY}",
        f"gateway.namespace={GATEWAY_NAMESPACE}",
        "prometheus.url=http://prometheus.monitoring:9090",
        "alerts.configMap=true",
        *values,
    ]
    sets = [word for setting in settings for word in ("--set", setting)]
    sets += [word for text in texts for word in ("--set-string", text)]  # a tag may have digits alone, which --set takes for a number
    sets += [word for name, value in lists.items() for word in ("--set-json", f"{name}={json.dumps(value)}")]
    run([_helm(), *cluster.flags, "upgrade", "--install", RELEASE, source / "charts/videogen",
         "--namespace", SYSTEM, *PATIENTLY, *sets])  # fmt: skip


def _split(image: str) -> dict[str, str]:
    repository, _, tag = image.rpartition(":")
    return {"repository": repository, "tag": tag}


def _helm() -> str:
    built = REPOSITORY / ".localcluster/bin/helm"
    found = str(built) if built.exists() else shutil.which("helm")
    if not found:
        raise CommandError("helm is not on PATH and the local cluster has not built it; run `make cluster`")
    return found


def wire_alerts(cluster: Cluster, local: bool) -> None:
    """Prometheus takes the chart's rules, and Alertmanager the operator's webhook with its token."""
    STATE.mkdir(exist_ok=True)
    rules = []
    for name, text in (cluster.get("configmap", "videogen-rules", SYSTEM) or {}).get("data", {}).items():
        (STATE / name).write_text(text)
        rules.append(str(STATE / name))
    service = cluster.get("service", "videogen-operator", SYSTEM)
    if not service:
        raise CommandError(f"the chart made no Service videogen-operator in {SYSTEM}")
    port = next(port["port"] for port in service["spec"]["ports"] if port["name"] == "inbox")
    token = STATE / "alertmanager-token"
    token.touch(mode=0o600)
    token.write_text(cluster("get", "secret", TOKEN_SECRET, "-n", SYSTEM, "-o", "go-template={{.data.token | base64decode}}"))
    authority = STATE / "inbox-ca.crt"
    authority.write_text(inbox_authority(cluster))
    who = ("--token-file", str(token), "--ca-file", str(authority))
    if local:
        for file in rules:
            local_cluster("rules", file)
        webhook = f"https://{service['spec']['clusterIP']}:{port}/v1/alerts"
        local_cluster("alerts", "--webhook", webhook, *who, "--server-name", INBOX_NAME)
    else:
        local_cluster("install-monitoring", "--rules", *rules, "--webhook", f"https://{INBOX_NAME}:{port}/v1/alerts", *who)


def inbox_authority(cluster: Cluster) -> str:
    """The authority that the inbox's certificate is verified by, PEM."""
    authority = cluster.get("configmap", INBOX_AUTHORITY, SYSTEM)
    if not authority:
        raise CommandError(f"the chart made no ConfigMap {INBOX_AUTHORITY} in {SYSTEM}; it does with inbox.tls.enabled, its default")
    return str(authority["data"]["ca.crt"])


def gateway_url(cluster: Cluster) -> str:
    """URL of the gateway from this machine; see reach.py for how."""
    selector = f"gateway.envoyproxy.io/owning-gateway-name={GATEWAY},gateway.envoyproxy.io/owning-gateway-namespace={GATEWAY_NAMESPACE}"
    services = json.loads(cluster("get", "service", "-A", "-l", selector, "-o", "json"))["items"]
    if not services:
        raise CommandError(f"no Envoy Service belongs to Gateway {GATEWAY_NAMESPACE}/{GATEWAY}; is Envoy Gateway running?")
    return f"http://{reach.address(cluster, services[0])}"


def host_name(service: str, namespace: str) -> str:
    """Host name of a service's route, with the chart's default template and domain."""
    return f"{service}-{namespace}.videogen.local"
