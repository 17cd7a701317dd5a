"""Weights of the denoising error and offset noise, against formulas that are written down a second time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler
from torch import Tensor
from torch.nn.functional import mse_loss

from videogen_api.job import Job, Report
from videogen_api.recipe import Architecture, Recipe, Resolution
from videogen_api.training_run import Reason
from videogen_models.image_backbone import SCHEDULE
from videogen_models.networks import model_config
from videogen_models.noise import mix
from videogen_models.text import tokenize
from videogen_models.videofusion import VideoFusionModel
from videogen_testing.attempted import artifact
from videogen_trainer import tasks
from videogen_trainer.data import Batch
from videogen_trainer.diffusion_loss import denoising_loss, noise_weights, velocity_weights, with_offset
from videogen_trainer.distributed import World
from videogen_trainer.families import Learner, align_your_latents, learner_of, text2video_zero
from videogen_trainer.objective import Objective, draw
from videogen_trainer.progress import ProgressReporter

KINDS = ["epsilon", "v_prediction"]
IMAGE_BASED = ["AlignYourLatents", "Text2VideoZero"]
TIMESTEPS = torch.tensor([0, 100, 400, 999])


def scheduler(kind: str) -> Any:
    return DDIMScheduler.from_config(SCHEDULE | {"prediction_type": kind})


def levels() -> np.ndarray[Any, np.dtype[np.float64]]:
    """alpha^_t of Stable Diffusion, as its authors define it."""
    betas = np.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=np.float64) ** 2
    return np.cumprod(1 - betas)


def expected_weights(kind: str, gamma: float, timesteps: Tensor) -> list[float]:
    """min(SNR, gamma) / SNR, or / (SNR + 1)."""
    ratios = [float(level / (1 - level)) for level in levels()[timesteps.numpy()]]
    return [min(ratio, gamma) / (ratio if kind == "epsilon" else ratio + 1) for ratio in ratios]


@pytest.mark.parametrize("gamma", [0.1, 1.0, 5.0])
@pytest.mark.parametrize("kind", KINDS)
def test_each_clip_counts_as_min_snr_says(kind: str, gamma: float) -> None:
    torch.manual_seed(0)
    predicted, clean, noise = torch.randn(3, 4, 2, 4, 3, 3)
    a, b = (torch.from_numpy(root[TIMESTEPS.numpy()]).reshape(4, 1, 1, 1, 1) for root in (levels() ** 0.5, (1 - levels()) ** 0.5))
    wanted = noise if kind == "epsilon" else a * noise - b * clean
    errors = (predicted - wanted).square().mean(dim=(1, 2, 3, 4))
    weights = expected_weights(kind, gamma, TIMESTEPS)
    expected = sum(weight * float(error) for weight, error in zip(weights, errors, strict=True)) / 4
    found = denoising_loss(scheduler(kind), predicted, clean, noise, TIMESTEPS, gamma)
    assert found.item() == pytest.approx(expected, rel=1e-5)
    assert found.item() != pytest.approx(float(errors.mean()), rel=1e-2)


@pytest.mark.parametrize("kind", KINDS)
def test_without_gamma_the_loss_is_the_mean_squared_error_to_the_bit(kind: str) -> None:
    torch.manual_seed(0)
    predicted, clean, noise = torch.randn(3, 4, 2, 4, 3, 3)
    given = scheduler(kind)
    wanted = noise if kind == "epsilon" else given.get_velocity(clean, noise, TIMESTEPS)
    assert torch.equal(denoising_loss(given, predicted, clean, noise, TIMESTEPS), mse_loss(predicted, wanted))


def test_weights_are_numbers_at_the_ends_of_the_diffusion() -> None:
    ends = torch.tensor([0.0, 1.0])
    assert noise_weights(ends, 5.0).tolist() == [1.0, 0.0]
    assert velocity_weights(ends, 5.0).tolist() == [0.0, 0.0]


def test_an_offset_is_one_number_a_channel_for_all_pixels_and_frames() -> None:
    noise = torch.randn(3, 4, 5, 6, generator=torch.Generator().manual_seed(1))
    shared = with_offset(noise, 0.1, torch.Generator().manual_seed(2)) - noise
    assert torch.allclose(shared, 0.1 * torch.randn(4, 1, 1, generator=torch.Generator().manual_seed(2)).expand(3, 4, 5, 6), atol=1e-6)
    own = with_offset(noise, 0.1, torch.Generator().manual_seed(2), each_frame=True) - noise
    assert torch.allclose(own, 0.1 * torch.randn(3, 4, 1, 1, generator=torch.Generator().manual_seed(2)).expand(3, 4, 5, 6), atol=1e-6)


def test_without_an_offset_neither_noise_nor_generator_change() -> None:
    generator, noise = torch.Generator().manual_seed(3), torch.randn(2, 3, 4, 4)
    before = generator.get_state()
    assert with_offset(noise, 0.0, generator) is noise
    assert torch.equal(generator.get_state(), before)


def drawn(family: str, offset: float, positions: range = range(3)) -> tuple[Any, dict[str, Tensor]]:
    """A batch's random numbers, and those that are noise."""
    if family == "VideoFusion":
        one = draw(0, positions, (5, 3, 4, 4), 2, offset)
        return one, {"base": one.base, "residual": one.residual}
    if family == "AlignYourLatents":
        other = align_your_latents.draw(0, positions, (5, 4, 4, 4), offset)
        return other, {"noise": other.noise}
    image = text2video_zero.draw(0, positions, 5, (4, 4, 4), offset)
    return image, {"noise": image.noise}


@pytest.mark.parametrize("family", ["VideoFusion", *IMAGE_BASED])
def test_an_offset_leaves_every_other_random_number_of_a_sample(family: str) -> None:
    plain, noises = drawn(family, 0.0)
    shifted, moved = drawn(family, 0.5)
    for name, noise in noises.items():
        offset = moved[name] - noise
        assert (offset - offset.mean(dim=(-2, -1), keepdim=True)).abs().max() < 1e-5
        assert offset.abs().max() > 0.1
    for name in {*type(plain).__slots__} - noises.keys():
        one, other = getattr(plain, name), getattr(shifted, name)
        assert torch.equal(one, other) if isinstance(one, Tensor) else one == other


def test_the_frames_of_a_clip_share_the_offset_as_they_share_the_noise() -> None:
    """Variance o^2 for every frame, covariance lambda o^2 for two of them, with o = 0.5 and lambda = 0.7."""
    shares = torch.tensor([0.7, 0.7])
    (_, plain), (_, moved) = (drawn("VideoFusion", offset, range(4000)) for offset in (0.0, 0.5))
    offsets = mix(moved["base"] - plain["base"], moved["residual"] - plain["residual"], shares)[..., 0, 0]  # [clips, frames, channels]
    first, second = offsets[:, 0].flatten(), offsets[:, 1].flatten()
    assert first.square().mean().item() == pytest.approx(0.25, rel=0.05)
    assert (first * second).mean().item() == pytest.approx(0.7 * 0.25, rel=0.05)


@pytest.mark.parametrize("target", ["Noise", "Frame"])
def test_videofusions_terms_count_as_min_snr_says_whatever_the_networks_predict(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = Recipe(architecture=Architecture.TINY, frames=5, resolution=Resolution(height=16, width=16), global_batch_size=4, steps=1)
    config = model_config(recipe)
    model = VideoFusionModel(config.model_copy(update={"networks": config.networks.model_copy(update={"target": target})}))
    shape = (5, 3, 16, 16)
    numbers = replace(draw(0, range(4), shape, None), timestep=TIMESTEPS)
    torch.manual_seed(2)
    base, residual = torch.randn_like(numbers.base), torch.randn_like(numbers.residual)
    monkeypatch.setattr(model, "predict_base", lambda *_: base)
    monkeypatch.setattr(model, "predict_residual", lambda *_: residual)
    signal = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))[TIMESTEPS.numpy()]
    ratio = signal / (1 - signal)
    weights = torch.from_numpy(np.minimum(ratio, 5.0) / ratio)
    shares = model.shares[numbers.frames]
    error = mix(base, residual, shares) - mix(numbers.base, numbers.residual, shares)
    terms = [(base - numbers.base).square().mean(dim=(1, 2, 3)), error.square().mean(dim=(1, 2, 3, 4))]
    expected = [float((weights * term).mean()) for term in terms]
    clean = torch.rand(4, *shape) * 2 - 1
    found = Objective(model, 5.0)(clean, tokenize(["a"] * 4, config.networks.text), numbers)
    assert found.tolist() == pytest.approx(expected, rel=1e-4)
    assert Objective(model)(clean, tokenize(["a"] * 4, config.networks.text), numbers).tolist() != pytest.approx(expected, rel=1e-2)


@pytest.fixture
def family_job(make_job: Callable[..., Job]) -> Callable[..., Job]:
    def make(family: str, loss: dict[str, Any], **fields: Any) -> Job:
        return make_job({"videoFusion": None, "loss": loss, "steps": 1}, model={"family": family, "version": "1.0.0"}, **fields)

    return make


def one_clip(learner: Learner, position: int) -> Tensor:
    """The losses of a batch of one clip."""
    frames = torch.randint(0, 255, (1, 4, 16, 16, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(9))
    batch = Batch(frames=frames, captions=["a square"], positions=range(position, position + 1))
    with torch.no_grad():
        found: Tensor = learner.objective(*learner.prepare(batch))
    return found


@pytest.mark.parametrize("prediction", ["Epsilon", "VPrediction"])
@pytest.mark.parametrize("family", IMAGE_BASED)
def test_a_recipes_gamma_weighs_the_denoising_and_nothing_else(
    family_job: Callable[..., Job], storage: Path, family: str, prediction: str
) -> None:
    plain, weighted = (
        learner_of(family_job(family, {"predictionType": prediction} | loss), storage, World()) for loss in ({}, {"snrGamma": "0.5"})
    )
    for position in (0, 1):
        numbers = align_your_latents.draw(0, [position], (4, 4, 4, 4)) if family == IMAGE_BASED[0] else drawn_image(position)
        kind = {"Epsilon": "epsilon", "VPrediction": "v_prediction"}[prediction]
        (weight,) = expected_weights(kind, 0.5, numbers.timestep)
        one, other = one_clip(plain, position), one_clip(weighted, position)
        assert other[0].item() == pytest.approx(weight * one[0].item(), rel=1e-4)
        assert torch.equal(other[1:], one[1:])


def drawn_image(position: int) -> text2video_zero.Draw:
    return text2video_zero.draw(0, [position], 4, (4, 4, 4))


@pytest.mark.parametrize("family", ["VideoFusion", *IMAGE_BASED])
def test_a_recipe_that_sets_nothing_has_the_loss_of_one_without_the_block(
    make_job: Callable[..., Job], family_job: Callable[..., Job], storage: Path, family: str
) -> None:
    bare = make_job({"videoFusion": None, "steps": 1}, model={"family": family, "version": "1.0.0"})
    set_off = family_job(family, {"noiseOffset": "0"})
    assert torch.equal(one_clip(learner_of(bare, storage, World()), 0), one_clip(learner_of(set_off, storage, World()), 0))
    moved = one_clip(learner_of(family_job(family, {"noiseOffset": "0.5"}), storage, World()), 0)
    assert (moved - one_clip(learner_of(bare, storage, World()), 0)).abs().max() > 1e-3


@pytest.fixture
def train(storage: Path, silent: ProgressReporter) -> Callable[[Job], Report]:
    return lambda job: tasks.attempt(job, storage, {}, silent, lambda: False)


@pytest.mark.parametrize("family", IMAGE_BASED)
def test_a_new_image_model_predicts_what_the_recipe_says_and_a_given_one_what_it_was_trained_for(
    train: Callable[[Job], Report], family_job: Callable[..., Job], storage: Path, family: str
) -> None:
    new = artifact(train(family_job("Text2VideoZero", {"predictionType": "VPrediction"})))
    assert '"prediction_type":"v_prediction"' in (storage / new.path / "scheduler/scheduler_config.json").read_text()
    for loss in ({}, {"predictionType": "VPrediction"}):
        given = learner_of(family_job(family, loss, initFrom=new, workPath="runs/a/b"), storage, World())
        schedulers = [
            found for module in given.objective.modules() if isinstance(found := getattr(module, "scheduler", None), DDIMScheduler)
        ]
        assert [scheduler.config.prediction_type for scheduler in schedulers] == ["v_prediction"]
    report = train(family_job(family, {"predictionType": "Epsilon"}, initFrom=new, workPath="runs/a/b"))
    assert report.reason is Reason.INVALID_JOB
    assert "the image model of initFrom was trained with prediction_type v_prediction, which decides" in report.message


@pytest.mark.parametrize("family", IMAGE_BASED)
def test_a_model_of_velocities_is_trained_and_generates(
    train: Callable[[Job], Report], family_job: Callable[..., Job], storage: Path, family: str
) -> None:
    from videogen_models.bundle import load_model

    model = load_model(
        storage / artifact(train(family_job(family, {"predictionType": "VPrediction", "snrGamma": "5", "noiseOffset": "0.1"}))).path
    )
    assert model.generate(["a square"], [1], 2).shape == (1, 4, 16, 16, 3)


BAD = {
    "a gamma of 0": ("VideoFusion", {"snrGamma": "0"}, r"recipe\.loss\.snrGamma is 0; it must be greater than 0"),
    "a prediction type of VideoFusion": ("VideoFusion", {"predictionType": "Epsilon"}, r"recipe\.loss\.predictionType is set"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_loss_that_means_nothing_is_refused(family_job: Callable[..., Job], case: str) -> None:
    family, loss, message = BAD[case]
    with pytest.raises(tasks.Failure, match=message) as caught:
        tasks.check(family_job(family, loss))
    assert caught.value.reason is Reason.INVALID_JOB
