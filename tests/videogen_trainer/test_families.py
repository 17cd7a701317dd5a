"""Align-Your-Latents and Text2Video-Zero from recipe to served video, in this process."""

from __future__ import annotations

import itertools
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from videogen_api.evaluation import Metric
from videogen_api.job import ArtifactReference, Job, Report
from videogen_api.training_run import Reason
from videogen_models.backbone_digest import folder_sha256
from videogen_models.backbone_folder import load_backbone
from videogen_models.bundle import load_model, verify_bundle
from videogen_models.latent_video import AlignYourLatentsModel
from videogen_models.video import decode_mp4
from videogen_serving.pipeline import Pipeline
from videogen_serving.request import Request
from videogen_serving.settings import Settings
from videogen_testing.attempted import WORK, artifact
from videogen_testing.layer_types import computed_in
from videogen_testing.pixels import SEEN, apart
from videogen_testing.stopping import StopAfter
from videogen_trainer import checkpoint, tasks
from videogen_trainer.distributed import World
from videogen_trainer.families import Learner, learner_of
from videogen_trainer.progress import ProgressReporter

FAMILIES = ["AlignYourLatents", "Text2VideoZero"]
Train = Callable[..., Report]


@pytest.fixture
def family_job(make_job: Callable[..., Job]) -> Callable[..., Job]:
    def make(family: str, recipe: dict[str, Any] | None = None, **fields: Any) -> Job:
        return make_job({"videoFusion": None, **(recipe or {})}, model={"family": family, "version": "1.0.0"}, **fields)

    return make


@pytest.fixture
def storage(begun: Any, tmp_path: Path) -> Path:
    """With the bundles `image` and `made`."""
    return Path(shutil.copytree(begun.folder, tmp_path / "storage"))


@pytest.fixture
def made(image: ArtifactReference, trained: ArtifactReference) -> dict[str, ArtifactReference]:
    """A bundle of each family."""
    return {"AlignYourLatents": trained, "Text2VideoZero": image}


def pipeline_of(storage: Path, reference: ArtifactReference) -> Pipeline:
    settings = Settings(release="r", bundle_path=storage / reference.path, bundle_digest=reference.digest, sampling_steps=3)
    clock = itertools.count()
    return Pipeline.load(settings, clock=lambda: next(clock) / 1000, new_seed=lambda: 7)


def image_weights(folder: Path) -> dict[str, Tensor]:
    return load_backbone(folder).state_dict()


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> list[str]:
    """Names of the tensors that are equal to the bit."""
    assert one.keys() == other.keys()
    return [name for name, tensor in one.items() if torch.equal(tensor, other[name])]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_recipe_becomes_a_bundle_that_is_served_and_always_draws_the_same(
    train: Train, family_job: Callable[..., Job], storage: Path, family: str
) -> None:
    report = train(family_job(family, {"steps": 2}))
    assert (report.reason, report.last_step) == (Reason.COMPLETED, 2), report.message
    manifest = verify_bundle(storage / artifact(report).path, artifact(report).digest)
    assert (manifest.model.family, manifest.step) == (family, 2)
    pipeline = pipeline_of(storage, artifact(report))
    pipeline.warm_up()
    result = pipeline.generate(Request(prompt="a square", seed=1))
    assert decode_mp4(result.video).shape == (4, 16, 16, 3)
    assert (result.metadata.frames, result.metadata.frame_rate, result.metadata.model.family) == (4, 8, family)
    assert pipeline_of(storage, artifact(report)).generate(Request(prompt="a square", seed=1)).video == result.video
    assert apart(decode_mp4(pipeline.generate(Request(prompt="a square", seed=2)).video), decode_mp4(result.video)) > SEEN


@pytest.mark.parametrize("family", FAMILIES)
def test_a_bundle_is_evaluated(
    train: Train, family_job: Callable[..., Job], storage: Path, made: dict[str, ArtifactReference], family: str
) -> None:
    trained = made[family]
    held_out = [{"reference": {"dataset": "squares", "version": "v1", "split": "HeldOut"}}]
    evaluate = {"samples": 3, "samplingSteps": 2}
    job = family_job(family, task="Evaluate", artifact=trained, data=held_out, evaluate=evaluate, workPath="runs/next/validate")
    report = train(job)
    assert (report.reason, report.artifact) == (Reason.COMPLETED, trained), report.message
    assert {result.metric for result in report.results} == set(Metric) - {Metric.SCENARIO_PASS_RATIO, Metric.LANGUAGE_SCORE}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_clip_depends_neither_on_its_batch_nor_on_its_place_in_it(storage: Path, made: dict[str, ArtifactReference], family: str) -> None:
    model = load_model(storage / made[family].path)
    together, alone = model.generate(["x", "a square"], [1, 2], 2), model.generate(["a square"], [2], 2)
    assert abs(together[1].astype(int) - alone[0]).max() <= 1  # kernels round differently for another batch


@pytest.mark.parametrize("family", FAMILIES)
def test_stopped_and_resumed_is_the_same_to_the_bit_as_never_stopped(
    train: Train, family_job: Callable[..., Job], storage: Path, family: str
) -> None:
    job = family_job(family, {"steps": 4, "globalBatchSize": 2})
    stopped = train(job, StopAfter(3))
    assert (stopped.reason, stopped.last_step) == (Reason.PREEMPTED, 3)
    resumed = train(job)
    assert resumed.resumed_from_step == 3
    curve = (storage / WORK / "curve.jsonl").read_bytes()
    shutil.rmtree(storage / "runs")
    assert artifact(train(job)) == artifact(resumed)
    assert (storage / WORK / "curve.jsonl").read_bytes() == curve


@pytest.mark.parametrize("family", FAMILIES)
def test_the_digest_does_not_depend_on_where_the_storage_is(
    train: Train,
    family_job: Callable[..., Job],
    storage: Path,
    silent: ProgressReporter,
    tmp_path_factory: pytest.TempPathFactory,
    image: ArtifactReference,
    family: str,
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "storage"
    shutil.copytree(storage, elsewhere)
    job = family_job(family, {"steps": 1}, initFrom=image, run="next", workPath="runs/next/train")
    there = tasks.attempt(job, elsewhere, {}, silent, lambda: False)
    assert artifact(train(job)) == artifact(there)


def test_the_image_model_stays_as_it_is_while_temporal_layers_learn(
    train: Train, family_job: Callable[..., Job], storage: Path, image: ArtifactReference
) -> None:
    begun = family_job("AlignYourLatents", {"steps": 3}, initFrom=image, workPath="runs/next/train")
    before = learner_of(begun, storage, World()).model
    assert isinstance(before, AlignYourLatentsModel)
    video = artifact(train(begun))
    assert verify_bundle(storage / video.path).init_from == image.digest
    weights = image_weights(storage / image.path)
    assert same(weights, image_weights(storage / video.path)) == list(weights)
    after = load_model(storage / video.path)
    assert isinstance(after, AlignYourLatentsModel)
    layers = before.video.temporal.state_dict()
    kept = same(layers, after.video.temporal.state_dict())
    assert "rate.weight" in kept
    assert [name for name in kept if name.endswith(("convolutions.0.second.weight", "attentions.0.output.weight"))] == []


def checkpointed(storage: Path, work: str) -> dict[str, dict[str, Tensor]]:
    return checkpoint.load(storage / work / "checkpoints", checkpoint.steps(storage / work / "checkpoints")[0])[0]


def test_checkpoints_hold_what_learns_and_nothing_else(train: Train, family_job: Callable[..., Job], storage: Path) -> None:
    once = {"steps": 1, "globalBatchSize": 2}
    image = artifact(train(family_job("Text2VideoZero", once)))
    assert {name.split(".")[1] for name in checkpointed(storage, WORK)["model"]} == {"unet", "vae", "text"}
    train(family_job("Text2VideoZero", once, initFrom=image, workPath="runs/adapt/train"))
    assert {name.split(".")[1] for name in checkpointed(storage, "runs/adapt/train")["model"]} == {"unet"}
    train(family_job("AlignYourLatents", once, initFrom=image, workPath="runs/video/train"))
    saved = checkpointed(storage, "runs/video/train")
    for names in (saved["model"], saved["ema"], saved["optimizer"]):
        assert {".".join(name.split(".")[:2]) for name in names} == {"video.temporal"}


def test_a_given_image_model_learns_in_its_unet_alone(
    train: Train, family_job: Callable[..., Job], storage: Path, image: ArtifactReference
) -> None:
    adapted = artifact(train(family_job("Text2VideoZero", {"steps": 2}, initFrom=image, workPath="runs/next/train")))
    weights = image_weights(storage / image.path)
    kept = same(weights, image_weights(storage / adapted.path))
    assert kept == [name for name in weights if not name.startswith("unet.")]


def test_without_steps_the_bundle_is_the_image_model_as_it_is(train: Train, family_job: Callable[..., Job], storage: Path) -> None:
    report = train(family_job("Text2VideoZero", {"steps": 0}))
    assert (report.reason, report.last_step) == (Reason.COMPLETED, 0)
    job = family_job("Text2VideoZero", {"steps": 0}, initFrom=artifact(report), workPath="runs/next/train")
    again = train(job)
    weights = image_weights(storage / artifact(report).path)
    assert same(weights, image_weights(storage / artifact(again).path)) == list(weights)
    assert pipeline_of(storage, artifact(again)).generate(Request(prompt="x", seed=1)).video
    assert checkpoint.steps(storage / WORK / "checkpoints") == []


@pytest.mark.parametrize("family", FAMILIES)
def test_every_parameter_that_learns_takes_part_in_a_step(family_job: Callable[..., Job], storage: Path, family: str) -> None:
    job = family_job(family)
    learner = learner_of(job, storage, World())
    losses(learner, job, storage).sum().backward()
    assert [name for name, parameter in learner.learned().items() if parameter.grad is None] == []  # others would wait for their gradients


def losses(learner: Learner, job: Job, storage: Path) -> Tensor:
    from videogen_trainer.data import Batches, open_mixture

    batches = Batches(open_mixture(storage, job), job.recipe, 0, 1)
    found: Tensor = learner.objective(*learner.prepare(batches.get(0, 0)))
    batches.close()
    return found


@pytest.mark.parametrize("family", FAMILIES)
def test_the_loss_falls(train: Train, family_job: Callable[..., Job], storage: Path, image: ArtifactReference, family: str) -> None:
    recipe = {"steps": 24, "checkpoints": {"everySteps": 24}, "optimizer": {"learningRate": "5e-3"}}
    report = train(family_job(family, recipe, initFrom=image, workPath="runs/next/train"))
    assert report.reason is Reason.COMPLETED, report.message
    lines = [json.loads(line) for line in (storage / "runs/next/train/curve.jsonl").read_text().splitlines()]
    terms = {"AlignYourLatents": {"denoising", "consistency"}, "Text2VideoZero": {"denoising"}}[family]
    assert lines[0].keys() == {"step", "loss", "gradient", "rate"} | terms
    assert sum(line["loss"] for line in lines[-6:]) < 0.8 * sum(line["loss"] for line in lines[:6])


BAD: dict[str, tuple[str, dict[str, Any], str]] = {
    "no steps": ("AlignYourLatents", {"steps": 0}, r"recipe\.steps is 0"),
    "no steps of VideoFusion": ("VideoFusion", {"steps": 0}, r"recipe\.steps is 0"),
    "another family's block": ("Text2VideoZero", {"alignYourLatents": {}}, r"recipe\.alignYourLatents is set"),
    "VideoFusion with a block": ("VideoFusion", {"text2VideoZero": {}}, r"recipe\.text2VideoZero is set"),
    "VideoFusion's block": ("Text2VideoZero", {"videoFusion": {"baseLearningRateScale": "1"}}, r"recipe\.videoFusion is set"),
    "a backbone of VideoFusion": ("VideoFusion", {"backbone": {"path": "x", "digest": "sha256:" + "0" * 64}}, r"recipe\.backbone is set"),
    "T' after T": ("Text2VideoZero", {"text2VideoZero": {"warpAt": 950}}, r"recipe\.text2VideoZero\.warpAt is 950"),
    "guidance by no context": ("AlignYourLatents", {"alignYourLatents": {"contextGuidance": "2"}}, "needs contextFrames: 1 or 2"),
    "no frame but the context": (
        "AlignYourLatents",
        {"frames": 2, "alignYourLatents": {"contextFrames": 2}},
        "contextFrames is 2, recipe.frames 2; it must be less",
    ),
    "clips that are not longer": (
        "AlignYourLatents",
        {"frames": 4, "alignYourLatents": {"clipFrames": 4}},
        "clipFrames is 4, recipe.frames 4; it must be more",
    ),
    "frames that the U-Net cannot halve": (
        "Text2VideoZero",
        {"resolution": {"height": 16, "width": 24}, "architecture": "Small"},
        "multiples",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_recipe_that_does_not_fit_its_family_is_refused(family_job: Callable[..., Job], storage: Path, case: str) -> None:
    family, recipe, message = BAD[case]
    job = family_job(family, recipe)
    with pytest.raises(tasks.Failure, match=message) as caught:
        tasks.check(job)
        learner_of(job, storage, World())
    assert caught.value.reason is Reason.INVALID_JOB


@pytest.mark.parametrize("family, accepted", [("VideoFusion", "VideoFusion"), ("Text2VideoZero", "Text2VideoZero")])
def test_weights_of_another_family_are_refused_by_name(
    train: Train, family_job: Callable[..., Job], trained: ArtifactReference, family: str, accepted: str
) -> None:
    report = train(family_job(family, initFrom=trained, workPath="runs/next/train"))
    assert report.reason is Reason.INVALID_JOB
    assert f"is a model of family AlignYourLatents; a run of family {family} accepts {accepted}" in report.message


def test_temporal_layers_learn_on_from_those_of_a_bundle(
    train: Train, family_job: Callable[..., Job], storage: Path, trained: ArtifactReference
) -> None:
    job = family_job("AlignYourLatents", {"seed": 9}, initFrom=trained, workPath="runs/next/train")
    begun, loaded = learner_of(job, storage, World()).model.state_dict(), load_model(storage / trained.path).state_dict()
    assert same(begun, loaded) == list(begun)
    other = train(job.model_copy(update={"recipe": job.recipe.model_copy(update={"architecture": "Small"})}))
    assert (other.reason, "architecture must be the same" in other.message) == (Reason.INVALID_JOB, True)


@pytest.fixture
def mounted(storage: Path, image: ArtifactReference) -> Path:
    """A pretrained image model as a user puts it into the storage."""
    path = image.path
    for part in ("unet", "vae", "text_encoder", "tokenizer", "scheduler"):
        shutil.copytree(storage / path / part, storage / "raw/image-model" / part)
    (storage / "raw/image-model/.gitattributes").touch()
    (storage / "raw/image-model/README.md").touch()
    return storage / "raw/image-model"


@pytest.mark.parametrize("family", FAMILIES)
def test_training_begins_with_a_mounted_image_model(
    train: Train, family_job: Callable[..., Job], storage: Path, mounted: Path, family: str
) -> None:
    recipe = {"steps": 2, "seed": 4, "backbone": {"path": "raw/image-model", "digest": "sha256:" + folder_sha256(mounted)}}
    report = train(family_job(family, recipe, workPath="runs/next/train"))
    weights = image_weights(mounted)
    kept = same(weights, image_weights(storage / artifact(report).path))
    assert kept == [name for name in weights if family == "AlignYourLatents" or not name.startswith("unet.")]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_second_train_phase_goes_on_from_the_firsts_bundle_and_not_from_the_mounted_model(
    train: Train, family_job: Callable[..., Job], storage: Path, mounted: Path, family: str
) -> None:
    recipe = {"steps": 2, "backbone": {"path": "raw/image-model", "digest": "sha256:" + folder_sha256(mounted)}}
    first = artifact(train(family_job(family, recipe, workPath="runs/first/train")))
    job = family_job(family, recipe, initFrom=first, workPath="runs/second/train")
    tasks.check(job)
    begun, made = learner_of(job, storage, World()).model.state_dict(), load_model(storage / first.path).state_dict()
    assert same(begun, made) == list(begun)


def test_a_mounted_image_model_draws_frames_of_the_recipes_size(
    train: Train, family_job: Callable[..., Job], storage: Path, mounted: Path
) -> None:
    recipe = {
        "backbone": {"path": "raw/image-model", "digest": "sha256:" + folder_sha256(mounted)},
        "resolution": {"height": 24, "width": 32},
    }
    model = learner_of(family_job("AlignYourLatents", recipe), storage, World()).model
    assert model.generate(["x"], [1], 2).shape == (1, 4, 24, 32, 3)
    wrong = family_job("AlignYourLatents", recipe | {"resolution": {"height": 16, "width": 24}, "architecture": "Paper"})
    with pytest.raises(tasks.Failure, match="cannot be split into attention heads"):
        learner_of(wrong, storage, World())


def add_a_tensor(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    file = folder / "unet/diffusion_pytorch_model.safetensors"
    save_file(load_file(file) | {"foreign.weight": torch.zeros(1)}, file, {"format": "pt"})


def leave_out_a_tensor(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    file = folder / "vae/diffusion_pytorch_model.safetensors"
    weights = load_file(file)
    del weights["encoder.conv_in.weight"]
    save_file(weights, file, {"format": "pt"})


def not_a_number(folder: Path) -> None:
    path = folder / "vae/diffusion_pytorch_model.safetensors"
    save_file({**(weights := load_file(path)), "encoder.conv_in.bias": weights["encoder.conv_in.bias"] * torch.nan}, path)


HARMS: dict[str, tuple[Callable[[Path], object], str]] = {
    "a foreign tensor": (add_a_tensor, r"image-model/unet: .*foreign\.weight"),
    "a missing tensor": (leave_out_a_tensor, r"image-model/vae: .*encoder\.conv_in\.weight"),
    "a missing part": (lambda folder: shutil.rmtree(folder / "vae"), "image-model/vae is missing"),
    "a pickle beside the weights": (lambda folder: (folder / "unet/weights.bin").touch(), r"unet/weights\.bin is not accepted"),
    "a pickle in place of the weights": (
        lambda folder: (folder / "vae/diffusion_pytorch_model.safetensors").rename(folder / "vae/diffusion_pytorch_model.ckpt"),
        r"vae/diffusion_pytorch_model\.ckpt is not accepted",
    ),
    "no weights": (lambda folder: (folder / "vae/diffusion_pytorch_model.safetensors").unlink(), "image-model/vae has no safetensors file"),
    "a weight that is no number": (
        not_a_number,
        r"vae/diffusion_pytorch_model\.safetensors: encoder\.conv_in\.bias has values that are not",
    ),
}


@pytest.mark.parametrize("harm", HARMS)
def test_a_mounted_image_model_that_is_none_is_refused(train: Train, family_job: Callable[..., Job], mounted: Path, harm: str) -> None:
    HARMS[harm][0](mounted)
    try:
        found = folder_sha256(mounted)
    except ValueError:
        found = "0" * 64
    recipe = {"steps": 1, "backbone": {"path": "raw/image-model", "digest": f"sha256:{found}"}}
    report = train(family_job("Text2VideoZero", recipe, workPath="runs/next/train"))
    assert report.reason is Reason.ARTIFACT_INVALID
    assert re.search(HARMS[harm][1], report.message), report.message


def test_another_image_model_than_the_recipe_says_is_refused_with_its_sum(
    train: Train, family_job: Callable[..., Job], mounted: Path
) -> None:
    recipe = {"steps": 1, "backbone": {"path": "raw/image-model", "digest": "sha256:" + "0" * 64}}
    report = train(family_job("Text2VideoZero", recipe, workPath="runs/next/train"))
    assert report.reason is Reason.ARTIFACT_INVALID
    assert f"has sha256:{folder_sha256(mounted)}" in report.message


@pytest.mark.parametrize("family", FAMILIES)
def test_mixed_precision_learns_what_full_precision_learns(
    train: Train, family_job: Callable[..., Job], storage: Path, family: str
) -> None:
    curves = []
    for kind in ("FP32", "BF16"):
        with computed_in() as types:
            report = train(family_job(family, {"precision": kind, "steps": 1}, workPath=f"runs/{kind}/train"))
        assert (torch.bfloat16 in types) == (kind == "BF16")
        assert report.reason is Reason.COMPLETED, report.message
        curves.append([json.loads(line)["loss"] for line in (storage / f"runs/{kind}/train/curve.jsonl").read_text().splitlines()])
        assert {tensor.dtype for tensor in image_weights(storage / artifact(report).path).values()} == {torch.float32}
    assert curves[1] == pytest.approx(curves[0], rel=0.05)
