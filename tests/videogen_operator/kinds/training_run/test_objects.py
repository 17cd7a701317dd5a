import json
from typing import Any

import pytest

from videogen_api.job import Job
from videogen_api.training_run import PhaseStatus, Progress
from videogen_operator.kinds.training_run import objects
from videogen_operator.kinds.training_run.observed import Observed, observe
from videogen_operator.kinds.training_run.plan import progress_message
from videogen_operator.plan import Key
from videogen_operator.settings import Settings
from videogen_testing.run_simulation import Simulation
from videogen_testing.runs import TRAIN

SETTINGS = Settings(progress_url="http://operator:8080", trainer_image="trainer:1").for_plans()


def made(**resources: Any) -> tuple[Observed, Job, dict[str, Any]]:
    sim = Simulation(phases=[TRAIN | {"resources": resources}])
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
    _, _, manifest = made(workers=3, processesPerWorker=2)
    assert manifest["spec"]["runPolicy"] == {"cleanPodPolicy": "None"}
    assert manifest["spec"]["elasticPolicy"] == {"minReplicas": 3, "maxReplicas": 3, "rdzvBackend": "c10d", "maxRestarts": 0}
    assert manifest["spec"]["pytorchReplicaSpecs"]["Worker"]["replicas"] == 3
    assert manifest["spec"]["nprocPerNode"] == "2"


@pytest.mark.parametrize("gpus", [0, 8])
def test_only_pods_that_ask_for_gpus_go_to_nodes_that_are_kept_for_them(gpus: int) -> None:
    _, _, manifest = made(gpusPerWorker=gpus)
    kept_for_gpus = {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
    assert (kept_for_gpus in pod_of(manifest)["tolerations"]) == bool(gpus)


@pytest.mark.parametrize("workers", [1, 4])
def test_nothing_is_restarted_or_timed_out_by_others(workers: int) -> None:
    _, _, manifest = made(workers=workers)
    (replicas,) = manifest["spec"]["pytorchReplicaSpecs"].values()
    assert replicas["restartPolicy"] == "Never"
    assert not {"backoffLimit", "activeDeadlineSeconds", "ttlSecondsAfterFinished"} & manifest["spec"]["runPolicy"].keys()


def test_pods_satisfy_pod_security_restricted_and_hold_no_credentials_of_the_api() -> None:
    pod = pod_of(made()[2])
    (container,) = pod["containers"]
    assert pod["automountServiceAccountToken"] is False
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


RESOURCES = [
    ("no GPU", {}, {"cpu": "1", "memory": "4Gi"}, {"memory": "4Gi"}, "1"),
    (
        "GPUs",
        {"gpusPerWorker": 8, "cpuPerWorker": "64", "memoryPerWorker": "512Gi"},
        {"cpu": "64", "memory": "512Gi", "nvidia.com/gpu": "8"},
        {"memory": "512Gi", "nvidia.com/gpu": "8"},
        "8",
    ),
    ("processes share the CPUs", {"processesPerWorker": 3, "cpuPerWorker": "8"}, {"cpu": "8", "memory": "4Gi"}, {"memory": "4Gi"}, "2"),
    ("less than a CPU is one thread", {"cpuPerWorker": "500m"}, {"cpu": "500m", "memory": "4Gi"}, {"memory": "4Gi"}, "1"),
]


@pytest.mark.parametrize("asked, requests, limits, threads", [row[1:] for row in RESOURCES], ids=[row[0] for row in RESOURCES])
def test_resources_and_threads(asked: dict[str, Any], requests: Any, limits: Any, threads: str) -> None:
    (container,) = pod_of(made(**asked)[2])["containers"]
    assert container["resources"] == {"requests": requests, "limits": limits}
    assert {"name": "OMP_NUM_THREADS", "value": threads} in container["env"]


def test_the_job_file_is_what_the_trainer_reads_and_lies_where_it_looks() -> None:
    observed, job, manifest = made()
    config = objects.config_map(observed, job)
    assert Job.model_validate_json(config["data"]["job.json"]) == job
    assert job.work_path == f"runs/run-{observed.uid[:8]}/train"
    volume = next(one for one in pod_of(manifest)["volumes"] if one["name"] == "job")
    assert volume["configMap"]["name"] == config["metadata"]["name"]
    assert json.dumps(manifest).count('"fieldPath"') == 0


def test_without_an_inbox_no_progress_is_sent() -> None:
    observed, job, _ = made()
    manifest = objects.pytorch_job(observed, observed.spec.phases[0], job, Settings().for_plans())
    assert not [entry for entry in pod_of(manifest)["containers"][0]["env"] if entry["name"].startswith("KUBEFLOW")]


def tracked(**mlflow: str) -> tuple[Job, list[dict[str, Any]]]:
    sim = Simulation(phases=[TRAIN], tracking={"mlflow": {"uri": "http://mlflow:5000"} | mlflow})
    observed = observe(sim.world, Key("TrainingRun", "models", "run"))
    assert isinstance(observed, Observed)
    phase = observed.spec.phases[0]
    job = objects.job_of(observed, phase, observed.phase_status("train"), 1)
    return job, pod_of(objects.pytorch_job(observed, phase, job, SETTINGS))["containers"][0]["env"]


def test_credentials_of_a_tracking_server_are_taken_from_a_secret_key_by_key_and_may_be_missing() -> None:
    job, env = tracked(secretName="mlflow-credentials")
    assert job.tracking
    assert job.tracking.mlflow.uri == "http://mlflow:5000"
    taken = {entry["name"]: entry["valueFrom"]["secretKeyRef"] for entry in env if "valueFrom" in entry}
    assert taken == {
        key: {"name": "mlflow-credentials", "optional": True, "key": key}
        for key in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN")
    }


def test_a_tracking_server_without_a_secret_gets_no_credentials() -> None:
    job, env = tracked()
    assert job.tracking
    assert all("valueFrom" not in entry for entry in env)


def test_what_a_tracking_server_does_not_take_is_in_the_runs_message() -> None:
    metrics = [{"name": "step", "value": "20"}, {"name": "loss", "value": "0.1"}, {"name": "mlflow", "value": "ConnectionRefusedError"}]
    status = PhaseStatus(name="train", progress=Progress.model_validate({"metrics": metrics}))
    assert progress_message(status) == "step 20, loss 0.1; MLflow gets nothing: ConnectionRefusedError"
