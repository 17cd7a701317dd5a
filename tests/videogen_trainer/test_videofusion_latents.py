"""VideoFusion in the latents of a frozen autoencoder: where it comes from, that it stays, and what is refused."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from videogen_api.evaluation import Metric
from videogen_api.job import ArtifactReference, Job, Report
from videogen_api.training_run import Reason, Split
from videogen_models.autoencoder import encode, load_autoencoder
from videogen_models.backbone_digest import PARTS, folder_sha256
from videogen_models.bundle import load_model
from videogen_models.sampling import from_pixels
from videogen_testing.attempted import artifact
from videogen_testing.stopping import StopAfter
from videogen_trainer import tasks
from videogen_trainer.data import Batches, open_mixture
from videogen_trainer.distributed import World
from videogen_trainer.families import learner_of
from videogen_trainer.progress import ProgressReporter

LATENT = {"videoFusion": {"baseLearningRateScale": "1", "space": "Latent"}}
Train = Callable[..., Report]
Make = Callable[..., Job]


@dataclass(frozen=True)
class Made:
    """A storage with the bundle of an image model, as it is, and one in its latents, of four steps."""

    folder: Path
    image: ArtifactReference
    trained: ArtifactReference


@pytest.fixture(scope="module")
def made(begun: Any, latent_job: Make, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Made once; tests work on copies."""
    torch.set_num_threads(1)
    folder = Path(shutil.copytree(begun.folder, tmp_path_factory.mktemp("made"), dirs_exist_ok=True))
    silent = ProgressReporter(None, 5, clock=lambda: 0.0, now=lambda: datetime(2026, 1, 1, tzinfo=UTC))
    trained = tasks.attempt(latent_job(workPath="runs/made/train"), folder, {}, silent, lambda: False)
    return Made(folder, begun.image, artifact(trained))


@pytest.fixture
def storage(made: Made, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made.folder, tmp_path / "storage"))


@pytest.fixture
def image(made: Made) -> ArtifactReference:
    return made.image


@pytest.fixture(scope="module")
def latent_job(make_job: Make, begun: Any) -> Make:
    """A Train job in the latents of that image model."""

    def make(recipe: dict[str, Any] | None = None, **fields: Any) -> Job:
        return make_job(LATENT | (recipe or {}), **({"initFrom": begun.image} | fields))

    return make


def autoencoder_of(storage: Path, reference: ArtifactReference) -> dict[str, Tensor]:
    return load_autoencoder(storage / reference.path).state_dict()


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def test_the_bundle_holds_the_autoencoder_as_it_was_and_is_evaluated(train: Train, make_job: Make, made: Made, storage: Path) -> None:
    trained = made.trained
    assert equal(autoencoder_of(storage, trained), autoencoder_of(storage, made.image))
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
    mixture = open_mixture(storage, job)
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


def test_stopped_and_resumed_is_the_same_to_the_bit_as_never_stopped(train: Train, latent_job: Make, made: Made) -> None:
    assert train(latent_job(), StopAfter(3)).reason is Reason.PREEMPTED
    resumed = train(latent_job())
    assert resumed.resumed_from_step == 3
    assert artifact(resumed) == made.trained


def test_a_bundle_in_latents_is_gone_on_from(latent_job: Make, made: Made) -> None:
    first = learner_of(latent_job(initFrom=made.trained), made.folder, World()).model.state_dict()
    assert equal(first, load_model(made.folder / made.trained.path).state_dict())


@pytest.fixture
def mounted(image: ArtifactReference, storage: Path) -> Path:
    """A pretrained image model as a user puts it into the storage."""
    for part in PARTS:
        shutil.copytree(storage / image.path / part, storage / "raw/image-model" / part)
    return storage / "raw/image-model"


@pytest.mark.parametrize(
    "first, named, scale", [("image", {}, 1.0), ("trained", {}, 0.1), ("image", {"baseLearningRateScale": "0.1"}, 0.1)]
)
def test_the_base_generator_learns_slowly_only_where_it_is_pretrained_or_a_recipe_says_so(
    made: Made, make_job: Make, storage: Path, first: str, named: dict[str, str], scale: float
) -> None:
    """Of an image model it takes the autoencoder alone."""
    job = make_job({"videoFusion": {"space": "Latent"} | named}, initFrom=getattr(made, first))
    assert learner_of(job, storage, World()).slow_scale == scale


def test_a_mounted_image_model_gives_its_autoencoder(train: Train, latent_job: Make, storage: Path, mounted: Path) -> None:
    backbone = {"path": "raw/image-model", "digest": "sha256:" + folder_sha256(mounted)}
    job = latent_job({"backbone": backbone}, initFrom=None)
    tasks.check(job)
    trained = artifact(train(job))
    assert equal(autoencoder_of(storage, trained), load_autoencoder(mounted).state_dict())
    wrong = train(latent_job({"backbone": backbone | {"digest": "sha256:" + "0" * 64}}, initFrom=None, workPath="runs/next/train"))
    assert (wrong.reason, f"has {backbone['digest']}" in wrong.message) == (Reason.ARTIFACT_INVALID, True)
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
def test_weights_of_the_other_space_are_refused(train: Train, made: Made, make_job: Make, first: str, then: str) -> None:
    weights = made.trained if first == "Latent" else artifact(train(make_job()))
    block = {"videoFusion": {"space": then}}
    report = train(make_job(block, initFrom=weights, workPath="runs/next/train"))
    assert report.reason is Reason.INVALID_JOB
    assert f"works in space {first}, the recipe says recipe.videoFusion.space {then}" in report.message


def test_an_image_model_alone_is_nothing_to_fine_tune(train: Train, latent_job: Make, made: Made) -> None:
    report = train(latent_job(task="FineTune"))
    assert report.reason is Reason.INVALID_JOB
    assert "it has an autoencoder and no generators, with which a FineTune phase starts" in report.message
    assert artifact(train(latent_job(task="FineTune", initFrom=made.trained, workPath="runs/next/fine-tune")))
