"""Prometheus and Alertmanager as pods, for a cluster of somebody else's that has none.

They are configured as the processes of our own cluster are (monitoring.py), except that this Prometheus finds pods by
itself. Namespace, Services and ports are the same, so that the chart's settings are.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from localcluster import files, objects
from localcluster.faults import Fault
from localcluster.kubectl import Kubectl
from localcluster.monitoring import RESEND, alertmanager_config, configuration
from localcluster.objects import MONITORING, PROXIES, Manifest
from localcluster.scraping import (
    GATEWAY,
    GATEWAY_LABELS,
    OPERATOR,
    OPERATOR_LABELS,
    OPERATOR_NAMESPACE,
    RELEASE_LABELS,
    RELEASES,
)
from localcluster.versions import UPSTREAM_IMAGES

PORTS = {"prometheus": 9090, "alertmanager": 9093}
OURS = {"app.kubernetes.io/managed-by": "localcluster"}
READER = "videogen-prometheus"
USER = 65534  # `nobody`, as whom upstream's images run
READY_SECONDS = 300
POD = "__meta_kubernetes_pod_"
NOTE = f"{POD}annotation_prometheus_io_"


@dataclass(frozen=True, slots=True, kw_only=True)
class MonitoringImages:
    """Which images they run."""

    prometheus: str = UPSTREAM_IMAGES["prometheus"]
    alertmanager: str = UPSTREAM_IMAGES["alertmanager"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Alerting:
    """Which alerts there are, and who is told."""

    rules: dict[str, str]  # name -> a file of alert rules
    webhook: str
    token: str  # the bearer token that the webhook wants
    authority: str = ""  # PEM certificate that the webhook's is verified by; "": the image's authorities


def installed_by_others(kubectl: Kubectl) -> bool:
    """Whether a Service of one of our names is there that is not ours."""
    found = [kubectl.get("service", name, "-n", MONITORING) for name in PORTS]
    return any(service and not OURS.items() <= (service["metadata"].get("labels") or {}).items() for service in found)


def install(kubectl: Kubectl, images: MonitoringImages, alerting: Alerting) -> None:
    """Applies both and waits until they answer; what has not changed goes on running."""
    kubectl.apply(manifests(images, alerting))
    for name in PORTS:
        words = ("rollout", "status", f"deployment/{name}", "-n", MONITORING, f"--timeout={READY_SECONDS}s")
        try:
            kubectl(*words, timeout=READY_SECONDS + 15)
        except Fault as fault:
            raise Fault(f"{name} is not ready; `kubectl -n {MONITORING} describe pods` tells why ({fault})") from None


def manifests(images: MonitoringImages, alerting: Alerting) -> list[Manifest]:
    """Everything, the namespace first."""
    return [objects.namespace(MONITORING), *prometheus(images.prometheus, alerting), *alertmanager(images.alertmanager, alerting)]


def prometheus(image: str, alerting: Alerting) -> list[Manifest]:
    """Prometheus with its right to see pods."""
    config = configuration("/etc/prometheus/rules-*.yaml", "127.0.0.1:9090", "alertmanager:9093", discovery)
    data = {"prometheus.yaml": json.dumps(config)} | {f"rules-{name}.yaml": text for name, text in alerting.rules.items()}
    flags = [
        "--config.file=/etc/prometheus/prometheus.yaml",
        "--storage.tsdb.path=/data",
        "--storage.tsdb.retention.time=2d",
        RESEND,
    ]
    return [
        *reader(),
        _named("v1", "ConfigMap", "prometheus", data=data),
        deployment("prometheus", image, flags, files.digest(json.dumps(data, sort_keys=True))),
        service("prometheus"),
    ]


def alertmanager(image: str, alerting: Alerting) -> list[Manifest]:
    """Alertmanager with the webhook's token."""
    authority = {"ca.crt": alerting.authority} if alerting.authority else {}
    config = alertmanager_config(alerting.webhook, Path("/etc/secret/token"), Path("/etc/alertmanager/ca.crt") if authority else None)
    data = {"alertmanager.yaml": json.dumps(config)} | authority
    flags = ["--config.file=/etc/alertmanager/alertmanager.yaml", "--storage.path=/data", "--cluster.listen-address="]
    made = deployment("alertmanager", image, flags, files.digest(json.dumps(data), alerting.token))
    pod = made["spec"]["template"]["spec"]
    pod["volumes"].append({"name": "secret", "secret": {"secretName": "alertmanager-token"}})
    pod["containers"][0]["volumeMounts"].append({"name": "secret", "mountPath": "/etc/secret", "readOnly": True})
    return [
        _named("v1", "ConfigMap", "alertmanager", data=data),
        _named("v1", "Secret", "alertmanager-token", stringData={"token": alerting.token}),
        made,
        service("alertmanager"),
    ]


def discovery(job: str) -> dict[str, Any]:
    """How Prometheus finds the pods of a job, as targets.py does: by the same annotations, with the same labels."""
    rules: list[dict[str, Any]] = [
        *of_job(job),
        {"source_labels": [f"{NOTE}scrape"], "regex": "true", "action": "keep"},
        {"source_labels": [f"{POD}phase"], "regex": "Running", "action": "keep"},
        {"source_labels": [f"{POD}ip", f"{NOTE}port"], "separator": ":", "regex": "(.+:[0-9]+)", "target_label": "__address__"},
        {"source_labels": [f"{NOTE}path"], "regex": "(.+)", "target_label": "__metrics_path__"},
        {"source_labels": [f"{NOTE}scheme"], "regex": "(.+)", "target_label": "__scheme__"},
        {"source_labels": ["__meta_kubernetes_namespace"], "target_label": "namespace"},
        {"source_labels": [f"{POD}name"], "target_label": "pod"},
        {"source_labels": [f"{POD}node_name"], "target_label": "node"},
    ]
    return {"kubernetes_sd_configs": [{"role": "pod"}], "relabel_configs": rules}


def of_job(job: str) -> list[dict[str, Any]]:
    """Which pods are a job's, as scraping.job_of says, and the labels that a release's pods bring."""
    releases = {"source_labels": [_label(name) for name in RELEASE_LABELS], "regex": ";".join(".+" for _ in RELEASE_LABELS)}
    chosen: dict[str, dict[str, Any]] = {
        OPERATOR: _labelled(OPERATOR_NAMESPACE, OPERATOR_LABELS),
        GATEWAY: _labelled(PROXIES, GATEWAY_LABELS),
        RELEASES: releases,
    }
    if job in (OPERATOR, GATEWAY):
        return [chosen[job] | {"action": "keep"}]
    others = [chosen[other] | {"action": "drop"} for other in chosen if other != job]
    if job != RELEASES:
        return others
    made = [{"source_labels": [_label(name)], "target_label": metric} for name, metric in RELEASE_LABELS.items()]
    return [*others, releases | {"action": "keep"}, *made]


def _labelled(namespace: str, labels: dict[str, str]) -> dict[str, Any]:
    source = ["__meta_kubernetes_namespace", *(_label(name) for name in labels)]
    return {"source_labels": source, "regex": ";".join((namespace, *labels.values()))}


def _label(name: str) -> str:
    return f"{POD}label_" + re.sub(r"[^a-zA-Z0-9_]", "_", name)


def reader() -> list[Manifest]:
    """Prometheus's account, which may see pods and nothing else."""
    group = "rbac.authorization.k8s.io"
    rules = [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"]}]
    return [
        _named("v1", "ServiceAccount", "prometheus"),
        {"apiVersion": f"{group}/v1", "kind": "ClusterRole", "metadata": {"name": READER, "labels": OURS}, "rules": rules},
        {
            "apiVersion": f"{group}/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": READER, "labels": OURS},
            "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": READER},
            "subjects": [{"kind": "ServiceAccount", "name": "prometheus", "namespace": MONITORING}],
        },
    ]


def deployment(name: str, image: str, flags: list[str], digest: str) -> Manifest:
    """One pod, let in by Pod Security `restricted`. `digest` of its configuration: another one starts it again."""
    mounts = [{"name": "config", "mountPath": f"/etc/{name}"}, {"name": "data", "mountPath": "/data"}]
    container = {
        "name": name,
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "args": flags,
        "ports": [{"name": "http", "containerPort": PORTS[name]}],
        "readinessProbe": {"httpGet": {"path": "/-/ready", "port": "http"}, "periodSeconds": 2},
        "resources": {"requests": {"cpu": "50m", "memory": "128Mi"}, "limits": {"memory": "1Gi"}},
        "securityContext": {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}},
        "volumeMounts": mounts,
    }
    pod = {
        "automountServiceAccountToken": name == "prometheus",
        "serviceAccountName": "prometheus" if name == "prometheus" else "default",
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": [{"name": "config", "configMap": {"name": name}}, {"name": "data", "emptyDir": {}}],
    }
    labels = {"app.kubernetes.io/name": name} | OURS
    template = {"metadata": {"labels": labels, "annotations": {"localcluster/config": digest}}, "spec": pod}
    spec = {"replicas": 1, "strategy": {"type": "Recreate"}, "selector": {"matchLabels": labels}, "template": template}
    return _named("apps/v1", "Deployment", name, spec=spec)


def service(name: str) -> Manifest:
    """Under the name and port that our own cluster has."""
    spec = {"selector": {"app.kubernetes.io/name": name} | OURS, "ports": [{"name": "http", "port": PORTS[name], "targetPort": "http"}]}
    return _named("v1", "Service", name, spec=spec)


def _named(version: str, kind: str, name: str, **content: Any) -> Manifest:
    return {"apiVersion": version, "kind": kind, "metadata": {"name": name, "namespace": MONITORING, "labels": OURS}} | content
