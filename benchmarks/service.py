"""A service for benchmarks: a stable release and candidates with untrained models, in a namespace of their own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from videogen_api.meta import ANNOTATION_REQUEST, API_VERSION, LABEL_STORAGE, STORAGE_ALLOWED, ModelFamily, ModelIdentity, release_name
from videogen_demo.kubectl import Cluster, CommandError, Manifest

NAMESPACE = "benchmark"
SERVICE = "benchmark"
CLAIM = "benchmark-models"
POD = "untrained-models"
RESTRICTED: Manifest = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}, "readOnlyRootFilesystem": True}
USER: Manifest = {
    "runAsNonRoot": True, "runAsUser": 65532, "runAsGroup": 65532, "fsGroup": 65532, "seccompProfile": {"type": "RuntimeDefault"},
}  # fmt: skip


def create_namespace(cluster: Cluster) -> None:
    """An empty namespace with a claim; what an earlier run has left is removed."""
    remove(cluster)
    enforce = {"pod-security.kubernetes.io/enforce": "restricted"}
    claim = {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}}
    cluster.apply(
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": enforce}},
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": CLAIM, "namespace": NAMESPACE, "labels": {LABEL_STORAGE: STORAGE_ALLOWED}},
            "spec": claim,
        },
    )


def remove(cluster: Cluster) -> None:
    """Delete everything that the benchmark has made."""
    if cluster.get("namespace", NAMESPACE):
        cluster("delete", "namespace", NAMESPACE, "--wait=true", "--timeout=240s")


def write_bundles(cluster: Cluster, image: str, versions: list[str]) -> dict[str, Manifest]:
    """Bundles of untrained models in the claim -> {version: {"path", "digest"}}; a pod with the trainer's image writes them."""
    cluster.apply(_writer(image, versions))

    def phase() -> str:
        found = (cluster.get("pod", POD, NAMESPACE) or {}).get("status", {}).get("phase", "")
        return found if found in {"Succeeded", "Failed"} else ""

    ended = cluster.wait(f"pod {NAMESPACE}/{POD} to end", phase, 300)
    said = cluster("logs", "-n", NAMESPACE, POD)
    if ended == "Failed":
        raise CommandError(f"writing the bundles failed: {said[-1000:]}")
    written: dict[str, Manifest] = json.loads(said.strip().splitlines()[-1])
    return written


def _writer(image: str, versions: list[str]) -> Manifest:
    program = (Path(__file__).parent / "untrained.py").read_text(encoding="utf-8")
    container = {
        "name": "writer", "image": image, "command": ["python3", "-c", program, *versions], "securityContext": RESTRICTED,
        "env": [{"name": "OMP_NUM_THREADS", "value": "1"}, {"name": "HOME", "value": "/tmp"}],  # noqa: S108
        "volumeMounts": [{"name": "storage", "mountPath": "/storage"}, {"name": "tmp", "mountPath": "/tmp"}],  # noqa: S108
    }  # fmt: skip
    volumes = [{"name": "storage", "persistentVolumeClaim": {"claimName": CLAIM}}, {"name": "tmp", "emptyDir": {}}]
    spec = {"restartPolicy": "Never", "automountServiceAccountToken": False, "securityContext": USER}
    metadata = {"name": POD, "namespace": NAMESPACE}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec | {"containers": [container], "volumes": volumes}}


def name_of(version: str) -> str:
    """The release's name."""
    return release_name(ModelIdentity(family=ModelFamily.VIDEOFUSION, version=version))


def release(version: str, bundle: Manifest, *, sampling_steps: int, maximum_steps: int | None = None, latency_limit: str = "") -> Manifest:
    """A ModelRelease that takes 50 % as a candidate and never goes further by itself.

    With a latency limit the alert rules apply it at each evaluation, from the first request on: it is the way of an alert that is
    measured, not the time that requests take to add up. Its own rounds of checks come too late to matter.
    """
    never = 1_000_000
    check = {"name": "latency", "metric": "LatencyP95Seconds", "maximum": latency_limit, "minimumRequests": 1}
    serving: Manifest = {
        "samplingSteps": sampling_steps,
        "timeoutSeconds": 60,
        "resources": {"requests": {"cpu": "250m"}, "limits": {"memory": "3Gi"}},
    }
    if maximum_steps:
        serving["maximumSteps"] = maximum_steps
    rollout: dict[str, Any] = {
        "steps": [{"weightPercent": 50, "minimumRequests": never, "minimumSeconds": 86_400}],
        "checks": [check] if latency_limit else [],
        "checkIntervalSeconds": 3600,
    }
    return {
        "apiVersion": API_VERSION,
        "kind": "ModelRelease",
        "metadata": {"name": name_of(version), "namespace": NAMESPACE},
        "spec": {
            "service": SERVICE,
            "model": {"family": "VideoFusion", "version": version},
            "artifact": {"claimName": CLAIM} | bundle,
            "serving": serving,
            "rollout": rollout,
        },
    }


def state(cluster: Cluster, version: str) -> str:
    """State of the release's rollout, for example Canary."""
    found = cluster.get("modelrelease", name_of(version), NAMESPACE) or {}
    return str((found.get("status") or {}).get("rollout", {}).get("state", ""))


def wait_for(cluster: Cluster, version: str, wanted: str, seconds: float = 300) -> None:
    """Return once the rollout is in a state. Raises CommandError with the conditions if it does not come."""
    try:
        cluster.wait(f"{name_of(version)} to be {wanted}", lambda: state(cluster, version) == wanted, seconds, pause=0.2)
    except CommandError as error:
        found = (cluster.get("modelrelease", name_of(version), NAMESPACE) or {}).get("status") or {}
        raise CommandError(f"{error}; its status is {json.dumps(found)[:1500]}") from None


def retry(cluster: Cluster, version: str, identifier: str) -> None:
    """Ask for a release that was rolled back to be tried again, in spite of its quarantine."""
    cluster("annotate", "modelrelease", name_of(version), "-n", NAMESPACE, "--overwrite", f"{ANNOTATION_REQUEST}=retry@{identifier}")
