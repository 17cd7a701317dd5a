"""A complete Align-Your-Latents model (arXiv 2304.08818): a frozen image model with its autoencoder, and temporal layers.

A clip is drawn at once, all frames by the video model; or the image model draws the first frame, and the video model those
that follow it, or at first the second one and then those that follow both (section 3.2), guided by the context if wanted
(equation 4). Two parts are there once they have been trained: temporal layers that put three frames between two (section 3.3),
and those of the decoder (section 3.1.1).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, Self

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field, model_validator
from safetensors.torch import save_file
from torch import Tensor, nn

from videogen_api.bundle import canonical_json
from videogen_api.meta import ModelFamily, Observation
from videogen_api.recipe import AlignYourLatents, Recipe, Resolution
from videogen_models.align_your_latents import PRESETS, RATES, TemporalLayers, VideoUNet
from videogen_models.backbone_folder import backbone_files, load_backbone, save_backbone
from videogen_models.image_backbone import ImageBackbone
from videogen_models.known_frames import SPACING, Guidance, Sampler, first_frames, interpolate, interpolation_passes
from videogen_models.quantization import read_weights
from videogen_models.sampling import to_pixels
from videogen_models.sealed import CorruptError
from videogen_models.temporal_decoder import TemporalDecoder
from videogen_models.temporal_layers import TemporalSize
from videogen_models.video_model import CONFIG, OnStep, VideoModel, check_pairs, read_config

TEMPORAL = "temporal.safetensors"
INTERPOLATION = "interpolation.safetensors"  # only of a bundle whose clips are interpolated
DECODER = "decoder.safetensors"  # only of a bundle with a temporal decoder


class AlignYourLatentsConfig(Observation):
    """Size of the temporal layers, and how clips are drawn; `model.json` of a bundle, whose image model lies beside it.

    frames and frame_rate are those of the clips that come out, after their interpolations.
    """

    family: Literal[ModelFamily.ALIGN_YOUR_LATENTS] = ModelFamily.ALIGN_YOUR_LATENTS
    frames: int
    resolution: Resolution
    frame_rate: int
    temporal: TemporalSize
    distance: int | None = Field(default=None, ge=1)  # how many frames away attention sees; None: all
    context_frames: int
    context_guidance: float
    text_guidance: float
    interpolations: int | None = Field(default=None, ge=1, le=RATES)  # how often a clip is; None: there are no layers for it
    decoder: TemporalSize | None = None  # of the decoder's temporal layers; None: each frame is decoded alone

    @model_validator(mode="after")
    def _ends_with_a_key_frame(self) -> Self:
        if (self.frames - 1) % SPACING ** (self.interpolations or 0):
            raise ValueError(f"{self.frames} frames are no clip that was interpolated {self.interpolations} times; accepted are 4^n m + 1")
        return self

    @property
    def key_frames(self) -> int:
        """Frames that are drawn before they are interpolated."""
        return (self.frames - 1) // SPACING ** (self.interpolations or 0) + 1

    def interpolated(self, times: int) -> AlignYourLatentsConfig:
        """The same with clips that are interpolated 1 or 2 times."""
        more = SPACING**times
        base = SPACING ** (self.interpolations or 0)
        changes = {"frames": (self.key_frames - 1) * more + 1, "frame_rate": self.frame_rate // base * more, "interpolations": times}
        return self.model_copy(update=changes)


def align_your_latents_config(recipe: Recipe) -> AlignYourLatentsConfig:
    """What a recipe says of it."""
    wanted = recipe.align_your_latents or AlignYourLatents()
    return AlignYourLatentsConfig(
        frames=wanted.clip_frames or recipe.frames,
        resolution=recipe.resolution,
        frame_rate=recipe.frame_rate,
        temporal=PRESETS[recipe.architecture],
        distance=recipe.frames if wanted.clip_frames else None,
        context_frames=wanted.context_frames,
        context_guidance=float(wanted.context_guidance),
        text_guidance=float(wanted.text_guidance),
    )


class AlignYourLatentsModel(VideoModel):
    """An image model, frozen, and new temporal layers, drawn from torch's global generator.

    Raises ValueError if the resolution or the temporal layers' size do not fit the image model.
    """

    def __init__(self, backbone: ImageBackbone, config: AlignYourLatentsConfig) -> None:
        super().__init__()
        backbone.resize(config.resolution)
        self.backbone = backbone.requires_grad_(False)
        self.video = VideoUNet(backbone.unet, config.temporal, config.distance)
        self._config = config
        self.between = VideoUNet(backbone.unet, config.temporal) if config.interpolations else None
        self.decoder = TemporalDecoder(backbone.vae, config.decoder) if config.decoder else None

    @property
    def config(self) -> AlignYourLatentsConfig:
        """Its clips, and how they are drawn."""
        return self._config

    @torch.inference_mode()
    def generate(self, captions: Sequence[str], seeds: Sequence[int], steps: int, on_step: OnStep | None = None) -> npt.NDArray[np.uint8]:
        """As every `VideoModel`; each context frame is drawn first, in `steps` more, and interpolations follow, in `steps` more for some
        pairs of frames at a time.
        """
        check_pairs(captions, seeds)
        config, text = self.config, self.backbone.encode(captions)
        nothing = self.backbone.encode([""]) if config.text_guidance != 1 else None
        guidance = Guidance(context=config.context_guidance, text=config.text_guidance, nothing=nothing)
        passes = interpolation_passes(len(seeds), config.key_frames, config.interpolations or 0)
        tick = _Ticks(steps * (1 + config.context_frames + passes), on_step)
        sampler = Sampler(self.video, self.backbone.scheduler(steps), steps, guidance, on_step=tick)
        lengths = [SPACING**level * (config.key_frames - 1) + 1 for level in range(1 + (config.interpolations or 0))]
        noise, *others = (drawn.to(text.device) for drawn in noises(seeds, lengths, self.backbone.latent_shape))
        latents = self._complete(sampler, noise, text)
        return to_pixels(self.decode(self._interpolated(sampler, latents, others, text)))

    def decode(self, latents: Tensor) -> Tensor:
        """Latents [batch, frames, c, h, w] -> frames float32 [batch, frames, 3, height, width], about [-1, 1]; clip by clip, to save
        memory, with the temporal decoder if there is one.
        """
        if self.decoder is None:
            return self.backbone.decode(latents.flatten(0, 1)).unflatten(0, latents.shape[:2])
        return torch.cat([self.decoder.decode(clip.to(self.backbone.vae.dtype)) for clip in latents.split(1)]).to(torch.float32)

    def interpolate_by(self, layers: TemporalLayers, times: int) -> None:
        """Interpolate clips from now on, 1 or 2 times, by a copy of these layers."""
        self._config = self.config.interpolated(times)
        self.between = VideoUNet(self.backbone.unet, self.config.temporal)
        self.between.temporal.load_state_dict(layers.state_dict())

    def decode_by_time(self, size: TemporalSize) -> None:
        """Decode from now on with a temporal decoder: a new one, which decodes as before, if there is none yet."""
        if self.decoder is None:
            self._config = self.config.model_copy(update={"decoder": size})
            self.decoder = TemporalDecoder(self.backbone.vae, size)

    def _interpolated(self, sampler: Sampler, latents: Tensor, drawn: Sequence[Tensor], text: Tensor) -> Tensor:
        """Three frames between two, as often as there is noise for it; drawn [batch, frames, c, h, w] of each result's length."""
        for rate, noise in enumerate(drawn):
            assert self.between is not None
            guidance = replace(sampler.guidance, context=1.0)
            latents = interpolate(replace(sampler, model=self.between, guidance=guidance), noise, text, latents, rate)
        return latents

    def _complete(self, sampler: Sampler, noise: Tensor, text: Tensor) -> Tensor:
        """Latents [batch, frames, c, h, w] of noise of this shape."""
        latents = torch.zeros_like(noise)
        if self.config.context_frames:
            latents[:, 0] = sampler.image(noise[:, 0], text)
        for known in range(1, self.config.context_frames):
            latents[:, known] = self._predicted(sampler, noise, text, latents, known)[:, known]
        return self._predicted(sampler, noise, text, latents, self.config.context_frames)

    def _predicted(self, sampler: Sampler, noise: Tensor, text: Tensor, latents: Tensor, known: int) -> Tensor:
        """The clip that goes on from the first `known` frames of `latents`."""
        return sampler.complete(noise, text, latents, first_frames([known] * len(noise), noise.shape[1]))

    def save(self, folder: Path) -> None:
        """The image model's five folders, `model.json`, `temporal.safetensors` and, of the other two files, what there is."""
        save_backbone(self.backbone, folder)
        for file, layers in self._parts().items():
            save_file({name: tensor.cpu().contiguous() for name, tensor in layers.state_dict().items()}, folder / file)
        (folder / CONFIG).write_bytes(canonical_json(self.config.wire()))

    def weight_files(self) -> dict[str, nn.Module]:
        """Those of the image model, and those of the temporal layers that there are."""
        return {**backbone_files(self.backbone), **self._parts()}

    @classmethod
    def load(cls, folder: Path) -> AlignYourLatentsModel:
        """The model of a bundle. Raises CorruptError."""
        model = cls(load_backbone(folder), read_config(folder, AlignYourLatentsConfig))
        model.load_temporal(folder)
        return model

    def load_temporal(self, folder: Path) -> None:
        """Take a bundle's temporal layers, all that this model has. Raises CorruptError if they are of another size."""
        for file, layers in self._parts().items():
            try:
                layers.load_state_dict(read_weights(folder / file))
            except (OSError, RuntimeError) as error:
                raise CorruptError(f"{folder / file}: the weights do not fit {CONFIG}: {error}") from error

    def _parts(self) -> dict[str, nn.Module]:
        """Temporal layers by file."""
        parts: dict[str, nn.Module] = {TEMPORAL: self.video.temporal}
        parts |= {INTERPOLATION: self.between.temporal} if self.between else {}
        return parts | ({DECODER: self.decoder.temporal} if self.decoder else {})


def noises(seeds: Sequence[int], lengths: Sequence[int], shape: Sequence[int]) -> list[Tensor]:
    """Standard normal [batch, frames, *shape] for each of `lengths` frames, of a generator for each clip: a clip's depends neither on
    its batch nor on the device, nor the first on whether there are more.
    """
    drawn = []
    for seed in seeds:
        generator = torch.Generator().manual_seed(seed)
        drawn.append([torch.randn(frames, *shape, generator=generator) for frames in lengths])
    return [torch.stack(clips) for clips in zip(*drawn, strict=True)]


class _Ticks:
    """Counts the steps of several samplings as those of one."""

    def __init__(self, total: int, on_step: OnStep | None) -> None:
        self._done, self._total, self._on_step = 0, total, on_step

    def __call__(self, _done: int, _of: int) -> None:
        if self._on_step:
            self._on_step(self._done, self._total)
        self._done += 1
