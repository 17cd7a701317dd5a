"""Task Optimize, whole: a bundle and a dataset in the storage, a smaller bundle and what it costs out."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from html import unescape
from pathlib import Path
from shutil import rmtree
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from safetensors.numpy import load

from videogen_api.bundle import MANIFEST, Manifest
from videogen_api.evaluation import Metric
from videogen_api.job import ArtifactReference, Job, PinnedData, Report, report_page
from videogen_api.meta import ModelFamily, ModelIdentity
from videogen_api.optimization import ExportFormat, Optimize, Quantization
from videogen_api.recipe import Recipe
from videogen_api.training_run import DataReference, Reason, Split, Task
from videogen_models.bundle import load_model, seal_bundle, verify_bundle
from videogen_models.networks import GeneratorSize, Preset, model_config
from videogen_models.text import TextSize
from videogen_models.videofusion import VideoFusionModel
from videogen_trainer import tasks
from videogen_trainer.dataset import Clip, write_dataset
from videogen_trainer.distributed import World
from videogen_trainer.evaluate import run as evaluate
from videogen_trainer.evaluate import timing
from videogen_trainer.failure import Failure
from videogen_trainer.optimize import onnx_files, pairs, run
from videogen_trainer.optimize.networks import networks_of
from videogen_trainer.progress import ProgressReporter
from videogen_trainer.synthetic import synthetic_clip

RECIPE = Recipe.model_validate(
    {"architecture": "Tiny", "frames": 4, "resolution": {"height": 16, "width": 16}, "globalBatchSize": 1, "steps": 1, "seed": 7}
)
WORK = "runs/demo-12345678/optimize"


def bundle(storage: Path, *, family: ModelFamily = ModelFamily.VIDEOFUSION) -> ArtifactReference:
    """A model smaller than Tiny, so that its networks are exported in seconds."""
    torch.manual_seed(0)
    size = GeneratorSize(patch=2, widths=[16], attention=[False], layers=1, head_width=8, groups=4)
    text = TextSize(vocabulary=64, length=16, width=32, layers=1, heads=4)
    networks = Preset(text=text, base=size, residual=size, target="Frame")
    model = VideoFusionModel(model_config(RECIPE).model_copy(update={"networks": networks}))
    manifest = Manifest(model=ModelIdentity(family=family, version="0.9.0"), recipe=RECIPE, step=5, run="trained", files=[])
    path, digest = seal_bundle(storage, manifest, model.save)
    return ArtifactReference(path=path, digest=digest)


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    made = [synthetic_clip(number, seed=3, frames=4, height=16, width=16) for number in range(6)]
    clips = [Clip(frames=clip.frames, caption=clip.caption, split=Split.HELD_OUT) for clip in made]
    write_dataset(tmp_path, "shapes", "v1", clips, frames=4, resolution=RECIPE.resolution)
    return tmp_path


def job(artifact: ArtifactReference, task: Task = Task.OPTIMIZE, family: ModelFamily = ModelFamily.VIDEOFUSION, **optimize: Any) -> Job:
    return Job(
        contract="v1",
        run="demo",
        run_uid="12345678-0000",
        namespace="videos",
        phase="optimize",
        attempt=1,
        task=task,
        model=ModelIdentity(family=family, version="1.0.0"),
        recipe=RECIPE,
        work_path=WORK,
        data=[PinnedData(reference=DataReference(dataset="shapes", version="v1", split=Split.HELD_OUT))],
        optimize=Optimize.model_validate({"quantization": "Int8Weights", "samples": 10, "sampling_steps": 2} | optimize),
        artifact=artifact,
    )


class Recorded(ProgressReporter):
    """A reporter that also remembers."""

    def __init__(self) -> None:
        super().__init__(None, 0.0, lambda: 0.0, lambda: datetime(2026, 1, 1, tzinfo=UTC))
        self.told: list[tuple[int, int]] = []

    def report(self, done: int, total: int, metrics: Any, *, final: bool = False) -> None:
        self.told.append((done, total))
        super().report(done, total, metrics, final=final)


def never() -> bool:
    return False


def optimized(wanted: Job, storage: Path, stop: Callable[[], bool] = never) -> Report:
    return run(wanted, storage, World(), Recorded(), stop)


def test_a_smaller_bundle_is_sealed_that_loads_like_any_other(storage: Path) -> None:
    source = bundle(storage)
    report = optimized(job(source), storage)
    assert report.artifact is not None
    assert report.artifact.path.startswith("bundles/pib-videogen-videofusion-v1.0.0-base/"), "named after the run's own version"
    folder = storage / report.artifact.path
    manifest = verify_bundle(folder, report.artifact.digest)
    assert (manifest.optimized_from, manifest.quantization) == (source.digest, Quantization.INT8_WEIGHTS)
    assert (manifest.run, manifest.step, manifest.recipe) == ("demo", 5, RECIPE)
    assert load_model(folder, report.artifact.digest).generate(["a red square"], [1], 2).shape == (1, 4, 16, 16, 3)
    verify_bundle(storage / source.path, source.digest)
    told = report.optimization
    assert told is not None
    assert told.optimized_bytes == sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    assert told.optimized_bytes < 0.4 * told.unoptimized_bytes
    assert report.message.startswith(f"bundle {report.artifact.digest}: Int8Weights has ")
    assert [part.dataset for part in report.datasets] == ["shapes"]
    assert {(result.frames, result.resolution) for result in report.results} == {(4, RECIPE.resolution)}
    page = (storage / report_page(report.artifact.path, "demo", "12345678-0000", "optimize")).read_text()
    assert report.page
    assert report.message in unescape(page)
    assert page.count("<strong>sample-") == 8, "some of its clips"


def test_the_metrics_are_those_that_evaluate_measures_of_both_bundles(storage: Path) -> None:
    source = bundle(storage)
    report = optimized(job(source), storage)
    assert report.artifact is not None
    assert report.optimization is not None
    measured = {}
    for name, artifact in (("before", source), ("after", report.artifact)):
        asked = job(artifact, Task.EVALUATE).model_dump(by_alias=True) | {"evaluate": {"samples": 10, "samplingSteps": 2}}
        measured[name] = evaluate(Job.model_validate(asked), storage, World(), Recorded(), never).results
    for own, result in zip(report.results, measured["after"], strict=True):
        if own.metric is not Metric.GENERATION_SECONDS:
            assert own == result
    before = {(result.metric, result.normalization): float(result.value) for result in measured["before"]}
    after = {(result.metric, result.normalization): float(result.value) for result in measured["after"]}
    assert [loss.metric for loss in report.optimization.losses] == [
        Metric.FVD, Metric.INCEPTION_SCORE, Metric.CLIP_SCORE, Metric.TEMPORAL_COHERENCE, Metric.ARTEFACT_RATE, Metric.GENERATION_SECONDS,
    ]  # fmt: skip
    for loss in report.optimization.losses[:-1]:
        key = (loss.metric, loss.normalization)
        sign = 1 if loss.metric in {Metric.FVD, Metric.ARTEFACT_RATE} else -1
        assert float(loss.unoptimized) == pytest.approx(before[key], abs=1e-6)
        assert float(loss.loss) == pytest.approx(sign * (after[key] - before[key]), abs=2e-6)


def test_clips_of_both_bundles_are_written_to_look_at(storage: Path) -> None:
    optimized(job(bundle(storage)), storage)
    for name in ("before", "after"):
        assert len(list((storage / WORK / "samples" / name).glob("*.mp4"))) == 8
    assert (storage / WORK / "samples/before/sample-00.txt").read_text() == (storage / WORK / "samples/after/sample-00.txt").read_text()


def test_generation_seconds_are_those_of_a_clip_alone(storage: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "ALONE", 1)
    generate = VideoFusionModel.generate
    monkeypatch.setattr(VideoFusionModel, "generate", lambda *asked: (time.sleep(0.1), generate(*asked))[1])
    report = optimized(job(bundle(storage), samples=12), storage)
    result = next(result for result in report.results if result.metric is Metric.GENERATION_SECONDS)
    assert (result.samples, float(result.value) > 0.1) == (8, True)
    assert report.optimization is not None
    assert float(report.optimization.losses[-1].unoptimized) > 0.1
    assert len(list((storage / WORK / "samples" / "after").glob("*.mp4"))) == 8


def stopped_after(calls: int) -> Callable[[], bool]:
    count = iter(range(10**6))
    return lambda: next(count) >= calls


def test_with_onnx_alone_the_weights_stay_and_each_network_is_added_once_whatever_interrupts(
    storage: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = bundle(storage)
    written: list[str] = []
    original = onnx_files.write_onnx
    monkeypatch.setattr(onnx_files, "write_onnx", lambda network, path: (written.append(network.name), original(network, path)))
    with pytest.raises(Failure, match="asked to stop"):
        optimized(job(source, quantization=None, formats=["ONNX"]), storage, stopped_after(1))
    assert written == ["text-encoder", "base-generator"]
    progress = Recorded()
    report = run(job(source, quantization=None, formats=["ONNX"]), storage, World(), progress, never)
    assert report.artifact is not None
    assert report.optimization is not None
    folder = storage / report.artifact.path
    for weights in ("base.safetensors", "residual.safetensors", "text.safetensors"):
        assert (folder / weights).read_bytes() == (storage / source.path / weights).read_bytes()
    names = ["text-encoder", "base-generator", "residual-generator"]
    assert written == names, "two by the first attempt, one by the second"
    assert sorted(path.name for path in (folder / "onnx").iterdir()) == sorted(f"{name}.onnx" for name in names)
    assert [(export.network, export.format) for export in report.optimization.exports] == [(name, ExportFormat.ONNX) for name in names]
    assert all(0 < float(export.maximum_difference or "nan") < 1e-4 for export in report.optimization.exports)
    for network in networks_of(load_model(storage / source.path)):
        graph = onnx.load(folder / "onnx" / f"{network.name}.onnx").graph
        assert [[one.name for one in ends] for ends in (graph.input, graph.output)] == [list(network.draw(1)), [network.output]]
    assert report.message.endswith("pixels differ by 0.00 of 255; 3 networks as ONNX")
    assert {float(loss.loss) for loss in report.optimization.losses[:-1]} == {0.0}
    assert progress.told == [(number, 5) for number in range(1, 6)], "three networks and two batches"
    assert not (storage / WORK / "optimizing").exists(), "what was kept for another attempt"


def test_an_interrupted_optimisation_goes_on_after_what_was_measured(storage: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = job(bundle(storage), samples=20)
    whole = optimized(wanted, storage)
    measured: list[int] = []
    original = pairs.Pair._batch
    monkeypatch.setattr(pairs.Pair, "_batch", lambda self, number, *rest: (measured.append(number), original(self, number, *rest))[1])
    for calls in (5, 39, 37):  # 2 while the server draws its clip, 2 to warm up, 8 clips by 2 bundles in 2 steps each, 1 after a batch
        with pytest.raises(Failure, match="asked to stop") as failure:
            optimized(wanted, storage, stopped_after(calls))
        assert failure.value.reason is Reason.PREEMPTED
    report = optimized(wanted, storage)
    assert measured == [0, 0, 1, 1, 2], "stopped in the first batch, in the second one, after it"
    timeless = [result for result in whole.results if result.metric is not Metric.GENERATION_SECONDS]
    assert [result for result in report.results if result.metric is not Metric.GENERATION_SECONDS] == timeless
    assert report.artifact == whole.artifact
    assert report.optimization is not None
    assert whole.optimization is not None
    assert report.optimization.losses[:-1] == whole.optimization.losses[:-1]


def test_batches_too_large_for_memory_are_halved_for_both_bundles_and_change_nothing_measured(
    storage: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timing, "ALONE", 1)
    wanted = job(bundle(storage), samples=20, sampling_steps=1)
    whole = optimized(wanted, storage).optimization
    rmtree(storage / WORK)
    generate, made = VideoFusionModel.generate, list[int]()

    def limited(self: VideoFusionModel, captions: Sequence[str], *more: Any) -> Any:
        made.append(len(captions))
        if len(captions) > 2:
            torch.empty(2**60, dtype=torch.uint8)  # the error that PyTorch's allocator really raises
        return generate(self, captions, *more)

    monkeypatch.setattr(VideoFusionModel, "generate", limited)
    halved = optimized(wanted, storage).optimization
    assert whole is not None and halved is not None
    for before, after in zip(whole.losses, halved.losses, strict=True):
        if before.metric is not Metric.GENERATION_SECONDS:
            assert (before.metric, float(before.unoptimized)) == (after.metric, pytest.approx(float(after.unoptimized), rel=1e-4))
    assert max(made) > 2 and made[-28:] == [2] * 8 + [1] * 16 + [2] * 4, "by each bundle; the second of three batches alone"


def cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def with_another_bit(path: Path) -> None:
    """In a feature of the optimised bundle: what is read is a batch like any other."""
    data, flat = path.read_bytes(), load(path.read_bytes())
    features = flat["after/features of video-classifier"]
    assert data.count(features.tobytes()) == 1
    other = features.copy()
    other.view(np.uint8)[0, 7] ^= 4
    path.write_bytes(data.replace(features.tobytes(), other.tobytes()))


def with_another_name(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"after/motion", b"aftes/motion"))


def unreadable(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.name)  # a loop


@pytest.mark.parametrize("damage", [cut_off, with_another_bit, with_another_name, unreadable])
def test_a_kept_batch_that_is_damaged_is_measured_again(
    storage: Path, monkeypatch: pytest.MonkeyPatch, damage: Callable[[Path], None]
) -> None:
    wanted = job(bundle(storage), samples=16, sampling_steps=1)
    whole = optimized(wanted, storage).optimization
    with pytest.raises(Failure, match="asked to stop"):
        optimized(wanted, storage, stopped_after(20))
    (first, *_) = sorted((storage / WORK / "optimizing").rglob("batch-*.safetensors"))
    damage(first)
    measured: list[int] = []
    original = pairs.Pair._batch
    monkeypatch.setattr(pairs.Pair, "_batch", lambda self, number, *rest: (measured.append(number), original(self, number, *rest))[1])
    again = optimized(wanted, storage).optimization
    assert measured == [0, 1]
    assert whole is not None and again is not None
    assert again.losses[:-1] == whole.losses[:-1], "all but the time"


def test_what_another_optimisation_has_kept_is_not_taken(storage: Path) -> None:
    source = bundle(storage)
    with pytest.raises(Failure, match="asked to stop"):
        optimized(job(source, samples=20, sampling_steps=1), storage, stopped_after(21))
    kept = set((storage / WORK / "optimizing").rglob("batch-*.safetensors"))
    assert kept
    with pytest.raises(Failure, match="asked to stop"):
        optimized(job(source, samples=20, sampling_steps=3), storage, stopped_after(55))
    assert {path.parent for path in (storage / WORK / "optimizing").rglob("batch-*.safetensors")} > {path.parent for path in kept}


def test_an_onnx_difference_above_the_tolerance_leaves_no_bundle(storage: Path) -> None:
    source = bundle(storage)
    report = tasks.attempt(job(source, formats=["ONNX"], onnx_tolerance="1e-12"), storage, {}, Recorded(), never)
    assert (report.reason, report.artifact) == (Reason.EXPORT_FAILED, None)
    assert "onnxTolerance is 1e-12, and ONNX Runtime's text-encoder differs" in report.message
    assert not list((storage / "bundles/pib-videogen-videofusion-v1.0.0-base").iterdir())


def test_tensorrt_without_a_gpu_ends_before_any_work(storage: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    report = tasks.attempt(job(bundle(storage), formats=["ONNX", "TensorRT"]), storage, {}, Recorded(), never)
    assert report.reason is Reason.TENSORRT_UNAVAILABLE
    assert "an NVIDIA GPU (set nvidia.com/gpu in resources.limits)" in report.message
    assert not (storage / WORK).exists()


def tampered(storage: Path, source: ArtifactReference) -> Job:
    weights = storage / source.path / "base.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x7f")
    return job(source)


def another_family(storage: Path, source: ArtifactReference) -> Job:
    return job(source, family=ModelFamily.TEXT2VIDEO_ZERO)


def other_clips(storage: Path, source: ArtifactReference) -> Job:
    made = [synthetic_clip(number, seed=3, frames=6, height=16, width=16) for number in range(3)]
    clips = [Clip(frames=clip.frames, caption=clip.caption, split=Split.HELD_OUT) for clip in made]
    write_dataset(storage, "shapes", "v2", clips, frames=6, resolution=RECIPE.resolution)
    data = [PinnedData(reference=DataReference(dataset="shapes", version="v2", split=Split.HELD_OUT))]
    return job(source).model_copy(update={"data": data})


def broken_weights(storage: Path, source: ArtifactReference) -> Job:
    model = load_model(storage / source.path)
    next(model.parameters()).data.fill_(float("nan"))
    for parameter in model.parameters():
        parameter.data.fill_(float("nan"))
    manifest = Manifest.model_validate(json.loads((storage / source.path / MANIFEST).read_bytes()))
    path, digest = seal_bundle(storage, manifest, model.save)
    return job(ArtifactReference(path=path, digest=digest))


@pytest.mark.parametrize(
    ("make", "reason", "words"),
    [
        pytest.param(tampered, Reason.ARTIFACT_INVALID, "base.safetensors has SHA-256", id="a changed file"),
        pytest.param(another_family, Reason.INVALID_JOB, "spec.model.family is Text2VideoZero", id="a model of another family"),
        pytest.param(
            other_clips, Reason.INVALID_JOB, "shapes v2 has 6 frames of 16 x 16, the model generates 4", id="clips of another length"
        ),
        pytest.param(broken_weights, Reason.ARTIFACT_INVALID, "a weight is not finite", id="weights that are no numbers"),
    ],
)
def test_bad_input_is_named(storage: Path, make: Callable[[Path, ArtifactReference], Job], reason: Reason, words: str) -> None:
    with pytest.raises(Failure, match=words) as failure:
        optimized(make(storage, bundle(storage)), storage)
    assert failure.value.reason is reason
