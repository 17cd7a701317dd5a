"""What exists for one release while its pods shall run: Deployment, Service, PodDisruptionBudget. Pure builders."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from videogen_api.meta import API_VERSION, LABEL_RELEASE, LABEL_SERVICE
from videogen_api.resources import completed, gpus, number
from videogen_operator.kinds.model_release.observed import KIND, Release, Unreadable
from videogen_operator.kinds.model_release.placement import placed
from videogen_operator.kinds.model_release.states import SERVING, State
from videogen_operator.names import ANNOTATION_TEMPLATE, MANAGED_BY, release_child_name

Settings = Mapping[str, str]
CONTAINER = "server"
DEFAULTS = {"cpu": "1", "memory": "2Gi"}  # of a pod that says nothing of them
DISK = "ephemeral-storage"
PORTS = {"http": 8000, "metrics": 8002}
STORAGE = "/storage"
INFER = "/v2/models/video/infer"  # KServe's inference protocol, version 2, over HTTP
MODEL_READY = "/v2/models/video/ready"  # the server's own /v2/health/ready is true also without a model
SERVER_LIVE = "/v2/health/live"
DRAIN_SECONDS = 5  # the gateway learns within this time that a pod ends, and sends it nothing more
AVAILABLE_SECONDS = 4  # the gateway knows a pod this long after it became ready, also on a busy machine, and only then it is given traffic
SCRATCH_REQUEST = "1Gi"  # of a node's disk; without a request the limit would count as one
KEEPING = SERVING | {State.STANDBY}  # releases whose pods stay as they are, whatever the operator would make today
DEVELOPMENT = "DEVELOPMENT"  # the server's variable that lets it start such a Triton
SHARED_MEMORY = "256Mi"  # Triton's Python backend passes tensors through /dev/shm


def children(release: Release, settings: Settings) -> tuple[dict[str, Any], ...]:
    """Everything of one release, in the order of need."""
    budget = (disruption_budget(release),) if release.spec.serving.replicas > 1 else ()
    return (deployment(release, settings), service(release), *budget)


def labels(release: Release) -> dict[str, str]:
    """On every child and every pod; Prometheus makes the label `release` of one of them."""
    return {LABEL_RELEASE: release.name, LABEL_SERVICE: release.spec.service, MANAGED_BY[0]: MANAGED_BY[1]}


def owner(release: Release | Unreadable, *, controller: bool = True) -> dict[str, Any]:
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
    serving, template = release.spec.serving, pod_template(release, settings)
    made = json.dumps({"asked": _asked(release), "template": template}, sort_keys=True, separators=(",", ":"))
    in_place = gpus(serving.resources) > 0 and serving.replicas > 1
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata(release) | {"annotations": {ANNOTATION_TEMPLATE: made}},
        "spec": {
            "replicas": serving.replicas,
            "selector": {"matchLabels": {LABEL_RELEASE: release.name}},
            "strategy": {
                "type": "RollingUpdate",
                "rollingUpdate": {"maxSurge": 0 if in_place else 1, "maxUnavailable": 1 if in_place else 0},
            },
            "minReadySeconds": AVAILABLE_SECONDS,
            "progressDeadlineSeconds": serving.start_deadline_seconds,
            "template": template,
        },
    }


def pod_template(release: Release, settings: Settings) -> Mapping[str, Any]:
    """The template of the pods: of a release that serves, the one that they were made by, until its author asks for something else. An
    operator's upgrade, or another value of the chart, must not restart the pods of all releases at once, past every canary. What was
    made for a trial ends with it.
    """
    made = _made(release) if release.rollout.state in KEEPING else {}
    if made.get("asked") == _asked(release) and isinstance(template := made.get("template"), dict) and not _of_a_trial(template, settings):
        return template
    return {"metadata": _pod_metadata(release), "spec": _pod(release, settings)}


def _of_a_trial(template: Mapping[str, Any], settings: Settings) -> bool:
    """Whether the pods may start a Triton with known holes, and the chart no longer allows it."""
    # As text: a user who may write the annotation may give its parts any type.
    return not settings.get("serving_development") and json.dumps({"name": DEVELOPMENT})[1:-1] in json.dumps(template)


def _asked(release: Release) -> dict[str, Any]:
    """What of the spec shapes the pods. Without defaults: a field that a newer operator knows besides is no wish of the author's."""
    serving = release.spec.serving
    return serving.model_dump(mode="json", by_alias=True, exclude_defaults=True, exclude={"replicas", "capacity"})


def _made(release: Release) -> Mapping[str, Any]:
    """What the Deployment says of its template; empty if nothing that is ours."""
    annotations = (release.deployment or {}).get("metadata", {}).get("annotations") or {}
    try:
        made = json.loads(annotations.get(ANNOTATION_TEMPLATE, "{}"))
    except ValueError:
        return {}
    return made if isinstance(made, dict) else {}


def _pod_metadata(release: Release) -> dict[str, Any]:
    scrape = {"prometheus.io/scrape": "true", "prometheus.io/port": str(PORTS["metrics"]), "prometheus.io/path": "/metrics"}
    return {"labels": labels(release), "annotations": scrape}


def _pod(release: Release, settings: Settings) -> dict[str, Any]:
    serving, user = release.spec.serving, int(settings.get("pod_user") or 65532)
    return {
        **placed(release, settings),
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "shareProcessNamespace": True,  # else the server is PID 1, which SIGTERM does not end while it loads
        "terminationGracePeriodSeconds": serving.timeout_seconds + 3 * DRAIN_SECONDS,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": user,
            "runAsGroup": user,
            "fsGroup": user,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [_container(release, settings)],
        "volumes": [
            {"name": "storage", "persistentVolumeClaim": {"claimName": release.spec.artifact.claim_name, "readOnly": True}},
            {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": SHARED_MEMORY}},
            {"name": "tmp", "emptyDir": {"sizeLimit": scratch(settings)}},
        ],
    }


def _container(release: Release, settings: Settings) -> dict[str, Any]:
    return {
        "name": CONTAINER,
        "image": image(release, settings),
        "imagePullPolicy": settings.get("image_pull_policy") or "IfNotPresent",
        "env": [{"name": name, "value": value} for name, value in environment(release, settings).items()],
        "ports": [{"name": name, "containerPort": port, "protocol": "TCP"} for name, port in PORTS.items()],
        "resources": _resources(release, settings),
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


def environment(release: Release, settings: Settings) -> dict[str, str]:
    """The server's settings: threads that fit the pod's CPUs, and a bundle whose digest it verifies before it loads it."""
    serving = release.spec.serving
    threads = max(1, int(number((completed(serving.resources, **DEFAULTS).requests or {})["cpu"])))
    development = {DEVELOPMENT: "true"} if settings.get("serving_development") else {}
    return {
        "RELEASE": release.name,
        "BUNDLE_PATH": f"{STORAGE}/{release.spec.artifact.path}",
        "BUNDLE_DIGEST": release.spec.artifact.digest,
        "SAMPLING_STEPS": str(serving.sampling_steps),
        "MAXIMUM_STEPS": str(serving.maximum_steps or serving.sampling_steps),
        "TIMEOUT_SECONDS": str(serving.timeout_seconds),
        "OMP_NUM_THREADS": str(threads),
        **development,
    }


def image(release: Release, settings: Settings) -> str:
    """The serving image: of a release that serves, the one that it serves with, also where its author has changed something else; but
    not a trial's, which does not start without its variable.
    """
    template = ((release.deployment or {}).get("spec") or {}).get("template") or {}
    running = next((c["image"] for c in (template.get("spec") or {}).get("containers") or [] if c["name"] == CONTAINER), "")
    kept = release.rollout.state in KEEPING and not _of_a_trial(template, settings)
    return str(running) if kept and running else settings.get("serving_image", "")


def scratch(settings: Settings) -> str:
    """How much of a node's disk a pod may use: most of it is the bundle, which the server copies to /tmp while it verifies it."""
    return settings.get("scratch_size") or "50Gi"


def _resources(release: Release, settings: Settings) -> dict[str, Any]:
    """Requests and limits. A pod that fills its node's disk is evicted before the node's other pods are."""
    whole = completed(release.spec.serving.resources, **DEFAULTS)
    requests, limits = whole.requests or {}, whole.limits or {}
    return {
        "requests": {DISK: SCRATCH_REQUEST} | requests,
        "limits": ({} if DISK in requests and DISK not in limits else {DISK: scratch(settings)}) | limits,
    }


def _probe(path: str, period: int, failures: int) -> dict[str, Any]:
    return {"httpGet": {"path": path, "port": "http"}, "periodSeconds": period, "timeoutSeconds": 5, "failureThreshold": failures}


def service(release: Release) -> dict[str, Any]:
    """The release's own address, which the route refers to."""
    port = {"name": "http", "port": PORTS["http"], "targetPort": "http", "protocol": "TCP", "appProtocol": "http"}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(release),
        "spec": {"selector": {LABEL_RELEASE: release.name}, "ports": [port]},
    }


def disruption_budget(release: Release) -> dict[str, Any]:
    """A drain takes one pod at a time. With a single pod it would block every drain, so there is none then."""
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": metadata(release),
        "spec": {"maxUnavailable": 1, "selector": {"matchLabels": {LABEL_RELEASE: release.name}}},
    }
