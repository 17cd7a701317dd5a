"""Manifests and waiting for the end-to-end stories."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp

from videogen_api.approvals import ANNOTATION_APPROVE, LAMBDA
from videogen_api.meta import LABEL_STORAGE, STORAGE_ALLOWED
from videogen_demo import load
from videogen_demo.kubectl import Cluster, Manifest, condition

CLAIM = "models"
TRAIN = [{"dataset": "shapes", "version": "1", "split": "Train"}]
HELD_OUT = [{"dataset": "shapes", "version": "1", "split": "HeldOut"}]
SMALL: dict[str, Any] = {"requests": {"cpu": "200m"}, "limits": {"memory": "3Gi"}}


def namespace_manifest(name: str) -> Manifest:
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


def claim(namespace: str, name: str = CLAIM) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name, "namespace": namespace, "labels": {LABEL_STORAGE: STORAGE_ALLOWED}},
        "spec": {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "2Gi"}}},
    }


def curate(path: str = "raw/synthetic", **changes: Any) -> Manifest:
    what = {"dataset": "shapes", "version": "1", "sources": [{"path": path}], "heldOutPercent": 40} | changes
    return {"name": "curate", "task": "Curate", "curate": what, "resources": SMALL, "attempts": 1}


def train(**changes: Any) -> Manifest:
    return {"name": "train", "task": "Train", "data": TRAIN, "resources": SMALL} | changes


def evaluate(**changes: Any) -> Manifest:
    gate = {"metric": "GenerationSeconds", "operator": "LessThan", "threshold": "60", "minimumSamples": 4}
    measured = {"samples": 4, "samplingSteps": 2}
    return {"name": "judge", "task": "Evaluate", "data": HELD_OUT, "evaluate": measured, "gates": [gate], "resources": SMALL} | changes


def release(service: str = "standard", sampling_steps: int = 2, **changes: Any) -> Manifest:
    serving = {
        "samplingSteps": sampling_steps,
        "timeoutSeconds": 60,
        "resources": {"requests": {"cpu": "100m"}, "limits": {"memory": "3Gi"}},
    }
    return {"name": "release", "task": "Release", "release": {"service": service, "serving": serving} | changes}


def run(namespace: str, name: str, *phases: Manifest, version: str = "1.0.0", steps: int = 4, **spec: Any) -> Manifest:
    """A TrainingRun that is as small as it can be."""
    recipe = {
        "architecture": "Tiny",
        "frames": 4,
        "resolution": {"height": 16, "width": 16},
        "globalBatchSize": 4,
        "steps": steps,
        "optimizer": {"learningRate": "1e-3"},
        "checkpoints": {"everySteps": 2},
    }
    body = {
        "model": {"family": "VideoFusion", "version": version},
        "storage": {"claimName": CLAIM},
        "recipe": recipe,
        "phases": list(phases),
    }
    return {
        "apiVersion": "videogen.pib.gov.in/v1alpha1",
        "kind": "TrainingRun",
        "metadata": {"name": name, "namespace": namespace},
        "spec": body | spec,
    }


def state(cluster: Cluster, namespace: str, name: str) -> Manifest:
    """The Succeeded condition of a run."""
    return condition(cluster.get("trainingrun", name, namespace), "Succeeded")


def phase(cluster: Cluster, namespace: str, name: str, which: str) -> Manifest:
    """Status of one phase of a run, or an empty dict."""
    found = cluster.get("trainingrun", name, namespace) or {}
    return next((one for one in found.get("status", {}).get("phases", []) if one["name"] == which), {})


def approve_noise(cluster: Cluster, namespace: str, name: str) -> None:
    """What the ML Lead does with a λ that a Tune phase has chosen, in the name of who tells the stories."""
    user = cluster("auth", "whoami", "-o", "jsonpath={.status.userInfo.username}").strip()
    run = cluster.get("trainingrun", name, namespace) or {}
    for one in run.get("status", {}).get("phases", []):
        if one.get("waitingFor") and "subject" in one:
            key = f"{ANNOTATION_APPROVE}{LAMBDA}.ml-lead"
            cluster("-n", namespace, "annotate", "--overwrite", f"trainingrun/{name}", f"{key}={one['subject']['digest']} {user}")


def ended(cluster: Cluster, namespace: str, name: str, timeout: float = 900) -> Manifest:
    """The Succeeded condition, once it is True or False."""

    def probe() -> Manifest | None:
        found = state(cluster, namespace, name)
        if found.get("reason") == "WaitingForApproval":
            approve_noise(cluster, namespace, name)
        return found if found.get("status") in ("True", "False") else None

    found: Manifest = cluster.wait(f"TrainingRun {name} to end", probe, timeout)
    return found


def video(url: str, host: str, prompt: str = load.PROMPTS[0]) -> load.Answer | None:
    """One viewer's request through the gateway, or None if no video came back."""

    async def once() -> load.Answer:
        async with aiohttp.ClientSession() as session:
            return await load.ask(session, url, host, prompt, seed=1, user="viewer")

    answer = asyncio.run(once())
    return answer if answer.ok else None
