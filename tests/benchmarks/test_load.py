"""The scene of the load benchmark: objects that the operator reads without a complaint, in the states that they are meant to be in."""

import json

import pytest
from benchmarks.load import scene
from benchmarks.load.scene import JOB_UID, NAMESPACES, RUN_UID, Size

from videogen_api.fine_tune_cycle import FineTuneCycleSpec
from videogen_api.model_release import ModelReleaseSpec, ModelReleaseStatus
from videogen_api.training_run import TrainingRunSpec, TrainingRunStatus


def test_a_smaller_scene_has_something_of_everything_in_each_namespace() -> None:
    small, whole = Size.scaled(0.001), Size.scaled(1)
    assert whole == Size()
    assert {getattr(small, name) for name in Size.__dataclass_fields__} == {NAMESPACES}
    assert len({run.namespace for run in scene.runs(small)}) == NAMESPACES


@pytest.mark.parametrize(("number", "outcome"), [(0, "Unknown"), (11, "Unknown"), (4999, "True")])
def test_a_run_is_in_its_state_under_its_own_name(number: int, outcome: str) -> None:
    run = list(scene.runs(Size()))[number]
    manifest, status, job, pod = scene.run_objects(run)
    TrainingRunSpec.model_validate(manifest["spec"])
    read = TrainingRunStatus.model_validate(status)
    assert [one.status for one in read.conditions if one.type == "Succeeded"] == [outcome]
    assert read.phases[0].job_name == job["metadata"]["name"] == f"{run.name}-train-1"
    assert pod["metadata"]["name"] == f"{run.name}-train-1-master-0"
    assert RUN_UID in json.dumps(job["metadata"])
    assert JOB_UID in json.dumps(pod["metadata"])
    assert "simulated" not in json.dumps([manifest, status, job, pod])


def test_releases_and_cycles_can_be_read() -> None:
    for place in range(scene.OF_A_SERVICE):
        manifest, status = scene.release(3, place)
        ModelReleaseSpec.model_validate(manifest["spec"])
        ModelReleaseStatus.model_validate(status or {})
        assert manifest["metadata"]["name"] == scene.release_name(3, place)
    FineTuneCycleSpec.model_validate(scene.cycle(7)["spec"])
