"""The whole method: against the plain image model, the deprecated pipeline of diffusers, and itself in other chunks."""

from __future__ import annotations

import copy
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from diffusers import StableDiffusionPipeline
from diffusers.models.attention_processor import AttnProcessor2_0
from diffusers.pipelines.deprecated.text_to_video_synthesis import pipeline_text_to_video_zero as published

from videogen_api.recipe import Resolution
from videogen_models.background import Smoothing
from videogen_models.image_backbone import BackboneSize, ImageBackbone, build_backbone
from videogen_models.noise import add_noise
from videogen_models.text import TextSize
from videogen_models.text2video_zero import (
    Denoiser,
    Motion,
    Options,
    ddpm_forward,
    noises,
    phases,
    sample,
    sample_latents,
    smoothed,
    visited,
)
from videogen_testing.pixels import SEEN, apart

CAPTIONS = ["a house on fire", "a flooded street at night"]
MOTION = Motion(strength=64.0, direction=(1.0, -2.0), warp_at=300, resume_at=550)  # 1 and -2 latent pixels a frame; 251 and 501
OPTIONS = Options(steps=4, guidance=3.0, motion=MOTION)


def changed(**change: Any) -> Options:
    return Options(**({"steps": 4, "guidance": 3.0, "motion": MOTION} | change))


def nothing() -> None:
    """Progress that nobody wants to know."""


def denoiser(backbone: ImageBackbone, captions: Sequence[str], guidance: float, chunk: int = 8) -> Denoiser:
    with torch.no_grad():
        return Denoiser(
            backbone, backbone.scheduler(4), backbone.encode(captions), guidance, chunk, nothing, visited(backbone.scheduler(4), 4)
        )


def clips(backbone: ImageBackbone, batch: int, frames: int) -> torch.Tensor:
    return torch.randn(batch, frames, *backbone.latent_shape, generator=torch.Generator().manual_seed(5))


def foreground_nowhere(frames: torch.Tensor) -> torch.Tensor:
    return torch.zeros_like(frames[:, :1])


@pytest.mark.parametrize("guidance", [7.5, 1.0])
def test_frame_1_is_what_the_image_model_draws_from_the_same_noise(backbone: ImageBackbone, guidance: float) -> None:
    unet = copy.deepcopy(backbone.unet)
    unet.set_attn_processor(AttnProcessor2_0())
    pipeline = StableDiffusionPipeline(
        backbone.vae, backbone.text, None, unet, backbone.scheduler(4), None, None, requires_safety_checker=False
    )
    pipeline.set_progress_bar_config(disable=True)
    positive, negative = backbone.encode([CAPTIONS[0], "dull"]).split(1)
    image = pipeline(
        prompt_embeds=positive,
        negative_prompt_embeds=negative,
        latents=noises([3], 4, backbone.latent_shape)[0],
        num_inference_steps=4,
        guidance_scale=guidance,
        output_type="latent",
    ).images
    video = sample_latents(backbone, CAPTIONS[:1], [3], 4, changed(guidance=guidance, negative="dull"))
    assert torch.allclose(video[:, 0], image, atol=1e-4)
    assert (video[:, 1] - image).abs().max() > 0.1


def test_with_guidance_the_deprecated_pipeline_of_diffusers_agrees(backbone: ImageBackbone, monkeypatch: pytest.MonkeyPatch) -> None:
    def grid(batch: int, height: int, width: int, device: Any) -> torch.Tensor:  # theirs warns
        rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        return torch.stack([columns, rows]).float()[None].repeat(batch, 1, 1, 1)

    monkeypatch.setattr(published, "coords_grid", grid)
    monkeypatch.setattr(published, "grid_sample", functools.partial(F.grid_sample, align_corners=False))  # the default; theirs warns
    scheduler = backbone.scheduler(10)
    scheduler.alphas = scheduler.alphas.roll(-1)  # theirs goes from alpha^_{T'-1} to alpha^_{T-1}
    pipeline = published.TextToVideoZeroPipeline(
        backbone.vae, backbone.text, None, copy.deepcopy(backbone.unet), scheduler, None, None, requires_safety_checker=False
    )
    pipeline.set_progress_bar_config(disable=True)
    positive, negative = backbone.encode([CAPTIONS[0], ""]).split(1)
    monkeypatch.setattr(pipeline, "encode_prompt", lambda *_: (positive, negative))
    generator = torch.Generator().manual_seed(7)
    theirs = pipeline(
        CAPTIONS[0],
        video_length=4,
        height=32,
        width=32,
        num_inference_steps=10,
        guidance_scale=7.5,
        latents=torch.randn(1, *backbone.latent_shape, generator=generator),
        generator=generator,
        motion_field_strength_x=70,
        motion_field_strength_y=-140,
        t1=8,  # 801
        t0=5,  # 501
        output_type="latent",
    ).images
    motion = Motion(strength=70.0, direction=(1.0, -2.0), warp_at=501, resume_at=801)
    ours = sample_latents(backbone, CAPTIONS[:1], [7], 4, Options(steps=10, motion=motion))
    assert torch.allclose(ours[0], theirs, atol=1e-3)


def test_the_papers_timesteps_are_hit_and_others_taken_to_the_nearest(backbone: ImageBackbone) -> None:
    plan = phases(backbone.scheduler(50).timesteps.tolist(), Motion())
    assert (plan.resume_at, plan.warp_at) == (941, 881)
    assert (plan.before, plan.between, len(plan.after)) == ([981, 961], [941, 921, 901], 48)
    plan = phases(backbone.scheduler(10).timesteps.tolist(), Motion())
    assert (plan.resume_at, plan.warp_at, plan.before, plan.between) == (901, 901, [], [])


def test_the_diffusion_from_one_timestep_to_a_later_one_ends_at_its_noise(backbone: ImageBackbone) -> None:
    levels = backbone.scheduler(50).alphas_cumprod
    generator = torch.Generator().manual_seed(0)
    clean, before, noise = torch.randn(3, 100_000, 1, generator=generator)
    turned = add_noise(clean, before, levels[881].expand(100_000))
    later = ddpm_forward(turned, noise, levels[881], levels[941])
    ratio = levels[941] / levels[881]
    assert torch.allclose(
        later - ddpm_forward(turned, torch.zeros_like(noise), levels[881], levels[941]), (1 - ratio).sqrt() * noise, atol=1e-6
    )
    assert ((later * clean).mean() / clean.square().mean()).item() == pytest.approx(levels[941].sqrt().item(), abs=0.01)
    assert later.var().item() == pytest.approx(1.0, abs=0.01)
    assert (later - ratio.sqrt() * turned).var().item() == pytest.approx((1 - ratio).item(), rel=0.02)


def test_the_diffusion_over_no_time_changes_nothing() -> None:
    noisy, level = torch.randn(2, 3, 4, 8, 8), torch.tensor(0.3)
    assert torch.equal(ddpm_forward(noisy, torch.randn_like(noisy), level, level), noisy)


@torch.no_grad()
def test_guidance_combines_the_predictions_of_each_clip_with_its_own_texts(backbone: ImageBackbone) -> None:
    noisy = clips(backbone, batch=2, frames=3)
    found = denoiser(backbone, ["bad", "worse", *CAPTIONS], 3.0).predict(noisy, 501)
    for number, (negative, positive) in enumerate(zip(["bad", "worse"], CAPTIONS, strict=True)):
        away, to = (denoiser(backbone, [text], 1.0).predict(noisy[number : number + 1], 501) for text in (negative, positive))
        assert torch.allclose(found[number], (away + 3.0 * (to - away))[0], atol=1e-4)
        assert (to - away).abs().max() > 1e-3


@torch.no_grad()
@pytest.mark.parametrize("texts", [CAPTIONS[:1], CAPTIONS])
def test_frames_depend_on_the_first_and_on_no_other(backbone: ImageBackbone, texts: list[str]) -> None:
    model, noisy = denoiser(backbone, texts, 3.0), clips(backbone, batch=1, frames=5)  # odd, with and without guidance
    before = model.predict(noisy, 501)
    noisy[:, 3] += 1
    third = (model.predict(noisy, 501) - before).abs().amax((0, 2, 3, 4))
    assert (third > 1e-3).tolist() == [False, False, False, True, False]
    noisy[:, 3] -= 1
    noisy[:, 0] += torch.randn(noisy[:, 0].shape, generator=torch.Generator().manual_seed(6))
    first = (model.predict(noisy, 501) - before).abs().amax((0, 2, 3, 4))
    assert (first > 1e-4).all()


def test_without_guidance_the_network_sees_each_frame_once(backbone: ImageBackbone) -> None:
    seen: list[int] = []
    hook = backbone.unet.register_forward_pre_hook(lambda _, arguments: seen.append(len(arguments[0])))
    sample_latents(backbone, CAPTIONS, [1, 2], 5, changed(guidance=1.0))
    plain = seen.copy()
    seen.clear()
    sample_latents(backbone, CAPTIONS, [1, 2], 5, OPTIONS)
    hook.remove()
    assert plain == [2, 2, 10, 10, 10]  # of 4 steps: 751 by frame 1; 501 by frame 1; and from 501 on by all
    assert seen == [2 * count for count in plain]


@pytest.mark.parametrize("chunk", [1, 2, 3])
def test_a_clip_does_not_depend_on_its_chunks(backbone: ImageBackbone, chunk: int) -> None:
    whole = sample_latents(backbone, CAPTIONS[:1], [1], 6, OPTIONS)
    assert torch.allclose(sample_latents(backbone, CAPTIONS[:1], [1], 6, changed(chunk=chunk)), whole, atol=1e-4)


def test_a_longer_clip_begins_with_the_shorter_one(backbone: ImageBackbone) -> None:
    short, long = (sample_latents(backbone, CAPTIONS[:1], [1], frames, OPTIONS) for frames in (1, 7))
    assert torch.allclose(short, long[:, :1], atol=1e-4)
    assert torch.allclose(sample_latents(backbone, CAPTIONS[:1], [1], 3, OPTIONS), long[:, :3], atol=1e-4)


def test_a_clip_does_not_depend_on_its_batch(backbone: ImageBackbone) -> None:
    together = sample_latents(backbone, CAPTIONS, [4, 5], 3, OPTIONS)
    assert torch.allclose(sample_latents(backbone, CAPTIONS[1:], [5], 3, OPTIONS)[0], together[1], atol=1e-4)
    assert (together[0] - together[1]).abs().max() > 0.5


def test_the_same_seed_gives_the_same_video_to_the_bit(backbone: ImageBackbone) -> None:
    videos = [sample(backbone, CAPTIONS, seeds, 3, OPTIONS) for seeds in ([1, 2], [1, 2], [3, 2])]
    assert videos[0].shape == (2, 3, 32, 32, 3)
    assert videos[0].dtype == np.uint8
    assert np.array_equal(videos[0], videos[1])
    assert apart(videos[0][0], videos[2][0]) > SEEN


def test_the_caption_and_the_negative_text_matter(backbone: ImageBackbone) -> None:
    base, other, away = (
        sample_latents(backbone, [caption], [1], 2, changed(negative=negative))
        for caption, negative in ((CAPTIONS[0], ""), (CAPTIONS[1], ""), (CAPTIONS[0], "dull"))
    )
    assert (base - other).abs().max() > 1e-2
    assert (base - away).abs().max() > 1e-2


def test_motion_moves_all_frames_but_the_first(backbone: ImageBackbone) -> None:
    still, moving = (sample_latents(backbone, CAPTIONS[:1], [1], 3, changed(motion=Motion(strength=strength))) for strength in (0.0, 64.0))
    assert ((still - moving).abs().amax((0, 2, 3, 4)) > 0.1).tolist() == [False, True, True]


def test_without_motion_and_without_diffusion_all_frames_are_the_first(backbone: ImageBackbone) -> None:
    video = sample_latents(backbone, CAPTIONS[:1], [1], 3, changed(motion=Motion(strength=0.0, warp_at=1000, resume_at=1000)))
    assert torch.allclose(video, video[:, :1].expand_as(video), atol=1e-4)


def test_the_background_of_all_frames_becomes_the_firsts(backbone: ImageBackbone) -> None:
    still = Motion(strength=0.0, warp_at=300, resume_at=550)
    plain, full = (
        sample_latents(backbone, CAPTIONS[:1], [1], 3, changed(motion=still, smoothing=smoothing))
        for smoothing in (None, Smoothing(strength=1.0, foreground=foreground_nowhere))
    )
    assert (plain[:, 1] - plain[:, 0]).abs().max() > 0.1
    assert torch.allclose(full, plain[:, :1].expand_as(plain), atol=1e-4)


def test_smoothing_spares_the_foreground_the_first_frame_and_strength_0(backbone: ImageBackbone) -> None:
    plain = sample_latents(backbone, CAPTIONS[:1], [1], 3, OPTIONS)
    everywhere, none, some = (
        sample_latents(backbone, CAPTIONS[:1], [1], 3, changed(smoothing=smoothing))
        for smoothing in (
            Smoothing(foreground=lambda frames: torch.ones_like(frames[:, :1])),
            Smoothing(strength=0.0, foreground=foreground_nowhere),
            Smoothing(foreground=foreground_nowhere),
        )
    )
    assert torch.allclose(everywhere, plain, atol=1e-4)
    assert torch.allclose(none, plain, atol=1e-4)
    assert torch.allclose(some[:, 0], plain[:, 0], atol=1e-4)
    assert (some[:, 1:] - plain[:, 1:]).abs().amax() > 0.1


def test_where_the_first_frames_object_comes_to_lie_is_no_background(backbone: ImageBackbone) -> None:
    def corner_of_the_first(frames: torch.Tensor) -> torch.Tensor:
        mask = torch.zeros_like(frames[:, :1])
        mask[0, :, :4, :4] = 1.0  # a latent pixel, widened to 3 x 3
        return mask

    noisy, shifts = clips(backbone, batch=1, frames=2), torch.tensor([[0, 0], [-4, 0]])
    found = smoothed(backbone, noisy, noisy, shifts, Smoothing(strength=1.0, foreground=corner_of_the_first))
    assert torch.equal(found[0, 0], noisy[0, 0])
    assert torch.equal(found[0, 1, :, 1:7, :3], noisy[0, 1, :, 1:7, :3])  # 4 rows down, and mirrored above
    assert torch.equal(found[0, 1, :, 4:, 3:], noisy[0, 0, :, :4, 3:])


def test_drawing_needs_no_gradient_and_changes_no_weight(backbone: ImageBackbone) -> None:
    trainable = copy.deepcopy(backbone).requires_grad_(True)
    before = {name: tensor.clone() for name, tensor in trainable.state_dict().items()}
    assert not sample_latents(trainable, CAPTIONS[:1], [1], 2, OPTIONS).requires_grad
    assert all(torch.equal(tensor, before[name]) for name, tensor in trainable.state_dict().items())
    assert all(parameter.grad is None for parameter in trainable.parameters())


def test_drawing_tells_its_steps_and_can_be_cancelled(backbone: ImageBackbone) -> None:
    seen: list[tuple[int, int]] = []
    sample_latents(backbone, CAPTIONS[:1], [1], 2, changed(smoothing=Smoothing()), lambda done, steps: seen.append((done, steps)))
    assert seen == [(done, 8) for done in range(8)]

    def cancel(done: int, steps: int) -> None:
        if done == 2:
            raise TimeoutError("late")

    with pytest.raises(TimeoutError, match="late"):
        sample_latents(backbone, CAPTIONS[:1], [1], 2, OPTIONS, cancel)


@pytest.mark.parametrize(
    "captions, seeds, frames, message",
    [(CAPTIONS, [1], 3, "2 captions and 1 seeds"), ([], [], 3, "at least one"), (CAPTIONS, [1, 2], 0, "frames are 0")],
)
def test_numbers_out_of_range_are_refused(
    backbone: ImageBackbone, captions: list[str], seeds: list[int], frames: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        sample(backbone, captions, seeds, frames, OPTIONS)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"steps": 0}, "1 to 1000"),
        ({"steps": 1001}, "1 to 1000"),
        ({"guidance": -1.0}, "guidance is -1.0"),
        ({"guidance": float("nan")}, "guidance is nan"),
        ({"chunk": 0}, "chunk is 0"),
    ],
)
def test_options_out_of_range_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        changed(**change)


@pytest.mark.parametrize("warp_at, resume_at", [(950, 941), (-1, 5), (5, 1001)])
def test_a_motion_whose_end_is_before_its_start_is_refused(warp_at: int, resume_at: int) -> None:
    with pytest.raises(ValueError, match="warp_at"):
        Motion(warp_at=warp_at, resume_at=resume_at)


@pytest.mark.parametrize("steps", [1, 4, 50, 100])
def test_a_number_of_steps_that_divides_1000_visits_what_diffusers_does(backbone: ImageBackbone, steps: int) -> None:
    assert visited(backbone.scheduler(steps), steps) == backbone.scheduler(steps).timesteps.tolist()


@pytest.mark.parametrize("steps", [60, 334, 600, 999, 1000])
def test_any_number_of_steps_begins_at_the_noise(backbone: ImageBackbone, steps: int) -> None:
    found = visited(backbone.scheduler(steps), steps)
    assert found == sorted(set(found), reverse=True)
    assert 980 <= found[0] <= 999
    assert found[-1] <= 2


def test_a_thousand_steps_draw_a_clip() -> None:
    text = TextSize(vocabulary=32, length=4, width=8, layers=1, heads=1)
    size = BackboneSize(
        widths=[8], attention=[False], layers=1, heads=1, groups=4, autoencoder=[8, 8], autoencoder_layers=1, text=text
    )  # of few layers: a step takes as long as there are any
    backbone = build_backbone(size, Resolution(height=16, width=16)).eval().requires_grad_(False)
    seen: list[int] = []
    backbone.unet.register_forward_pre_hook(lambda _, arguments: seen.append(int(arguments[1])))
    assert sample(backbone, ["a boat"], [0], 2, Options(steps=1000, guidance=1.0)).shape == (1, 2, 16, 16, 3)
    assert sorted(set(seen)) == sorted(visited(backbone.scheduler(1000), 1000))


def test_the_diffusion_of_moved_frames_follows_their_device() -> None:
    noisy = torch.zeros(2, 3, 4, 8, 8, device="meta")
    assert ddpm_forward(noisy, noisy, torch.tensor(0.5), torch.tensor(0.4)).device == noisy.device
