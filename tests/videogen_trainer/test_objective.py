"""The training objective (properties 3 and 6), and that its random numbers depend on the sample alone."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor
from torch.nn.functional import pixel_unshuffle

from videogen_api.recipe import Architecture, Recipe, Resolution, Space
from videogen_models.autoencoder import latent_size
from videogen_models.image_backbone import PRESETS as BACKBONES
from videogen_models.image_backbone import build_backbone
from videogen_models.networks import Scales, model_config
from videogen_models.noise import middle, mix, remove_base
from videogen_models.text import tokenize
from videogen_models.videofusion import VideoFusionModel
from videogen_trainer.objective import Objective, draw

SHAPE = (5, 3, 16, 16)


SHARES = [0.2, 0.5, 1.0, 0.8, 0.0]


IN_EACH_SPACE = pytest.mark.parametrize("space", Space)


def tiny(target: str = "Frame", share: str = "0.7", shares: list[float] | None = None, space: Space = Space.PIXEL) -> VideoFusionModel:
    recipe = Recipe(architecture=Architecture.TINY, frames=5, resolution=Resolution(height=16, width=16), global_batch_size=2, steps=1)
    torch.manual_seed(3)
    vae = build_backbone(BACKBONES[Architecture.TINY], recipe.resolution).vae.requires_grad_(False) if space is Space.LATENT else None
    config = model_config(recipe, latent_size(vae, recipe.resolution) if vae is not None else None)
    networks = config.networks.model_copy(update={"target": target})
    torch.manual_seed(0)
    return VideoFusionModel(
        config.model_copy(update={"networks": networks, "base_noise_share": float(share), "base_noise_shares": shares}), vae
    )


def batch(model: VideoFusionModel) -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    return torch.rand(2, *model.frame_shape) * 2 - 1, tokenize(["a square", "a disc"], model.config.networks.text)


def has_gradient(module: torch.nn.Module) -> list[bool]:
    return [parameter.grad is not None and bool(parameter.grad.abs().sum() > 0) for parameter in module.parameters()]


@IN_EACH_SPACE
@pytest.mark.parametrize("target", ["Noise", "Frame"])
def test_the_loss_of_the_other_frames_never_reaches_the_base_generator(target: str, space: Space) -> None:
    model = tiny(target, space=space)
    clean, tokens = batch(model)
    Objective(model)(clean, tokens, draw(0, [0, 1], model.frame_shape, 2))[1].backward()
    assert not any(has_gradient(model.base))
    assert any(has_gradient(model.residual))
    assert any(has_gradient(model.text))


@IN_EACH_SPACE
@pytest.mark.parametrize("target", ["Noise", "Frame"])
def test_the_loss_of_the_base_frame_never_reaches_the_residual_generator(target: str, space: Space) -> None:
    model = tiny(target, space=space)
    clean, tokens = batch(model)
    Objective(model)(clean, tokens, draw(0, [0, 1], model.frame_shape, 2))[0].backward()
    assert not any(has_gradient(model.residual))
    assert any(has_gradient(model.base))


@IN_EACH_SPACE
def test_every_weight_takes_part_in_a_step_but_those_of_the_autoencoder(space: Space) -> None:
    model = tiny(space=space)
    clean, tokens = batch(model)
    Objective(model)(clean, tokens, draw(0, [0, 1], model.frame_shape, 2)).sum().backward()
    unused = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    frozen = [name for name, parameter in model.named_parameters() if not parameter.requires_grad]
    assert unused == frozen
    assert all(name.startswith("vae.") for name in frozen)


@IN_EACH_SPACE
@pytest.mark.parametrize("target", ["Noise", "Frame"])
@pytest.mark.parametrize("share, shares", [("0", None), ("0.7", None), ("1", None), ("0.7", SHARES)])
def test_perfect_generators_have_no_loss(
    target: str, share: str, shares: list[float] | None, space: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny(target, share, shares, space)
    clean, tokens = batch(model)
    drawn = draw(0, [0, 1], model.frame_shape, None)
    monkeypatch.setattr(model, "predict_base", lambda *_: drawn.base)
    monkeypatch.setattr(model, "predict_residual", lambda *_: drawn.residual)
    assert Objective(model)(clean, tokens, drawn).tolist() == [0.0, 0.0]


@IN_EACH_SPACE
@pytest.mark.parametrize("shares", [None, SHARES])
def test_what_the_residual_generator_sees_is_the_frame_without_the_base(
    shares: list[float] | None, space: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    """z' = sqrt(ah) x + sqrt(1 - ah) sqrt(1 - lambda_i) r, if the base generator is perfect (property 3)."""
    model, seen = tiny(shares=shares, space=space), SimpleNamespace()
    clean, tokens = batch(model)
    drawn = draw(0, [0, 1], model.frame_shape, None)

    def spy(noisy: Tensor, base: Tensor, still: Tensor, timestep: Tensor, text: Tensor, frames: Tensor) -> Tensor:
        seen.still = still
        seen.input = remove_base(noisy, base, model.signal[timestep], model.shares[frames])
        return torch.zeros_like(noisy)

    monkeypatch.setattr(model, "predict_base", lambda *_: drawn.base)
    monkeypatch.setattr(model, "predict_residual", spy)
    Objective(model)(clean, tokens, drawn)
    level = model.signal[drawn.timestep].reshape(2, 1, 1, 1, 1)
    others = [frame for frame in range(5) if frame != middle(5)]
    alone = (1 - torch.tensor(shares or [0.7] * 5))[others].reshape(1, 4, 1, 1, 1)
    expected = level.sqrt() * clean[:, others] + (1 - level).sqrt() * alone.sqrt() * drawn.residual
    assert (seen.input - expected).abs().max() < 1e-6
    assert (seen.still - clean[:, middle(5)]).abs().max() < 1e-3  # float32 at little signal


def test_the_paper_loss_is_the_squared_error_of_the_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny("Noise")
    clean, tokens = batch(model)
    drawn = draw(0, [0, 1], SHAPE, None)
    torch.manual_seed(2)
    base, residual = torch.randn_like(drawn.base), torch.randn_like(drawn.residual)
    monkeypatch.setattr(model, "predict_base", lambda *_: base)
    monkeypatch.setattr(model, "predict_residual", lambda *_: residual)
    shares = model.shares[drawn.frames]
    error = mix(base, residual, shares) - mix(drawn.base, drawn.residual, shares)
    expected = [(base - drawn.base).square().mean(), error.square().mean()]
    assert torch.allclose(Objective(model)(clean, tokens, drawn), torch.stack(expected), rtol=1e-4)


def test_the_random_numbers_of_a_sample_depend_on_neither_batch_nor_order() -> None:
    together, alone = draw(3, [10, 11, 12], SHAPE, 2), draw(3, [11], SHAPE, 2)
    for name in ("timestep", "frames", "base", "residual", "chance"):
        assert torch.equal(getattr(together, name)[1], getattr(alone, name)[0])
    assert not torch.equal(draw(4, [11], SHAPE, 2).base, alone.base)


def test_the_frames_drawn_are_others_than_the_middle_and_all_of_them_in_time() -> None:
    frames = draw(0, range(200), SHAPE, 2).frames
    assert frames.shape == (200, 2)
    assert (frames[:, 0] < frames[:, 1]).all()
    assert set(frames.flatten().tolist()) == {0, 1, 3, 4}


def test_timesteps_are_drawn_over_the_whole_diffusion() -> None:
    timesteps = draw(0, range(500), SHAPE, 1).timestep
    assert timesteps.min() < 30
    assert timesteps.max() > 970
    assert timesteps.float().mean().item() == pytest.approx(500, abs=50)


def test_the_frame_loss_is_the_squared_error_of_the_frame_where_noise_prevails(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny("Frame")
    clean, tokens = batch(model)
    drawn = draw(0, [0, 1], SHAPE, None)
    drawn = replace(drawn, timestep=torch.tensor([999, 999]))
    level = model.signal[drawn.timestep].reshape(2, 1, 1, 1)
    error = torch.randn(2, 3, 16, 16)
    wrong = drawn.base - (level / (1 - level)).sqrt() * error  # the noise that means frames off by `error`
    monkeypatch.setattr(model, "predict_base", lambda *_: wrong)
    monkeypatch.setattr(model, "predict_residual", lambda *_: drawn.residual)
    assert Objective(model)(clean, tokens, drawn)[0].item() == pytest.approx(error.square().mean().item(), rel=1e-3)


@pytest.mark.parametrize("target", ["Noise", "Frame"])
def test_a_generator_returns_the_noise_that_its_network_means(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the U-Net is right about velocity or frame, the generator is right about the noise."""
    generator = tiny(target).base
    clean, noise, signal = torch.rand(2, 3, 16, 16), torch.randn(2, 3, 16, 16), torch.tensor([0.9, 0.2])
    scales = Scales(signal, torch.tensor([0.3, 0.5]))
    a, s, norm = (value.reshape(2, 1, 1, 1) for value in (scales.signal, scales.noise, scales.norm))
    right = clean if target == "Frame" else (a * noise - s * clean) / norm
    answer = SimpleNamespace(sample=pixel_unshuffle(right, generator.patch))
    monkeypatch.setattr(generator.unet, "forward", lambda *_, **__: answer)
    found = generator(a * clean + s * noise, scales, torch.tensor([1, 2]), torch.zeros(2, 16, 64))
    assert (found - noise).abs().max() < 1e-5
