"""The training tasks one after the other: what each of them changes, what it leaves alone, and what it refuses."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file

from videogen_api.evaluation import Metric
from videogen_api.job import ArtifactReference, Job, Report
from videogen_api.training_run import Reason
from videogen_models.bundle import verify_bundle
from videogen_models.latent_video import TEMPORAL
from videogen_models.video_model import CONFIG
from videogen_testing.attempted import artifact
from videogen_testing.stopping import StopAfter
from videogen_trainer import checkpoint, tasks
from videogen_trainer.data import Batch
from videogen_trainer.distributed import World
from videogen_trainer.failure import Failure
from videogen_trainer.families import learner_of
from videogen_trainer.progress import ProgressReporter
from videogen_trainer.sharding import shard

Train = Callable[..., Report]
MakeJob = Callable[..., Job]
IMAGE = ["scheduler", "text_encoder", "tokenizer", "unet", "vae"]  # folders of a bundle's image model
LATENTS, ZERO = "AlignYourLatents", "Text2VideoZero"


@pytest.fixture
def phase_job(make_job: MakeJob) -> MakeJob:
    """`phase_job(family, task, after=artifact, steps=3)`: a job in a work path of its own."""

    def make(family: str, task: str, after: ArtifactReference | None = None, recipe: dict[str, Any] | None = None, **fields: Any) -> Job:
        blocks = {} if family == "VideoFusion" else {"videoFusion": None}
        begin = {"initFrom": after} if after else {}
        model = {"family": family, "version": "1.0.0"}
        return make_job(blocks | {"steps": 3} | (recipe or {}), task=task, model=model, **({"workPath": f"runs/a/{task}"} | begin | fields))

    return make


@pytest.fixture
def train(storage: Path, silent: ProgressReporter) -> Train:
    def run(job: Job, stop: Callable[[], bool] = lambda: False) -> Report:
        tasks.check(job)
        return tasks.attempt(job, storage, {}, silent, stop)

    return run


@pytest.fixture
def storage(begun: Any, tmp_path: Path) -> Path:
    """With the bundles `image` and `trained`."""
    return Path(shutil.copytree(begun.folder, tmp_path / "storage"))


def changed(storage: Path, one: ArtifactReference, other: ArtifactReference) -> set[str]:
    """Files of two bundles that differ in any byte; their manifests always do."""
    files = {entry.path: entry.sha256 for entry in verify_bundle(storage / one.path).files}
    others = {entry.path: entry.sha256 for entry in verify_bundle(storage / other.path).files}
    return {path for path in files.keys() | others.keys() if files.get(path) != others.get(path)}


def changed_tensors(one: Path, other: Path) -> set[str]:
    before, after = load_file(one), load_file(other)
    assert before.keys() == after.keys()
    return {name for name in before if not torch.equal(before[name], after[name])}


def is_of_text(name: str) -> bool:
    return ".text." in name or ".text_norm." in name


def test_a_schedule_of_all_phases_trains_what_each_phase_is_for_and_ends_with_metrics(
    train: Train, phase_job: MakeJob, storage: Path, image: ArtifactReference
) -> None:
    trained = artifact(train(phase_job(LATENTS, "Train", image)))
    aligned = artifact(train(phase_job(LATENTS, "AlignCrossModal", trained, {"steps": 2})))
    tuned = artifact(train(phase_job(LATENTS, "FineTune", aligned, {"steps": 4, "optimizer": {"learningRate": "1e-4"}})))

    assert changed(storage, trained, aligned) == changed(storage, aligned, tuned) == {TEMPORAL}
    temporal = [storage / bundle.path / TEMPORAL for bundle in (trained, aligned, tuned)]
    of_text = {name for name in load_file(temporal[0]) if is_of_text(name)}
    assert changed_tensors(*temporal[:2]) == of_text
    assert of_text < changed_tensors(*temporal[1:])
    assert all(not path.startswith(tuple(IMAGE)) for path in changed(storage, trained, tuned))

    manifests = [verify_bundle(storage / bundle.path) for bundle in (trained, aligned, tuned)]
    assert [(manifest.step, manifest.recipe.steps) for manifest in manifests] == [(3, 3), (2, 2), (4, 4)]
    assert [manifest.init_from for manifest in manifests] == [image.digest, trained.digest, aligned.digest]

    data = [{"reference": {"dataset": "squares", "version": "v1", "split": "HeldOut"}}]
    measure = {"artifact": tuned, "data": data, "evaluate": {"samples": 3, "samplingSteps": 2}}
    report = train(phase_job(LATENTS, "Evaluate", None, None, **measure))
    assert (report.reason, {result.metric for result in report.results}) == (
        Reason.COMPLETED,
        set(Metric) - {Metric.SCENARIO_PASS_RATIO, Metric.LANGUAGE_SCORE},
    ), report.message


def test_alignment_keeps_moments_and_averages_of_the_text_attention_alone(
    train: Train, phase_job: MakeJob, storage: Path, trained: ArtifactReference
) -> None:
    train(phase_job(LATENTS, "AlignCrossModal", trained))
    tensors, _ = checkpoint.load(storage / "runs/a/AlignCrossModal/checkpoints", 3)
    assert tensors["model"].keys() == tensors["ema"].keys()
    assert tensors["model"]
    assert all(is_of_text(name) for name in tensors["model"])


def test_an_image_model_is_adapted_before_it_gets_temporal_layers(
    train: Train, phase_job: MakeJob, storage: Path, image: ArtifactReference
) -> None:
    untouched = artifact(train(phase_job(LATENTS, "Adapt", image, {"steps": 0, "schedule": {}})))
    adapted = artifact(train(phase_job(LATENTS, "Adapt", image, workPath="runs/b/adapt")))
    assert {path.split("/")[0] for path in changed(storage, image, untouched)} == {TEMPORAL, CONFIG}
    assert {path.split("/")[0] for path in changed(storage, untouched, adapted)} == {"unet"}
    trained = artifact(train(phase_job(LATENTS, "Train", adapted)))
    assert changed(storage, adapted, trained) == {TEMPORAL}


def test_adapting_in_no_steps_leaves_the_image_model_as_it_is_and_in_some_changes_its_unet(
    train: Train, phase_job: MakeJob, storage: Path, image: ArtifactReference
) -> None:
    untouched = artifact(train(phase_job(ZERO, "Adapt", image, {"steps": 0, "schedule": {}})))
    adapted = artifact(train(phase_job(ZERO, "Adapt", image, workPath="runs/b/adapt")))
    assert changed(storage, image, untouched) == set()
    assert {path.split("/")[0] for path in changed(storage, image, adapted)} == {"unet"}


def test_videofusion_is_fine_tuned_from_its_bundle(train: Train, phase_job: MakeJob, storage: Path) -> None:
    trained = artifact(train(phase_job("VideoFusion", "Train")))
    tuned = artifact(train(phase_job("VideoFusion", "FineTune", trained)))
    assert changed(storage, trained, tuned) == {"base.safetensors", "residual.safetensors", "text.safetensors"}


WITH_SHARDS = [
    (LATENTS, "Train", 4),
    (LATENTS, "Adapt", 4),
    (LATENTS, "AlignCrossModal", 4),
    (LATENTS, "TrainInterpolation", 5),
    (ZERO, "Adapt", 4),
]


@pytest.mark.parametrize(
    ("family", "task", "frames", "cached"),
    [("VideoFusion", "Train", 4, False), (ZERO, "Train", 4, False), *((*one, cached) for one in WITH_SHARDS for cached in (False, True))],
)
def test_no_sharded_module_gives_pytorch_a_reason_to_warn(
    phase_job: MakeJob, storage: Path, begun: Any, family: str, task: str, frames: int, cached: bool
) -> None:
    """A loss that is a view makes it speak of wrong gradients."""
    after = {LATENTS: begun.trained, ZERO: begun.image if task == "Adapt" else None}.get(family)
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        learner = learner_of(phase_job(family, task, after, {"cacheLatents": cached}), storage, World())
        shard(learner.objective, torch.device("cpu"), 1)
        batch = Batch(
            frames=torch.zeros(2, frames, 16, 16, 3, dtype=torch.uint8), captions=["a", "b"], positions=range(2), names=["a", "b"]
        )
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            learner.objective(*learner.prepare(batch)).sum().backward()
    finally:
        dist.destroy_process_group()


@pytest.mark.parametrize("task", ["Adapt", "AlignCrossModal", "FineTune"])
def test_stopped_and_resumed_is_the_same_to_the_bit_as_never_stopped(
    train: Train, phase_job: MakeJob, trained: ArtifactReference, task: str
) -> None:
    job = phase_job(LATENTS, task, trained, {"steps": 4})
    assert (stopped := train(job, StopAfter(2))).reason is Reason.PREEMPTED, stopped.message
    whole = train(job.model_copy(update={"work_path": "runs/whole"}))
    assert artifact(train(job)).digest == artifact(whole).digest


@pytest.mark.parametrize("task", ["FineTune", "AlignCrossModal", "TrainInterpolation"])
def test_temporal_layers_that_there_are_not_cannot_be_gone_on_with(
    train: Train, phase_job: MakeJob, image: ArtifactReference, task: str
) -> None:
    data = [{"reference": {"dataset": "fast", "version": "v1"}}] if task == "TrainInterpolation" else None
    report = train(phase_job(LATENTS, task, image, **({"data": data} if data else {})))
    assert report.reason is Reason.INVALID_JOB
    assert f"it has no temporal layers, with which a {task} phase starts; put a Train phase before it" in report.message


OUT_OF_PLACE: dict[str, tuple[str, str, dict[str, Any], str]] = {
    "fine-tuning from scratch": ("VideoFusion", "FineTune", {}, "initFrom is missing; a job with task FineTune starts from"),
    "alignment from scratch": (LATENTS, "AlignCrossModal", {}, "initFrom is missing; a job with task AlignCrossModal starts from"),
    "adapting nothing": (ZERO, "Adapt", {}, "initFrom and recipe.backbone are missing"),
    "interpolation from scratch": (
        LATENTS,
        "TrainInterpolation",
        {},
        "initFrom is missing; a job with task TrainInterpolation starts from",
    ),
    "a decoder of nothing": (LATENTS, "FineTuneDecoder", {}, "initFrom and recipe.backbone are missing; a job with task FineTuneDecoder"),
    "interpolation of VideoFusion": ("VideoFusion", "TrainInterpolation", {}, "it is for models of family AlignYourLatents"),
    "a decoder of an image model": (ZERO, "FineTuneDecoder", {}, "it is for models of family AlignYourLatents"),
    "adapting VideoFusion": ("VideoFusion", "Adapt", {}, "task is Adapt; it is for models of family Text2VideoZero and AlignYourLatents"),
    "aligning an image model": (ZERO, "AlignCrossModal", {}, "task is AlignCrossModal; it is for models of family AlignYourLatents"),
    "fine-tuning in no steps": (ZERO, "FineTune", {"steps": 0}, r"recipe\.steps is 0"),
    "alignment in no steps": (LATENTS, "AlignCrossModal", {"steps": 0}, r"recipe\.steps is 0"),
}


@pytest.mark.parametrize("case", OUT_OF_PLACE)
def test_a_task_out_of_its_place_is_refused(phase_job: MakeJob, case: str) -> None:
    family, task, recipe, message = OUT_OF_PLACE[case]
    with pytest.raises(Failure, match=message) as caught:
        tasks.check(phase_job(family, task, None, recipe))
    assert caught.value.reason is Reason.INVALID_JOB


@pytest.mark.parametrize("task", ["FineTune", "Adapt", "AlignCrossModal", "TrainInterpolation", "FineTuneDecoder"])
def test_a_batch_that_the_processes_cannot_share_is_refused_in_every_task_that_trains(
    phase_job: MakeJob, trained: ArtifactReference, task: str
) -> None:
    with pytest.raises(Failure, match=r"globalBatchSize is 4; .* 3 x 1 x 1 = 3"):
        tasks.check(phase_job(LATENTS, task, trained, workers=3))
