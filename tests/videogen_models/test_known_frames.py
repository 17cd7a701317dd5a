"""Prediction, interpolation and sampling with Align-Your-Latents: known frames are seen, kept, and alone determine c_S."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from torch import Tensor, nn

from videogen_models import known_frames
from videogen_models.align_your_latents import VideoUNet
from videogen_models.known_frames import (
    Guidance,
    Sampler,
    condition,
    ddim_step,
    draw_context,
    first_frames,
    interpolate,
    interpolated_length,
    key_frames,
    spread,
)
from videogen_models.temporal_layers import TemporalSize

FRAMES, TEXT = 5, 8
SIZE = TemporalSize(head_width=4, groups=2, context_width=4)
SCHEDULER = DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, timestep_spacing="trailing")


@pytest.fixture(scope="module")
def model() -> VideoUNet:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    image = UNet2DConditionModel(
        sample_size=4,
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=TEXT,
        attention_head_dim=2,
        norm_num_groups=2,
    )
    model = VideoUNet(image, SIZE)
    for name, parameter in model.temporal.named_parameters():
        if not name.endswith("logit"):
            nn.init.normal_(parameter, std=0.2)
    return model.requires_grad_(False)


def latents(frames: int = FRAMES, clips: int = 2, seed: int = 3) -> Tensor:
    return torch.randn(clips, frames, 4, 4, 4, generator=torch.Generator().manual_seed(seed))


def text(clips: int = 2, seed: int = 4) -> Tensor:
    return torch.randn(clips, 6, TEXT, generator=torch.Generator().manual_seed(seed))


def draws() -> Any:
    generator = torch.Generator().manual_seed(5)
    return lambda frames: torch.randn(2, frames, 4, 4, 4, generator=generator)


def test_prediction_knows_the_first_0_1_or_2_frames() -> None:
    assert first_frames([0, 1, 2], 4).tolist() == [[False] * 4, [True, False, False, False], [True, True, False, False]]


@pytest.mark.parametrize("count, frames", [(3, 8), (-1, 8), (2, 2)])
def test_another_number_of_context_frames_is_refused(count: int, frames: int) -> None:
    with pytest.raises(ValueError, match=f"^{count} of {frames} frames are context; accepted are 0 to "):
        first_frames([0, count], frames)


def test_a_training_draws_0_1_and_2_context_frames_alike_often_and_reproducibly() -> None:
    drawn = draw_context(3000, torch.Generator().manual_seed(1))
    assert Counter(drawn).keys() == {0, 1, 2}
    assert all(900 < count < 1100 for count in Counter(drawn).values())  # 3.9 standard deviations
    assert drawn == draw_context(3000, torch.Generator().manual_seed(1))


def test_interpolation_makes_29_frames_of_8_and_113_of_29_and_keeps_the_key_frames_in_place() -> None:
    assert [interpolated_length(8), interpolated_length(interpolated_length(8))] == [29, 113]
    keys = latents(8)
    clip = spread(keys)
    assert clip.shape == (2, 29, 4, 4, 4)
    mask = key_frames(2, 29)
    assert torch.equal(clip[mask].reshape(keys.shape), keys)
    assert not clip[~mask].any()
    assert mask[0].nonzero().flatten().tolist() == [0, 4, 8, 12, 16, 20, 24, 28]


@pytest.mark.parametrize("frames", [1, 4, 8, 30])
def test_a_clip_that_does_not_end_with_a_key_frame_cannot_be_interpolated(frames: int) -> None:
    with pytest.raises(ValueError, match=f"^{frames} frames do not end with a key frame"):
        key_frames(1, frames)


def test_unknown_frames_do_not_influence_the_condition_and_known_ones_do() -> None:
    clip, known = latents(), first_frames([0, 2], FRAMES)
    seen = condition(clip, known)
    assert seen.shape == (2, FRAMES, 5, 4, 4)
    other = torch.where(known.reshape(2, FRAMES, 1, 1, 1), clip, torch.inf)
    assert torch.equal(condition(other, known), seen)
    assert not torch.equal(condition(clip + 1, known), seen)
    assert torch.equal(seen[1, :2, :4], clip[1, :2])
    assert torch.equal(seen[:, :, 4].amax(dim=(2, 3)) == 1, known)


def test_no_condition_is_the_condition_that_knows_nothing(model: VideoUNet) -> None:
    noisy, timestep = latents(), torch.tensor([10, 900])
    nothing = condition(latents(seed=9), first_frames([0, 0], FRAMES))
    assert torch.equal(model(noisy, timestep, text()), model(noisy, timestep, text(), nothing))


@pytest.mark.parametrize("count", [1, 2])
def test_the_network_sees_the_known_frames(model: VideoUNet, count: int) -> None:
    noisy, timestep, known = latents(), torch.tensor([10, 900]), first_frames([count, count], FRAMES)
    outputs = [model(noisy, timestep, text(), condition(latents(seed=seed), known)) for seed in (6, 7)]
    assert (outputs[0] - outputs[1])[:, -1].abs().max() > 1e-3  # also in the last frame, which is unknown


def predictions(model: VideoUNet, guidance: Guidance) -> Tensor:
    given = condition(latents(seed=6), first_frames([1, 2], FRAMES))
    return Sampler(model, SCHEDULER, 2, guidance).predict(latents(), torch.tensor([10, 900]), text(), given)


def test_context_guidance_goes_from_unconditional_over_conditional_beyond(model: VideoUNet) -> None:
    noisy, timestep = latents(), torch.tensor([10, 900])
    without = model(noisy, timestep, text())
    found = model(noisy, timestep, text(), condition(latents(seed=6), first_frames([1, 2], FRAMES)))
    assert torch.allclose(predictions(model, Guidance(context=0)), without, atol=1e-6)
    assert torch.allclose(predictions(model, Guidance(context=1)), found, atol=1e-5)
    assert torch.allclose(predictions(model, Guidance(context=3)), without + 3 * (found - without), atol=1e-5)


def test_text_guidance_starts_from_the_empty_caption_with_the_same_context(model: VideoUNet) -> None:
    nothing, given = text(1, seed=8), condition(latents(seed=6), first_frames([1, 2], FRAMES))
    without = model(latents(), torch.tensor([10, 900]), nothing.expand(2, -1, -1), given)
    assert torch.allclose(predictions(model, Guidance(text=0, nothing=nothing)), without, atol=1e-6)
    assert not torch.allclose(predictions(model, Guidance(text=4, nothing=nothing)), predictions(model, Guidance()), atol=1e-3)
    with pytest.raises(ValueError, match="needs the encoded empty caption"):
        Guidance(text=2)


@pytest.mark.parametrize(
    "calls, guidance", [(1, {}), (2, {"context": 2.0}), (3, {"context": 2.0, "text": 2.0, "nothing": torch.zeros(1, 6, TEXT)})]
)
def test_guidance_costs_no_call_that_it_does_not_need(model: VideoUNet, calls: int, guidance: dict[str, Any]) -> None:
    seen: list[int] = []
    hook = model.register_forward_pre_hook(lambda *_: seen.append(1))
    predictions(model, Guidance(**guidance))
    hook.remove()
    assert len(seen) == calls


class Oracle(nn.Module):
    """Knows the noise or velocity of each noisy clip: there is only one clean clip."""

    def __init__(self, clean: Tensor, scheduler: DDIMScheduler) -> None:
        super().__init__()
        self.clean, self.scheduler = clean, scheduler

    def forward(self, noisy: Tensor, timestep: Tensor, *_: object) -> Tensor:
        level = self.scheduler.alphas_cumprod[timestep].reshape(-1, 1, 1, 1, 1)
        noise = (noisy - level.sqrt() * self.clean) / (1 - level).sqrt()
        return noise if self.scheduler.config.prediction_type == "epsilon" else level.sqrt() * noise - (1 - level).sqrt() * self.clean


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("steps", [1, 7])
def test_with_a_perfect_model_the_sampler_finds_the_clip(kind: str, steps: int) -> None:
    scheduler, clean = DDIMScheduler.from_config(SCHEDULER.config, prediction_type=kind), 3 * latents()
    sampler = Sampler(Oracle(clean, scheduler), scheduler, steps)  # type: ignore[arg-type]
    found = sampler.complete(latents(seed=1), text(), latents(seed=2), first_frames([0, 0], FRAMES))
    assert (found - clean).abs().max() < 1e-3  # also beyond [-1, 1]: latents are not clipped


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("now, later", [(599, 499), (99, -1)])
def test_a_ddim_step_is_diffusers_own(kind: str, now: int, later: int) -> None:
    scheduler = DDIMScheduler.from_config(SCHEDULER.config, prediction_type=kind)
    scheduler.set_timesteps(10)
    theirs = scheduler.step(latents(seed=1), now, latents(), eta=0.0).prev_sample
    assert torch.allclose(ddim_step(scheduler, latents(seed=1), latents(), now, later), theirs, atol=1e-5)


def test_known_frames_come_out_as_they_went_in_and_the_others_depend_on_the_noise(model: VideoUNet) -> None:
    clip, known, sampler = latents(seed=6), first_frames([1, 2], FRAMES), Sampler(model, SCHEDULER, 2)
    found, other = (sampler.complete(latents(seed=seed), text(), clip, known) for seed in (1, 2))
    assert torch.equal(found[known], clip[known])
    assert torch.equal(found[known], other[known])
    assert ((found - other)[~known].flatten(1).abs().amax(dim=1) > 1e-2).all()


def test_8_key_frames_become_29_and_113_frames_with_the_key_frames_untouched(model: VideoUNet) -> None:
    keys, sampler, draw = latents(8), Sampler(model, SCHEDULER, 1), draws()
    with torch.inference_mode():
        medium = interpolate(sampler, draw(29), text(), keys, rate=0)
        fine = interpolate(sampler, draw(113), text(), medium, rate=1)
    assert fine.shape == (2, 113, 4, 4, 4)
    assert torch.equal(medium[:, ::4], keys)
    assert torch.equal(fine[:, ::16], keys)
    assert fine.flatten(2).abs().amax(dim=2).min() > 1e-2


def test_between_two_key_frames_the_model_sees_them_and_three_others_and_no_more(model: VideoUNet) -> None:
    seen: list[tuple[Tensor, Tensor]] = []
    hook = model.register_forward_pre_hook(lambda _, arguments: seen.append((arguments[0], arguments[3])))  # type: ignore[func-returns-value]
    noise, keys = draws()(9), latents(3)
    with torch.inference_mode():
        interpolate(Sampler(model, SCHEDULER, 1), noise, text(), keys, rate=0)
    hook.remove()
    (noisy, given), *others = seen
    assert not others
    assert torch.equal(noisy, torch.stack([noise[0, :5], noise[0, 4:], noise[1, :5], noise[1, 4:]]))
    assert torch.equal(given[:, [0, 4], :4], torch.stack([keys[0, :2], keys[0, 1:], keys[1, :2], keys[1, 1:]]))
    assert given[0, :, 4, 0, 0].tolist() == [1, 0, 0, 0, 1]
    assert not given[:, 1:4].any()


def test_however_many_pairs_are_drawn_at_once_the_clip_is_the_same(model: VideoUNet, monkeypatch: pytest.MonkeyPatch) -> None:
    clips, calls = [], []
    hook = model.register_forward_pre_hook(lambda *_: calls.append(1))
    for at_once in (8, 2):
        monkeypatch.setattr(known_frames, "PAIRS_AT_ONCE", at_once)
        calls.clear()
        with torch.inference_mode():
            clips.append(interpolate(Sampler(model, SCHEDULER, 1), draws()(17), text(), latents(5), rate=0))
        assert len(calls) == known_frames.interpolation_passes(2, 5, 1) == 8 // at_once
    hook.remove()
    assert torch.allclose(*clips, atol=1e-5)


def test_sampling_can_be_repeated_told_of_and_cancelled(model: VideoUNet) -> None:
    seen: list[tuple[int, int]] = []

    def cancel_at_the_second(done: int, steps: int) -> None:
        seen.append((done, steps))
        if done == 1:
            raise TimeoutError("late")

    known = first_frames([0, 0], FRAMES)
    first, again = (Sampler(model, SCHEDULER, 2).complete(latents(), text(), latents(seed=6), known) for _ in range(2))
    assert torch.equal(first, again)
    with pytest.raises(TimeoutError, match="late"):
        Sampler(model, SCHEDULER, 3, on_step=cancel_at_the_second).complete(latents(), text(), latents(), known)
    assert seen == [(0, 3), (1, 3)]
