"""A complete Align-Your-Latents model (arXiv 2304.08818): a frozen image model with its autoencoder, and temporal layers.

A clip is drawn at once, all frames by the video model; or the image model draws the first frame, and the video model those
that follow it (section 3.2), guided by the context if wanted (equation 4).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from videogen_api.bundle import canonical_json
from videogen_api.meta import ModelType, Observation
from videogen_api.recipe import AlignYourLatents, Recipe, Resolution
from videogen_models.align_your_latents import PRESETS, VideoUNet
from videogen_models.backbone_folder import backbone_files, load_backbone, save_backbone
from videogen_models.image_backbone import ImageBackbone
from videogen_models.known_frames import Guidance, Sampler, first_frames
from videogen_models.quantization import read_weights
from videogen_models.sampling import to_pixels
from videogen_models.sealed import CorruptError
from videogen_models.temporal_layers import TemporalSize
from videogen_models.video_model import CONFIG, OnStep, VideoModel, check_pairs, read_config

TEMPORAL = "temporal.safetensors"


class AlignYourLatentsConfig(Observation):
    """Size of the temporal layers, and how clips are drawn; `model.json` of a bundle, whose image model lies beside it."""

    family: Literal[ModelType.ALIGN_YOUR_LATENTS] = ModelType.ALIGN_YOUR_LATENTS
    frames: int
    resolution: Resolution
    frame_rate: int
    temporal: TemporalSize
    context_frames: int
    context_guidance: float
    text_guidance: float


def align_your_latents_config(recipe: Recipe) -> AlignYourLatentsConfig:
    """What a recipe says of it."""
    wanted = recipe.align_your_latents or AlignYourLatents()
    return AlignYourLatentsConfig(
        frames=recipe.frames,
        resolution=recipe.resolution,
        frame_rate=recipe.frame_rate,
        temporal=PRESETS[recipe.architecture],
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
        self.video = VideoUNet(backbone.unet, config.temporal)
        self._config = config

    @property
    def config(self) -> AlignYourLatentsConfig:
        """Its clips, and how they are drawn."""
        return self._config

    @torch.inference_mode()
    def generate(self, captions: Sequence[str], seeds: Sequence[int], steps: int, on_step: OnStep | None = None) -> npt.NDArray[np.uint8]:
        """As every `VideoModel`; with a context frame its denoising steps come first, and the number of steps is twice `steps`."""
        check_pairs(captions, seeds)
        config, text = self.config, self.backbone.encode(captions)
        nothing = self.backbone.encode([""]) if config.text_guidance != 1 else None
        guidance = Guidance(context=config.context_guidance, text=config.text_guidance, nothing=nothing)
        tick = _Ticks(steps * (1 + config.context_frames), on_step)
        sampler = Sampler(self.video, self.backbone.scheduler(steps), steps, guidance, on_step=tick)
        noise = clip_noise(seeds, config.frames, self.backbone.latent_shape).to(text.device)
        latents = self._complete(sampler, noise, text)
        return to_pixels(self.backbone.decode(latents.flatten(0, 1)).unflatten(0, latents.shape[:2]))

    def _complete(self, sampler: Sampler, noise: Tensor, text: Tensor) -> Tensor:
        """Latents [batch, frames, c, h, w] of noise of this shape."""
        latents = torch.zeros_like(noise)
        count = self.config.context_frames
        if count:
            latents[:, 0] = sampler.image(noise[:, 0], text)
        return sampler.complete(noise, text, latents, first_frames([count] * len(noise), noise.shape[1]))

    def save(self, folder: Path) -> None:
        """The image model's five folders, `temporal.safetensors` and `model.json`."""
        save_backbone(self.backbone, folder)
        temporal = {name: tensor.cpu().contiguous() for name, tensor in self.video.temporal.state_dict().items()}
        save_file(temporal, folder / TEMPORAL)
        (folder / CONFIG).write_bytes(canonical_json(self.config.wire()))

    def weight_files(self) -> dict[str, nn.Module]:
        """Those of the image model, and `temporal.safetensors`."""
        return {**backbone_files(self.backbone), TEMPORAL: self.video.temporal}

    @classmethod
    def load(cls, folder: Path) -> AlignYourLatentsModel:
        """The model of a bundle. Raises CorruptError."""
        model = cls(load_backbone(folder), read_config(folder, AlignYourLatentsConfig))
        model.load_temporal(folder)
        return model

    def load_temporal(self, folder: Path) -> None:
        """Take a bundle's temporal layers. Raises CorruptError if they are of another size."""
        try:
            self.video.temporal.load_state_dict(read_weights(folder / TEMPORAL))
        except (OSError, RuntimeError) as error:
            raise CorruptError(f"{folder / TEMPORAL}: the weights do not fit {CONFIG}: {error}") from error


def clip_noise(seeds: Sequence[int], frames: int, shape: Sequence[int]) -> Tensor:
    """Standard normal [batch, frames, *shape], of a generator for each clip: it depends neither on its batch nor on the device."""
    return torch.stack([torch.randn(frames, *shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds])


class _Ticks:
    """Counts the steps of several samplings as those of one."""

    def __init__(self, total: int, on_step: OnStep | None) -> None:
        self._done, self._total, self._on_step = 0, total, on_step

    def __call__(self, _done: int, _of: int) -> None:
        if self._on_step:
            self._on_step(self._done, self._total)
        self._done += 1
