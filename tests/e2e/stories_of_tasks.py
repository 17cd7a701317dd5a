"""Every task through the real operator and trainer, each judged by what it has made and not by what its run says of itself."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from videogen_api.emergency import TEMPLATE_INDEX
from videogen_api.job import work_path
from videogen_api.training_run import Task
from videogen_demo import install
from videogen_demo.kubectl import Cluster, Manifest
from videogen_testing import task_stories
from videogen_testing.judged_runs import HOUR, MAKES_A_BUNDLE, judge, judge_release
from videogen_testing.storage_reader import Storage
from videogen_testing.stories import phase, video

METRICS = {"FVD", "InceptionScore", "CLIPScore", "TemporalCoherence", "ArtefactRate", "GenerationSeconds"}


@pytest.fixture(scope="module")
def told(cluster: Cluster, namespace: str, storage: Storage) -> dict[str, Manifest]:
    """The runs by name, after all of them have succeeded."""
    first, *others = task_stories.runs(namespace)
    cluster.apply(first)
    cluster.wait("the dataset", lambda: phase(cluster, namespace, first["metadata"]["name"], "curate").get("outcome"), HOUR)
    cluster.apply(*others)
    return {made["metadata"]["name"]: judge(cluster, storage, made["metadata"]["name"]) for made in (first, *others)}


@dataclass(frozen=True)
class Made:
    """What one phase of an ended run has made."""

    task: Task
    cluster: Cluster
    storage: Storage
    run: Manifest
    phase: Manifest

    @property
    def folder(self) -> str:
        """Of the phase, in the storage."""
        return work_path(self.run["metadata"]["name"], self.run["metadata"]["uid"], self.phase["name"])

    def bundle(self) -> tuple[Manifest, Manifest]:
        """Verified manifests of the phase's bundle and of the one that it was made from, which is empty if there was none."""
        makers = [one["task"] for one in self.run["spec"]["phases"] if one["task"] in MAKES_A_BUNDLE]
        chain = [*self.storage.lineage(self.run["status"]["artifact"]["digest"]), {"files": []}]
        made, before = chain[len(makers) - 1 - makers.index(self.task) :][:2]
        assert made["run"] == self.run["metadata"]["name"]
        assert made["step"] == task_stories.STEPS
        return made, before

    def changed(self) -> set[str]:
        """Names, without their folders' content, of the bundle's files that are not those of the bundle before."""
        made, before = ({entry["path"]: entry["sha256"] for entry in one["files"]} for one in self.bundle())
        return {path.partition("/")[0] for path in made.keys() | before.keys() if made.get(path) != before.get(path)}

    def results(self) -> dict[str, Manifest]:
        """Of a phase that measures, by metric."""
        return {one["metric"]: one for one in self.phase["results"]}


def a_dataset(made: Made) -> None:
    """That the phases after it have read."""
    (version,) = made.phase["datasets"]
    read = [
        entry["digest"] for one in made.run["status"]["phases"] if one["name"] != made.phase["name"] for entry in one.get("datasets", [])
    ]
    assert set(read) == {version["digest"]}


def new_weights(made: Made) -> None:
    assert {"base.safetensors", "residual.safetensors", "text.safetensors"} <= made.changed()
    assert made.phase["checkpointStep"] == task_stories.STEPS
    assert made.bundle()[0]["recipe"]["videoFusion"]["baseNoiseShare"] == made.run["status"]["tuned"][0]["value"]


def changed(*files: str) -> Callable[[Made], None]:
    def weights(made: Made) -> None:
        assert made.changed() == set(files)

    return weights


def measurements(made: Made) -> None:
    results = made.results()
    assert set(results) == METRICS
    assert {one["samples"] for one in results.values()} == {task_stories.SAMPLES}
    assert any("tensorboard" in name for name in made.storage.files(made.folder))


def a_choice(made: Made) -> None:
    trials = made.phase["trials"]
    assert [one["value"] for one in trials] == task_stories.VALUES
    assert all(float(one["low"]) <= float(one["result"]) <= float(one["high"]) for one in trials)
    (chosen,) = (one["value"] for one in trials if one.get("chosen"))
    assert made.run["status"]["tuned"] == [{"parameter": "BaseNoiseShare", "value": chosen}]


def a_smaller_bundle(made: Made) -> None:
    bundle, before = made.bundle()
    optimization = made.phase["optimization"]
    assert bundle["quantization"] == "Int8Weights" and not before.get("quantization")
    assert 0 < optimization["optimizedBytes"] < optimization["unoptimizedBytes"]
    exported = {one["network"] for one in optimization["exports"]}
    assert {"text-encoder", "base-generator", "residual-generator"} == exported
    assert {f"onnx/{network}.onnx" for network in exported} <= {entry["path"] for entry in bundle["files"]}
    assert {one["metric"] for one in optimization["losses"]} == METRICS == set(made.results())


def templates(made: Made) -> None:
    assert made.changed() == {"templates"}
    folder = made.run["status"]["artifact"]["path"]
    index = json.loads(made.storage.text(f"{folder}/{TEMPLATE_INDEX}"))
    assert [one["category"] for one in index["templates"]] == list(task_stories.CATEGORIES)
    assert {one["file"] for one in index["templates"]} < set(made.storage.files(folder))


def outcomes(made: Made) -> None:
    results = made.results()
    assert set(results) == {"ScenarioPassRatio", "GenerationSeconds"}
    lines = made.storage.text(f"{made.folder}/scenarios/outcomes.jsonl").splitlines()
    passed = [json.loads(line)["passed"] for line in lines]
    assert len(passed) == task_stories.SAMPLES
    assert float(results["ScenarioPassRatio"]["value"]) == sum(passed) / len(passed)


def a_served_version(made: Made) -> None:
    release = judge_release(made.cluster, made.run)
    url, host = install.gateway_url(made.cluster), install.host_name("standard", made.run["metadata"]["namespace"])
    answer = made.cluster.wait("a video", lambda: video(url, host), 300)
    assert answer.release == release["metadata"]["name"]
    assert answer.video[4:8] == b"ftyp", "an MP4 file begins with its type"


JUDGED_BY: dict[Task, Callable[[Made], None]] = {
    Task.CURATE: a_dataset,
    Task.TRAIN: new_weights,
    Task.EVALUATE: measurements,
    Task.RELEASE: a_served_version,
    Task.FINE_TUNE: changed("base.safetensors", "residual.safetensors", "text.safetensors"),
    Task.ADAPT: changed("unet"),
    Task.ALIGN_CROSS_MODAL: changed("temporal.safetensors"),
    Task.TUNE: a_choice,
    Task.TRAIN_INTERPOLATION: changed("interpolation.safetensors", "model.json"),
    Task.FINE_TUNE_DECODER: changed("decoder.safetensors", "model.json"),
    Task.OPTIMIZE: a_smaller_bundle,
    Task.BUILD_TEMPLATES: templates,
    Task.TEST_SCENARIOS: outcomes,
}


@pytest.mark.parametrize("task", JUDGED_BY)
def test_each_task_makes_what_it_is_for(cluster: Cluster, storage: Storage, told: dict[str, Manifest], task: Task) -> None:
    name, which = task_stories.told_in()[task]
    run = told[name]
    ended_phase = next(one for one in run["status"]["phases"] if one["name"] == which)
    assert ended_phase["outcome"] == "Completed"
    JUDGED_BY[task](Made(task, cluster, storage, run, ended_phase))


def test_each_run_says_what_its_pods_ran_and_leaves_its_datasets_and_bundles(told: dict[str, Manifest], storage: Storage) -> None:
    for run in told.values():
        in_pods = [one for one in run["status"]["phases"] if one["name"] != Task.RELEASE.lower()]
        assert all(one["imageID"] for one in in_pods), run["status"]["phases"]
    chain = storage.lineage(told["latents"]["status"]["artifact"]["digest"])
    assert [one["run"] for one in chain] == ["latents"] * 4 + ["drawing"] * 3
