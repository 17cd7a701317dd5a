"""What of each family is exported: its networks with plain tensors in and out, as one denoising step of a generation calls them.

The number of frames and their size are fixed, as they are in a bundle; the number of clips is free. Noise, samplers, guidance
and Text2Video-Zero's warp stay with the caller.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn

from videogen_models.align_your_latents import RATES
from videogen_models.image_backbone import ImageBackbone
from videogen_models.known_frames import SPACING, condition, first_frames, key_frames
from videogen_models.latent_scale import from_latents
from videogen_models.latent_video import AlignYourLatentsModel
from videogen_models.networks import Generator, Scales
from videogen_models.schedule import TIMESTEPS
from videogen_models.temporal_decoder import SEEN_AT_ONCE, TemporalDecoder
from videogen_models.text2video_zero import Text2VideoZeroModel
from videogen_models.video_model import VideoModel
from videogen_models.videofusion import VideoFusionModel

Inputs = dict[str, Tensor]  # by name, the number of clips first


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """A network, what it takes and what it gives."""

    name: str
    module: nn.Module  # called with the inputs in their order
    draw: Callable[[int], Inputs]  # random inputs for so many clips, from torch's global generator
    output: str


class Denoiser(nn.Module):
    """VideoFusion's generator, its two scales as tensors."""

    def __init__(self, generator: Generator) -> None:
        super().__init__()
        self.generator = generator

    def forward(
        self,
        noisy: Tensor,
        signal: Tensor,
        noise: Tensor,
        timestep: Tensor,
        text: Tensor,
        frame: Tensor | None = None,
        still: Tensor | None = None,
    ) -> Tensor:
        """As `Generator.forward`; signal and noise float [n]."""
        return self.generator(noisy, Scales(signal, noise), timestep, text, frame, still)


class CaptionEncoder(nn.Module):
    """CLIP's text transformer up to its last hidden state."""

    def __init__(self, backbone: ImageBackbone) -> None:
        super().__init__()
        self.text = backbone.text

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens int64 [n, length] -> [n, length, width]."""
        return self.text(input_ids=tokens).last_hidden_state


class FrameDecoder(nn.Module):
    """The autoencoder's decoder with the scaling of latents."""

    def __init__(self, vae: AutoencoderKL) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, latents: Tensor) -> Tensor:
        """Latents [n, c, h, w] -> frames [n, 3, H, W], about [-1, 1]."""
        return self.vae.decode(from_latents(self.vae, latents), return_dict=False)[0]


class CrossFrameUNet(nn.Module):
    """Text2Video-Zero's U-Net on whole clips: all frames attend to the first one of their clip."""

    def __init__(self, backbone: ImageBackbone) -> None:
        super().__init__()
        self.unet = backbone.unet

    def forward(self, noisy: Tensor, timestep: Tensor, text: Tensor) -> Tensor:
        """noisy [n, frames, c, h, w], timestep int64 [n], text [n, length, width] -> as noisy."""
        frames = noisy.shape[1]
        times = timestep.unsqueeze(1).expand(-1, frames).flatten()
        kwargs = {"frames": frames}
        output = self.unet(noisy.flatten(0, 1), times, encoder_hidden_states=text, cross_attention_kwargs=kwargs, return_dict=False)[0]
        return output.unflatten(0, (-1, frames))


class ImageUNet(nn.Module):
    """The image model's U-Net, which draws first frames alone."""

    def __init__(self, backbone: ImageBackbone) -> None:
        super().__init__()
        self.unet = backbone.unet

    def forward(self, noisy: Tensor, timestep: Tensor, text: Tensor) -> Tensor:
        """noisy [n, c, h, w], timestep int64 [n], text [n, length, width] -> as noisy."""
        return self.unet(noisy, timestep, encoder_hidden_states=text, return_dict=False)[0]


def networks_of(model: VideoModel) -> list[Network]:
    """All networks that a generation of this model runs, on the CPU and in evaluation mode as the model is."""
    match model:
        case VideoFusionModel():
            return _videofusion(model)
        case AlignYourLatentsModel():
            return _align_your_latents(model)
        case Text2VideoZeroModel():
            frames = model.config.frames
            clips = Network(
                name="video-unet",
                module=CrossFrameUNet(model.backbone),
                draw=lambda n: _noisy(model.backbone, n, frames),
                output="predicted",
            )
            decoder = _decoder(model.backbone.vae, model.backbone.latent_shape)
            return [_text_encoder(model.backbone), _image_unet(model.backbone), clips, decoder]
        case _:
            raise AssertionError(f"no family of ours: {type(model).__name__}")


def _videofusion(model: VideoFusionModel) -> list[Network]:
    text = model.config.networks.text
    _, *shape = model.frame_shape

    def noisy(clips: int) -> Inputs:
        timestep = torch.randint(TIMESTEPS, (clips,))
        scales = model.scales(timestep)
        drawn = {"noisy": torch.randn(clips, *shape), "signal": scales.signal, "noise": scales.noise, "timestep": timestep}
        return drawn | {"text": torch.randn(clips, text.length, text.width)}

    def of_frames(clips: int) -> Inputs:
        frame = torch.randint(model.config.frames, (clips,))
        return noisy(clips) | {"frame": frame, "still": torch.rand(clips, *shape) * 2 - 1}

    return [
        Network(name="text-encoder", module=model.text, draw=lambda n: _tokens(n, text.vocabulary, text.length), output="hidden"),
        Network(name="base-generator", module=Denoiser(model.base), draw=noisy, output="predicted"),
        Network(name="residual-generator", module=Denoiser(model.residual), draw=of_frames, output="predicted"),
        *([_decoder(model.vae, shape)] if model.vae is not None else []),
    ]


def _align_your_latents(model: AlignYourLatentsModel) -> list[Network]:
    """Key frames are drawn by `video-unet`, those between two of them by `interpolation-unet`, which sees five frames."""
    config, backbone = model.config, model.backbone
    networks = [_text_encoder(backbone), *([_image_unet(backbone)] if config.context_frames else [])]
    known = first_frames([config.context_frames], config.key_frames)[0]
    networks.append(Network(name="video-unet", module=model.video, draw=lambda n: _conditioned(backbone, n, known), output="predicted"))
    if model.between is not None:
        keys = key_frames(1, SPACING + 1)[0]

        def draw(clips: int) -> Inputs:
            return _conditioned(backbone, clips, keys) | {"rate": torch.randint(RATES, (clips,))}

        networks.append(Network(name="interpolation-unet", module=model.between, draw=draw, output="predicted"))
    return [*networks, _decoder(backbone.vae, backbone.latent_shape) if model.decoder is None else _clip_decoder(model.decoder, model)]


def _text_encoder(backbone: ImageBackbone) -> Network:
    config = backbone.text.config
    vocabulary, length = int(config.vocab_size), int(config.max_position_embeddings)
    return Network(name="text-encoder", module=CaptionEncoder(backbone), draw=lambda n: _tokens(n, vocabulary, length), output="hidden")


def _image_unet(backbone: ImageBackbone) -> Network:
    return Network(name="image-unet", module=ImageUNet(backbone), draw=lambda n: _noisy(backbone, n), output="predicted")


def _conditioned(backbone: ImageBackbone, clips: int, known: Tensor) -> Inputs:
    """Inputs of a video U-Net on clips of which these frames, bool [frames], are known."""
    inputs = _noisy(backbone, clips, len(known))
    return inputs | {"condition": condition(torch.randn_like(inputs["noisy"]), known.expand(clips, -1))}


def _decoder(vae: AutoencoderKL, latent: Sequence[int]) -> Network:
    return Network(name="decoder", module=FrameDecoder(vae), draw=lambda n: {"latents": torch.randn(n, *latent)}, output="frames")


def _clip_decoder(decoder: TemporalDecoder, model: AlignYourLatentsModel) -> Network:
    """Of whole clips, or of as many frames as the model's own decoding sees at once."""
    shape = (min(model.config.frames, SEEN_AT_ONCE), *model.backbone.latent_shape)
    return Network(name="decoder", module=decoder, draw=lambda n: {"latents": torch.randn(n, *shape)}, output="frames")


def _tokens(clips: int, vocabulary: int, length: int) -> Inputs:
    return {"tokens": torch.randint(vocabulary, (clips, length))}


def _noisy(backbone: ImageBackbone, clips: int, *frames: int) -> Inputs:
    config = backbone.text.config
    text = torch.randn(clips, int(config.max_position_embeddings), int(config.hidden_size))
    timestep = torch.randint(TIMESTEPS, (clips,))
    return {"noisy": torch.randn(clips, *_shape(frames, backbone.latent_shape)), "timestep": timestep, "text": text}


def _shape(frames: Sequence[int], latent: Sequence[int]) -> tuple[int, ...]:
    return (*frames, *latent)
