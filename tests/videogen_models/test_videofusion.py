"""The model and its sampler, in pixels and in latents: one base call, who depends on what, and that bundles give the same videos
(properties 7 to 9)."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler
from torch import nn

from videogen_api.recipe import Architecture, Recipe, Resolution, Space, VideoFusion
from videogen_models.autoencoder import latent_size
from videogen_models.image_backbone import PRESETS as BACKBONES
from videogen_models.image_backbone import build_backbone
from videogen_models.networks import PRESETS, ModelConfig, model_config
from videogen_models.noise import clip_noise, middle, mix
from videogen_models.sampling import ddim_step, denoise, from_pixels, sample, to_pixels
from videogen_models.schedule import TIMESTEPS, sampling_timesteps, signal_levels
from videogen_models.videofusion import VideoFusionModel
from videogen_testing.pixels import ROUNDED, SEEN, apart

STEPS = 3
CAPTIONS = ["a red square moves right", "a blue disc moves up"]


@pytest.fixture(scope="module", params=Space)
def model(request: pytest.FixtureRequest, recipe: Recipe) -> VideoFusionModel:
    """A tiny model in each space; the autoencoder of latents is a new one, whose frames are as good as any."""
    torch.manual_seed(0)
    if request.param is Space.PIXEL:
        return VideoFusionModel(model_config(recipe)).eval()
    vae = build_backbone(BACKBONES[Architecture.TINY], recipe.resolution).vae.eval().requires_grad_(False)
    return VideoFusionModel(model_config(recipe, latent_size(vae, recipe.resolution)), vae).eval()


def start(model: VideoFusionModel, seeds: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    return clip_noise(seeds, model.frame_shape)


def test_a_clip_and_step_take_one_call_of_the_base_generator_on_one_frame(model: VideoFusionModel) -> None:
    shapes: dict[str, list[tuple[int, ...]]] = {"base": [], "residual": []}

    def count(name: str) -> Any:
        return lambda _, arguments: shapes[name].append(tuple(arguments[0].shape))

    hooks = [model.base.register_forward_pre_hook(count("base")), model.residual.register_forward_pre_hook(count("residual"))]
    sample(model, CAPTIONS, [1, 2], STEPS)
    for hook in hooks:
        hook.remove()
    assert shapes["base"] == [(2, *model.frame_shape[1:])] * STEPS
    assert shapes["residual"] == [(2 * 4, *model.frame_shape[1:])] * STEPS


@pytest.mark.parametrize("which, middle_changes", [("residual", False), ("base", True)])
def test_the_middle_frame_depends_on_the_base_noise_only(model: VideoFusionModel, which: str, middle_changes: bool) -> None:
    base, residual = start(model, [1])
    other_base, other_residual = start(model, [2])
    changed = mix(base, other_residual, model.shares) if which == "residual" else mix(other_base, residual, model.shares)
    videos = [denoise(model, noisy, CAPTIONS[:1], STEPS) for noisy in (mix(base, residual, model.shares), changed)]
    centre = middle(5)
    difference = (videos[0] - videos[1]).abs()
    assert difference[:, centre].max() > 1e-2 if middle_changes else difference[:, centre].max() < 1e-6
    assert difference[:, 0].max() > 1e-2


def test_the_residual_generator_knows_the_frames_number(model: VideoFusionModel) -> None:
    torch.manual_seed(0)
    shape = model.frame_shape[1:]
    noisy, base, still = torch.randn(1, 2, *shape), torch.randn(1, *shape), torch.rand(1, *shape)
    timestep, text = torch.tensor([500]), model.encode(CAPTIONS[:1])
    with torch.no_grad():
        straight, swapped = (
            model.predict_residual(noisy, base, still, timestep, text, torch.tensor([numbers])) for numbers in ([0, 4], [4, 0])
        )
    assert (straight - swapped).abs().max() > 1e-3


def test_a_clip_does_not_depend_on_its_batch(model: VideoFusionModel) -> None:
    alone = sample(model, CAPTIONS[1:], [5], STEPS)
    together = sample(model, [*CAPTIONS, "x"], [4, 5, 6], STEPS)
    assert apart(alone[0], together[1]) <= ROUNDED
    assert apart(together[0], together[1]) > SEEN


def test_the_same_seed_gives_the_same_video_to_the_bit(model: VideoFusionModel) -> None:
    assert np.array_equal(sample(model, CAPTIONS, [1, 2], STEPS), sample(model, CAPTIONS, [1, 2], STEPS))


def test_the_caption_matters(model: VideoFusionModel) -> None:
    base, residual = start(model, [1, 1])
    one, other = denoise(model, mix(base, residual, model.shares), CAPTIONS, STEPS)
    assert (one - other).abs().max() > 1e-3


def test_sampling_tells_its_steps_and_can_be_cancelled(model: VideoFusionModel) -> None:
    seen: list[tuple[int, int]] = []

    def cancel_at_the_second(done: int, steps: int) -> None:
        seen.append((done, steps))
        if done == 1:
            raise TimeoutError("late")

    with pytest.raises(TimeoutError, match="late"):
        sample(model, CAPTIONS[:1], [1], STEPS, cancel_at_the_second)
    assert seen == [(0, STEPS), (1, STEPS)]


@pytest.mark.parametrize(
    "seeds, steps, message", [([1], 3, "2 captions and 1 seeds"), ([1, 2], 0, "1 to 1000"), ([1, 2], 1001, "1 to 1000")]
)
def test_numbers_out_of_range_are_refused(model: VideoFusionModel, seeds: list[int], steps: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sample(model, CAPTIONS, seeds, steps)


def of(model: VideoFusionModel, **changes: Any) -> VideoFusionModel:
    """The same networks in a model with another configuration."""
    other = VideoFusionModel(model.config.model_copy(update=changes), model.vae).eval()
    other.load_state_dict(model.state_dict())
    return other


def test_without_guidance_a_caption_is_all_that_is_predicted_from(model: VideoFusionModel) -> None:
    """Guidance 1, were it computed, is the prediction itself; 0 is the one without a caption."""
    base, residual = start(model, [1])
    noisy, timestep, pair = mix(base, residual, model.shares), torch.tensor([400]), model.encode(["", CAPTIONS[0]])
    with torch.no_grad():
        plain, empty = (model.predict_noise(noisy, timestep, text.unsqueeze(0)) for text in (pair[1], pair[0]))
        one, none, three = (model.guided_noise(noisy, timestep, pair, scale) for scale in (1.0, 0.0, 3.0))
    assert (one - plain).abs().max() < 1e-5
    assert (none - empty).abs().max() < 1e-5
    assert (three - (empty + 3 * (plain - empty))).abs().max() < 1e-5
    assert (plain - empty).abs().max() > 1e-4


def test_guidance_takes_one_call_of_the_base_generator_a_step_and_changes_the_video(model: VideoFusionModel) -> None:
    guided, calls = of(model, text_guidance=3.0), []
    guided.base.register_forward_pre_hook(lambda _, arguments: calls.append(tuple(arguments[0].shape)))
    videos = sample(guided, CAPTIONS, [1, 2], STEPS)
    assert calls == [(2 * 2, *model.frame_shape[1:])] * STEPS
    assert apart(videos, sample(model, CAPTIONS, [1, 2], STEPS)) > SEEN


def test_guidance_does_not_mix_the_clips_of_a_batch(model: VideoFusionModel) -> None:
    guided = of(model, text_guidance=3.0)
    alone, together = sample(guided, CAPTIONS[1:], [5], STEPS), sample(guided, CAPTIONS, [4, 5], STEPS)
    assert apart(alone[0], together[1]) <= ROUNDED


def test_where_a_frame_has_a_larger_share_more_of_its_noise_is_the_base_noise(model: VideoFusionModel) -> None:
    """What the residual generator sees and what is drawn for it both follow each frame's own share."""
    shares = [0.2, 0.5, 1.0, 0.8, 0.0]
    uneven = of(model, base_noise_shares=shares)
    assert uneven.shares.tolist() == pytest.approx(shares)
    base, residual = start(model, [1])
    noisy = mix(base, residual, uneven.shares)
    assert torch.allclose(noisy[:, 4], residual[:, 4], atol=1e-6)
    assert torch.allclose(noisy[:, 2], base, atol=1e-6)
    assert torch.allclose(noisy[:, 3], 0.8**0.5 * base + 0.2**0.5 * residual[:, 3], atol=1e-6)  # terms may cancel each other
    clean = torch.rand(1, *model.frame_shape) * 2 - 1
    assert (denoise(Oracle(uneven, clean), noisy, [""], 7) - clean).abs().max() < 2e-2  # type: ignore[arg-type]


class Oracle(nn.Module):
    """Knows the noise of each timestep's image: there is only one clean clip."""

    def __init__(self, model: VideoFusionModel, clean: torch.Tensor) -> None:
        super().__init__()
        self.model, self.clean = model, clean

    def predict_noise(self, noisy: torch.Tensor, timestep: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        level = self.model.signal[timestep].reshape(-1, 1, 1, 1, 1)
        return (noisy - level.sqrt() * self.clean) / (1 - level).sqrt()

    def __getattr__(self, name: str) -> Any:
        return super().__getattr__(name) if name in {"model", "clean"} else getattr(self.model, name)


@pytest.mark.parametrize("steps", [1, 7, 50])
def test_with_a_perfect_model_the_sampler_finds_the_clip(model: VideoFusionModel, steps: int) -> None:
    clean = torch.rand(1, *model.frame_shape) * 2 - 1 if model.vae is None else torch.randn(1, *model.frame_shape)
    base, residual = start(model, [1])
    found = denoise(Oracle(model, clean), mix(base, residual, model.shares), [""], steps)  # type: ignore[arg-type]
    assert (found - clean).abs().max() < 2e-2  # float32 at a signal of 4e-5


def test_a_ddim_step_is_diffusers_own() -> None:
    scheduler = DDIMScheduler(TIMESTEPS, 1e-4, 0.02, "linear", clip_sample=True, timestep_spacing="trailing")
    scheduler.set_timesteps(10)
    assert scheduler.timesteps.tolist() == sampling_timesteps(10)
    noisy, noise, levels = torch.randn(2, 3, 8, 8), torch.randn(2, 3, 8, 8), signal_levels()
    theirs = scheduler.step(noise, 599, noisy, eta=0.0, use_clipped_model_output=True).prev_sample
    assert torch.allclose(ddim_step(noisy, noise, levels[599], levels[499]), theirs, atol=1e-5)


@pytest.mark.parametrize("steps", [1, 3, 30, 600, 1000])
def test_timesteps_fall_from_the_last_one(steps: int) -> None:
    timesteps = sampling_timesteps(steps)
    assert timesteps[0] == TIMESTEPS - 1
    assert timesteps[-1] >= 0
    assert len(timesteps) == steps
    assert all(later < earlier for earlier, later in pairwise(timesteps))


def test_the_diffusion_ends_in_noise_and_begins_with_the_frames() -> None:
    levels = signal_levels()
    assert levels[0] > 0.999
    assert levels[-1] < 5e-5
    assert (levels.diff() < 0).all()


def test_latents_are_not_clipped_to_the_range_of_pixels(model: VideoFusionModel) -> None:
    clean = torch.full((1, *model.frame_shape), 3.0)
    base, residual = start(model, [1])
    found = denoise(Oracle(model, clean), mix(base, residual, model.shares), [""], 7)  # type: ignore[arg-type]
    assert found.mean().item() == pytest.approx(1.0 if model.vae is None else 3.0, abs=0.02)
    noisy, noise, timestep = torch.full_like(clean[:, 0], 3.0), torch.zeros_like(clean[:, 0]), torch.tensor([0])
    assert model.still(noisy, noise, timestep).max().item() == pytest.approx(1.0 if model.vae is None else 3.0, abs=0.01)


def test_pixels_go_there_and_back() -> None:
    pixels = torch.arange(256, dtype=torch.uint8).reshape(1, 16, 16, 1).expand(1, 16, 16, 3)
    assert np.array_equal(to_pixels(from_pixels(pixels)), pixels.numpy())


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_frames_that_are_not_finite_are_no_pixels(value: float) -> None:
    frames = torch.zeros(1, 2, 3, 4, 4)
    frames[0, 1, 2, 3, :2] = value
    with pytest.raises(FloatingPointError, match="2 of 96 values of the generated frames are not finite"):
        to_pixels(frames)


@pytest.mark.parametrize(
    "architecture, base, residual",
    [
        (Architecture.TINY, (0.8e6, 1.3e6), (0.8e6, 1.3e6)),
        (Architecture.SMALL, (20e6, 60e6), (20e6, 60e6)),
        (Architecture.PAPER, (0.8e9, 2.1e9), (0.45e9, 0.55e9)),  # the paper: up to 2 and about 0.5 billion
    ],
)
def test_the_presets_have_the_sizes_they_promise(
    architecture: Architecture, base: tuple[float, float], residual: tuple[float, float]
) -> None:
    recipe = Recipe(architecture=architecture, frames=16, resolution=Resolution(height=64, width=64), global_batch_size=1, steps=1)
    with torch.device("meta"):
        built = VideoFusionModel(model_config(recipe))
    for part, (least, most) in (("base", base), ("residual", residual)):
        assert least < sum(parameter.numel() for parameter in built.get_submodule(part).parameters()) < most


def test_the_paper_preset_measures_the_paper_loss() -> None:
    assert PRESETS[Architecture.PAPER].target == "Noise"
    assert PRESETS[Architecture.PAPER].residual_frames is None


@pytest.mark.parametrize(
    "fields", [{}, {"textGuidance": "2.5"}, {"textGuidance": "1.0"}, {"baseNoiseShares": ["0.5", "0.6", "1", "0.6", "0.5"]}]
)
def test_a_config_survives_its_json(recipe: Recipe, fields: dict[str, Any]) -> None:
    config = model_config(recipe.model_copy(update={"video_fusion": VideoFusion.model_validate(fields)}))
    assert (config.text_guidance, config.base_noise_shares) == (
        2.5 if fields.get("textGuidance") == "2.5" else None,
        [0.5, 0.6, 1.0, 0.6, 0.5] if "baseNoiseShares" in fields else None,
    )
    assert ModelConfig.model_validate_json(config.model_dump_json(by_alias=True)) == config
