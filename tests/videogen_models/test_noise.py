"""The decomposed noise against what the paper says of it (properties 1 to 5)."""

from __future__ import annotations

import pytest
import torch

from videogen_models.noise import add_noise, clip_noise, frame_shares, middle, mix, remove_base

SAMPLES = 200_000
FRAMES = 5
torch.set_num_threads(1)


def draws(share: float, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Base [samples, 1, 1, 1], residual and mixed noise [samples, frames, 1, 1, 1] in float64."""
    generator = torch.Generator().manual_seed(seed)
    base = torch.randn(SAMPLES, 1, 1, 1, generator=generator, dtype=torch.float64)
    residual = torch.randn(SAMPLES, FRAMES, 1, 1, 1, generator=generator, dtype=torch.float64)
    return base, residual, mix(base, residual, frame_shares(FRAMES, share))


@pytest.mark.parametrize("share", [0.0, 0.3, 0.7, 1.0])
def test_the_noise_has_variance_1_and_the_covariance_of_the_shares(share: float) -> None:
    noise = draws(share)[2].flatten(1)
    shares = frame_shares(FRAMES, share).double()
    expected = (shares[:, None] * shares[None, :]).sqrt()
    expected.fill_diagonal_(1.0)
    assert torch.allclose(noise.T.cov(), expected, atol=0.01)


def test_with_a_share_for_each_frame_two_frames_have_the_root_of_their_product() -> None:
    """Equation 6 with its own lambda_i: cov(eps^i, eps^j) = sqrt(lambda_i lambda_j)."""
    shares = frame_shares(FRAMES, 0.7, [0.2, 0.5, 1.0, 0.8, 0.0]).double()
    base, residual, _ = draws(0.7)
    noise = mix(base, residual, shares).flatten(1)
    expected = (shares[:, None] * shares[None, :]).sqrt()
    expected.fill_diagonal_(1.0)
    assert torch.allclose(noise.T.cov(), expected, atol=0.01)
    assert torch.equal(mix(base, residual, shares)[:, middle(FRAMES)], base)


@pytest.mark.parametrize(
    "shares, message",
    [
        ([0.5, 1.0, 0.5], "expected are 5"),
        ([0.5, 0.5, 0.9, 0.5, 0.5], "1 for the base frame, number 2"),
        ([0.5, 0.5, 1.0, 0.5, 1.5], "is 1.5; a share of variance"),
    ],
)
def test_shares_of_frames_that_are_none_are_refused(shares: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        frame_shares(FRAMES, 0.7, shares)


def test_the_middle_frames_noise_is_the_base_noise_exactly() -> None:
    base, _, noise = draws(0.7)
    assert torch.equal(noise[:, middle(FRAMES)], base)


def test_literal_shares_instead_of_their_roots_would_break_the_variance() -> None:
    base, residual, _ = draws(0.7)
    literal = 0.7 * base + 0.3 * residual[:, 0]
    assert literal.var().item() == pytest.approx(0.58, abs=0.01)


def test_without_the_base_noise_the_residual_noise_remains() -> None:
    torch.manual_seed(1)
    clean = torch.randn(3, FRAMES, 3, 4, 4, dtype=torch.float64)
    base, residual = torch.randn(3, 3, 4, 4, dtype=torch.float64), torch.randn(3, FRAMES, 3, 4, 4, dtype=torch.float64)
    shares, signal = frame_shares(FRAMES, 0.7), torch.tensor([0.9, 0.5, 0.01], dtype=torch.float64)
    noisy = add_noise(clean, mix(base, residual, shares), signal)
    level = signal.reshape(3, 1, 1, 1, 1)
    expected = level.sqrt() * clean + (1 - level).sqrt() * (1 - shares.reshape(1, FRAMES, 1, 1, 1)).sqrt() * residual
    assert (remove_base(noisy, base, signal, shares) - expected).abs().max() < 2e-7  # the shares are float32


def test_two_forward_steps_keep_the_correlation_and_add_up_the_variance() -> None:
    first, second = 0.9, 0.8
    noisy = torch.zeros(SAMPLES, FRAMES, 1, 1, 1, dtype=torch.float64)
    for seed, alpha in enumerate((first, second)):
        noisy = alpha**0.5 * noisy + (1 - alpha) ** 0.5 * draws(0.7, seed)[2]
    variance = noisy.flatten(1).T.cov()
    assert variance[0, 0].item() == pytest.approx(1 - first * second, abs=0.005)
    assert (variance[0, 1] / variance[0, 0]).item() == pytest.approx(0.7, abs=0.01)


def test_with_share_1_equal_frames_stay_equal() -> None:
    noise = draws(1.0)[2]
    noisy = add_noise(torch.ones_like(noise), noise, torch.full((SAMPLES,), 0.5, dtype=torch.float64))
    assert torch.equal(noisy, noisy[:, :1].expand_as(noisy))


def test_with_share_0_the_frames_are_independent() -> None:
    _, residual, noise = draws(0.0)
    others = [frame for frame in range(FRAMES) if frame != middle(FRAMES)]
    assert torch.equal(noise[:, others], residual[:, others])


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_a_share_outside_0_and_1_is_refused(share: float) -> None:
    with pytest.raises(ValueError, match="baseNoiseShare"):
        frame_shares(4, share)


def test_a_clips_noise_depends_on_its_own_seed_only() -> None:
    shape = (4, 3, 8, 8)
    alone, together = clip_noise([7], shape), clip_noise([3, 7, 9], shape)
    assert all(torch.equal(one[0], many[1]) for one, many in zip(alone, together, strict=True))
    assert not torch.equal(together[0][0], together[0][1])
