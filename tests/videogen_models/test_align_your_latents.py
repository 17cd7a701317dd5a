"""Align-Your-Latents: what is the image model's and what is learned, who sees whom, and what the losses measure."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from torch import Tensor, nn

from videogen_api.recipe import Architecture, Resolution
from videogen_models.align_your_latents import PRESETS, VideoUNet, clean_estimate, consistency_error, target
from videogen_models.backbone_folder import load_backbone, save_backbone
from videogen_models.image_backbone import PRESETS as SIZES
from videogen_models.image_backbone import BackboneSize, build_backbone
from videogen_models.known_frames import condition, first_frames
from videogen_models.temporal_decoder import TemporalDecoder
from videogen_models.temporal_layers import Call, FrameAttention, Mix, TemporalAttention, TemporalConvolution, TemporalSize
from videogen_models.text import TextSize
from videogen_trainer.families.align_your_latents import VideoObjective

FRAMES, TEXT = 5, 8
SIZE = TemporalSize(head_width=4, groups=2, context_width=4)


def image_unet(seed: int = 0, **changed: object) -> UNet2DConditionModel:
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    sizes: dict[str, object] = {
        "sample_size": 8,
        "block_out_channels": (8, 16),
        "layers_per_block": 1,
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
        "cross_attention_dim": TEXT,
        "attention_head_dim": 2,
        "norm_num_groups": 2,
    }
    return UNet2DConditionModel(**(sizes | changed))


def stirred(model: nn.Module) -> nn.Module:
    """All temporal layers do something, as after a training."""
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not name.startswith(("image.", "vae.")) and not name.endswith("logit"):
                parameter.normal_(std=0.2)
    return model


@pytest.fixture
def model() -> VideoUNet:
    return stirred(VideoUNet(image_unet(), SIZE))  # type: ignore[return-value]


@pytest.fixture
def call() -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(2)
    return torch.randn(2, FRAMES, 4, 8, 8), torch.tensor([3, 700]), torch.randn(2, 6, TEXT)


def image_output(image: UNet2DConditionModel, noisy: Tensor, timestep: Tensor, text: Tensor) -> Tensor:
    frames = noisy.shape[1]
    batch = noisy.flatten(0, 1), timestep.repeat_interleave(frames), text.repeat_interleave(frames, dim=0)
    return image(*batch).sample.unflatten(0, (-1, frames))


SIZES_OF_IMAGE_MODELS = [
    {},
    {"layers_per_block": 2, "block_out_channels": (8, 8, 8), "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"), "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D")},
    {"use_linear_projection": True, "addition_embed_type": "text", "addition_embed_type_num_heads": 2},
]  # fmt: skip


@pytest.mark.parametrize("sizes", SIZES_OF_IMAGE_MODELS)
@pytest.mark.parametrize("height, width", [(8, 8), (6, 10)])
def test_with_alpha_1_the_model_is_the_image_model_to_the_bit(
    sizes: dict[str, object], height: int, width: int, call: tuple[Tensor, Tensor, Tensor]
) -> None:
    _, timestep, text = call
    noisy = torch.randn(2, FRAMES, 4, height, width)
    model = stirred(VideoUNet(image_unet(**sizes), SIZE))
    with torch.no_grad():
        expected = image_output(model.image, noisy, timestep, text)
        assert not torch.allclose(model(noisy, timestep, text), expected, atol=1e-3)
        model.set_alpha(1)
        assert torch.equal(model(noisy, timestep, text), expected)
        one = model.image(noisy[1, 3][None], timestep[1:], text[1:]).sample[0]
        assert torch.allclose(model(noisy, timestep, text)[1, 3], one, atol=1e-5)  # kernels may add in another order


def test_a_new_model_is_the_image_model_whatever_alpha_is(call: tuple[Tensor, Tensor, Tensor]) -> None:
    model = VideoUNet(image_unet(), SIZE)
    with torch.no_grad():
        assert torch.equal(model(*call), image_output(model.image, *call))  # alpha = 0.5 adds halves, exactly
        model.set_alpha(0.3)
        assert torch.allclose(model(*call), image_output(model.image, *call), atol=1e-5)


@pytest.mark.parametrize("alpha, permuted", [(1.0, True), (0.5, False)])
def test_frames_have_an_order_unless_alpha_is_1(
    model: VideoUNet, call: tuple[Tensor, Tensor, Tensor], alpha: float, permuted: bool
) -> None:
    noisy, timestep, text = call
    order = torch.tensor([2, 0, 4, 1, 3])
    model.set_alpha(alpha)
    with torch.no_grad():
        difference = (model(noisy[:, order], timestep, text) - model(noisy, timestep, text)[:, order]).abs().max().item()
    assert (difference < 1e-5) is permuted
    assert permuted or difference > 1e-2


def test_attention_knows_the_order_and_how_far_away_a_frame_is() -> None:
    torch.manual_seed(0)
    attention, tokens = FrameAttention(8, 4), torch.randn(3, FRAMES, 8)
    with torch.no_grad():
        assert not torch.allclose(attention(tokens.flip(1)), attention(tokens).flip(1), atol=1e-3)
        attention.position.weight.zero_()
        assert torch.allclose(attention(tokens.flip(1)), attention(tokens).flip(1), atol=1e-6)


def test_positions_are_relative_so_a_clip_cut_out_of_a_longer_one_is_seen_alike() -> None:
    torch.manual_seed(0)
    attention, tokens = FrameAttention(8, 4), torch.randn(1, 9, 8)
    with torch.no_grad():
        whole, cut = attention(tokens, 1), attention(tokens[:, 3:], 1)
    assert torch.allclose(whole[:, 4:], cut[:, 1:], atol=1e-6)


@pytest.mark.parametrize("away, seen", [(8, True), (9, False), (12, False)])
def test_attention_sees_no_frame_more_than_8_away(away: int, seen: bool) -> None:
    layer = stirred(TemporalAttention(8, SIZE, TEXT))
    torch.manual_seed(0)
    images, text = torch.randn(13, 8, 2, 2), torch.randn(1, 6, TEXT)
    changed = images.clone()
    changed[away] += torch.randn(8, 2, 2)  # another number for each channel: what all have in common a layer norm takes away
    with torch.no_grad():
        first, other = (layer(clip, Call(13, text, distance=8))[0] for clip in (images, changed))
    difference = float((first - other).abs().max())
    assert difference > 1e-3 if seen else difference < 1e-6


def test_a_convolution_sees_the_neighbouring_frames_of_its_own_clip_only() -> None:
    layer = stirred(TemporalConvolution(8, SIZE))
    for norm in (layer.first_norm, layer.second_norm):
        norm.register_forward_hook(lambda _, arguments, __: arguments[0])  # its statistics run over all frames
    images = torch.randn(12, 8, 4, 4)
    changed = images.clone()
    changed[2] += 1
    with torch.no_grad():
        differs = (layer(images, Call(6)) - layer(changed, Call(6))).flatten(1).abs().amax(dim=1) > 1e-6
    assert differs.tolist() == [True, True, True, True, True] + [False] * 7


def test_the_clips_of_a_batch_do_not_see_each_other(model: VideoUNet, call: tuple[Tensor, Tensor, Tensor]) -> None:
    noisy, timestep, text = call
    with torch.no_grad():
        together, alone = model(noisy, timestep, text)[1], model(noisy[1:], timestep[1:], text[1:])[0]
    assert torch.allclose(together, alone, atol=1e-5)


@pytest.mark.parametrize("frames", [1, 2, 17])
def test_a_clip_may_have_any_number_of_frames(model: VideoUNet, frames: int, call: tuple[Tensor, Tensor, Tensor]) -> None:
    noisy = torch.randn(2, frames, 4, 8, 8)
    with torch.no_grad():
        assert model(noisy, *call[1:]).shape == noisy.shape


def step(model: VideoUNet, parameters: dict[str, nn.Parameter], call: tuple[Tensor, Tensor, Tensor], rounds: int = 1) -> None:
    optimizer = torch.optim.AdamW(parameters.values(), lr=1e-2)
    for _ in range(rounds):
        optimizer.zero_grad()
        model(*call).square().mean().backward()
        optimizer.step()


def snapshot(model: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def test_training_changes_all_temporal_layers_and_no_spatial_one(model: VideoUNet, call: tuple[Tensor, Tensor, Tensor]) -> None:
    chosen, before = model.trained("Temporal"), snapshot(model)
    known = condition(torch.randn_like(call[0]), first_frames([1, 2], FRAMES))
    optimizer = torch.optim.AdamW(chosen.values(), lr=1e-2)
    model(*call, known, torch.tensor([0, 1])).square().mean().backward()
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in model.image.parameters())
    optimizer.step()
    changed = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}
    assert changed == {f"temporal.{name}" for name in chosen}
    assert set(chosen) == {name for name, _ in model.temporal.named_parameters()}


def test_a_new_model_learns_too(call: tuple[Tensor, Tensor, Tensor]) -> None:
    model = VideoUNet(image_unet(), SIZE)
    before = snapshot(model)
    step(model, model.trained("Temporal"), call, rounds=3)
    still = {name for name, parameter in model.named_parameters() if torch.equal(parameter, before[name])}
    assert {name for name in still if not name.startswith("image.")} == {"temporal.rate.weight"}  # which was not given


def test_cross_modal_alignment_changes_only_how_text_is_attended_to(model: VideoUNet, call: tuple[Tensor, Tensor, Tensor]) -> None:
    chosen, before = model.trained("Text"), snapshot(model)
    step(model, chosen, call)
    changed = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}
    assert changed == {f"temporal.{name}" for name in chosen}
    assert chosen and all("text" in name and "attentions" in name for name in chosen)


def test_nothing_else_learns_whatever_learned_before(model: VideoUNet) -> None:
    assert not any(parameter.requires_grad for parameter in model.image.parameters())
    model.requires_grad_(True)
    for which in ("Temporal", "Text"):
        chosen = {f"temporal.{name}" for name in model.trained(which)}  # type: ignore[arg-type]
        assert {name for name, parameter in model.named_parameters() if parameter.requires_grad} == chosen


def test_text_reaches_the_temporal_layers_only_once_it_is_aligned(call: tuple[Tensor, Tensor, Tensor]) -> None:
    layer, images = TemporalAttention(8, SIZE, TEXT), torch.randn(2 * FRAMES, 8, 4, 4)
    nn.init.normal_(layer.output.weight)
    with torch.no_grad():
        without, with_text = layer(images, Call(FRAMES)), layer(images, Call(FRAMES, call[2]))
        assert torch.equal(without, with_text)
        nn.init.normal_(layer.text.output.weight)
        assert not torch.allclose(without, layer(images, Call(FRAMES, call[2])), atol=1e-3)
        one, other = layer(images, Call(FRAMES, call[2])), layer(images, Call(FRAMES, call[2][:1].repeat(2, 1, 1)))
    assert torch.allclose(one[:FRAMES], other[:FRAMES], atol=1e-6)  # a clip attends to its own caption
    assert not torch.allclose(one[FRAMES:], other[FRAMES:], atol=1e-3)


@pytest.mark.parametrize("push", [-1, 1])
def test_alpha_stays_between_0_and_1(push: int) -> None:
    mix = Mix(0.5)
    optimizer = torch.optim.SGD(mix.parameters(), lr=1e3)
    for _ in range(20):
        optimizer.zero_grad()
        (push * mix(torch.ones(1), torch.zeros(1)).sum()).backward()
        optimizer.step()
        assert 0 <= mix.alpha.item() <= 1
    assert mix.alpha.item() == pytest.approx(0 if push == 1 else 1, abs=1e-3)


@pytest.mark.parametrize("alpha", [0.0, 0.25, 1.0])
def test_alpha_is_the_share_of_the_spatial_layer(alpha: float) -> None:
    assert Mix(alpha)(torch.tensor([2.0]), torch.tensor([6.0])).item() == pytest.approx(2 * alpha + 6 * (1 - alpha), abs=1e-5)


@pytest.mark.parametrize("alpha", [-0.1, 1.1])
def test_an_alpha_out_of_range_is_refused(alpha: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        Mix(alpha)


def test_temporal_layers_fit_another_image_model_of_the_same_size(model: VideoUNet, call: tuple[Tensor, Tensor, Tensor]) -> None:
    other = VideoUNet(image_unet(seed=9), SIZE)
    other.temporal.load_state_dict(model.temporal.state_dict())
    with torch.no_grad():
        assert not torch.allclose(other(*call), model(*call), atol=1e-3)
        other.image.load_state_dict(model.image.state_dict())
        assert torch.equal(other(*call), model(*call))


def test_gradient_checkpointing_changes_no_gradient(model: VideoUNet, call: tuple[Tensor, Tensor, Tensor]) -> None:
    gradients = []
    for model.checkpointing in (False, True):
        parameters = model.trained("Temporal")
        model.zero_grad()
        model(*call, rate=torch.tensor([0, 1])).square().mean().backward()
        gradients.append({name: parameter.grad for name, parameter in parameters.items() if parameter.grad is not None})
    assert gradients[0].keys() == gradients[1].keys() == parameters.keys()
    assert all(torch.allclose(gradients[0][name], gradients[1][name], atol=1e-6) for name in parameters)


def test_the_two_rates_of_interpolation_are_told_apart(model: VideoUNet, call: tuple[Tensor, Tensor, Tensor]) -> None:
    with torch.no_grad():
        slow, fast = (model(*call, rate=torch.tensor([rate, rate])) for rate in (0, 1))
    assert (slow - fast).abs().max() > 1e-3


@pytest.mark.parametrize(
    "changed, message",
    [
        ({"down_block_types": ("AttnDownBlock2D", "DownBlock2D")}, "blocks of type AttnDownBlock2D; accepted are"),
        ({"num_class_embeds": 3}, "conditions beside time and text"),
    ],
)
def test_an_image_model_of_another_kind_is_refused(changed: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        VideoUNet(image_unet(**changed), SIZE)


def test_heads_must_fit_the_widths() -> None:
    with pytest.raises(ValueError, match="8 channels cannot be split into attention heads of 3"):
        TemporalAttention(8, SIZE.model_copy(update={"head_width": 3}), TEXT)


def schedule(kind: str) -> DDIMScheduler:
    return DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, prediction_type=kind)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_the_target_is_noise_or_velocity_and_gives_the_clean_clip_back(kind: str) -> None:
    torch.manual_seed(0)
    scheduler, clean, noise, timestep = schedule(kind), torch.randn(2, 3, 4, 4, 4), torch.randn(2, 3, 4, 4, 4), torch.tensor([20, 900])
    noisy, signal = scheduler.add_noise(clean, noise, timestep), scheduler.alphas_cumprod[timestep].reshape(2, 1, 1, 1, 1)
    wanted = target(scheduler, clean, noise, timestep)
    assert torch.allclose(wanted, noise if kind == "epsilon" else signal.sqrt() * noise - (1 - signal).sqrt() * clean, atol=1e-6)
    assert torch.allclose(clean_estimate(scheduler, wanted, noisy, timestep), clean, atol=1e-4)


def test_another_target_is_refused() -> None:
    with pytest.raises(ValueError, match="prediction_type is sample; accepted are epsilon and v_prediction"):
        target(schedule("sample"), *torch.zeros(2, 1, 1), torch.tensor([0]))
    with pytest.raises(ValueError, match="prediction_type is sample; accepted are epsilon and v_prediction"):
        clean_estimate(schedule("sample"), *torch.zeros(2, 1, 1), torch.tensor([0]))


def test_an_error_that_does_not_change_in_time_is_consistent_and_a_flicker_is_not() -> None:
    torch.manual_seed(0)
    clean = torch.randn(2, FRAMES, 4, 2, 2)
    flicker = torch.tensor([1.0, -1.0, 1.0, -1.0, 1.0]).reshape(1, FRAMES, 1, 1, 1) * torch.tensor([0.0, 3.0]).reshape(2, 1, 1, 1, 1)
    assert torch.allclose(consistency_error(clean + torch.randn(2, 1, 4, 2, 2), clean), torch.zeros(2), atol=1e-10)
    assert torch.allclose(consistency_error(clean + flicker, clean), torch.tensor([0.0, 36.0]), atol=1e-4)
    assert consistency_error(clean[:, :1], torch.zeros_like(clean[:, :1])).tolist() == [0.0, 0.0]


class Says(nn.Module):
    """A network that predicts this."""

    def __init__(self, predicted: Tensor) -> None:
        super().__init__()
        self.predicted = predicted

    def forward(self, *_: Tensor | None) -> Tensor:
        return self.predicted


def loss_of(predicted: Tensor, kind: str, clean: Tensor, noise: Tensor, timestep: Tensor, weight: float) -> float:
    nothing = torch.zeros(0)
    objective: Any = VideoObjective(Says(predicted), schedule(kind), weight)  # type: ignore[arg-type]
    return objective(clean, nothing, nothing, timestep, noise).sum().item()


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_with_weight_0_the_loss_is_the_papers_and_with_more_it_adds_the_consistency_term(kind: str) -> None:
    torch.manual_seed(0)
    clean, noise, error, timestep = *(torch.randn(2, FRAMES, 4, 4, 4) for _ in range(3)), torch.tensor([20, 900])
    wanted = target(schedule(kind), clean, noise, timestep)
    assert loss_of(wanted, kind, clean, noise, timestep, 0.5) == pytest.approx(0, abs=1e-6)
    assert loss_of(wanted + error, kind, clean, noise, timestep, 0.0) == pytest.approx(error.square().mean().item(), rel=1e-5)
    signal = schedule(kind).alphas_cumprod[timestep]
    factor = (1 - signal) if kind == "epsilon" else signal * (1 - signal)  # alpha^ times how large an error of y is as one of z^0
    term = (factor * error.diff(dim=1).square().flatten(1).mean(dim=1)).mean()
    expected = (error.square().mean() + 0.5 * term).item()
    assert loss_of(wanted + error, kind, clean, noise, timestep, 0.5) == pytest.approx(expected, rel=1e-3)
    constant = error[:, :1].expand_as(error)
    assert loss_of(wanted + constant, kind, clean, noise, timestep, 0.5) == pytest.approx(constant.square().mean().item(), rel=1e-4)


@pytest.mark.parametrize("weight", [0.0, 0.5])
def test_training_on_one_clip_lowers_its_loss(weight: float, call: tuple[Tensor, Tensor, Tensor]) -> None:
    model = VideoUNet(image_unet(), SIZE)
    clean, timestep, text = call[0][:1, :3], call[1][1:], call[2][1:]
    noise, optimizer = torch.randn_like(clean[:, :1]).expand_as(clean), torch.optim.AdamW(model.trained().values(), lr=1e-2)
    objective, known, losses = VideoObjective(model, schedule("epsilon"), weight), condition(clean, first_frames([1], 3)), []
    for _ in range(10):
        optimizer.zero_grad()
        loss = objective(clean, text, known, timestep, noise).sum()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.parametrize(
    "architecture, least, most", [(Architecture.TINY, 0.3e6, 2e6), (Architecture.SMALL, 10e6, 60e6), (Architecture.PAPER, 0.6e9, 1e9)]
)
def test_the_presets_have_the_sizes_they_promise(architecture: Architecture, least: float, most: float) -> None:
    with torch.device("meta"):
        backbone = build_backbone(SIZES[architecture], Resolution(height=256, width=256))
        count = sum(parameter.numel() for parameter in VideoUNet(backbone.unet, PRESETS[architecture]).temporal.parameters())
        TemporalDecoder(backbone.vae, PRESETS[architecture])
    assert least < count < most  # the paper: 649 million


def test_a_mounted_image_model_becomes_a_video_model(tmp_path: Path, call: tuple[Tensor, Tensor, Tensor]) -> None:
    size = BackboneSize(
        widths=[8, 16], attention=[True, False], layers=1, heads=2, groups=2, autoencoder=[8, 8], autoencoder_layers=1,
        text=TextSize(vocabulary=64, length=6, width=TEXT, layers=1, heads=2),
    )  # fmt: skip
    torch.manual_seed(0)
    save_backbone(build_backbone(size, Resolution(height=16, width=16)), tmp_path)
    backbone = load_backbone(tmp_path)
    model = stirred(VideoUNet(backbone.unet, SIZE))
    plain = UNet2DConditionModel.from_pretrained(tmp_path / "unet", use_safetensors=True)
    noisy, timestep, text = call[0], call[1], backbone.encode(["a red square", "a blue disc"])
    with torch.no_grad():
        model.set_alpha(1)
        assert torch.allclose(model(noisy, timestep, text), image_output(plain, noisy, timestep, text), atol=1e-5)
