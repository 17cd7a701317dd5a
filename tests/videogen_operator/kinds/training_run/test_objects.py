import json
from typing import Any

import pytest

from videogen_api.job import Job
from videogen_operator.kinds.training_run import objects
from videogen_operator.kinds.training_run.observed import Observed, observe
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
