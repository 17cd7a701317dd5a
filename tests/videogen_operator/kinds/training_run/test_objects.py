import hashlib
import json
from typing import Any

import pytest

from videogen_api.job import Job
from videogen_api.progress import Progress
from videogen_api.training_run import PhaseStatus
from videogen_operator.kinds.training_run import objects
from videogen_operator.kinds.training_run.observed import Observed, observe
from videogen_operator.kinds.training_run.plan import progress_message
from videogen_operator.plan import Key
from videogen_operator.settings import Settings
from videogen_testing.run_simulation import Simulation
from videogen_testing.runs import TRAIN

SETTINGS = Settings(progress_url="http://operator:8080", trainer_image="trainer:1").for_plans()


def made(**fields: Any) -> tuple[Observed, Job, dict[str, Any]]:
    sim = Simulation(phases=[TRAIN | fields])
    observed = observe(sim.world, Key("TrainingRun", "models", "run"))
    assert isinstance(observed, Observed)
    phase = observed.spec.phases[0]
    job = objects.job_of(observed, phase, observed.phase_status("train"), 1)
    return observed, job, objects.pytorch_job(observed, phase, job, SETTINGS)


def pod_of(manifest: dict[str, Any]) -> Any:
    (replicas,) = manifest["spec"]["pytorchReplicaSpecs"].values()
    return replicas["template"]["spec"]


def test_one_pod_is_a_master_that_is_cleaned_up() -> None:
    _, _, manifest = made()
    assert manifest["spec"]["runPolicy"] == {"cleanPodPolicy": "Running"}
    assert list(manifest["spec"]["pytorchReplicaSpecs"]) == ["Master"]
    assert "elasticPolicy" not in manifest["spec"]


def test_several_pods_are_elastic_workers_that_are_left_alone() -> None:
    _, _, manifest = made(workers={"replicas": 3, "processes": 2})
    assert manifest["spec"]["runPolicy"] == {"cleanPodPolicy": "None"}
    assert manifest["spec"]["elasticPolicy"] == {"minReplicas": 3, "maxReplicas": 3, "rdzvBackend": "c10d", "maxRestarts": 0}
    assert manifest["spec"]["pytorchReplicaSpecs"]["Worker"]["replicas"] == 3
    assert manifest["spec"]["nprocPerNode"] == "2"


@pytest.mark.parametrize("gpus", [0, 8])
def test_only_pods_that_ask_for_gpus_go_to_nodes_that_are_kept_for_them(gpus: int) -> None:
    _, _, manifest = made(resources={"limits": {"nvidia.com/gpu": gpus}} if gpus else {})
    kept_for_gpus = {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
    assert (kept_for_gpus in pod_of(manifest)["tolerations"]) == bool(gpus)


@pytest.mark.parametrize("workers", [1, 4])
def test_nothing_is_restarted_or_timed_out_by_others(workers: int) -> None:
    _, _, manifest = made(workers={"replicas": workers})
    (replicas,) = manifest["spec"]["pytorchReplicaSpecs"].values()
    assert replicas["restartPolicy"] == "Never"
    assert not {"backoffLimit", "activeDeadlineSeconds", "ttlSecondsAfterFinished"} & manifest["spec"]["runPolicy"].keys()


def test_pods_satisfy_pod_security_restricted_and_hold_no_credentials_of_the_api() -> None:
    pod = pod_of(made()[2])
    (container,) = pod["containers"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["shareProcessNamespace"] is True  # SIGTERM ends it also before it listens
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
    }
    assert {kind for volume in pod["volumes"] for kind in volume if kind != "name"} <= {
        "configMap",
        "persistentVolumeClaim",
        "projected",
        "emptyDir",
    }


ONE = {"cpu": "1", "memory": "4Gi"}
RESOURCES: list[
    tuple[str, dict[str, Any], dict[str, str], dict[str, str], str, str]
] = [  # sentence, phase, requests, limits, threads, /dev/shm
    ("nothing said", {}, ONE, {"memory": "4Gi"}, "1", "4Gi"),
    (
        "GPUs, and CPUs that are only asked for",
        {"resources": {"requests": {"cpu": 64}, "limits": {"nvidia.com/gpu": 8, "memory": "512Gi"}}},
        {"cpu": "64", "memory": "512Gi", "nvidia.com/gpu": "8"},
        {"memory": "512Gi", "nvidia.com/gpu": "8"},
        "8",
        "512Gi",
    ),
    (
        "slices of GPUs and a network device",
        {"resources": {"limits": {"nvidia.com/mig-1g.10gb": 2, "rdma/hca": "1", "cpu": "8"}}},
        {"cpu": "8", "memory": "4Gi", "nvidia.com/mig-1g.10gb": "2", "rdma/hca": "1"},
        {"cpu": "8", "memory": "4Gi", "nvidia.com/mig-1g.10gb": "2", "rdma/hca": "1"},
        "4",
        "4Gi",
    ),
    (
        "processes share the CPUs",
        {"workers": {"processes": 3}, "resources": {"requests": {"cpu": "8"}}},
        {"cpu": "8", "memory": "4Gi"},
        {"memory": "4Gi"},
        "2",
        "4Gi",
    ),
    ("less than a CPU is one thread", {"resources": {"requests": {"cpu": "500m"}}}, ONE | {"cpu": "500m"}, {"memory": "4Gi"}, "1", "4Gi"),
    ("memory without a limit has none", {"resources": {"requests": {"memory": "1Gi"}}}, ONE | {"memory": "1Gi"}, {}, "1", "1Gi"),
]


@pytest.mark.parametrize("asked, requests, limits, threads, shared", [row[1:] for row in RESOURCES], ids=[row[0] for row in RESOURCES])
def test_resources_and_threads(asked: dict[str, Any], requests: Any, limits: Any, threads: str, shared: str) -> None:
    pod = pod_of(made(**asked)[2])
    (container,) = pod["containers"]
    assert container["resources"] == {"requests": requests | {"ephemeral-storage": "1Gi"}, "limits": limits | {"ephemeral-storage": "50Gi"}}
    sizes = {volume["name"]: volume["emptyDir"].get("sizeLimit") for volume in pod["volumes"] if "emptyDir" in volume}
    assert sizes == {"shared-memory": shared, "tmp": "50Gi"}
    assert {"name": "OMP_NUM_THREADS", "value": threads} in container["env"]


def test_a_disk_that_the_phase_names_is_the_one_it_gets() -> None:
    pod = pod_of(made(resources={"limits": {"ephemeral-storage": "500G"}})[2])
    found = pod["containers"][0]["resources"]
    assert (found["requests"]["ephemeral-storage"], found["limits"]["ephemeral-storage"]) == ("500G", "500G")
    assert next(volume["emptyDir"] for volume in pod["volumes"] if volume["name"] == "tmp") == {"sizeLimit": "500G"}


def test_a_phase_is_placed_as_it_says_with_the_charts_defaults() -> None:
    own = {"key": "pool", "operator": "Exists"}
    placement = {"nodeSelector": {"pool": "gpu"}, "tolerations": [own], "queueName": "research"}
    placement |= {"topologySpread": [{"topologyKey": "topology.kubernetes.io/zone", "maxSkew": 2}]}
    observed, job, manifest = made(placement=placement, workers={"replicas": 2})
    assert manifest["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "research"
    assert manifest["spec"]["runPolicy"] == {"cleanPodPolicy": "None", "suspend": True}
    pod = pod_of(manifest)
    assert (pod["nodeSelector"], pod["tolerations"][-1], "priorityClassName" in pod) == ({"pool": "gpu"}, own, False)
    (spread,) = pod["topologySpreadConstraints"]
    assert (spread["maxSkew"], spread["labelSelector"]["matchLabels"]["videogen.pib.gov.in/phase"]) == (2, "train")
    defaults = '{"priorityClassName": "training", "nodeSelector": {"pool": "any", "zone": "a"}}'
    settings = SETTINGS | {"trainer_placement": defaults, "image_pull_secrets": '[{"name": "registry"}]'}
    pod = pod_of(objects.pytorch_job(observed, observed.spec.phases[0], job, settings))
    assert (pod["nodeSelector"], pod["priorityClassName"]) == ({"pool": "gpu", "zone": "a"}, "training")
    assert pod["imagePullSecrets"] == [{"name": "registry"}]


def test_a_phase_that_says_nothing_of_its_place_has_no_queue() -> None:
    _, _, manifest = made()
    assert "kueue.x-k8s.io/queue-name" not in manifest["metadata"]["labels"]
    assert "suspend" not in manifest["spec"]["runPolicy"]
    assert not {"nodeSelector", "priorityClassName", "topologySpreadConstraints", "imagePullSecrets"} & pod_of(manifest).keys()


def test_the_job_file_is_what_the_trainer_reads_and_lies_where_it_looks() -> None:
    observed, job, manifest = made()
    config = objects.config_map(observed, job, SETTINGS)
    assert Job.model_validate_json(config["data"]["job.json"]) == job
    assert job.work_path == f"runs/run-{observed.uid[:8]}/train"
    volume = next(one for one in pod_of(manifest)["volumes"] if one["name"] == "job")
    assert volume["configMap"]["name"] == config["metadata"]["name"]
    digest = hashlib.sha256(config["data"]["job.json"].encode()).hexdigest()
    assert {"name": "VIDEOGEN_JOB_SHA256", "value": digest} in pod_of(manifest)["containers"][0]["env"]
    assert json.dumps(manifest).count('"fieldPath"') == 1


@pytest.mark.parametrize("workers", [1, 3])
def test_a_pod_learns_its_rank_from_the_label_that_training_operator_gives_it(workers: int) -> None:
    _, _, manifest = made(workers={"replicas": workers})
    given = {"fieldRef": {"fieldPath": "metadata.labels['training.kubeflow.org/replica-index']"}}
    assert {"name": "VIDEOGEN_REPLICA_INDEX", "valueFrom": given} in pod_of(manifest)["containers"][0]["env"]


def test_without_an_inbox_no_progress_is_sent() -> None:
    observed, job, _ = made()
    manifest = objects.pytorch_job(observed, observed.spec.phases[0], job, Settings().for_plans())
    assert not [entry for entry in pod_of(manifest)["containers"][0]["env"] if entry["name"].startswith("KUBEFLOW")]


def tracked(**mlflow: str) -> tuple[Job, list[dict[str, Any]]]:
    sim = Simulation(phases=[TRAIN], tracking={"mlflow": {"uri": "https://mlflow:5000"} | mlflow})
    observed = observe(sim.world, Key("TrainingRun", "models", "run"))
    assert isinstance(observed, Observed)
    phase = observed.spec.phases[0]
    job = objects.job_of(observed, phase, observed.phase_status("train"), 1)
    return job, pod_of(objects.pytorch_job(observed, phase, job, SETTINGS))["containers"][0]["env"]


def test_credentials_of_a_tracking_server_are_taken_from_a_secret_key_by_key_and_may_be_missing() -> None:
    job, env = tracked(secretName="mlflow-credentials")
    assert job.tracking
    assert job.tracking.mlflow.uri == "https://mlflow:5000"
    taken = {entry["name"]: entry["valueFrom"]["secretKeyRef"] for entry in env if "secretKeyRef" in entry.get("valueFrom", {})}
    assert taken == {
        key: {"name": "mlflow-credentials", "optional": True, "key": key}
        for key in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN")
    }


def test_a_tracking_server_without_a_secret_gets_no_credentials() -> None:
    job, env = tracked()
    assert job.tracking
    assert all("secretKeyRef" not in entry.get("valueFrom", {}) for entry in env)


def test_what_a_tracking_server_does_not_take_is_in_the_runs_message() -> None:
    metrics = [{"name": "step", "value": "20"}, {"name": "loss", "value": "0.1"}, {"name": "mlflow", "value": "ConnectionRefusedError"}]
    status = PhaseStatus(name="train", progress=Progress.model_validate({"metrics": metrics}))
    assert progress_message(status) == "step 20, loss 0.1; MLflow gets nothing: ConnectionRefusedError"
