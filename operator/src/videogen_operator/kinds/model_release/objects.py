"""What exists for one release while its pods shall run: Deployment, Service, PodDisruptionBudget. Pure builders."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from videogen_api.meta import API_VERSION, LABEL_RELEASE, LABEL_SERVICE
from videogen_operator.kinds.model_release.observed import KIND, Release
from videogen_operator.kinds.model_release.placement import pod_fields
from videogen_operator.kinds.model_release.states import SERVING, State
from videogen_operator.names import MANAGED_BY, release_child_name
from videogen_operator.quantities import GPU, quantity

Settings = Mapping[str, str]
CONTAINER = "server"
PORTS = {"http": 8000, "grpc": 8001, "metrics": 8002}
STORAGE = "/storage"
MODEL_READY = "/v2/models/video/ready"  # the server's own /v2/health/ready is true also without a model
SERVER_LIVE = "/v2/health/live"
DRAIN_SECONDS = 5  # the gateway learns within this time that a pod ends, and sends it nothing more
AVAILABLE_SECONDS = 2  # the gateway knows a pod this long after it became ready, and only then it is given traffic
SHARED_MEMORY = "256Mi"  # Triton's Python backend passes tensors through /dev/shm


def children(release: Release, settings: Settings) -> tuple[dict[str, Any], ...]:
    """Everything of one release, in the order of need."""
    budget = (disruption_budget(release),) if release.spec.serving.replicas > 1 else ()
    return (deployment(release, settings), service(release), *budget)


def labels(release: Release) -> dict[str, str]:
    """On every child and every pod; Prometheus makes the label `release` of one of them."""
    return {LABEL_RELEASE: release.name, LABEL_SERVICE: release.spec.service, MANAGED_BY[0]: MANAGED_BY[1]}


def owner(release: Release, *, controller: bool = True) -> dict[str, Any]:
    """The owner reference to a release; of several owners none is the controller."""
    reference = {"apiVersion": API_VERSION, "kind": KIND, "name": release.name, "uid": release.uid}
    return reference | ({"controller": True, "blockOwnerDeletion": True} if controller else {})


def metadata(release: Release) -> dict[str, Any]:
    """metadata of a child."""
    return {
        "name": release_child_name(release.name),
        "namespace": release.manifest["metadata"]["namespace"],
        "labels": labels(release),
        "ownerReferences": [owner(release)],
    }


def deployment(release: Release, settings: Settings) -> dict[str, Any]:
    """The pods. With GPUs a change replaces pod by pod in place, since nobody has a spare GPU for each."""
    serving = release.spec.serving
    in_place = serving.gpus > 0 and serving.replicas > 1
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata(release),
        "spec": {
            "replicas": serving.replicas,
            "selector": {"matchLabels": {LABEL_RELEASE: release.name}},
            "strategy": {
                "type": "RollingUpdate",
                "rollingUpdate": {"maxSurge": 0 if in_place else 1, "maxUnavailable": 1 if in_place else 0},
            },
            "minReadySeconds": AVAILABLE_SECONDS,
            "progressDeadlineSeconds": serving.start_deadline_seconds,
            "template": {"metadata": _pod_metadata(release), "spec": _pod(release, settings)},
        },
    }


def _pod_metadata(release: Release) -> dict[str, Any]:
    scrape = {"prometheus.io/scrape": "true", "prometheus.io/port": str(PORTS["metrics"]), "prometheus.io/path": "/metrics"}
    return {"labels": labels(release), "annotations": scrape}


def _pod(release: Release, settings: Settings) -> dict[str, Any]:
    serving, user = release.spec.serving, int(settings.get("pod_user") or 65532)
    return {
        **pod_fields(serving),
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": serving.timeout_seconds + 3 * DRAIN_SECONDS,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": user,
            "runAsGroup": user,
            "fsGroup": user,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "topologySpreadConstraints": [
            {
                "maxSkew": 1,
                "topologyKey": "kubernetes.io/hostname",
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": {LABEL_RELEASE: release.name}},
            }
        ],
        "containers": [_container(release, settings)],
        "volumes": [
            {"name": "storage", "persistentVolumeClaim": {"claimName": release.spec.artifact.claim_name, "readOnly": True}},
            {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": SHARED_MEMORY}},
            {"name": "tmp", "emptyDir": {}},
        ],
    }


def _container(release: Release, settings: Settings) -> dict[str, Any]:
    return {
        "name": CONTAINER,
        "image": image(release, settings),
        "imagePullPolicy": settings.get("image_pull_policy") or "IfNotPresent",
        "env": [{"name": name, "value": value} for name, value in environment(release).items()],
        "ports": [{"name": name, "containerPort": port, "protocol": "TCP"} for name, port in PORTS.items()],
        "resources": _resources(release),
        "volumeMounts": [
            {"name": "storage", "mountPath": STORAGE, "readOnly": True},
            {"name": "shm", "mountPath": "/dev/shm"},  # noqa: S108 - a mount of the pod's own
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108
        ],
        # Loading has the whole start deadline; only then a model that stops answering takes the pod out of the Service.
        "startupProbe": _probe(MODEL_READY, 2, max(1, release.spec.serving.start_deadline_seconds // 2)),
        "readinessProbe": _probe(MODEL_READY, 2, 3),
        "livenessProbe": _probe(SERVER_LIVE, 10, 6),
        "lifecycle": {"preStop": {"sleep": {"seconds": DRAIN_SECONDS}}},
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
    }


def environment(release: Release) -> dict[str, str]:
    """What the server is told: threads that fit the pod's CPUs, and a bundle whose digest it verifies before it loads it."""
    threads = max(1, int(quantity(release.spec.serving.cpu)))
    return {
        "RELEASE": release.name,
        "BUNDLE_PATH": f"{STORAGE}/{release.spec.artifact.path}",
        "BUNDLE_DIGEST": release.spec.artifact.digest,
        "SAMPLING_STEPS": str(release.spec.serving.sampling_steps),
        "TIMEOUT_SECONDS": str(release.spec.serving.timeout_seconds),
        "OMP_NUM_THREADS": str(threads),
    }


def image(release: Release, settings: Settings) -> str:
    """The serving image: of a release that serves, the one that it serves with. An operator's upgrade must not replace
    the software below all releases at once, past every canary.
    """
    template = ((release.deployment or {}).get("spec") or {}).get("template") or {}
    running = next((c["image"] for c in (template.get("spec") or {}).get("containers") or [] if c["name"] == CONTAINER), "")
    serves = release.rollout.state in SERVING | {State.STANDBY}
    return str(running) if serves and running else settings.get("serving_image", "")


def _resources(release: Release) -> dict[str, Any]:
    serving = release.spec.serving
    gpus = {GPU: str(serving.gpus)} if serving.gpus else {}
    return {"requests": {"cpu": serving.cpu, "memory": serving.memory, **gpus}, "limits": {"memory": serving.memory, **gpus}}


def _probe(path: str, period: int, failures: int) -> dict[str, Any]:
    return {"httpGet": {"path": path, "port": "http"}, "periodSeconds": period, "timeoutSeconds": 5, "failureThreshold": failures}


def service(release: Release) -> dict[str, Any]:
    """The release's own address, which the route refers to."""
    ports = [
        {"name": "http", "port": PORTS["http"], "targetPort": "http", "protocol": "TCP", "appProtocol": "http"},
        {"name": "grpc", "port": PORTS["grpc"], "targetPort": "grpc", "protocol": "TCP", "appProtocol": "kubernetes.io/h2c"},
    ]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(release),
        "spec": {"selector": {LABEL_RELEASE: release.name}, "ports": ports},
    }


def disruption_budget(release: Release) -> dict[str, Any]:
    """A drain takes one pod at a time. With a single pod it would block every drain, so there is none then."""
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": metadata(release),
        "spec": {"maxUnavailable": 1, "selector": {"matchLabels": {LABEL_RELEASE: release.name}}},
    }
