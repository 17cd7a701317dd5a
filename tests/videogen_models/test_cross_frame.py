"""Attention to the first frame against its formula, plain self-attention, and diffusers' own processor."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from diffusers.pipelines.deprecated.text_to_video_synthesis.pipeline_text_to_video_zero import CrossFrameAttnProcessor2_0

from videogen_models.cross_frame import CrossFrameAttention

WIDTH, HEADS, TOKENS = 16, 2, 9
torch.set_num_threads(1)


@pytest.fixture
def attention() -> Attention:
    torch.manual_seed(0)
    return Attention(query_dim=WIDTH, heads=HEADS, dim_head=WIDTH // HEADS, processor=CrossFrameAttention()).requires_grad_(False)


def hidden(batch: int, tokens: int = TOKENS) -> torch.Tensor:
    return torch.randn(batch, tokens, WIDTH, generator=torch.Generator().manual_seed(1))


def split(states: torch.Tensor) -> torch.Tensor:
    return states.unflatten(-1, (HEADS, -1)).transpose(-2, -3)


@pytest.mark.parametrize("clips, frames", [(1, 1), (1, 5), (2, 3), (4, 3)])
def test_every_frame_asks_the_keys_and_values_of_its_clips_first_frame(attention: Attention, clips: int, frames: int) -> None:
    states = hidden(clips * frames)
    found = attention(states, frames=frames)
    for number in range(clips * frames):
        one, first = states[number], states[number - number % frames]
        mixed = F.scaled_dot_product_attention(
            *(split(part) for part in (attention.to_q(one), attention.to_k(first), attention.to_v(first)))
        )
        expected = attention.to_out[0](mixed.transpose(0, 1).flatten(1))
        assert torch.allclose(found[number], expected, atol=1e-6)


def test_the_first_frame_and_single_frames_have_plain_self_attention(attention: Attention) -> None:
    states = hidden(6)
    ours, alone = attention(states, frames=3), attention(states)
    attention.set_processor(AttnProcessor2_0())
    plain = attention(states)
    assert torch.allclose(alone, plain, atol=1e-6)
    assert torch.allclose(ours[::3], plain[::3], atol=1e-6)
    assert (ours - plain)[1].abs().max() > 1e-2


def test_attention_to_the_text_is_left_alone(attention: Attention) -> None:
    states, text = hidden(6), hidden(2, tokens=4)  # a clip's text is given once, not for each frame
    ours = attention(states, encoder_hidden_states=text, frames=3)
    attention.set_processor(AttnProcessor2_0())
    plain = attention(states, encoder_hidden_states=text.repeat_interleave(3, dim=0))
    assert torch.allclose(ours, plain, atol=1e-6)


@pytest.mark.parametrize("copies, frames", [(2, 4), (2, 5), (1, 5)])
def test_diffusers_processor_agrees_if_told_the_right_number_of_copies(attention: Attention, copies: int, frames: int) -> None:
    ours = attention(hidden(copies * frames), frames=frames)
    attention.set_processor(CrossFrameAttnProcessor2_0(batch_size=copies))
    assert torch.allclose(ours, attention(hidden(copies * frames)), atol=1e-6)
