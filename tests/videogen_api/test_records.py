"""By what a computed phase is found again: each field of a job, in the key or out of it, with the reason."""

import json
from typing import Any

import pytest

from videogen_api.bundle import canonical_json
from videogen_api.evaluation import Metric, MetricResult
from videogen_api.job import ArtifactReference, Goodput, Job, Report
from videogen_api.optimization import MetricLoss, Optimization
from videogen_api.pinned import ResolvedDataset
from videogen_api.recipe import Resolution
from videogen_api.records import RECORD_BYTES, REUSABLE, Record, inputs_of, is_reusable, key_of, record_path, told
from videogen_api.training_run import WITHOUT_PODS, Phase, Reason, Task
from videogen_api.tuning import Trial

A, B = "sha256:" + "a" * 64, "sha256:" + "b" * 64
RECIPE: dict[str, Any] = {"resolution": {"height": 16, "width": 16}, "globalBatchSize": 4, "steps": 100}
EVALUATE = {"samples": 64, "samplingSteps": 10}
TUNE = {"parameter": "BaseNoiseShare", "values": ["0.65", "0.7"], "steps": 10, "objective": "FVD"}
OPTIMIZE = {"quantization": "Int8Weights", "maximumLoss": [{"metric": "FVD", "maximum": "5"}]}
JOB: dict[str, Any] = {
    "contract": "v1",
    "run": "run",
    "runUid": "11111111-0000",
    "namespace": "models",
    "phase": "train",
    "attempt": 1,
    "task": "Train",
    "model": {"family": "VideoFusion", "version": "1.0.0"},
    "recipe": RECIPE,
    "workPath": "runs/run-11111111/train",
    "data": [{"reference": {"dataset": "clips", "version": "1"}, "digest": A}],
    "evaluate": EVALUATE,
    "initFrom": {"path": "bundles/a/b", "digest": A},
    "tune": TUNE,
    "optimize": OPTIMIZE,
    "templates": {"variations": 2},
}


def key(datasets: tuple[ResolvedDataset, ...] = (), **changes: Any) -> str:
    inputs = inputs_of(Job.model_validate(JOB | changes), datasets)
    assert inputs is not None
    return key_of(inputs)


def data(**changes: Any) -> list[dict[str, Any]]:
    return [{"reference": {"dataset": "clips", "version": "1"} | changes, "digest": A}]


IN = {
    "contract": ({"contract": "v2"}, "what changes results changes the contract"),
    "task": ({"task": "FineTune"}, "the same recipe trains otherwise in another task"),
    "family": ({"model": {"family": "AlignYourLatents", "version": "1.0.0"}}, "another architecture"),
    "version": ({"model": {"family": "VideoFusion", "version": "1.0.1"}}, "a bundle's manifest names its version"),
    "recipe": ({"recipe": RECIPE | {"steps": 101}}, "the recipe decides the weights"),
    "recipe.seed": ({"recipe": RECIPE | {"seed": 1}}, "and so do its random numbers"),
    "data.digest": ({"data": [JOB["data"][0] | {"digest": B}]}, "other clips"),
    "data.split": ({"data": data(split="HeldOut")}, "another part of the clips"),
    "data.samples": ({"data": data(samples=10)}, "fewer of the clips"),
    "data, order": ({"data": [*JOB["data"], *data(split="HeldOut")]}, "one more part"),
    "initFrom": ({"initFrom": {"path": "bundles/a/b", "digest": B}}, "other weights to begin with"),
    "no initFrom": ({"initFrom": None}, "from scratch"),
    "evaluate": ({"evaluate": EVALUATE | {"samples": 65}}, "more clips are measured"),
    "tune": ({"tune": TUNE | {"values": ["0.65", "0.75"]}}, "another value is tried"),
    "optimize": ({"optimize": OPTIMIZE | {"quantization": "Float16Weights"}}, "other weights"),
    "templates": ({"templates": {"variations": 3}}, "one more template"),
}
OUT = {
    "run": ({"run": "another"}, "a run that is made anew may have another name"),
    "runUid": ({"runUid": "22222222-0000"}, "and has another UID"),
    "namespace": ({"namespace": "others"}, "the seal is of one namespace, not the key"),
    "phase": ({"phase": "first"}, "what a phase is called decides nothing"),
    "attempt": ({"attempt": 7}, "an attempt goes on where the last one ended"),
    "workPath": ({"workPath": "runs/x"}, "where checkpoints lie decides nothing"),
    "dataset, name": ({"data": data(dataset="others")}, "the digest says which clips"),
    "dataset, version": ({"data": data(version="2")}, "the digest says which clips"),
    "initFrom, path": ({"initFrom": {"path": "bundles/c/d", "digest": A}}, "the digest says which weights"),
    "learningRateScale": ({"learningRateScale": "0.5"}, "what a divergence led to is a result of the recipe"),
    "workers": ({"workers": 2, "processesPerWorker": 4}, "the batch and its order do not depend on them"),
    "gradientAccumulationSteps": ({"gradientAccumulationSteps": 4}, "fewer workers take the same micro-batches"),
    "progressIntervalSeconds": ({"progressIntervalSeconds": 9}, "how often something is told decides nothing"),
    "tracking": ({"tracking": {"mlflow": {"uri": "https://mlflow", "experiment": "x"}}}, "nor where curves go"),
    "finished": ({"finished": ["runs/run-11111111/old"]}, "nor what is cleaned up"),
    "joinSeconds": ({"joinSeconds": 30}, "nor how long pods wait for each other"),
    "preflight": ({"preflight": [JOB]}, "what else is looked at decides nothing"),
    "lookUp": ({"lookUp": True}, "a preflight finds what an attempt would compute"),
    "newVersion": ({"newVersion": True}, "whether a version is free is asked before anything is computed"),
    "curate": ({"curate": {"dataset": "a", "version": "1", "sources": [{"path": "raw"}]}}, "Curate has no key"),
    "scenarios": ({"scenarios": {"samples": 5}}, "TestScenarios has no key"),
    "gates": ({"gates": [{"metric": "FVD", "operator": "LessThan", "threshold": "5"}]}, "gates judge what was measured"),
    "lineage": ({"lineage": {"run": "another"}}, "the page says where a bundle comes from, its weights are in the key"),
    "optimize.maximumLoss": ({"optimize": OPTIMIZE | {"maximumLoss": []}}, "bounds judge what was measured, like gates"),
}


@pytest.mark.parametrize("changes, why", IN.values(), ids=IN)
def test_what_decides_the_result_is_in_the_key(changes: dict[str, Any], why: str) -> None:
    assert key(**changes) != key(), why


@pytest.mark.parametrize("changes, why", OUT.values(), ids=OUT)
def test_what_does_not_is_not(changes: dict[str, Any], why: str) -> None:
    assert key(**changes) == key(), why


def test_every_field_of_a_job_is_in_the_table() -> None:
    told_of = {name for changes, _ in [*IN.values(), *OUT.values()] for name in changes}
    fields = {field.alias for field in Job.model_fields.values()}
    assert fields - told_of == {"artifact"}, "which takes the place of initFrom in tasks that train nothing"
    assert key(initFrom=None, artifact={"path": "bundles/x", "digest": A}) == key(), "weights are weights"


def test_the_key_stays_the_same_from_version_to_version() -> None:
    """A key that changes repeats weeks of training in every cluster: then this number changes, and the change log says so."""
    assert key() == "d5ce1dbeca30bb42dfdaa58dbfc8e7725af5769b1790867909674603af9bb65f"
    assert record_path(key()) == f"records/{key()}.json"


def test_digests_that_a_job_does_not_know_are_those_that_its_report_tells() -> None:
    unknown = [{"reference": {"dataset": "clips", "version": "1"}}]
    resolved = ResolvedDataset(dataset="clips", version="1", digest=A, clips=9)
    assert key((resolved,), data=unknown) == key()
    parent = ResolvedDataset(dataset="clips", version="0", digest=A, in_place_of="1")
    assert key((parent,), data=unknown) == key(), "a parent that is used in the place of a rejected version"
    other = ResolvedDataset(dataset="other", version="1", digest=B)
    assert inputs_of(Job.model_validate(JOB | {"data": unknown}), [other]) is None
    assert key((ResolvedDataset(dataset="clips", version="1", digest=B),)) == key(), "what is pinned counts"


def test_only_tasks_whose_result_is_decided_by_their_inputs_have_a_key() -> None:
    without = set(Task) - set(REUSABLE)
    assert without == {Task.CURATE, Task.TEST_SCENARIOS, *WITHOUT_PODS}
    assert all(inputs_of(Job.model_validate(JOB | {"task": task}), ()) is None for task in without)


@pytest.mark.parametrize(
    "phase, reusable",
    [
        ({"task": "Train"}, True),
        ({"task": "Evaluate", "gates": [{"metric": "FVD", "operator": "LessThan", "threshold": "1"}]}, True),
        ({"task": "Evaluate", "gates": [{"metric": "GenerationSeconds", "operator": "LessThan", "threshold": "1"}]}, False),
        ({"task": "Optimize", "optimize": OPTIMIZE}, True),
        ({"task": "Optimize", "optimize": OPTIMIZE | {"maximumLoss": [{"metric": "GenerationSeconds", "maximum": "1"}]}}, False),
        ({"task": "TestScenarios"}, False),
        ({"task": "Curate"}, False),
    ],
)
def test_a_phase_that_is_judged_by_times_is_never_reused(phase: dict[str, Any], reusable: bool) -> None:
    assert is_reusable(Phase.model_validate({"name": "phase"} | phase)) is reusable


def test_a_record_keeps_the_result_and_no_words_and_no_times() -> None:
    spent = Goodput(wall_seconds="1", productive_seconds="1", data_wait_seconds="0", checkpoint_pause_seconds="0")
    loss = MetricLoss(metric=Metric.FVD, unoptimized="1", loss="0", low="0", high="0")
    report = Report(
        message="done",
        resumed_from_step=50,
        last_step=100,
        artifact=ArtifactReference(path="bundles/a/b", digest=A),
        results=[MetricResult(metric=metric, value="1", samples=64) for metric in (Metric.FVD, Metric.GENERATION_SECONDS)],
        goodput=spent,
        trials=[Trial(value="0.7", metric=Metric.FVD, result="1", chosen=True)],
        optimization=Optimization(
            unoptimized_bytes=2, optimized_bytes=1, losses=[loss, loss.model_copy(update={"metric": Metric.GENERATION_SECONDS})]
        ),
        frames=8,
        resolution=Resolution(height=16, width=16),
        page=True,
    )
    kept = told(report)
    assert json.loads(json.dumps(kept)) == kept
    again = Report.model_validate(kept)
    assert (again.reason, again.last_step, again.artifact, again.trials) == (Reason.COMPLETED, 100, report.artifact, report.trials)
    assert [(one.metric, one.frames, one.resolution) for one in again.results] == [(Metric.FVD, 8, report.resolution)]
    assert again.page is None, "it is another run's, and the record says where"
    assert again.optimization
    assert [one.metric for one in again.optimization.losses] == [Metric.FVD]
    assert (again.message, again.goodput, again.resumed_from_step) == ("", None, 0)


def test_a_usual_evaluation_fits_into_a_record() -> None:
    results = [
        MetricResult(metric=metric, value="123.456789", low="123.456789", high="123.456789", samples=256, extractor="i3d-kinetics400", extractor_digest=A)
        for metric in Metric
    ]  # fmt: skip
    record = {
        "key": "a" * 64,
        "run": "base-monthly-20261201-0300",
        "phase": "validate",
        "time": "2026-11-01T00:00:00Z",
        "report": told(Report(results=results)),
        "imageID": f"registry.example.org/videos/trainer@{A}",
        "page": f"bundles/pib-videogen-videofusion-v1.0.0-base/{'a' * 64}.base-monthly-20261201-0300-0123abcd.validate.html",
        "keyID": "key-20261101",
        "mac": "b" * 64,
    }
    Record.model_validate(record)
    assert len(canonical_json(record)) < RECORD_BYTES - 500
