"""Builders of ModelReleases and of what stands around them, as the API server would hand them out."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from copy import deepcopy
from datetime import UTC, datetime, timedelta
from typing import Any

from videogen_api.meta import API_VERSION, LABEL_RELEASE, LABEL_STORAGE, STORAGE_ALLOWED
from videogen_api.model_release import ModelReleaseSpec
from videogen_operator.api_server.world import read, values_of
from videogen_operator.plan import Index, M, World

NAMESPACE = "films"
SERVICE = "standard"
START = datetime(2026, 11, 2, 9, 0, tzinfo=UTC)
SETTINGS = {
    "serving_image": "videogen-serving:1",
    "image_pull_policy": "IfNotPresent",
    "gateway_name": "videogen",
    "gateway_namespace": "videogen-system",
    "gateway_section": "http",
    "gateway_controller": "gateway.envoyproxy.io/gatewayclass-controller",
    "domain": "videogen.local",
    "traffic_policy": "true",
    "pod_user": "65532",
    "operator_namespace": "videogen-system",
    "network_policies": "true",
    "gateway_peers": '[{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "envoy-gateway-system"}}}]',
    "monitoring_peers": '[{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}]',
    "gateway_metrics_namespace": "envoy-gateway-system",
    "alert_window_seconds": "20",
}


def name_of(version: str) -> str:
    return f"pib-videogen-videofusion-v{version}-base"


def digest_of(text: str) -> str:
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A deep merge: mappings are merged, everything else is replaced."""
    result = deepcopy(dict(base))
    for key, value in changes.items():
        both = isinstance(value, Mapping) and isinstance(result.get(key), Mapping)
        result[key] = merged(result[key], value) if both else deepcopy(value)
    return result


def a_release(version: str = "1.0.0", *, at: datetime = START, status: Mapping[str, Any] | None = None, **spec: Any) -> dict[str, Any]:
    """A ModelRelease with a complete spec (as after the API server's defaulting); keywords change the spec."""
    whole = merged(
        {
            "service": SERVICE,
            "model": {"family": "VideoFusion", "version": version, "specialization": "base"},
            "artifact": {"claimName": "models", "path": f"bundles/{name_of(version)}/abc", "digest": digest_of(version)},
            "serving": {"replicas": 2, "timeoutSeconds": 30, "startDeadlineSeconds": 120},
        },
        spec,
    )
    return {
        "apiVersion": API_VERSION,
        "kind": "ModelRelease",
        "metadata": {
            "name": name_of(version),
            "namespace": NAMESPACE,
            "uid": f"uid-{version}",
            "generation": 1,
            "resourceVersion": "1",
            "creationTimestamp": at.strftime("%Y-%m-%dT%H:%M:%SZ"),
        },
        "spec": ModelReleaseSpec.model_validate(whole).wire(),
        "status": dict(status or {"observedGeneration": -1}),
    }


class Objects:
    """A plan.World of fixed objects."""

    def __init__(self, *items: Mapping[str, Any]) -> None:
        self._items = sorted(items, key=lambda item: (item["metadata"].get("namespace", ""), item["metadata"]["name"]))

    def get(self, kind: str, namespace: str, name: str) -> Mapping[str, Any] | None:
        return next((item for item in self.list(kind, namespace) if item["metadata"]["name"] == name), None)

    def list(self, kind: str, namespace: str | None = None, labels: Mapping[str, str] | None = None) -> tuple[Mapping[str, Any], ...]:
        wanted = dict(labels or {}).items()
        of_kind = [item for item in self._items if item["kind"] == kind]
        here = [item for item in of_kind if namespace in {None, item["metadata"].get("namespace", "")}]
        return tuple(item for item in here if wanted <= (item["metadata"].get("labels") or {}).items())

    def find(self, index: Index, value: str, namespace: str | None = None) -> tuple[Mapping[str, Any], ...]:
        return looked_up(self, index, value, namespace)

    def read(self, model: type[M], item: Mapping[str, Any], field: str) -> M:
        return read(model, item, field)


def looked_up(world: World, index: Index, value: str, namespace: str | None) -> tuple[Mapping[str, Any], ...]:
    """What a world without indexes has under the value."""
    return tuple(item for item in world.list(index.kind, namespace) if value in values_of(index, item))


def a_run(name: str = "training", *, digest: str = "", results: list[dict[str, Any]] | None = None, ended: str = "") -> dict[str, Any]:
    """A TrainingRun with what a release reads of it."""
    phases: list[dict[str, Any]] = [{"name": "train"}, {"name": "validation", "results": results or []}]
    conditions = [{"type": "Succeeded", "status": ended or "Unknown", "reason": "Completed" if ended else "Evaluating"}]
    return {
        "apiVersion": API_VERSION,
        "kind": "TrainingRun",
        "metadata": {"name": name, "namespace": NAMESPACE, "uid": f"uid-{name}", "resourceVersion": "1"},
        "spec": {},
        "status": {"phases": phases, "conditions": conditions} | ({"artifact": {"path": "bundles/x", "digest": digest}} if digest else {}),
    }


def a_result(metric: str = "FVD", value: str = "150", samples: int = 100) -> dict[str, Any]:
    return {"metric": metric, "value": value, "samples": samples}


def a_gate(metric: str = "FVD", operator: str = "LessThan", threshold: str = "200", minimum: int = 64) -> dict[str, Any]:
    return {"metric": metric, "operator": operator, "threshold": threshold, "minimumSamples": minimum}


def a_claim(name: str = "models") -> dict[str, Any]:
    metadata = {
        "name": name,
        "namespace": NAMESPACE,
        "uid": f"uid-{name}",
        "resourceVersion": "1",
        "labels": {LABEL_STORAGE: STORAGE_ALLOWED},
    }
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "status": {"phase": "Bound"}}


def a_gateway(name: str = "videogen", namespace: str = "videogen-system") -> dict[str, Any]:
    metadata = {"name": name, "namespace": namespace, "uid": "uid-gateway", "resourceVersion": "1"}
    return {"apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway", "metadata": metadata}


def a_node(name: str = "node-1", *, cpu: str = "64", memory: str = "256Gi", gpus: int = 0, **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "uid": f"uid-{name}", "resourceVersion": "1"},
        "spec": spec,
        "status": {
            "allocatable": {"cpu": cpu, "memory": memory, **({"nvidia.com/gpu": str(gpus)} if gpus else {})},
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    }


def a_crashed_pod(release: str, *, exit_code: int, at: datetime) -> dict[str, Any]:
    """A serving pod whose server has just ended by itself and waits for being started again."""
    controller = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": f"{release}-set", "uid": f"uid-{release}-set", "controller": True}
    metadata: dict[str, Any] = {
        "name": f"{release}-pod",
        "namespace": NAMESPACE,
        "uid": f"uid-{release}-pod",
        "labels": {LABEL_RELEASE: release},
    }
    metadata["ownerReferences"] = [controller]
    end = {"exitCode": exit_code, "reason": "OOMKilled", "finishedAt": at.isoformat()}
    state = {"waiting": {"reason": "CrashLoopBackOff"}}
    container = {"name": "server", "image": "serving:1", "state": state, "lastState": {"terminated": end}}
    return {"kind": "Pod", "metadata": metadata, "spec": {}, "status": {"phase": "Running", "containerStatuses": [container]}}


def a_waiting_pod(release: str, *, at: datetime, placed: bool) -> dict[str, Any]:
    """A serving pod for which the scheduler has just found a node, or has found none."""
    controller = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": f"{release}-set", "uid": f"uid-{release}-set", "controller": True}
    metadata: dict[str, Any] = {
        "name": f"{release}-waits",
        "namespace": NAMESPACE,
        "uid": f"uid-{release}-waits",
        "labels": {LABEL_RELEASE: release},
    }
    metadata["ownerReferences"] = [controller]
    said: dict[str, Any] = {"type": "PodScheduled", "status": "True", "lastTransitionTime": at.isoformat()}
    if not placed:
        said |= {"status": "False", "reason": "Unschedulable", "message": "0/1 nodes are available: 1 Insufficient nvidia.com/gpu"}
    phase = "Running" if placed else "Pending"
    return {"kind": "Pod", "metadata": metadata, "spec": {}, "status": {"phase": phase, "conditions": [said]}}


def a_deployment(release: str) -> dict[str, Any]:
    """The Deployment of a release whose UID is that of `a_release`."""
    version = release.removeprefix("pib-videogen-videofusion-v").removesuffix("-base")
    metadata = {"name": release.replace(".", "-"), "namespace": NAMESPACE, "uid": f"uid-{release}-deployment"}
    return {"kind": "Deployment", "metadata": metadata | {"ownerReferences": [{"uid": f"uid-{version}"}]}}


def a_replica_set(release: str, deployment_uid: str = "") -> dict[str, Any]:
    """The ReplicaSet through which the Deployment has made the pods of `a_crashed_pod`."""
    owner = {"kind": "Deployment", "uid": deployment_uid or f"uid-{release}-deployment", "controller": True}
    labels = {LABEL_RELEASE: release}
    metadata = {"name": f"{release}-set", "namespace": NAMESPACE, "uid": f"uid-{release}-set", "labels": labels}
    return {"kind": "ReplicaSet", "metadata": metadata | {"ownerReferences": [owner]}}


def an_alert(
    release: str, *, at: datetime, name: str = "VideogenReleaseLatencyHigh", namespace: str = NAMESPACE, sender: str = "", **more: Any
) -> dict[str, Any]:
    """An alert as the inbox hands it to the plan, by the token of all namespaces or of `sender`."""
    alert = {
        "status": "firing",
        "fingerprint": f"{sender}/{name}/{release}",
        "sender": sender,
        "startsAt": at.isoformat(),
        "receivedAt": (at + timedelta(milliseconds=5)).isoformat(),
        "labels": {"alertname": name, "release": release, "namespace": namespace},
        "annotations": {"summary": "P95 latency is three times the limit"},
    }
    return merged(alert, more)
