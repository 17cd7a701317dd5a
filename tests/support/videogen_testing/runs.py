"""TrainingRuns for tests, and the parts of training-operator and kubelet that tests play."""

from collections.abc import Mapping
from typing import Any

from videogen_api.evaluation import Metric, MetricResult
from videogen_api.job import ArtifactReference, Report
from videogen_api.meta import API_VERSION, LABEL_STORAGE, STORAGE_ALLOWED
from videogen_api.optimization import MetricLoss, Optimization
from videogen_api.preflight import PreflightResult, Problem
from videogen_api.tuning import Trial
from videogen_testing.control_plane import TRAINING_OPERATOR, Api, eventually

RUNS = "/apis/videogen.pib.gov.in/v1alpha1/namespaces/{}/trainingruns"
JOBS = "/apis/kubeflow.org/v1/namespaces/{}/pytorchjobs"
DIGEST = "sha256:" + "a" * 64

TRAIN: dict[str, Any] = {"name": "train", "task": "Train", "data": [{"dataset": "clips", "version": "1"}]}
EVALUATE: dict[str, Any] = {
    "name": "validate",
    "task": "Evaluate",
    "data": [{"dataset": "clips", "version": "1", "split": "HeldOut"}],
    "gates": [{"metric": "FVD", "operator": "LessThan", "threshold": "200"}],
}
TUNE: dict[str, Any] = {
    "name": "tune",
    "task": "Tune",
    "data": [{"dataset": "clips", "version": "1", "split": split} for split in ("Train", "HeldOut")],
    "tune": {"parameter": "BaseNoiseShare", "values": ["0.65", "0.70", "0.75"], "steps": 10, "objective": "FVD"},
}
OPTIMIZE: dict[str, Any] = {
    "name": "optimize",
    "task": "Optimize",
    "data": [{"dataset": "clips", "version": "1", "split": "HeldOut"}],
    "optimize": {"quantization": "Int8Weights", "maximumLoss": [{"metric": "FVD", "maximum": "5"}]},
}
RELEASE: dict[str, Any] = {"name": "release", "task": "Release", "release": {"service": "standard"}}


def a_run(name: str = "run", namespace: str = "models", phases: list[dict[str, Any]] | None = None, **spec: Any) -> dict[str, Any]:
    """A valid TrainingRun: one Train phase of one worker, unless told otherwise."""
    return {
        "apiVersion": API_VERSION,
        "kind": "TrainingRun",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "model": {"family": "VideoFusion", "version": "1.0.0"},
            "storage": {"claimName": "models"},
            "recipe": {"architecture": "Tiny", "resolution": {"height": 16, "width": 16}, "globalBatchSize": 4, "steps": 100},
            "phases": phases or [TRAIN],
        }
        | spec,
    }


def a_claim(name: str = "models") -> dict[str, Any]:
    """A persistent volume claim."""
    spec = {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}}
    return {"metadata": {"name": name, "labels": {LABEL_STORAGE: STORAGE_ALLOWED}}, "spec": spec}


def trained(last_step: int = 100, digest: str = DIGEST) -> Report:
    """The report of a successful Train phase."""
    path = f"bundles/pib-videogen-videofusion-v1.0.0-base/{digest.removeprefix('sha256:')}"
    return Report(last_step=last_step, artifact=ArtifactReference(path=path, digest=digest))


def passed(*problems: Problem) -> str:
    """What the pod of a preflight says that has found these problems."""
    return Report(preflight=PreflightResult(checked=3, problems=list(problems))).model_dump_json(by_alias=True, exclude_none=True)


def volumes_of(job: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Volumes of the pods of a PyTorchJob."""
    (replica,) = job["spec"]["pytorchReplicaSpecs"].values()
    found: list[dict[str, Any]] = replica["template"]["spec"]["volumes"]
    return found


def tuned(chosen: str = "0.65") -> Report:
    """The report of a successful Tune phase with three trials."""
    trials = [Trial(value=value, metric=Metric.FVD, result="100", chosen=value == chosen) for value in ("0.65", "0.70", "0.75")]
    return Report(message=f"chosen is baseNoiseShare {chosen}", last_step=30, trials=trials)


def optimized(loss: str = "1.5", digest: str = "sha256:" + "b" * 64) -> Report:
    """The report of an Optimize phase whose work is done, with this loss of FVD."""
    of_fvd = MetricLoss(metric=Metric.FVD, unoptimized="100", loss=loss, low="0.5", high="2.5")
    return Report(
        message=f"bundle {digest}: Int8Weights has 26 % of the bytes",
        artifact=trained(digest=digest).artifact,
        results=[MetricResult(metric=Metric.FVD, value="101.5", samples=128)],
        optimization=Optimization(unoptimized_bytes=1000, optimized_bytes=260, losses=[of_fvd]),
    )


def release_status(reason: str = "Stable", ready: bool = True, **others: str) -> dict[str, Any]:
    """Status of a ModelRelease whose condition Ready has this reason; `others` are conditions that are True, with their reasons."""
    told = {"Ready": ("True" if ready else "False", reason), "RolledBack": ("False", "NotRolledBack")}
    told |= {kind: ("True", why) for kind, why in others.items()}
    time = "2026-11-01T00:00:00Z"
    conditions = [
        {"type": kind, "status": status, "reason": why, "message": f"{why} in words", "lastTransitionTime": time}
        for kind, (status, why) in sorted(told.items())
    ]
    return {"observedGeneration": 1, "conditions": conditions}


def pods_of(job: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The pods that training-operator makes of a PyTorchJob."""
    owner = {"apiVersion": "kubeflow.org/v1", "kind": "PyTorchJob", "controller": True} | {
        "name": job["metadata"]["name"],
        "uid": job["metadata"]["uid"],
    }
    pods = []
    for role, replica in job["spec"]["pytorchReplicaSpecs"].items():
        for index in range(replica["replicas"]):
            template = replica["template"]
            name = f"{job['metadata']['name']}-{role.lower()}-{index}"
            metadata = {"name": name, "labels": template["metadata"]["labels"], "ownerReferences": [owner]}
            pods.append({"metadata": metadata, "spec": template["spec"] | {"restartPolicy": "Never"}})
    return pods


def first_job(api: Api, namespace: str, run: str = "run", phase: str = "train") -> dict[str, Any]:
    """The job of a run's first attempt, after its preflight is passed."""
    jobs = JOBS.format(namespace)
    play(api, namespace, eventually(lambda: api.find(f"{jobs}/{run}-{phase}-0")), ended(0, passed()))
    found: dict[str, Any] = eventually(lambda: api.find(f"{jobs}/{run}-{phase}-1"))
    return found


def running() -> dict[str, Any]:
    """Status of a pod whose trainer runs."""
    state = {"running": {"startedAt": "2026-11-01T00:00:00Z"}}
    return {"phase": "Running", "containerStatuses": [_container(state)]}


def ended(code: int, message: str = "", reason: str = "") -> dict[str, Any]:
    """Status of a pod whose trainer has ended."""
    state = {"exitCode": code, "message": message, "reason": reason or ("Completed" if code == 0 else "Error")}
    times = {"startedAt": "2026-11-01T00:00:00Z", "finishedAt": "2026-11-01T00:01:00Z"}
    return {"phase": "Failed" if code else "Succeeded", "containerStatuses": [_container({"terminated": state | times})]}


def _container(state: dict[str, Any]) -> dict[str, Any]:
    return {"name": "pytorch", "image": "trainer", "imageID": "", "ready": False, "restartCount": 0, "state": state}


def play(api: Api, namespace: str, job: Mapping[str, Any], status: Mapping[str, Any]) -> list[str]:
    """Create a job's pods where they are absent, and give all of them this status. Returns their names."""
    pods = pods_of(job)
    for pod in pods:
        path = f"/api/v1/namespaces/{namespace}/pods"
        if api.find(f"{path}/{pod['metadata']['name']}") is None:
            api.request("POST", path, pod, token=TRAINING_OPERATOR)
        api.merge(f"{path}/{pod['metadata']['name']}/status", {"status": status})
    return [pod["metadata"]["name"] for pod in pods]
