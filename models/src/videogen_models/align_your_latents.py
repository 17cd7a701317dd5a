"""Align-Your-Latents (Blattmann et al., CVPR 2023, arXiv 2304.08818): a U-Net of images, frozen, made one of videos.

A temporal convolution follows every residual block of the image U-Net, a temporal attention every one of its transformers
(`temporal_layers`); only these are trained (equation 2). Latents are [batch, frames, channels, height, width].
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Literal

import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from videogen_api.recipe import Architecture
from videogen_models.temporal_layers import Call, ContextEncoder, Mix, TemporalAttention, TemporalConvolution, TemporalSize

BLOCKS = ("CrossAttnDownBlock2D", "DownBlock2D", "UNetMidBlock2DCrossAttn", "CrossAttnUpBlock2D", "UpBlock2D")
RATES = 2  # an interpolation model works at two: T -> 4T and 4T -> 16T (section 3.3)

# For the image models of `image_backbone`. With Stable Diffusion 1 (860 million parameters) the temporal layers have 912
# million; the paper's have 649 million, and it does not say how they are made up.
PRESETS = {
    Architecture.TINY: TemporalSize(head_width=16, groups=8, context_width=16),
    Architecture.SMALL: TemporalSize(head_width=32, groups=32, context_width=32),
    Architecture.PAPER: TemporalSize(head_width=64, groups=32, context_width=64, checkpointing=True),
}

# What is trained. Temporal: all temporal layers. Text: only how they attend to the text.
Trained = Literal["Temporal", "Text"]


class BlockLayers(nn.Module):
    """The temporal layers of one block: one for each of its residual blocks and one for each of its transformers."""

    def __init__(self, block: nn.Module, size: TemporalSize, time_width: int, text_width: int) -> None:
        super().__init__()
        widths = [resnet.out_channels for resnet in block.resnets]  # type: ignore[union-attr]
        attends = getattr(block, "has_cross_attention", False)
        transformers = [transformer.in_channels for transformer in block.attentions] if attends else []  # type: ignore[union-attr]
        self.convolutions = nn.ModuleList(TemporalConvolution(width, size, time_width, with_context=True) for width in widths)
        self.attentions = nn.ModuleList(TemporalAttention(width, size, text_width) for width in transformers)


class TemporalLayers(nn.Module):
    """All that is trained, phi; its names and shapes follow from the image U-Net's sizes, so that it fits each of that size."""

    def __init__(self, image: UNet2DConditionModel, size: TemporalSize) -> None:
        super().__init__()
        time_width, text_width = image.time_embedding.linear_2.out_features, image.config.cross_attention_dim
        down, middle, up = (
            [BlockLayers(block, size, time_width, text_width) for block in blocks]
            for blocks in (image.down_blocks, [image.mid_block], image.up_blocks)
        )
        self.down, self.middle, self.up = nn.ModuleList(down), middle[0], nn.ModuleList(up)
        self.context = ContextEncoder(image.config.in_channels, size, len(down))
        self.rate = nn.Embedding(RATES, time_width)
        nn.init.zeros_(self.rate.weight)


class VideoUNet(nn.Module):
    """f_{theta,phi}: an image U-Net, which stays as it is, and temporal layers between its own.

    Raises ValueError for an image U-Net with blocks or conditions that Stable Diffusion 1 and 2 do not have.
    """

    def __init__(self, image: UNet2DConditionModel, size: TemporalSize, distance: int | None = None) -> None:
        """distance: how many frames away attention sees, None: all. It is for clips longer than those of the training (appendix B)."""
        super().__init__()
        _check(image)
        self.distance = distance
        self.image = image.requires_grad_(False)
        self.temporal = TemporalLayers(image, size)
        self.checkpointing = size.checkpointing

    def forward(
        self,
        noisy: Tensor,
        timestep: Tensor,
        text: Tensor,
        condition: Tensor | None = None,
        rate: Tensor | None = None,
    ) -> Tensor:
        """The prediction for noisy = z_tau [batch, frames, c, h, w], of its shape: noise or velocity, as the image U-Net was trained.

        timestep int64 [batch], text [batch, length, width]; condition = c_S [batch, frames, c + 1, h, w], without it no frame is
        known; rate int64 [batch], 0 or 1, for interpolation.
        """
        frames = noisy.shape[1]
        images, texts = noisy.flatten(0, 1), text.repeat_interleave(frames, dim=0)
        time = _time(self.image, images, timestep.repeat_interleave(frames), texts)
        call = Call(frames, text, self._temporal_time(time, rate, frames), self.distance)
        if condition is None:
            condition = torch.zeros_like(noisy[:, :, :1]).expand(-1, -1, noisy.shape[2] + 1, -1, -1)
        walk = _Walk(self, time, texts, call)
        return walk.run(images, self.temporal.context(condition.flatten(0, 1))).unflatten(0, (-1, frames))

    def _temporal_time(self, time: Tensor, rate: Tensor | None, frames: int) -> Tensor:
        return time if rate is None else time + self.temporal.rate(rate).to(time.dtype).repeat_interleave(frames, dim=0)

    def trained(self, which: Trained = "Temporal") -> dict[str, nn.Parameter]:
        """Let exactly these parameters learn, and return them by name; no others require a gradient."""
        self.requires_grad_(False)
        chosen = {name: parameter for name, parameter in self.temporal.named_parameters() if which == "Temporal" or _of_text(name)}
        for parameter in chosen.values():
            parameter.requires_grad_(True)
        return chosen

    def set_alpha(self, alpha: float) -> None:
        """Give every layer's alpha a value; 1 makes the model the image model (section 3.1)."""
        for mix in self.mixes():
            mix.set(alpha)

    def mixes(self) -> Iterator[Mix]:
        """The learned mixings of all temporal layers."""
        return (module for module in self.temporal.modules() if isinstance(module, Mix))


class _Walk:
    """One pass through the image U-Net, as diffusers' own forward does it, with the temporal layers in between."""

    def __init__(self, model: VideoUNet, time: Tensor, text: Tensor, call: Call) -> None:
        self.model, self.time, self.text, self.call = model, time, text, call

    def run(self, images: Tensor, contexts: list[Tensor]) -> Tensor:
        """images [batch * frames, c, h, w], contexts of each level -> as images."""
        image, temporal = self.model.image, self.model.temporal
        hidden = image.conv_in(images)
        skips = [hidden]
        for block, layers, context in zip(image.down_blocks, temporal.down, contexts, strict=True):
            hidden = self._down(hidden, skips, block, layers, context)
        hidden = self._middle(hidden, image.mid_block, temporal.middle, contexts[-1])
        for block, layers, context in zip(image.up_blocks, temporal.up, reversed(contexts), strict=True):
            hidden = self._up(hidden, skips, block, layers, context)
        return image.conv_out(image.conv_act(image.conv_norm_out(hidden)))

    def _down(self, hidden: Tensor, skips: list[Tensor], block: Any, layers: Any, context: Tensor) -> Tensor:
        for number in range(len(block.resnets)):
            hidden = self._layer(hidden, block, layers, number, context)
            skips.append(hidden)
        for downsampler in block.downsamplers or ():
            hidden = downsampler(hidden)
            skips.append(hidden)
        return hidden

    def _middle(self, hidden: Tensor, block: Any, layers: Any, context: Tensor) -> Tensor:
        hidden = self._convolve(hidden, block.resnets[0], layers.convolutions[0], context)
        for number in range(len(block.attentions)):
            hidden = self._attend(hidden, block.attentions[number], layers.attentions[number])
            hidden = self._convolve(hidden, block.resnets[number + 1], layers.convolutions[number + 1], context)
        return hidden

    def _up(self, hidden: Tensor, skips: list[Tensor], block: Any, layers: Any, context: Tensor) -> Tensor:
        for number in range(len(block.resnets)):
            hidden = self._layer(torch.cat([hidden, skips.pop()], dim=1), block, layers, number, context)
        for upsampler in block.upsamplers or ():
            hidden = upsampler(hidden, skips[-1].shape[2:])
        return hidden

    def _layer(self, hidden: Tensor, block: Any, layers: Any, number: int, context: Tensor) -> Tensor:
        hidden = self._convolve(hidden, block.resnets[number], layers.convolutions[number], context)
        if layers.attentions:
            hidden = self._attend(hidden, block.attentions[number], layers.attentions[number])
        return hidden

    def _convolve(self, hidden: Tensor, spatial: Any, temporal: Any, context: Tensor) -> Tensor:
        return self._saving(lambda images, seen: temporal(spatial(images, self.time), self.call, seen), hidden, context)

    def _attend(self, hidden: Tensor, spatial: Any, temporal: Any) -> Tensor:
        def layer(images: Tensor, text: Tensor) -> Tensor:
            attended = spatial(images, encoder_hidden_states=text, return_dict=False)[0]
            return temporal(attended, self.call)

        return self._saving(layer, hidden, self.text)

    def _saving(self, layer: Callable[[Tensor, Tensor], Tensor], hidden: Tensor, other: Tensor) -> Tensor:
        if self.model.checkpointing and torch.is_grad_enabled():
            return checkpoint(layer, hidden, other, use_reentrant=False)
        return layer(hidden, other)


def _check(image: UNet2DConditionModel) -> None:
    blocks = (*image.down_blocks, image.mid_block, *image.up_blocks)
    if foreign := sorted({type(block).__name__ for block in blocks} - set(BLOCKS)):
        raise ValueError(f"the image U-Net has blocks of type {', '.join(foreign)}; accepted are {', '.join(BLOCKS)}")
    extras = (image.class_embedding, image.encoder_hid_proj, image.time_embed_act, image.config.center_input_sample or None)
    if image.config.addition_embed_type not in {None, "text"} or any(extra is not None for extra in extras):
        raise ValueError("the image U-Net wants conditions beside time and text; accepted are U-Nets of Stable Diffusion 1 and 2")


def _of_text(name: str) -> bool:
    return ".text." in name or ".text_norm." in name


def _time(image: UNet2DConditionModel, images: Tensor, timestep: Tensor, text: Tensor) -> Tensor:
    """The embedding of the diffusion time, [batch * frames, width], with the summary of the text if the U-Net has one."""
    time = image.time_embedding(image.get_time_embed(images, timestep))
    summary = image.get_aug_embed(time, text, {})
    return time if summary is None else time + summary


def target(scheduler: DDIMScheduler, clean: Tensor, noise: Tensor, timestep: Tensor) -> Tensor:
    """y of equation 1: eps, or v = alpha eps - sigma z, as the image U-Net was trained; clean and noise [batch, ...]."""
    return noise if _predicts_noise(scheduler) else scheduler.get_velocity(clean, noise, timestep)


def _predicts_noise(scheduler: DDIMScheduler) -> bool:
    kind = scheduler.config.prediction_type
    if kind not in {"epsilon", "v_prediction"}:
        raise ValueError(f"the scheduler's prediction_type is {kind}; accepted are epsilon and v_prediction")
    return bool(kind == "epsilon")


def consistency_error(found: Tensor, clean: Tensor) -> Tensor:
    """mean((d_t z^0 - d_t z0)^2), d_t the difference of neighbouring frames; [batch, frames, ...] -> [batch]; 0 for one frame.

    The clips' own motion is no error: only what flickers against the true clip is.
    """
    if found.shape[1] < 2:
        return found.new_zeros(found.shape[0])
    return (found.diff(dim=1) - clean.diff(dim=1)).square().flatten(1).mean(dim=1)


def clean_estimate(scheduler: DDIMScheduler, predicted: Tensor, noisy: Tensor, timestep: Tensor) -> Tensor:
    """z^0 that a prediction of noise or velocity means, as noisy [batch, ...]; timestep int64 [batch]."""
    signal = _signal(scheduler, timestep, noisy)
    if _predicts_noise(scheduler):
        return (noisy - (1 - signal).sqrt() * predicted) / signal.sqrt()
    return signal.sqrt() * noisy - (1 - signal).sqrt() * predicted


def _signal(scheduler: DDIMScheduler, timestep: Tensor, like: Tensor) -> Tensor:
    levels = scheduler.alphas_cumprod.to(like.device)[timestep]
    return levels.reshape(-1, *[1] * (like.dim() - 1))


def consistency_term(scheduler: DDIMScheduler, predicted: Tensor, clean: Tensor, noise: Tensor, timestep: Tensor) -> Tensor:
    """The consistency term of a loss, float32 []; predicted = f(z_tau), z_tau = scheduler.add_noise(clean, noise, timestep), each
    [batch, frames, c, h, w] in 32 bits; timestep int64 [batch].

    The term is not of the paper. Each clip's error is weighted by its share of signal alpha^_t, because an error of the noise is
    1 / alpha^_t times as large, in the square, as one of z^0, and the noisiest steps would drown all others.
    """
    noisy = scheduler.add_noise(clean, noise, timestep)
    error = consistency_error(clean_estimate(scheduler, predicted, noisy, timestep), clean)
    return (_signal(scheduler, timestep, error) * error).mean()
