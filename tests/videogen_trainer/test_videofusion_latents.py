"""VideoFusion in the latents of a frozen autoencoder: where it comes from, that it stays, and what is refused."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from videogen_api.evaluation import Metric
from videogen_api.job import ArtifactReference, Job, Report
from videogen_api.training_run import Reason, Split
from videogen_models.autoencoder import encode, load_autoencoder
from videogen_models.backbone_folder import PARTS, folder_sha256
from videogen_models.bundle import load_model
from videogen_models.sampling import from_pixels
from videogen_testing.stopping import StopAfter
from videogen_trainer import tasks
from videogen_trainer.data import Batches, open_mixture
from videogen_trainer.distributed import World
from videogen_trainer.families import learner_of

LATENT = {"videoFusion": {"baseLearningRateScale": "1", "space": "Latent"}}
Train = Callable[..., Report]
Make = Callable[..., Job]


def artifact(report: Report) -> ArtifactReference:
    assert report.artifact, report.message
    return report.artifact


@pytest.fixture
def image(train: Train, make_job: Make) -> ArtifactReference:
    """The bundle of an image model, as it is."""
    model = {"type": "text2video-zero", "version": "1.0.0"}
    return artifact(train(make_job({"steps": 0, "schedule": {}, "videoFusion": {}}, model=model, workPath="runs/image/train")))


@pytest.fixture
def latent_job(make_job: Make, image: ArtifactReference) -> Make:
    """A Train job in the latents of that image model."""

    def make(recipe: dict[str, Any] | None = None, **fields: Any) -> Job:
        return make_job(LATENT | (recipe or {}), **({"initFrom": image} | fields))

    return make


def autoencoder_of(storage: Path, reference: ArtifactReference) -> dict[str, Tensor]:
    return load_autoencoder(storage / reference.path).state_dict()


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def test_the_bundle_holds_the_autoencoder_as_it_was_and_is_evaluated(
    train: Train, latent_job: Make, make_job: Make, image: ArtifactReference, storage: Path
) -> None:
    trained = artifact(train(latent_job()))
    assert equal(autoencoder_of(storage, trained), autoencoder_of(storage, image))
    model = load_model(storage / trained.path, trained.digest)
    assert model.generate(["a square"], [1], 2).shape == (1, 4, 16, 16, 3)
    held_out = [{"reference": {"dataset": "squares", "version": "v1", "split": "HeldOut"}}]
    job = make_job(LATENT, task="Evaluate", artifact=trained, data=held_out, evaluate={"samples": 3, "samplingSteps": 2})
    tasks.check(job)
    report = train(job)
    assert {result.metric for result in report.results} == set(Metric) - {Metric.SCENARIO_PASS_RATIO, Metric.LANGUAGE_SCORE}, report.message


def test_the_generators_learn_from_the_latents_of_the_frames(latent_job: Make, storage: Path) -> None:
    job = latent_job()
    learner = learner_of(job, storage, World())
    mixture = open_mixture(storage, job, verified=True)
    batches = Batches(mixture, job.recipe, 0, 1)
    batch = batches.get(0, 0)
    batches.close()
    clean, _, drawn = learner.prepare(batch)
    vae = learner.model.get_submodule("vae")
    assert clean.shape == (4, 4, 4, 4, 4)
    assert drawn.base.shape == (4, 4, 4, 4)
    assert torch.equal(clean, encode(vae, from_pixels(batch.frames)))  # type: ignore[arg-type]
    assert not vae.training
    assert [name for name in learner.learned() if name.startswith("vae.")] == []


def test_the_loss_falls(train: Train, latent_job: Make, storage: Path) -> None:
    report = train(latent_job({"steps": 16, "optimizer": {"learningRate": "2e-3"}, "checkpoints": {"everySteps": 16}}))
    assert report.reason is Reason.COMPLETED, report.message
    lines = (storage / "runs/demo-01234567/train/curve.jsonl").read_text().splitlines()
    losses = [float(line.split('"loss": ')[1].split(",")[0]) for line in lines]
    assert sum(losses[-4:]) < 0.7 * sum(losses[:4])


def test_stopped_and_resumed_is_the_same_to_the_bit_as_never_stopped(train: Train, latent_job: Make, storage: Path) -> None:
    job = latent_job({"steps": 5})
    assert train(job, StopAfter(3)).reason is Reason.PREEMPTED
    resumed = train(job)
    assert resumed.resumed_from_step == 3
    shutil.rmtree(storage / "runs/demo-01234567")
    assert artifact(train(job)) == artifact(resumed)


def test_a_bundle_in_latents_is_gone_on_from(train: Train, latent_job: Make, storage: Path) -> None:
    first = artifact(train(latent_job()))
    begun = learner_of(latent_job(initFrom=first), storage, World()).model.state_dict()
    assert equal(begun, load_model(storage / first.path).state_dict())


@pytest.fixture
def mounted(image: ArtifactReference, storage: Path) -> Path:
    """A pretrained image model as a user puts it into the storage."""
    for part in PARTS:
        shutil.copytree(storage / image.path / part, storage / "raw/image-model" / part)
    return storage / "raw/image-model"


def test_a_mounted_image_model_gives_its_autoencoder(train: Train, latent_job: Make, storage: Path, mounted: Path) -> None:
    backbone = {"path": "raw/image-model", "sha256": folder_sha256(mounted)}
    job = latent_job({"backbone": backbone}, initFrom=None)
    tasks.check(job)
    trained = artifact(train(job))
    assert equal(autoencoder_of(storage, trained), load_autoencoder(mounted).state_dict())
    wrong = train(latent_job({"backbone": backbone | {"sha256": "0" * 64}}, initFrom=None, workPath="runs/next/train"))
    assert (wrong.reason, f"has {backbone['sha256']}" in wrong.message) == (Reason.ARTIFACT_INVALID, True)
    tasks.check(latent_job({"backbone": backbone}, initFrom=trained))  # a second Train phase begins with the first's bundle
    again = train(latent_job({"backbone": backbone, "seed": 5}, initFrom=trained, workPath="runs/second/train"))
    assert equal(autoencoder_of(storage, artifact(again)), load_autoencoder(mounted).state_dict())


def test_a_search_of_the_share_works_in_latents(train: Train, latent_job: Make) -> None:
    tune = {
        "parameter": "BaseNoiseShare",
        "values": ["0.65", "0.75"],
        "steps": 1,
        "objective": "ArtefactRate",
        "samples": 2,
        "samplingSteps": 1,
    }
    data = [{"reference": {"dataset": "squares", "version": "v1", "split": split}} for split in Split]
    job = latent_job(task="Tune", tune=tune, data=data, workPath="runs/demo-01234567/tune")
    tasks.check(job)
    report = train(job)
    assert [trial.value for trial in report.trials] == ["0.65", "0.75"], report.message


def test_a_space_without_an_autoencoder_is_refused(make_job: Make) -> None:
    with pytest.raises(tasks.Failure, match="needs an autoencoder") as caught:
        tasks.check(make_job(LATENT))
    assert caught.value.reason is Reason.INVALID_JOB


@pytest.mark.parametrize("first, then", [("Pixel", "Latent"), ("Latent", "Pixel")])
def test_weights_of_the_other_space_are_refused(train: Train, latent_job: Make, make_job: Make, first: str, then: str) -> None:
    made = artifact(train(latent_job() if first == "Latent" else make_job()))
    block = {"videoFusion": {"space": then}}
    report = train(make_job(block, initFrom=made, workPath="runs/next/train"))
    assert report.reason is Reason.INVALID_JOB
    assert f"works in space {first}, the recipe says recipe.videoFusion.space {then}" in report.message


def test_an_image_model_alone_is_nothing_to_fine_tune(train: Train, latent_job: Make) -> None:
    report = train(latent_job(task="FineTune"))
    assert report.reason is Reason.INVALID_JOB
    assert "it has an autoencoder and no generators, with which a FineTune phase goes on" in report.message
    trained = artifact(train(latent_job()))
    assert artifact(train(latent_job(task="FineTune", initFrom=trained, workPath="runs/next/fine-tune")))
