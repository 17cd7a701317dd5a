"""Layers that mix the frames of a clip, for Align-Your-Latents (Blattmann et al., CVPR 2023, arXiv 2304.08818, section 3.1).

A temporal layer l_phi follows a spatial layer of a network that was trained on images, and their outputs are mixed:

    z' = l_phi(z, c),    out = alpha z + (1 - alpha) z',    alpha in [0, 1], one learned number a layer

With alpha = 1 the network is the image network, to the bit. Every layer here is also the identity when new: its last weights
are zeros. Images are [batch * frames, channels, height, width], as the spatial layers see them: a clip's frames in a row.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeVar

import torch
from diffusers.models.embeddings import get_timestep_embedding
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention, silu

from videogen_api.meta import Observation

Layer = TypeVar("Layer", bound=nn.Module)

_SATURATED = 20.0  # sigmoid(20) is 1 in float32, to the bit


class TemporalSize(Observation):
    """Size of the temporal layers; their channels are those of the spatial layers that they follow."""

    head_width: int = Field(ge=1)
    groups: int = Field(ge=1)  # of group normalisation
    context_width: int = Field(ge=1)  # channels of what the layers see of the known frames
    initial_alpha: float = Field(default=0.5, ge=0, le=1)
    checkpointing: bool = False  # recompute activations in the backward pass to save memory


@dataclass(frozen=True, slots=True)
class Call:
    """What a temporal layer is told about the clips beside their activations."""

    frames: int
    text: Tensor | None = None  # [batch, length, width]
    time: Tensor | None = None  # [batch * frames, width], the embedding of the diffusion time
    distance: int | None = None  # how many frames away attention sees; None: all


class Mix(nn.Module):
    """alpha z + (1 - alpha) z', alpha = sigmoid(logit): a gradient step cannot leave [0, 1]."""

    def __init__(self, alpha: float) -> None:
        super().__init__()
        self.logit = nn.Parameter(torch.zeros(()))
        self.set(alpha)

    @property
    def alpha(self) -> Tensor:
        """The share of the spatial layer, float32 []."""
        return self.logit.float().sigmoid()

    @torch.no_grad()
    def set(self, alpha: float) -> None:
        """Give alpha a value (0..1); 1 is met exactly."""
        if not 0.0 <= alpha <= 1.0:
            raise ValueError(f"alpha is {alpha}; the share of the spatial layer lies between 0 and 1")
        exact = math.inf if alpha == 1 else -math.inf if alpha == 0 else math.log(alpha / (1 - alpha))
        self.logit.fill_(min(max(exact, -_SATURATED), _SATURATED))

    def forward(self, spatial: Tensor, temporal: Tensor) -> Tensor:
        """Both and the result [batch * frames, channels, height, width]."""
        alpha = self.alpha.to(spatial.dtype)
        return alpha * spatial + (1 - alpha) * temporal


class TemporalConvolution(nn.Module):
    """A residual block of 3D convolutions over time, rows and columns, told the diffusion time and the known frames."""

    def __init__(self, width: int, size: TemporalSize, time_width: int | None = None, *, with_context: bool = False) -> None:
        super().__init__()
        self.first_norm = nn.GroupNorm(size.groups, width)
        self.first = nn.Conv3d(width, width, kernel_size=3, padding=1)
        self.time = nn.Linear(time_width, width) if time_width else None
        self.context = nn.Conv2d(size.context_width, width, kernel_size=1) if with_context else None
        self.second_norm = nn.GroupNorm(size.groups, width)
        self.second = _zeroed(nn.Conv3d(width, width, kernel_size=(3, 1, 1), padding=(1, 0, 0)))
        self.mix = Mix(size.initial_alpha)

    def forward(self, images: Tensor, call: Call, context: Tensor | None = None) -> Tensor:
        """Mixed activations, as images; context [batch * frames, context_width, height, width] of the known frames."""
        hidden = _as_images(self.first(silu(self.first_norm(_as_clips(images, call.frames)))))
        if self.time is not None and call.time is not None:
            hidden = hidden + self.time(silu(call.time))[:, :, None, None]
        if self.context is not None and context is not None:
            hidden = hidden + self.context(context)
        hidden = self.second(silu(self.second_norm(_as_clips(hidden, call.frames))))
        return self.mix(images, images + _as_images(hidden))


class TemporalAttention(nn.Module):
    """A transformer block over the frames at each place: self-attention with relative positions, text, feed-forward."""

    def __init__(self, width: int, size: TemporalSize, text_width: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(size.groups, width)
        self.frame_norm, self.frames = nn.LayerNorm(width), FrameAttention(width, size.head_width)
        self.text_norm, self.text = nn.LayerNorm(width), TextAttention(width, text_width, size.head_width)
        self.feed_forward = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.output = _zeroed(nn.Linear(width, width))
        self.mix = Mix(size.initial_alpha)

    def forward(self, images: Tensor, call: Call) -> Tensor:
        """Mixed activations, as images."""
        height, width = images.shape[2:]
        tokens = _as_tokens(self.norm(images), call.frames)
        tokens = tokens + self.frames(self.frame_norm(tokens).flatten(0, 1), call.distance).reshape(tokens.shape)
        if call.text is not None:
            tokens = tokens + self.text(self.text_norm(tokens), call.text)
        tokens = self.output(tokens + self.feed_forward(tokens))
        return self.mix(images, images + _from_tokens(tokens, height, width))


class FrameAttention(nn.Module):
    """Attention among the frames of a place; keys carry sinusoidal codes of how far away they are, not of where they are.

    Therefore a clip may have any number of frames (appendix B): score_ij = q_i (k_j + W sinusoid(i - j)) / sqrt(d).
    """

    def __init__(self, width: int, head_width: int) -> None:
        super().__init__()
        self.heads = _heads(width, head_width)
        self.query, self.key, self.value, self.position = (nn.Linear(width, width, bias=False) for _ in range(4))
        self.output = nn.Linear(width, width)

    def forward(self, tokens: Tensor, distance: int | None = None) -> Tensor:
        """tokens [places, frames, width] -> the same; frames further away than `distance` are not seen."""
        query, key, value = (_split(project(tokens), self.heads) for project in (self.query, self.key, self.value))
        bias = self._position_scores(query)
        if distance is not None:
            bias = bias.masked_fill(_offsets(tokens).abs() > distance, -math.inf)
        attended = scaled_dot_product_attention(query, key, value, attn_mask=bias)
        return self.output(attended.transpose(-3, -2).flatten(-2))

    def _position_scores(self, query: Tensor) -> Tensor:
        """q_i W sinusoid(i - j) / sqrt(d): query [places, heads, frames, d] -> [places, heads, frames, frames]."""
        offsets = _offsets(query)
        codes = get_timestep_embedding(offsets.flatten(), self.position.in_features, downscale_freq_shift=0).to(query.dtype)
        keys = self.position(codes).reshape(*offsets.shape, self.heads, -1)
        return torch.einsum("phid,ijhd->phij", query, keys) / math.sqrt(query.shape[-1])


class TextAttention(nn.Module):
    """Attention of every place of every frame to the words; its output starts as zeros, so that alignment starts from the
    model as it was trained without text.
    """

    def __init__(self, width: int, text_width: int, head_width: int) -> None:
        super().__init__()
        self.heads = _heads(width, head_width)
        self.query = nn.Linear(width, width, bias=False)
        self.key, self.value = nn.Linear(text_width, width, bias=False), nn.Linear(text_width, width, bias=False)
        self.output = _zeroed(nn.Linear(width, width))

    def forward(self, tokens: Tensor, text: Tensor) -> Tensor:
        """tokens [batch, places, frames, width], text [batch, length, text_width] -> as tokens."""
        query = _split(self.query(tokens.flatten(1, 2)), self.heads)
        key, value = _split(self.key(text), self.heads), _split(self.value(text), self.heads)
        attended = scaled_dot_product_attention(query, key, value).transpose(-3, -2).flatten(-2)
        return self.output(attended).reshape(tokens.shape)


class ContextEncoder(nn.Module):
    """c_S at the resolution of each level of the U-Net: the paper's "learned downsampling operation" (section 3.2)."""

    def __init__(self, channels: int, size: TemporalSize, levels: int) -> None:
        super().__init__()
        self.input = nn.Conv2d(channels + 1, size.context_width, kernel_size=3, padding=1)
        downs = (nn.Conv2d(size.context_width, size.context_width, kernel_size=3, stride=2, padding=1) for _ in range(levels - 1))
        self.downs = nn.ModuleList(downs)

    def forward(self, condition: Tensor) -> list[Tensor]:
        """[batch * frames, channels + 1, h, w] -> for each level [batch * frames, context_width, h / 2**level, w / 2**level]."""
        levels = [self.input(condition)]
        for down in self.downs:
            levels.append(down(silu(levels[-1])))
        return levels


def _zeroed(layer: Layer) -> Layer:
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


def _heads(width: int, head_width: int) -> int:
    if width % head_width:
        raise ValueError(f"{width} channels cannot be split into attention heads of {head_width}; headWidth must divide every width")
    return width // head_width


def _split(tokens: Tensor, heads: int) -> Tensor:
    """[..., tokens, heads * d] -> [..., heads, tokens, d]."""
    return tokens.unflatten(-1, (heads, -1)).transpose(-3, -2)


def _offsets(tokens: Tensor) -> Tensor:
    """i - j, int64 [frames, frames], of tokens [..., frames, width]."""
    frames = torch.arange(tokens.shape[-2], device=tokens.device)
    return frames[:, None] - frames


def _as_clips(images: Tensor, frames: int) -> Tensor:
    """[batch * frames, c, h, w] -> [batch, c, frames, h, w]."""
    return images.unflatten(0, (-1, frames)).transpose(1, 2)


def _as_images(clips: Tensor) -> Tensor:
    """[batch, c, frames, h, w] -> [batch * frames, c, h, w]."""
    return clips.transpose(1, 2).flatten(0, 1)


def _as_tokens(images: Tensor, frames: int) -> Tensor:
    """[batch * frames, c, h, w] -> [batch, h * w, frames, c]."""
    return images.unflatten(0, (-1, frames)).flatten(3).permute(0, 3, 1, 2)


def _from_tokens(tokens: Tensor, height: int, width: int) -> Tensor:
    """[batch, h * w, frames, c] -> [batch * frames, c, h, w]."""
    return tokens.permute(0, 2, 3, 1).unflatten(3, (height, width)).flatten(0, 1)
