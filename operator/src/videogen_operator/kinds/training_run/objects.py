"""The objects of one attempt: the job file in a ConfigMap, and the PyTorchJob. Pure: values in, manifests out.

The backend is this module alone: nothing else knows what a PyTorchJob looks like.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from videogen_api.job import (
    CONTRACT,
    ENV_SERVER_TOKEN,
    ENV_SERVER_URL,
    JOB_PATH,
    STORAGE_PATH,
    TERMINATION_MESSAGE_PATH,
    TOKEN_AUDIENCE,
    ArtifactReference,
    Job,
    PinnedData,
    work_path,
)
from videogen_api.meta import API_VERSION, LABEL_ATTEMPT, LABEL_PHASE, LABEL_RUN
from videogen_api.recipe import Recipe
from videogen_api.resources import Resources
from videogen_api.tracking import CREDENTIALS, Tracking
from videogen_api.training_run import TRAINING, DataReference, Phase, PhaseStatus, ResolvedDataset, Task, TrainingRunSpec
from videogen_api.tuning import applied
from videogen_operator.kinds.training_run import fewer_workers
from videogen_operator.kinds.training_run.attempts import learning_rate_scale
from videogen_operator.kinds.training_run.failure_policy import CONTAINER
from videogen_operator.kinds.training_run.observed import KIND, LABEL_RUN_UID, Observed
from videogen_operator.names import MANAGED_BY, job_name
from videogen_operator.quantities import GPU, quantity

TOKEN_FOLDER = "/var/run/secrets/videogen"
TOKEN_SECONDS = 3600
LOST_NODE, LOST_NODE_SECONDS = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"), 60
USES_ARTIFACT = (Task.EVALUATE, Task.OPTIMIZE, Task.BUILD_TEMPLATES, Task.TEST_SCENARIOS)
MAKES_ARTIFACT = (*TRAINING, Task.OPTIMIZE, Task.BUILD_TEMPLATES)  # which is the run's from then on
JOB_FOLDER, JOB_FILE = JOB_PATH.rsplit("/", 1)


def job_of(observed: Observed, phase: Phase, status: PhaseStatus, attempt: int) -> Job:
    """The job file of one attempt, with everything resolved that is known by now."""
    made = observed.status.artifact
    artifact = ArtifactReference(path=made.path, digest=made.digest) if made else None
    init = observed.init_from if isinstance(observed.init_from, ArtifactReference) else None
    source = artifact or init
    asked, workers = phase.resources, fewer_workers.workers_of(status, phase.resources)
    return Job(
        contract=CONTRACT,
        run=observed.name,
        run_uid=observed.uid,
        namespace=observed.namespace,
        phase=phase.name,
        attempt=attempt,
        task=phase.task,
        model=observed.spec.model,
        recipe=applied(recipe_of(observed.spec, phase), observed.status.tuned),
        work_path=work_path(observed.name, observed.uid, phase.name),
        data=[pinned(observed, status, data) for data in phase.data],
        curate=phase.curate,
        evaluate=phase.evaluate,
        init_from=source if phase.task in {*TRAINING, Task.TUNE} else None,
        artifact=source if phase.task in USES_ARTIFACT else None,
        learning_rate_scale=learning_rate_scale(status),
        workers=workers,
        processes_per_worker=processes(asked),
        tune=phase.tune,
        tracking=observed.spec.tracking,
        optimize=phase.optimize,
        templates=phase.templates,
        scenarios=phase.scenarios,
        gradient_accumulation_steps=fewer_workers.accumulation_of(workers, asked, observed.spec.recipe.gradient_accumulation_steps),
        join_seconds=fewer_workers.join_seconds(asked),
    )


def recipe_of(spec: TrainingRunSpec, phase: Phase) -> Recipe:
    """The recipe of one phase. Before the run's first TrainInterpolation phase it interpolates as initFrom does: no bundle has more yet."""
    recipe, tasks = phase.recipe_of(spec.recipe), [one.task for one in spec.phases]
    latents = recipe.align_your_latents
    if latents is None or Task.TRAIN_INTERPOLATION not in tasks or spec.phases.index(phase) >= tasks.index(Task.TRAIN_INTERPOLATION):
        return recipe
    return recipe.model_copy(update={"align_your_latents": latents.model_copy(update={"interpolations": None})})


def pinned(observed: Observed, status: PhaseStatus, wanted: DataReference) -> PinnedData:
    """A dataset version as this phase, or an earlier one of the run, has found or made it; or the one used in its place."""
    known: list[ResolvedDataset] = [*status.datasets, *(data for phase in observed.status.phases for data in phase.datasets)]
    for data in known:
        if data.dataset == wanted.dataset and wanted.version in {data.version, data.in_place_of}:
            return PinnedData(reference=wanted.model_copy(update={"version": data.version}), digest=data.digest)
    return PinnedData(reference=wanted)


def processes(resources: Resources) -> int:
    """Training processes of one pod."""
    return resources.processes_per_worker or max(1, resources.gpus_per_worker)


def config_map(observed: Observed, job: Job) -> dict[str, Any]:
    """The job file; immutable, so that a running attempt's input never changes."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata(observed, job),
        "immutable": True,
        "data": {JOB_FILE: json.dumps(job.wire(), indent=2)},
    }


def pytorch_job(observed: Observed, phase: Phase, job: Job, settings: Mapping[str, str]) -> dict[str, Any]:
    """One attempt. One pod: a Master. Several: elastic Workers, which need no init container that would break Pod Security.

    training-operator calls an elastic job successful when any worker is, so its pods are left alone (None): rank 0, whose
    report counts, may still be writing.
    """
    replicas = {"replicas": job.workers, "restartPolicy": "Never", "template": pod_template(observed, phase, job, settings)}
    spec: dict[str, Any] = {"nprocPerNode": str(job.processes_per_worker)}
    if job.workers == 1:
        spec |= {"runPolicy": {"cleanPodPolicy": "Running"}, "pytorchReplicaSpecs": {"Master": replicas}}
    else:
        elastic = {"minReplicas": job.workers, "maxReplicas": job.workers, "rdzvBackend": "c10d", "maxRestarts": 0}
        spec |= {"runPolicy": {"cleanPodPolicy": "None"}, "elasticPolicy": elastic, "pytorchReplicaSpecs": {"Worker": replicas}}
    return {"apiVersion": "kubeflow.org/v1", "kind": "PyTorchJob", "metadata": metadata(observed, job), "spec": spec}


def metadata(observed: Observed, job: Job) -> dict[str, Any]:
    """Name, labels and owner of an attempt's objects."""
    owner = {"apiVersion": API_VERSION, "kind": KIND, "name": observed.name, "uid": observed.uid}
    return {
        "name": job_name(observed.name, job.phase, job.attempt),
        "namespace": observed.namespace,
        "labels": labels(observed, job),
        "ownerReferences": [owner | {"controller": True, "blockOwnerDeletion": True}],
    }


def labels(observed: Observed, job: Job) -> dict[str, str]:
    """By these the operator finds an attempt's job and pods again."""
    key, value = MANAGED_BY
    return {
        key: value,
        LABEL_RUN: observed.name,
        LABEL_RUN_UID: observed.uid,
        LABEL_PHASE: job.phase,
        LABEL_ATTEMPT: str(job.attempt),
    }


def pod_template(observed: Observed, phase: Phase, job: Job, settings: Mapping[str, str]) -> dict[str, Any]:
    """A pod that satisfies Pod Security `restricted`."""
    user = int(settings["pod_user"])
    return {
        "metadata": {"labels": labels(observed, job)},
        "spec": {
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "terminationGracePeriodSeconds": 60,  # time for a checkpoint
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": user,
                "runAsGroup": user,
                "fsGroup": user,
                "fsGroupChangePolicy": "OnRootMismatch",
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [container(phase, settings, observed.spec.tracking)],
            "tolerations": tolerations(phase.resources),
            "volumes": volumes(observed, job),
        },
    }


def container(phase: Phase, settings: Mapping[str, str], tracking: Tracking | None) -> dict[str, Any]:
    """The trainer."""
    return {
        "name": CONTAINER,
        "image": settings["trainer_image"],
        "imagePullPolicy": settings["image_pull_policy"],
        "command": ["python3", "-m", "videogen_trainer"],
        "env": [*environment(phase.resources, settings), *credentials(tracking)],
        "resources": resources(phase.resources),
        "terminationMessagePath": TERMINATION_MESSAGE_PATH,
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        },
        "volumeMounts": [
            {"name": "job", "mountPath": JOB_FOLDER, "readOnly": True},
            {"name": "storage", "mountPath": STORAGE_PATH},
            {"name": "token", "mountPath": TOKEN_FOLDER, "readOnly": True},
            {"name": "shared-memory", "mountPath": "/dev/shm"},  # noqa: S108 - torch's data loaders share tensors here
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - the root file system is read-only
        ],
    }


def tolerations(asked: Resources) -> list[dict[str, Any]]:
    """Leave a lost node sooner than after five minutes, since all other workers wait; go where GPUs are kept for those who ask."""
    lost = [{"key": taint, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": LOST_NODE_SECONDS} for taint in LOST_NODE]
    return [*lost, {"key": GPU, "operator": "Exists", "effect": "NoSchedule"}] if asked.gpus_per_worker else lost


def environment(asked: Resources, settings: Mapping[str, str]) -> list[dict[str, str]]:
    """Threads that fit the pod's CPUs, a home that can be written, and where to send progress."""
    threads = max(1, int(quantity(asked.cpu_per_worker)) // processes(asked))
    env = {"OMP_NUM_THREADS": str(threads), "HOME": "/tmp"}  # noqa: S108
    if settings["progress_url"]:
        env |= {ENV_SERVER_URL: settings["progress_url"].rstrip("/") + "/v1/progress", ENV_SERVER_TOKEN: f"{TOKEN_FOLDER}/token"}
    return [{"name": name, "value": value} for name, value in env.items()]


def credentials(tracking: Tracking | None) -> list[dict[str, Any]]:
    """MLflow's, of a Secret; none of them must be there, for a tracking server that refuses the run does not stop it.

    By name, never the Secret whole: whoever may create runs gets nothing else of it into a pod, or to a server of their choice.
    """
    if tracking is None or tracking.mlflow.secret_name is None:
        return []
    source = {"name": tracking.mlflow.secret_name, "optional": True}
    return [{"name": name, "valueFrom": {"secretKeyRef": source | {"key": name}}} for name in CREDENTIALS]


def resources(asked: Resources) -> dict[str, Any]:
    """Requests and limits; CPUs are not limited, because a throttled rank slows all others."""
    requests = {"cpu": asked.cpu_per_worker, "memory": asked.memory_per_worker}
    limits = {"memory": asked.memory_per_worker}
    if asked.gpus_per_worker:
        limits[GPU] = str(asked.gpus_per_worker)
    return {"requests": requests | {key: value for key, value in limits.items() if key == GPU}, "limits": limits}


def volumes(observed: Observed, job: Job) -> list[dict[str, Any]]:
    """Job file, storage, the token for progress, and two scratch folders."""
    token = {"audience": TOKEN_AUDIENCE, "expirationSeconds": TOKEN_SECONDS, "path": "token"}
    return [
        {"name": "job", "configMap": {"name": job_name(observed.name, job.phase, job.attempt)}},
        {"name": "storage", "persistentVolumeClaim": {"claimName": observed.spec.storage.claim_name}},
        {"name": "token", "projected": {"sources": [{"serviceAccountToken": token}]}},
        {"name": "shared-memory", "emptyDir": {"medium": "Memory"}},
        {"name": "tmp", "emptyDir": {}},
    ]
