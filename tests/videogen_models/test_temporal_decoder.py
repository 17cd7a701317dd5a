"""The temporal decoder: the encoder is never touched, flicker is unlearned, and the discriminator judges clips, not frames."""

from __future__ import annotations

import pytest
import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn

from videogen_models.temporal_decoder import TemporalDecoder, VideoDiscriminator, adaptive_weight, decoder_losses, discriminator_loss
from videogen_models.temporal_layers import TemporalSize

SIZE = TemporalSize(head_width=4, groups=2, context_width=4)
FRAMES = 4


def autoencoder(**changed: object) -> AutoencoderKL:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    sizes: dict[str, object] = {
        "block_out_channels": (8, 8),
        "down_block_types": ("DownEncoderBlock2D",) * 2,
        "up_block_types": ("UpDecoderBlock2D",) * 2,
        "layers_per_block": 1,
        "latent_channels": 4,
        "norm_num_groups": 2,
    }
    return AutoencoderKL(**(sizes | changed))


@pytest.fixture
def decoder() -> TemporalDecoder:
    return TemporalDecoder(autoencoder(), SIZE)


@pytest.fixture
def discriminator() -> VideoDiscriminator:
    torch.manual_seed(1)
    return VideoDiscriminator([4, 8], groups=2)


@pytest.fixture
def frames() -> Tensor:
    torch.manual_seed(2)
    still = nn.functional.interpolate(torch.rand(2, 3, 4, 4) * 2 - 1, (16, 16), mode="bilinear")
    return torch.stack([still.roll(shift, dims=-1) for shift in range(FRAMES)], dim=1)


def stir(decoder: TemporalDecoder) -> None:
    torch.manual_seed(3)
    with torch.no_grad():
        for name, parameter in decoder.temporal.named_parameters():
            if not name.endswith("logit"):
                parameter.normal_(std=0.3)


@pytest.mark.parametrize("changed", [{}, {"mid_block_add_attention": False}, {"use_post_quant_conv": False, "shift_factor": 0.1}])
def test_a_new_decoder_and_one_with_alpha_1_are_the_image_decoder_to_the_bit(changed: dict[str, object], frames: Tensor) -> None:
    decoder = TemporalDecoder(autoencoder(**changed), SIZE)
    vae = decoder.vae
    with torch.no_grad():
        latents = decoder.encode(frames)
        expected = vae.decode(latents.flatten(0, 1) / vae.config.scaling_factor + (vae.config.shift_factor or 0)).sample
        assert torch.equal(decoder(latents).flatten(0, 1), expected)
        stir(decoder)
        assert not torch.allclose(decoder(latents).flatten(0, 1), expected, atol=1e-2)
        decoder.set_alpha(1)
        assert torch.equal(decoder(latents).flatten(0, 1), expected)


def test_latents_are_the_image_encoders_and_each_frame_is_encoded_alone(decoder: TemporalDecoder, frames: Tensor) -> None:
    stir(decoder)
    latents = decoder.encode(frames)
    expected = decoder.vae.encode(frames[1]).latent_dist.mode() * decoder.vae.config.scaling_factor
    assert torch.allclose(latents[1], expected, atol=1e-5)
    assert torch.allclose(decoder.encode(frames.flip(1)), latents.flip(1), atol=1e-5)
    assert not latents.requires_grad


def test_the_decoder_sees_the_other_frames_of_its_clip_only(decoder: TemporalDecoder, frames: Tensor) -> None:
    stir(decoder)
    with torch.no_grad():
        latents = decoder.encode(frames)
        changed = latents.clone()
        changed[0, 0] += 1
        difference = (decoder(latents) - decoder(changed)).flatten(2).abs().amax(dim=2)
    assert difference[0, 1] > 1e-3
    assert difference[1].max() < 1e-6


@pytest.mark.parametrize("count", [1, 24, 25, 33])
def test_a_long_clip_is_decoded_in_windows_that_see_their_neighbours(decoder: TemporalDecoder, count: int) -> None:
    latents = torch.randn(1, count, 4, 8, 8, generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        assert torch.allclose(decoder.decode(latents), decoder(latents), atol=1e-5)  # new: each frame alone
        stir(decoder)
        found, whole = decoder.decode(latents), decoder(latents)
    assert found.shape == whole.shape
    difference = float((found - whole).abs().max())
    assert difference < 1e-5 if count <= 24 else difference > 1e-3


def test_no_window_sees_more_than_four_frames_beyond_its_own(decoder: TemporalDecoder) -> None:
    stir(decoder)
    latents = torch.randn(1, 40, 4, 8, 8, generator=torch.Generator().manual_seed(4))
    changed = latents.clone()
    changed[:, 20] += 1
    with torch.no_grad():
        differs = (decoder.decode(latents) - decoder.decode(changed)).flatten(2).abs().amax(dim=2)[0] > 1e-4
    assert differs.tolist() == [False] * 16 + [True] * 16 + [False] * 8  # the windows see frames 0 to 19, 12 to 35, 28 to 39


@pytest.mark.parametrize("spatial", [False, True])
def test_the_encoder_gets_no_gradient_and_does_not_change(
    decoder: TemporalDecoder, discriminator: VideoDiscriminator, frames: Tensor, spatial: bool
) -> None:
    assert not any(parameter.requires_grad for parameter in decoder.vae.parameters())
    stir(decoder)
    before = {name: parameter.detach().clone() for name, parameter in decoder.named_parameters()}
    chosen = decoder.trained(spatial=spatial)
    optimizer = torch.optim.AdamW(chosen.values(), lr=1e-2)
    sum(decoder_losses(decoder, discriminator, decoder.encode(frames), frames)).backward()  # type: ignore[union-attr]
    frozen = [*decoder.vae.encoder.parameters(), *decoder.vae.quant_conv.parameters()]
    assert all(parameter.grad is None for parameter in frozen)
    optimizer.step()
    changed = {name for name, parameter in decoder.named_parameters() if not torch.equal(parameter, before[name])}
    assert changed == set(chosen)
    assert any(name.startswith("vae.decoder.") for name in changed) is spatial
    assert not any(name.startswith(("vae.encoder.", "vae.quant_conv.")) for name in chosen)


def test_training_on_a_clip_lowers_its_reconstruction_error(
    decoder: TemporalDecoder, discriminator: VideoDiscriminator, frames: Tensor
) -> None:
    groups = [{"params": decoder.trained().values()}, {"params": discriminator.parameters(), "lr": 1e-3}]
    optimizer, errors = torch.optim.AdamW(groups, lr=1e-2), []
    for _ in range(15):
        losses = torch.stack(decoder_losses(decoder, discriminator, decoder.encode(frames), frames))
        optimizer.zero_grad()
        losses.sum().backward()
        optimizer.step()
        errors.append(losses[0].item())
    assert errors[-1] < 0.8 * errors[0]


def gradients(module: nn.Module) -> list[Tensor]:
    return [parameter.grad.clone() for parameter in module.parameters() if parameter.requires_grad and parameter.grad is not None]


def test_the_sum_of_the_losses_gives_each_player_the_gradients_of_its_own_alone(
    decoder: TemporalDecoder, discriminator: VideoDiscriminator, frames: Tensor
) -> None:
    stir(decoder)
    decoder.trained()
    latents = decoder.encode(frames)
    sum(decoder_losses(decoder, discriminator, latents, frames)).backward()  # type: ignore[union-attr]
    together = gradients(decoder.temporal), gradients(discriminator)
    decoder.zero_grad()
    decoded = decoder(latents)
    reconstruction, fooled = (frames - decoded).abs().mean(), -discriminator(decoded).mean()
    (reconstruction + 0.5 * adaptive_weight(reconstruction, fooled, decoder.last_layer) * fooled).backward()
    discriminator.zero_grad()
    discriminator_loss(discriminator(frames), discriminator(decoded.detach())).backward()
    alone = gradients(decoder.temporal), gradients(discriminator)
    for mine, expected in zip(together, alone, strict=True):
        assert len(mine) == len(expected) > 0
        assert all(torch.allclose(one, other, atol=1e-6) for one, other in zip(mine, expected, strict=True))


def test_without_its_adversary_the_loss_is_the_reconstruction_error(
    decoder: TemporalDecoder, discriminator: VideoDiscriminator, frames: Tensor
) -> None:
    decoder.trained()
    latents = decoder.encode(frames)
    decoded = decoder(latents)
    loss, nothing, judged = decoder_losses(decoder, discriminator, latents, frames, adversarial=0)
    assert (loss, nothing.item()) == ((frames - decoded).abs().mean(), 0)
    assert judged.item() == pytest.approx(discriminator_loss(discriminator(frames), discriminator(decoded)).item())
    _, adversarial, _ = decoder_losses(decoder, discriminator, latents, frames, adversarial=0.5)
    weight = adaptive_weight(loss, fooled := -discriminator(decoded).mean(), decoder.last_layer)
    assert adversarial.item() == pytest.approx((0.5 * weight * fooled).item(), rel=1e-4)


def test_gradient_checkpointing_changes_no_gradient(decoder: TemporalDecoder, discriminator: VideoDiscriminator, frames: Tensor) -> None:
    stir(decoder)
    found = []
    for decoder.checkpointing in (False, True):
        chosen = decoder.trained()
        decoder.zero_grad()
        torch.stack(decoder_losses(decoder, discriminator, decoder.encode(frames), frames)).sum().backward()
        found.append(gradients(decoder.temporal))
    assert len(found[0]) == len(found[1]) == len(chosen)
    assert all(torch.allclose(one, other, atol=1e-6) for one, other in zip(*found, strict=True))


def test_the_discriminator_judges_patches_of_clips(discriminator: VideoDiscriminator, frames: Tensor) -> None:
    with torch.no_grad():
        logits = discriminator(frames)
        assert logits.shape == (2, 1, FRAMES, 4, 4)
        shuffled = discriminator(frames[:, [1, 3, 0, 2]])
    assert not torch.allclose(shuffled, logits[:, :, [1, 3, 0, 2]], atol=1e-3)  # the same frames in another order


def test_the_discriminator_learns_to_tell_motion_from_flicker(discriminator: VideoDiscriminator, frames: Tensor) -> None:
    flicker = frames[:, [2, 0, 3, 1]]  # the same frames, so that none of them alone gives it away
    optimizer = torch.optim.AdamW(discriminator.parameters(), lr=1e-2)
    losses = []
    for _ in range(40):
        optimizer.zero_grad()
        loss = discriminator_loss(discriminator(frames), discriminator(flicker))
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize("real, decoded, loss", [(1.0, -1.0, 0.0), (5.0, -7.0, 0.0), (0.0, 0.0, 1.0), (-1.0, -1.0, 1.0), (1.0, 2.0, 1.5)])
def test_the_discriminators_loss_is_the_hinge(real: float, decoded: float, loss: float) -> None:
    assert discriminator_loss(torch.tensor([real]), torch.tensor([decoded])).item() == loss


def test_the_adaptive_weight_makes_both_gradients_alike_large() -> None:
    weights = torch.tensor([1.0, 2.0], requires_grad=True)
    reconstruction, adversarial = 3 * weights.sum(), 0.5 * weights.sum()
    assert adaptive_weight(reconstruction, adversarial, weights).item() == pytest.approx(6, rel=1e-3)
    assert adaptive_weight(reconstruction, 0 * weights.sum(), weights).item() == 1e4  # bounded
