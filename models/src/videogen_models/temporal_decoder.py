"""Align-Your-Latents' autoencoder: an image decoder taught not to flicker (arXiv 2304.08818, section 3.1.1).

The encoder stays as it is, so that latents keep their meaning; temporal convolutions are inserted in the decoder and trained on
videos, against a discriminator of 3D convolutions that judges patches of clips. The paper names no further loss; the others are
those of the image autoencoder (Rombach et al., 2022; Esser et al., 2021), without its perceptual one, which needs weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import relu
from torch.utils.checkpoint import checkpoint

from videogen_api.recipe import Architecture
from videogen_models.latent_scale import from_latents, to_latents
from videogen_models.temporal_layers import Call, Mix, TemporalConvolution, TemporalSize

_WINDOW, _MARGIN = 16, 4  # frames
SEEN_AT_ONCE = _WINDOW + 2 * _MARGIN  # frames of a clip, at most
_LARGEST_WEIGHT = 1e4  # of the adversarial loss; latent diffusion's own bound


class TemporalDecoder(nn.Module):
    """The autoencoder of an image model, frozen, with temporal layers after the decoder's residual blocks.

    Frames are [batch, frames, 3, height, width] in [-1, 1].
    """

    def __init__(self, vae: AutoencoderKL, size: TemporalSize) -> None:
        super().__init__()
        self.vae = vae.requires_grad_(False)
        blocks = (vae.decoder.mid_block, *vae.decoder.up_blocks)
        self.temporal = nn.ModuleList(_layers(block, size) for block in blocks)
        self.checkpointing = size.checkpointing

    def encode(self, frames: Tensor) -> Tensor:
        """Frames, each alone -> latents [batch, frames, 4, h, w]; never with a gradient."""
        return to_latents(self.vae, frames.flatten(0, 1)).unflatten(0, frames.shape[:2])

    def forward(self, latents: Tensor) -> Tensor:
        """Latents [batch, frames, 4, h, w] -> frames."""
        call = Call(latents.shape[1])
        decoder: Any = self.vae.decoder
        hidden = from_latents(self.vae, latents.flatten(0, 1))
        if self.vae.post_quant_conv is not None:
            hidden = self.vae.post_quant_conv(hidden)
        hidden = self._middle(decoder.conv_in(hidden), decoder.mid_block, self.temporal[0], call)
        for block, layers in zip(decoder.up_blocks, list(self.temporal)[1:], strict=True):
            hidden = self._up(hidden, block, layers, call)
        frames: Tensor = decoder.conv_out(decoder.conv_act(decoder.conv_norm_out(hidden)))
        return frames.unflatten(0, latents.shape[:2])

    def decode(self, latents: Tensor) -> Tensor:
        """As `forward`, long clips in windows, to save memory: 16 frames at a time, which also see the 4 before and after them."""
        count = latents.shape[1]
        if count <= SEEN_AT_ONCE:
            return self(latents)
        parts = []
        for start in range(0, count, _WINDOW):
            first = max(0, start - _MARGIN)
            seen = self(latents[:, first : start + _WINDOW + _MARGIN])
            parts.append(seen[:, start - first : start - first + _WINDOW])
        return torch.cat(parts, dim=1)

    def trained(self, *, spatial: bool = False) -> dict[str, nn.Parameter]:
        """Let the temporal layers learn, with `spatial` the image decoder's too, and return them by name; never the encoder."""
        self.requires_grad_(False)
        prefixes = ("temporal.", "vae.decoder.", "vae.post_quant_conv.") if spatial else ("temporal.",)
        chosen = {name: parameter for name, parameter in self.named_parameters() if name.startswith(prefixes)}
        for parameter in chosen.values():
            parameter.requires_grad_(True)
        return chosen

    def set_alpha(self, alpha: float) -> None:
        """Give every layer's alpha a value; 1 makes it the image decoder."""
        for module in self.temporal.modules():
            if isinstance(module, Mix):
                module.set(alpha)

    @property
    def last_layer(self) -> nn.Parameter:
        """The last weight that is trained: where the two losses' gradients are compared."""
        last: Any = list(self.temporal)[-1]
        return last[-1].second.weight

    def _middle(self, hidden: Tensor, block: Any, layers: Any, call: Call) -> Tensor:
        hidden = self._layer(hidden, block.resnets[0], layers[0], call)
        for attention, resnet, layer in zip(block.attentions, list(block.resnets)[1:], list(layers)[1:], strict=True):
            if attention is not None:
                hidden = attention(hidden)
            hidden = self._layer(hidden, resnet, layer, call)
        return hidden

    def _up(self, hidden: Tensor, block: Any, layers: Any, call: Call) -> Tensor:
        for resnet, layer in zip(block.resnets, layers, strict=True):
            hidden = self._layer(hidden, resnet, layer, call)
        for upsampler in block.upsamplers or ():
            hidden = upsampler(hidden)
        return hidden

    def _layer(self, hidden: Tensor, spatial: Any, temporal: Any, call: Call) -> Tensor:
        def layer(images: Tensor) -> Tensor:
            return temporal(spatial(images, None), call)

        if self.checkpointing and torch.is_grad_enabled():
            return checkpoint(layer, hidden, use_reentrant=False)
        return layer(hidden)


def _layers(block: Any, size: TemporalSize) -> nn.ModuleList:
    return nn.ModuleList(TemporalConvolution(resnet.out_channels, size) for resnet in block.resnets)


@dataclass(frozen=True, slots=True)
class DiscriminatorSize:
    """Channels of each level, of which each halves height and width, and groups of their normalisation."""

    widths: tuple[int, ...]
    groups: int


DISCRIMINATORS = {
    Architecture.TINY: DiscriminatorSize(widths=(16, 32), groups=8),
    Architecture.SMALL: DiscriminatorSize(widths=(32, 64, 128), groups=16),
    Architecture.PAPER: DiscriminatorSize(widths=(64, 128, 256), groups=32),  # PatchGAN's widths; the paper names none
}


class VideoDiscriminator(nn.Module):
    """Real or decoded? One answer for each patch of a clip (Isola et al., 2017), by 3D convolutions.

    Group normalisation, because a batch may be one clip. Each but the last level halves height and width; the number of frames
    is kept, so that clips of any length can be judged.
    """

    def __init__(self, widths: Sequence[int], groups: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [_halving(3, widths[0]), nn.LeakyReLU(0.2)]
        for before, width in pairwise(widths):
            layers += [_halving(before, width), nn.GroupNorm(groups, width), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers, nn.Conv3d(widths[-1], 1, kernel_size=3, padding=1))

    def forward(self, frames: Tensor) -> Tensor:
        """Frames [batch, frames, 3, h, w] -> logits [batch, 1, frames, h', w'], larger the more real."""
        return self.layers(frames.transpose(1, 2))


def _halving(before: int, width: int) -> nn.Conv3d:
    return nn.Conv3d(before, width, kernel_size=(3, 4, 4), stride=(1, 2, 2), padding=1)


def discriminator_loss(real: Tensor, decoded: Tensor) -> Tensor:
    """Hinge loss of the discriminator, from its logits: 0 if real ones exceed 1 and decoded ones fall below -1."""
    return (relu(1 - real).mean() + relu(1 + decoded).mean()) / 2


def adaptive_weight(reconstruction: Tensor, adversarial: Tensor, last_layer: Tensor) -> Tensor:
    """How much the adversarial loss counts: |grad of the reconstruction| / |its grad| at `last_layer` (Esser et al., equation 7)."""
    norms = [torch.autograd.grad(loss, last_layer, retain_graph=True)[0].norm() for loss in (reconstruction, adversarial)]
    return (norms[0] / (norms[1] + 1e-4)).clamp(0, _LARGEST_WEIGHT).detach()


ADVERSARIAL = 0.5  # weight of the adversarial loss beside the adaptive one; latent diffusion's own


def decoder_losses(
    decoder: TemporalDecoder, discriminator: VideoDiscriminator, latents: Tensor, frames: Tensor, *, adversarial: float = ADVERSARIAL
) -> tuple[Tensor, Tensor, Tensor]:
    """Both players' losses, each []: |x - D(z)| and -w mean(discriminator(D(z))), which are the decoder's, and the discriminator's.

    latents z [batch, frames, 4, h, w] and frames x [batch, frames, 3, height, width]. Their sum gives each player the gradients of its
    own losses alone: the second sees the discriminator's weights, and the third the decoded frames, as constants. `adversarial` 0
    leaves the reconstruction alone to the decoder.
    """
    decoded = decoder(latents)
    reconstruction = (frames - decoded).abs().mean()
    judged = discriminator_loss(discriminator(frames), discriminator(decoded.detach()))
    if adversarial == 0:
        return reconstruction, torch.zeros_like(reconstruction), judged
    fixed = {name: parameter.detach() for name, parameter in discriminator.named_parameters()}
    fooled = -functional_call(discriminator, fixed, (decoded,)).mean()
    return reconstruction, adversarial * adaptive_weight(reconstruction, fooled, decoder.last_layer) * fooled, judged
