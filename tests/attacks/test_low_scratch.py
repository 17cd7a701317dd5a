"""Who fills a pod's scratch folders fills neither a node's disk nor its memory: each has a bound, and so has the pod's container."""

from __future__ import annotations

from typing import Any

import pytest

from videogen_operator.kinds.model_release import objects as of_release
from videogen_operator.kinds.model_release import observed as releases
from videogen_operator.kinds.training_run import objects as of_run
from videogen_operator.kinds.training_run import observed as runs
from videogen_operator.plan import Key
from videogen_operator.settings import Settings
from videogen_testing.releases import NAMESPACE, SERVICE, Objects, a_release
from videogen_testing.run_simulation import Simulation
from videogen_testing.runs import TRAIN

DISK = "ephemeral-storage"
SETTINGS = Settings(scratch_size="7Gi").for_plans()


def a_trainers_pod(resources: dict[str, Any]) -> Any:
    observed = runs.observe(Simulation(phases=[TRAIN | {"resources": resources}]).world, Key("TrainingRun", "models", "run"))
    assert isinstance(observed, runs.Observed)
    (phase,) = observed.spec.phases
    job = of_run.job_of(observed, phase, observed.phase_status("train"), 1)
    return of_run.pod_template(observed, phase, job, SETTINGS)["spec"]


def a_servers_pod(resources: dict[str, Any]) -> Any:
    release = a_release()
    release["spec"]["serving"] |= {"resources": resources}
    service = releases.observe(Objects(release), Key("ModelRelease", NAMESPACE, SERVICE))
    assert isinstance(service, releases.Observed)
    (one,) = service.releases
    (deployment,) = (child for child in of_release.children(one, SETTINGS) if child["kind"] == "Deployment")
    return deployment["spec"]["template"]["spec"]


@pytest.mark.parametrize("pod_of", [a_trainers_pod, a_servers_pod], ids=["trainer", "server"])
def test_every_scratch_folder_and_container_has_a_bound(pod_of: Any) -> None:
    pod = pod_of({"requests": {"cpu": "1", "memory": "1Gi"}})
    folders = {volume["name"]: volume["emptyDir"] for volume in pod["volumes"] if "emptyDir" in volume}
    assert "tmp" in folders
    for name, folder in folders.items():
        assert folder.get("sizeLimit"), name
    for container in pod["containers"]:
        assert container["resources"]["limits"][DISK] == "7Gi", container["name"]


@pytest.mark.parametrize("pod_of", [a_trainers_pod, a_servers_pod], ids=["trainer", "server"])
def test_who_needs_more_says_so_and_has_that_bound(pod_of: Any) -> None:
    pod = pod_of({"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {DISK: "500G"}})
    assert {container["resources"]["limits"][DISK] for container in pod["containers"]} == {"500G"}
