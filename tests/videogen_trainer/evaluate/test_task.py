"""Task Evaluate, whole: a bundle and a dataset in the storage, a report with every metric out."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from videogen_api.bundle import Manifest
from videogen_api.evaluation import Evaluation, Extractor, ExtractorArchitecture, Metric, MetricResult, Normalization
from videogen_api.job import ArtifactReference, Job, PinnedData
from videogen_api.meta import ModelFamily, ModelIdentity
from videogen_api.recipe import Architecture, Recipe, Resolution
from videogen_api.training_run import DataReference, Reason, Split, Task
from videogen_models.bundle import write_bundle
from videogen_models.networks import model_config
from videogen_models.sealed import sha256_of
from videogen_models.videofusion import VideoFusionModel
from videogen_trainer.dataset import Clip, write_dataset
from videogen_trainer.distributed import World
from videogen_trainer.evaluate import extractors, measure, run, task, timing
from videogen_trainer.evaluate.c3d import C3D
from videogen_trainer.evaluate.measure import Network
from videogen_trainer.failure import Failure
from videogen_trainer.progress import ProgressReporter
from videogen_trainer.synthetic import synthetic_clip

MODEL = ModelIdentity(family=ModelFamily.VIDEOFUSION, version="1.0.0")
RECIPE = Recipe(architecture=Architecture.TINY, frames=4, resolution=Resolution(height=16, width=16), global_batch_size=1, steps=1, seed=7)


def dataset(storage: Path, version: str, held_out: int, *, frames: int = 4, side: int = 16, caption: str | None = None) -> None:
    """`held_out` clips of HeldOut and one of Train."""
    made = [synthetic_clip(number, seed=3, frames=frames, height=side, width=side) for number in range(held_out + 1)]
    clips = [
        Clip(frames=clip.frames, caption=caption or clip.caption, split=Split.HELD_OUT if number < held_out else Split.TRAIN)
        for number, clip in enumerate(made)
    ]
    write_dataset(storage, "shapes", version, clips, frames=frames, resolution=Resolution(height=side, width=side))


def bundle(storage: Path, seed: int = 0) -> ArtifactReference:
    torch.manual_seed(seed)
    config = model_config(RECIPE)
    manifest = Manifest(model=MODEL, recipe=RECIPE, step=1, files=[])
    path, digest = write_bundle(storage, manifest, config, VideoFusionModel(config).state_dict())
    return ArtifactReference(path=path, digest=digest)


def job(artifact: ArtifactReference, versions: tuple[str, ...] = ("v1",), **evaluation: object) -> Job:
    return Job(
        contract="v1",
        run="demo",
        run_uid="12345678-0000",
        namespace="videos",
        phase="validation",
        attempt=1,
        task=Task.EVALUATE,
        model=MODEL,
        recipe=RECIPE,
        work_path="runs/demo-12345678/validation",
        data=[PinnedData(reference=DataReference(dataset="shapes", version=version, split=Split.HELD_OUT)) for version in versions],
        evaluate=Evaluation.model_validate({"samples": 10, "sampling_steps": 2} | evaluation),
        artifact=artifact,
    )


def silent() -> ProgressReporter:
    return ProgressReporter(None, 0.0, lambda: 0.0, lambda: datetime(2026, 1, 1, tzinfo=UTC))


def never() -> bool:
    return False


def named(results: list[MetricResult]) -> dict[tuple[Metric, str, Normalization | None], MetricResult]:
    return {(result.metric, result.extractor, result.normalization): result for result in results}


def test_every_metric_is_reported_with_what_makes_it_comparable(tmp_path: Path) -> None:
    dataset(tmp_path, "v1", 6)
    artifact = bundle(tmp_path)
    report = run(job(artifact), tmp_path, World(), silent(), never)
    results = named(report.results)
    classifier, encoder = "video-classifier", "text-video-encoder"
    assert set(results) == {
        (Metric.FVD, classifier, None),
        (Metric.INCEPTION_SCORE, classifier, None),
        (Metric.CLIP_SCORE, encoder, Normalization.RAW),
        (Metric.CLIP_SCORE, encoder, Normalization.CLIP_SCORE_25),
        (Metric.TEMPORAL_COHERENCE, encoder, None),
        (Metric.ARTEFACT_RATE, "", None),
        (Metric.GENERATION_SECONDS, "", None),
    }
    for result in report.results:
        assert result.low is not None and result.high is not None
        assert float(result.low) <= float(result.value) <= float(result.high)
        assert result.samples == (6 if result.metric is Metric.FVD else 10)  # FVD rests on the smaller side
        assert result.verdict is None
        assert (result.frames, result.resolution) == (4, RECIPE.resolution)
        assert result.extractor_digest.startswith("sha256:") is bool(result.extractor)
    assert report.artifact == artifact
    assert [(part.dataset, part.version, part.clips) for part in report.datasets] == [("shapes", "v1", 6)]


def test_the_same_job_gives_the_same_values_whatever_the_batch_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset(tmp_path, "v1", 6)
    monkeypatch.setattr(timing, "ALONE", 1)
    wanted = job(bundle(tmp_path))
    first = run(wanted, tmp_path, World(), silent(), never).results
    monkeypatch.setattr(task, "BATCH", 3)
    again = named(run(wanted, tmp_path, World(), silent(), never).results)
    for key, result in named(first).items():
        if result.metric is not Metric.GENERATION_SECONDS:
            assert float(again[key].value) == pytest.approx(float(result.value), rel=1e-3, abs=1e-4)


def test_samples_are_written_to_look_at(tmp_path: Path) -> None:
    dataset(tmp_path, "v1", 6)
    run(job(bundle(tmp_path)), tmp_path, World(), silent(), never)
    folder = tmp_path / "runs/demo-12345678/validation/samples"
    assert sorted(path.name for path in folder.iterdir()) == [
        "contact-sheet.png",
        *(f"sample-{number:02}.{kind}" for number in range(8) for kind in ("mp4", "txt")),
    ]
    shown = [(folder / f"sample-{number:02}.txt").read_text().strip() for number in range(8)]
    there = [synthetic_clip(number, seed=3, frames=2, height=16, width=16).caption for number in range(6)]
    assert sorted(shown[:6]) == sorted(there), "each caption before one comes again"
    assert shown[6:] == shown[:2]
    with av.open(str(folder / "sample-00.mp4")) as container:
        assert len(list(container.decode(video=0))) == 4
    with Image.open(folder / "contact-sheet.png") as sheet:
        assert sheet.height > 8 * 16


def test_samples_that_cannot_be_written_are_told_before_the_other_clips_are_generated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset(tmp_path, "v1", 6)
    wanted = job(bundle(tmp_path), samples=100)
    generate, made = VideoFusionModel.generate, list[int]()
    monkeypatch.setattr(VideoFusionModel, "generate", lambda self, texts, *more: (made.append(len(texts)), generate(self, texts, *more))[1])
    (tmp_path / wanted.work_path).mkdir(parents=True)
    (tmp_path / wanted.work_path / "samples").touch()
    with pytest.raises(Failure, match=r"samples/sample-00\.mp4 cannot be written") as failure:
        run(wanted, tmp_path, World(), silent(), never)
    assert failure.value.reason is Reason.STORAGE_FAILED
    assert sum(made) == 8 + 1 + 8, "two trials and the first batch"


def test_several_datasets_are_compared_with_together(tmp_path: Path) -> None:
    dataset(tmp_path, "v1", 3)
    dataset(tmp_path, "v2", 5)
    report = run(job(bundle(tmp_path), versions=("v1", "v2"), samples=4), tmp_path, World(), silent(), never)
    assert [part.clips for part in report.datasets] == [3, 5]
    assert "4 generated against 8 real clips" in report.results[0].message
    assert report.message == "4 generated clips against 8 real ones, all of 4 frames of 16 x 16"


@pytest.mark.parametrize(("frames", "side"), [(6, 16), (4, 32)])
def test_real_clips_of_another_length_or_size_are_refused(tmp_path: Path, frames: int, side: int) -> None:
    dataset(tmp_path, "v1", 3)
    dataset(tmp_path, "v2", 5, frames=frames, side=side)
    with pytest.raises(Failure) as failure:
        run(job(bundle(tmp_path), versions=("v1", "v2"), samples=4), tmp_path, World(), silent(), never)
    assert failure.value.reason is Reason.INVALID_JOB
    said = f"data: dataset shapes v2 has {frames} frames of {side} x {side}, the model generates 4 frames of 16 x 16"
    assert failure.value.message.startswith(said)
    assert "curate a version by a run with recipe.frames: 4" in failure.value.message
    assert not (tmp_path / "runs").exists()


def test_captions_that_the_default_encoder_does_not_know_are_counted(tmp_path: Path) -> None:
    dataset(tmp_path, "v1", 3, caption="people ride bicycles")
    results = run(job(bundle(tmp_path), samples=4), tmp_path, World(), silent(), never).results
    messages = {result.message for result in results if result.metric is Metric.CLIP_SCORE}
    assert messages == {"4 of 4 captions have no word that this encoder knows"}


def test_the_users_own_network_is_measured_beside_the_default_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset(tmp_path, "v1", 3)
    torch.manual_seed(0)
    save_file(C3D(5, width=2).state_dict(), tmp_path / "c3d.safetensors")
    monkeypatch.setattr(extractors, "C3D", lambda classes: C3D(classes, width=2))
    digest = sha256_of(tmp_path / "c3d.safetensors")
    own = Extractor(name="mine", architecture=ExtractorArchitecture.C3D, path="c3d.safetensors", digest=f"sha256:{digest}")
    results = named(run(job(bundle(tmp_path), samples=4, extractors=[own]), tmp_path, World(), silent(), never).results)
    assert results[Metric.INCEPTION_SCORE, "mine", None].extractor_digest == f"sha256:{digest}"
    assert (Metric.INCEPTION_SCORE, "video-classifier", None) in results


def tampered(storage: Path, artifact: ArtifactReference) -> Job:
    weights = storage / artifact.path / "base.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x7f")
    return job(artifact)


def another_digest(storage: Path, artifact: ArtifactReference) -> Job:
    return job(artifact.model_copy(update={"digest": "sha256:" + "0" * 64}))


def no_bundle(storage: Path, artifact: ArtifactReference) -> Job:
    return job(artifact.model_copy(update={"path": "bundles/none"}))


def no_version(storage: Path, artifact: ArtifactReference) -> Job:
    return job(artifact, versions=("v9",))


def no_held_out_clip(storage: Path, artifact: ArtifactReference) -> Job:
    dataset(storage, "v0", 0)
    return job(artifact, versions=("v0",))


def no_extractor(storage: Path, artifact: ArtifactReference) -> Job:
    own = Extractor(
        name="i3d-kinetics400", architecture=ExtractorArchitecture.I3D, path="networks/i3d.safetensors", digest="sha256:" + "0" * 64
    )
    return job(artifact, extractors=[own])


@pytest.mark.parametrize(
    ("make", "reason", "words"),
    [
        pytest.param(tampered, Reason.ARTIFACT_INVALID, "base.safetensors has SHA-256", id="a bundle with a changed file"),
        pytest.param(another_digest, Reason.ARTIFACT_INVALID, "expected sha256:0000", id="a bundle with another digest"),
        pytest.param(no_bundle, Reason.ARTIFACT_INVALID, "bundles/none is no bundle", id="no bundle"),
        pytest.param(no_version, Reason.DATASET_NOT_FOUND, "no version 'v9'", id="no such version"),
        pytest.param(no_held_out_clip, Reason.DATASET_TOO_SMALL, "shapes v0 HeldOut has 0 clips", id="nothing held out"),
        pytest.param(no_extractor, Reason.EXTRACTOR_MISSING, "no file .*networks/i3d.safetensors", id="no extractor"),
    ],
)
def test_bad_input_is_named(tmp_path: Path, make: Callable[[Path, ArtifactReference], Job], reason: Reason, words: str) -> None:
    dataset(tmp_path, "v1", 3)
    wanted = make(tmp_path, bundle(tmp_path))
    with pytest.raises(Failure, match=words) as failure:
        run(wanted, tmp_path, World(), silent(), never)
    assert failure.value.reason is reason


def test_seeds_differ_between_clips_and_recipes_and_stay_in_range() -> None:
    seeds = {task.clip_seed(seed, number) for seed in range(20) for number in range(50)}
    assert len(seeds) == 1000
    assert all(0 <= seed < 2**63 for seed in seeds)


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0.0, "0.000000"), (-0.0, "0.000000"), (163.25, "163.250000"), (-0.25, "-0.250000"), (1.5e-7, "1.50000e-7"), (3e12, "3.00000e12")],
)
def test_values_are_decimal_strings_of_the_api(value: float, expected: str) -> None:
    assert measure.decimal(value) == expected
    MetricResult(metric=Metric.FVD, value=expected, samples=1)


def test_a_value_that_is_no_number_is_refused() -> None:
    with pytest.raises(ValueError, match="came out as nan"):
        measure.decimal(float("nan"))


def test_an_interval_takes_three_times_the_room_of_one_side() -> None:
    """docs/limits.md counts with it: both sides drawn again, and the deviations of one from their mean."""
    real, made = np.random.default_rng(0).standard_normal((2, 6000, 40))
    tracemalloc.start()
    measure.fvd(Network(name="n", digest="sha256:" + "0" * 64), real, made, seed=0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert 2.9 * real.nbytes < peak < 3.3 * real.nbytes


def test_fvd_of_few_clips_says_that_it_is_too_large() -> None:
    random, network = np.random.default_rng(0), Network(name="n", digest="sha256:" + "0" * 64)
    few, many = (measure.fvd(network, *random.standard_normal((2, count, 4)), seed=0).message for count in (64, 2048))
    assert few.endswith("; of 64 clips it is larger than of the customary 2048")
    assert "customary" not in many


@pytest.mark.parametrize(("samples", "most"), [(64, "64"), (100, "100"), (150, "100"), (1000, "100")])
def test_the_inception_score_says_what_it_cannot_exceed(samples: int, most: str) -> None:
    """Classes that are certain and as many as can be: the score is the maximum, but for the last split's remainder."""
    with np.errstate(divide="ignore"):
        rows = np.log(np.eye(100)[np.arange(samples) % 100])
    found = measure.inception(Network(name="n", digest="sha256:" + "0" * 64), rows, seed=0)
    assert found.maximum == most
    assert float(found.value) <= float(most) + 1e-6
    assert float(found.value) > 0.9 * float(most)


@pytest.mark.parametrize("network", [Network(name="n", digest="sha256:" + "0" * 64)])
def test_a_small_sample_has_a_wide_interval(network: Network) -> None:
    random = np.random.default_rng(0)
    real, made = random.standard_normal((400, 4)), random.standard_normal((400, 4)) + 0.5
    few, many = (measure.fvd(network, real[:count], made[:count], seed=0) for count in (20, 400))
    widths = [float(result.high or 0) - float(result.low or 0) for result in (few, many)]
    assert widths[0] > 3 * widths[1]
    assert float(many.low or 0) < 1.0 < float(many.high or 0)


def test_the_generation_time_is_the_one_that_95_percent_of_the_clips_keep_within() -> None:
    """18 batches of 8 clips at 1 s each, one of 4 at 3 s, one of 8 at 2 s: 144 of 156 are at 1 s, 152 at 2 s or less."""
    batches = np.array([[1.0, 8]] * 18 + [[3.0, 4], [2.0, 8]])
    result = measure.generation_seconds(batches, seed=0, message="in batches of 8, 50 steps on a CPU")
    assert float(result.value) == 2.0
    assert result.samples == 156
    assert result.message.endswith("in the mean 1.102564; in batches of 8, 50 steps on a CPU")
    assert result.low is not None and result.high is not None
    assert float(result.low) < 2.0 < float(result.high)


def test_clips_of_one_batch_count_as_one_measurement_of_time() -> None:
    """As many clips in batches of 16 instead of 1 leave a sixteenth of the measurements, and a wider interval."""
    seconds = np.random.default_rng(0).exponential(size=320)
    single = measure.generation_seconds(np.stack([seconds, np.ones(320)], axis=1), seed=0, message="")
    together = measure.generation_seconds(np.stack([seconds[:20], np.full(20, 16)], axis=1), seed=0, message="")
    widths = [float(result.high or 0) - float(result.low or 0) for result in (single, together)]
    assert single.samples == together.samples == 320
    assert widths[1] > 1.5 * widths[0]


def test_the_device_is_named(tmp_path: Path) -> None:
    dataset(tmp_path, "v1", 3)
    results = named(run(job(bundle(tmp_path), samples=4), tmp_path, World(), silent(), never).results)
    message = results[Metric.GENERATION_SECONDS, "", None].message
    assert message.endswith("2 steps on " + task.device_name(World()))
    assert "thread" in message


def test_asked_to_stop_it_ends_as_preempted(tmp_path: Path) -> None:
    dataset(tmp_path, "v1", 3)
    with pytest.raises(Failure, match="asked to stop") as failure:
        run(job(bundle(tmp_path)), tmp_path, World(), silent(), lambda: True)
    assert failure.value.reason is Reason.PREEMPTED
