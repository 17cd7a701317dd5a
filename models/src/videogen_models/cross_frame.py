"""Text2Video-Zero's attention to the first frame (arXiv 2303.13439, section 3.3.2), as a processor of diffusers' `Attention`:

    Cross-Frame-Attn(Q^k, K^{1:m}, V^{1:m}) = softmax(Q^k (K^1)^T / sqrt(c)) V^1

in place of every self-attention of the U-Net; attention to the text stays what it is.
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor


class CrossFrameAttention:
    """Attention of a U-Net's transformer blocks, told with each call how many frames a clip has.

    The U-Net's batch is ordered (clips, frames), frames innermost; with guidance the clips without text come before those
    with it, and each finds its own first frame. With 1 frame this is plain self-attention, so the processor stays in
    place when images are drawn or trained on.
    """

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        frames: int = 1,
    ) -> Tensor:
        """hidden_states [clips * frames, n, c] -> the same shape; encoder_hidden_states, one a clip: [clips, length, width].

        All frames of a clip attend to the same keys, and are therefore one long query: keys and values are computed once.
        """
        assert attention_mask is None, "captions are padded, never masked"
        source = hidden_states[::frames] if encoder_hidden_states is None else encoder_hidden_states
        clips = source.shape[0]
        query, key, value = (
            states.reshape(clips, -1, attn.heads, states.shape[-1] // attn.heads).transpose(1, 2)
            for states in (attn.to_q(hidden_states), attn.to_k(source), attn.to_v(source))
        )
        mixed = F.scaled_dot_product_attention(query, key, value)
        joined = mixed.transpose(1, 2).reshape(*hidden_states.shape[:2], -1)
        projected: Tensor = attn.to_out[1](attn.to_out[0](joined))
        return projected
