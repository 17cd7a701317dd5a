"""The translation of latents against Algorithm 1 and the authors' way of computing it."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from videogen_models.motion_field import mirrored, translations, warp

torch.set_num_threads(1)


def latent(height: int = 64, width: int = 64) -> torch.Tensor:
    return torch.randn(2, 4, height, width, generator=torch.Generator().manual_seed(0))


def sampled_from_a_field(image: torch.Tensor, flow: tuple[float, float]) -> torch.Tensor:
    """As published: a 512 x 512 field of (x, y) coordinates, resized, and the nearest latent pixel sampled with reflection."""
    y, x = torch.meshgrid(torch.arange(512.0), torch.arange(512.0), indexing="ij")
    field = torch.stack([(x + flow[0]) / 512, (y + flow[1]) / 512]).mul(2).sub(1)
    grid = F.interpolate(field[None], size=image.shape[-2:], mode="bilinear").permute(0, 2, 3, 1)
    return F.grid_sample(image, grid.expand(len(image), -1, -1, -1), mode="nearest", padding_mode="reflection", align_corners=False)


def test_frame_k_moves_by_lambda_times_k_minus_1_times_delta() -> None:
    assert translations(4, 16.0, (1.0, 2.0), (64, 64)).tolist() == [[0, 0], [4, 2], [8, 4], [12, 6]]  # rows are y
    assert translations(3, 16.0, (1.0, 1.0), (32, 64)).tolist() == [[0, 0], [1, 2], [2, 4]]


@pytest.mark.parametrize("flow, moved", [(0, 0), (8, 1), (12, 1), (16, 2), (24, 3), (36, 4), (84, 10), (-12, -2)])
def test_halves_round_downwards_as_the_authors_field_does(flow: int, moved: int) -> None:
    assert translations(2, flow, (1.0, 1.0), (64, 64))[1].tolist() == [moved, moved]


def test_without_motion_the_frames_are_frame_1() -> None:
    warped = warp(latent(), translations(5, 0.0, (1.0, 1.0), (64, 64)))
    assert torch.equal(warped, latent().unsqueeze(1).expand(-1, 5, -1, -1, -1))


def test_frame_1_never_moves() -> None:
    assert torch.equal(warp(latent(), translations(3, 40.0, (1.0, -1.0), (64, 64)))[:, 0], latent())


def test_multiples_of_8_are_exact_shifts_with_a_mirrored_border() -> None:
    source, shift = latent(), 3
    warped = warp(source, translations(2, 24.0, (1.0, 1.0), (64, 64)))[:, 1]
    assert torch.equal(warped[..., :-shift, :-shift], source[..., shift:, shift:])
    for y in range(64 - shift, 64):
        assert torch.equal(warped[..., y, :-shift], source[..., 127 - (y + shift), shift:])


def test_the_two_axes_are_not_swapped() -> None:
    moved_right = warp(latent(), translations(2, 8.0, (1.0, 0.0), (64, 64)))[:, 1]
    assert torch.equal(moved_right[..., :, :-1], latent()[..., :, 1:])


@pytest.mark.parametrize("size", [(8, 8), (32, 64), (64, 40)])
@pytest.mark.parametrize("flow", [(0, 0), (1, 0), (12, 12), (36, -20), (-5, 84), (-12, -12), (300, 511)])
def test_whole_flows_give_what_the_authors_field_gives(size: tuple[int, int], flow: tuple[int, int]) -> None:
    source = latent(*size)
    warped = warp(source, translations(2, 1.0, flow, size))[:, 1]
    assert torch.equal(warped, sampled_from_a_field(source, flow))


def test_the_border_mirrors_again_and_again_so_that_clips_may_be_long() -> None:
    assert mirrored(torch.arange(-5, 10), 3).tolist() == [1, 2, 2, 1, 0, 0, 1, 2, 2, 1, 0, 0, 1, 2, 2]
    warped = warp(latent(8, 8), translations(1000, 12.0, (1.0, 1.0), (8, 8)))
    assert warped.shape == (2, 1000, 4, 8, 8)
    assert set(warped[0, 999].flatten().tolist()) <= set(latent(8, 8)[0].flatten().tolist())
