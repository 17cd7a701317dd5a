"""The objects of one attempt: the job file in a ConfigMap, and the PyTorchJob. Pure: values in, manifests out.

The backend is this module alone: nothing else knows what a PyTorchJob looks like.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from pydantic_core import to_json

from videogen_api.job import (
    CONTRACT,
    ENV_JOB_SHA256,
    ENV_RECORDS_URL,
    ENV_REPLICA_INDEX,
    ENV_SERVER_CA_CERT,
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
from videogen_api.pinned import CheckpointRetention, ResolvedDataset
from videogen_api.recipe import Recipe
from videogen_api.resources import Resources, completed, gpus, number
from videogen_api.tracking import CREDENTIALS, Tracking
from videogen_api.training_run import (
    TRAINING,
    WITHOUT_PODS,
    DataReference,
    Phase,
    PhaseStatus,
    Reason,
    Task,
    TrainingRunSpec,
)
from videogen_api.tuning import applied
from videogen_operator.kinds.training_run import fewer_workers
from videogen_operator.kinds.training_run.attempts import learning_rate_scale
from videogen_operator.kinds.training_run.failure_policy import CONTAINER
from videogen_operator.kinds.training_run.lineage import lineage_of
from videogen_operator.kinds.training_run.observed import LABEL_RUN_UID, Observed
from videogen_operator.kinds.training_run.room import DEFAULTS, placement_of
from videogen_operator.kinds.training_run.sources import KIND
from videogen_operator.names import MANAGED_BY, job_file_name, job_name
from videogen_operator.pod_placement import pod_fields
from videogen_operator.resources import LABEL_QUEUE

TOKEN_FOLDER = "/var/run/secrets/videogen"
TOKEN_SECONDS = 3600
DISK = "ephemeral-storage"
SCRATCH_REQUEST = "1Gi"  # of a node's disk; without a request the limit would count as one
REPLICA_INDEX = "training.kubeflow.org/replica-index"  # training-operator labels every pod with it
LOST_NODE, LOST_NODE_SECONDS = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"), 60
USES_ARTIFACT = (Task.EVALUATE, Task.OPTIMIZE, Task.BUILD_TEMPLATES, Task.TEST_SCENARIOS)
MAKES_ARTIFACT = (*TRAINING, Task.OPTIMIZE, Task.BUILD_TEMPLATES)  # which is the run's from then on
JOB_FOLDER, JOB_FILE = JOB_PATH.rsplit("/", 1)
CA_FILE = "ca.crt"


def job_of(observed: Observed, phase: Phase, status: PhaseStatus, attempt: int) -> Job:
    """The job file of one attempt, with everything resolved that is known by now."""
    bundle = observed.artifact
    source = ArtifactReference(path=bundle.path, digest=bundle.digest) if bundle else None
    asked = phase.asked_workers
    workers = fewer_workers.workers_of(status, asked)
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
        processes_per_worker=processes(phase),
        tune=phase.tune,
        tracking=observed.spec.tracking,
        optimize=phase.optimize,
        templates=phase.templates,
        scenarios=phase.scenarios,
        gradient_accumulation_steps=fewer_workers.accumulation_of(workers, asked, observed.spec.recipe.gradient_accumulation_steps),
        gates=phase.gates if phase.task in {Task.EVALUATE, Task.OPTIMIZE} else [],
        lineage=lineage_of(observed) if phase.task in {Task.EVALUATE, Task.OPTIMIZE} else None,
        finished=finished(observed),
        join_seconds=fewer_workers.join_seconds(asked),
    )


def preflight_job(observed: Observed, phase: Phase, *, looks_up: bool) -> Job:
    """The job file of a preflight, attempt 0 of a phase. The first phase's has the jobs of all phases, as far as they are known; that of
    a later one looks up what was computed before, and nothing else.
    """
    phases = [job_of(observed, one, observed.phase_status(one.name), 1) for one in observed.spec.phases]
    first = job_of(observed, phase, PhaseStatus(name=phase.name), 0)
    alone = {"workers": 1, "processes_per_worker": 1, "gradient_accumulation_steps": None}
    checked = phases if phase == next(one for one in observed.spec.phases if one.task not in WITHOUT_PODS) else []
    new = True if checked and observed.makes_new_version else None
    return first.model_copy(update=alone | {"preflight": checked, "look_up": looks_up, "new_version": new})


def finished(observed: Observed) -> list[str]:
    """Work paths of the phases that are done, from whose checkpoints nobody goes on any more."""
    if observed.spec.checkpoint_retention == CheckpointRetention.ALWAYS:
        return []
    done = [phase.name for phase in observed.status.phases if phase.outcome == Reason.COMPLETED]
    resumable = [phase.name for phase in observed.spec.phases if phase.task in {*TRAINING, Task.TUNE}]
    return [work_path(observed.name, observed.uid, name) for name in resumable if name in done]


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


def processes(phase: Phase) -> int:
    """Training processes of one pod."""
    return phase.asked_workers.processes or max(1, gpus(phase.resources))


def config_map(observed: Observed, job: Job, settings: Mapping[str, str]) -> dict[str, Any]:
    """The job file; immutable, so that a running attempt's input never changes. Beside it whom its reports may trust."""
    authority = {CA_FILE: settings["progress_ca"]} if settings["progress_ca"] else {}
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata(observed, job.phase, job.attempt) | {"name": file_name(job)},
        "immutable": True,
        "data": {JOB_FILE: text_of(job)} | authority,
    }


def text_of(job: Job) -> str:
    """The job file."""
    return to_json(job.wire(), indent=2).decode()


def sha256_of(job: Job) -> str:
    """64 hex digits of the job file, by which the pod knows it."""
    return hashlib.sha256(text_of(job).encode()).hexdigest()


def file_name(job: Job) -> str:
    """Name of the ConfigMap."""
    return job_file_name(job_name(job.run, job.phase, job.attempt), sha256_of(job))


def pytorch_job(observed: Observed, phase: Phase, job: Job, settings: Mapping[str, str]) -> dict[str, Any]:
    """One attempt. One pod: a Master. Several: elastic Workers, which need no init container that would break Pod Security.

    training-operator calls an elastic job successful when any worker is, so its pods are left alone (None): rank 0, whose
    report counts, may still be writing. Of the elastic policy the trainer uses only the address of the first worker: c10d would unpickle
    what any pod sends, so the ranks are the replica indices.
    """
    replicas = {"replicas": job.workers, "restartPolicy": "Never", "template": pod_template(observed, phase, job, settings)}
    spec: dict[str, Any] = {"nprocPerNode": str(job.processes_per_worker)}
    if job.workers == 1:
        spec |= {"runPolicy": {"cleanPodPolicy": "Running"}, "pytorchReplicaSpecs": {"Master": replicas}}
    else:
        elastic = {"minReplicas": job.workers, "maxReplicas": job.workers, "rdzvBackend": "c10d", "maxRestarts": 0}
        spec |= {"runPolicy": {"cleanPodPolicy": "None"}, "elasticPolicy": elastic, "pytorchReplicaSpecs": {"Worker": replicas}}
    meta = metadata(observed, job.phase, job.attempt)
    if phase.placement and phase.placement.queue_name:
        meta["labels"] |= {LABEL_QUEUE: phase.placement.queue_name}
        spec["runPolicy"]["suspend"] = True  # until Kueue lets it begin; only Kueue writes this again
    return {"apiVersion": "kubeflow.org/v1", "kind": "PyTorchJob", "metadata": meta, "spec": spec}


def metadata(observed: Observed, phase: str, attempt: int) -> dict[str, Any]:
    """Name, labels and owner of an attempt's objects."""
    owner = {"apiVersion": API_VERSION, "kind": KIND, "name": observed.name, "uid": observed.uid}
    return {
        "name": job_name(observed.name, phase, attempt),
        "namespace": observed.namespace,
        "labels": labels(observed, phase, attempt),
        "ownerReferences": [owner | {"controller": True, "blockOwnerDeletion": True}],
    }


def labels(observed: Observed, phase: str, attempt: int) -> dict[str, str]:
    """By these the operator finds an attempt's job and pods again."""
    key, value = MANAGED_BY
    return {
        key: value,
        LABEL_RUN: observed.name,
        LABEL_RUN_UID: observed.uid,
        LABEL_PHASE: phase,
        LABEL_ATTEMPT: str(attempt),
    }


def pod_template(observed: Observed, phase: Phase, job: Job, settings: Mapping[str, str]) -> dict[str, Any]:
    """A pod that satisfies Pod Security `restricted`."""
    user = int(settings["pod_user"])
    return {
        "metadata": {"labels": labels(observed, job.phase, job.attempt)},
        "spec": {
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "shareProcessNamespace": True,  # else the trainer is PID 1, which SIGTERM does not end before it listens
            "terminationGracePeriodSeconds": 60,  # time for a checkpoint
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": user,
                "runAsGroup": user,
                "fsGroup": user,
                "fsGroupChangePolicy": "OnRootMismatch",
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [container(phase, job, settings)],
            **placed(phase, labels(observed, job.phase, job.attempt), settings),
            "volumes": volumes(observed, phase, job, settings["scratch_size"]),
        },
    }


def container(phase: Phase, job: Job, settings: Mapping[str, str]) -> dict[str, Any]:
    """The trainer."""
    return {
        "name": CONTAINER,
        "image": settings["trainer_image"],
        "imagePullPolicy": settings["image_pull_policy"],
        "command": ["python3", "-m", "videogen_trainer"],
        "env": [*environment(phase, job, settings), replica_index(), *credentials(job.tracking)],
        "resources": resources(phase.resources, settings["scratch_size"]),
        "terminationMessagePath": TERMINATION_MESSAGE_PATH,
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        },
        "volumeMounts": [
            {"name": "job", "mountPath": JOB_FOLDER, "readOnly": True},
            {"name": "storage", "mountPath": STORAGE_PATH} | ({} if job.attempt else {"readOnly": True}),
            {"name": "token", "mountPath": TOKEN_FOLDER, "readOnly": True},
            {"name": "shared-memory", "mountPath": "/dev/shm"},  # noqa: S108 - torch's data loaders share tensors here
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - the root file system is read-only
        ],
    }


def placed(phase: Phase, own: Mapping[str, str], settings: Mapping[str, str]) -> dict[str, Any]:
    """Where the pods may run, and before whom. They leave a lost node sooner than after five minutes, since all other workers wait, and
    go where GPUs are kept for those who ask.
    """
    lost = [{"key": taint, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": LOST_NODE_SECONDS} for taint in LOST_NODE]
    fields = pod_fields(placement_of(phase, settings), own)
    secrets = json.loads(settings.get("image_pull_secrets") or "[]")
    return fields | {"tolerations": [*lost, *fields.get("tolerations", [])]} | ({"imagePullSecrets": secrets} if secrets else {})


def environment(phase: Phase, job: Job, settings: Mapping[str, str]) -> list[dict[str, str]]:
    """Threads that fit the pod's CPUs, a home that can be written, which job file is ours, and where to send progress."""
    cpus = (completed(phase.resources, **DEFAULTS).requests or {})["cpu"]
    threads = max(1, int(number(cpus)) // processes(phase))
    env = {"OMP_NUM_THREADS": str(threads), "HOME": "/tmp", ENV_JOB_SHA256: sha256_of(job)}  # noqa: S108
    if settings["progress_url"]:
        env |= {ENV_SERVER_URL: settings["progress_url"].rstrip("/") + "/v1/progress", ENV_SERVER_TOKEN: f"{TOKEN_FOLDER}/token"}
    if settings["progress_url"] and settings.get("records"):
        env[ENV_RECORDS_URL] = settings["progress_url"].rstrip("/") + "/v1/records"
    if settings["progress_ca"]:
        env[ENV_SERVER_CA_CERT] = f"{JOB_FOLDER}/{CA_FILE}"
    return [{"name": name, "value": value} for name, value in env.items()]


def replica_index() -> dict[str, Any]:
    """The pod's place among those of its attempt; from a label, because one template serves them all."""
    return {"name": ENV_REPLICA_INDEX, "valueFrom": {"fieldRef": {"fieldPath": f"metadata.labels['{REPLICA_INDEX}']"}}}


def credentials(tracking: Tracking | None) -> list[dict[str, Any]]:
    """MLflow's, of a Secret; none of them must be there, for a tracking server that refuses the run does not stop it.

    By name, never the Secret whole: whoever may create runs gets nothing else of it into a pod, or to a server of their choice.
    """
    if tracking is None or tracking.mlflow.secret_name is None:
        return []
    source = {"name": tracking.mlflow.secret_name, "optional": True}
    return [{"name": name, "valueFrom": {"secretKeyRef": source | {"key": name}}} for name in CREDENTIALS]


def resources(asked: Resources | None, scratch_size: str) -> dict[str, Any]:
    """Requests and limits. CPUs are limited only where the phase says so, because a throttled rank slows all others. A pod that fills its
    node's disk is evicted before the node's other pods are.
    """
    whole = completed(asked, **DEFAULTS)
    requests, limits = whole.requests or {}, whole.limits or {}
    return {
        "requests": {DISK: SCRATCH_REQUEST} | requests,
        "limits": ({} if DISK in requests and DISK not in limits else {DISK: scratch_size}) | limits,
    }


def volumes(observed: Observed, phase: Phase, job: Job, scratch_size: str) -> list[dict[str, Any]]:
    """Job file, storage, the token for progress, and two scratch folders; shared memory counts as memory of the pod."""
    whole = completed(phase.resources, **DEFAULTS)
    limits = whole.limits or {}
    memory = limits.get("memory") or (whole.requests or {})["memory"]
    token = {"audience": TOKEN_AUDIENCE, "expirationSeconds": TOKEN_SECONDS, "path": "token"}
    return [
        {"name": "job", "configMap": {"name": file_name(job)}},
        {"name": "storage", "persistentVolumeClaim": {"claimName": observed.spec.storage.claim_name}},
        {"name": "token", "projected": {"sources": [{"serviceAccountToken": token}]}},
        {"name": "shared-memory", "emptyDir": {"medium": "Memory", "sizeLimit": memory}},
        {"name": "tmp", "emptyDir": {"sizeLimit": limits.get(DISK) or scratch_size}},
    ]
