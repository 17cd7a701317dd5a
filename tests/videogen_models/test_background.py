"""Background smoothing: what moves with frame 1, and what does not."""

from __future__ import annotations

import pytest
import torch

from videogen_models.background import Smoothing, latent_mask, salient, smooth, united

torch.set_num_threads(1)


def draws() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Latents and warped latents [2, 3, 4, 8, 8], and a mask with both values."""
    generator = torch.Generator().manual_seed(0)
    latents, warped = torch.randn(2, 2, 3, 4, 8, 8, generator=generator)
    return latents, warped, (torch.rand(2, 3, 1, 8, 8, generator=generator) > 0.5).float()


def test_the_foreground_stays_and_the_background_is_the_papers_combination() -> None:
    latents, warped, mask = draws()
    found, inside = smooth(latents, warped, mask, 0.6), mask.bool().expand_as(latents)
    assert torch.equal(found[inside], latents[inside])
    assert torch.allclose(found[~inside], (0.6 * warped + 0.4 * latents)[~inside], atol=1e-6)


def test_strength_0_changes_nothing_and_1_without_foreground_is_the_warped_frame() -> None:
    latents, warped, mask = draws()
    assert torch.equal(smooth(latents, warped, mask, 0.0), latents)
    assert torch.equal(smooth(latents, warped, torch.zeros_like(mask), 1.0), warped)


def test_foreground_is_what_is_so_in_this_frame_or_comes_from_the_first() -> None:
    here, came = torch.tensor([0.0, 0.0, 1.0, 1.0]), torch.tensor([0.0, 1.0, 0.0, 1.0])
    assert united(here, came).tolist() == [0.0, 1.0, 1.0, 1.0]


def test_one_pixel_of_foreground_covers_its_latent_pixel_and_two_around() -> None:
    mask = torch.zeros(1, 1, 64, 64)
    mask[..., 33, 33] = 1.0
    found = latent_mask(mask, (16, 16))
    expected = torch.zeros(16, 16)
    expected[6:11, 6:11] = 1.0
    assert torch.equal(found[0, 0], expected)


def test_a_bright_disc_on_a_dim_ground_is_salient() -> None:
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    distance = ((y - 40) ** 2 + (x - 20) ** 2).sqrt()
    disc = distance < 9
    frame = torch.full((1, 3, 64, 64), -0.5) + 0.02 * torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    frame[0, 0, disc] = 0.9
    found = salient(frame)[0, 0].bool()
    assert found[disc].all()
    assert not found[distance > 11].any()  # the blur widens it a little


def test_a_plain_frame_has_no_foreground() -> None:
    assert salient(torch.full((2, 3, 16, 16), 0.3)).sum() == 0


@pytest.mark.parametrize("strength", [-0.1, 1.1, float("nan")])
def test_a_strength_outside_0_and_1_is_refused(strength: float) -> None:
    with pytest.raises(ValueError, match="0 to 1"):
        Smoothing(strength=strength)
