"""VideoFusion (arXiv 2303.08320): a base generator for what frames share, a residual generator for the rest.

Ours differs from the paper in what conditions the generators. The paper gives both the CLIP image embedding of the base
frame, which a prior makes from text; ours gives both the text, and the residual generator the base generator's present
estimate of the base frame, without which it could not know what the frames have in common. The base generator need not be
pretrained. Frames are [batch, frames, c, height, width]: pixels in [-1, 1], or latents of a frozen autoencoder, whose values have
no bounds; the decomposition is the same in both.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from diffusers import AutoencoderKL
from safetensors.torch import save_file
from torch import Tensor, nn

from videogen_api.bundle import canonical_json
from videogen_models import sampling
from videogen_models.autoencoder import decode, encode, latent_size, save_autoencoder
from videogen_models.backbone_folder import QUANTIZED
from videogen_models.networks import Generator, ModelConfig, Scales
from videogen_models.noise import frame_shares, middle, mix, remove_base
from videogen_models.schedule import signal_levels
from videogen_models.text import TextEncoder, tokenize
from videogen_models.video_model import CONFIG, OnStep, VideoModel

PARTS = ("text", "base", "residual")  # the networks, each a file of its own in bundles and checkpoints


class VideoFusionModel(VideoModel):
    """Text encoder, base generator and residual generator."""

    signal: Tensor
    shares: Tensor

    def __init__(self, config: ModelConfig, vae: AutoencoderKL | None = None) -> None:
        """`vae`: the autoencoder, if the model works in its latents. Raises ValueError if those are of another size than `config` says."""
        super().__init__()
        if config.latent != (latent_size(vae, config.resolution) if vae is not None else None):
            raise ValueError(f"the model works in latents of size {config.latent}, and the autoencoder has others")
        self.vae = vae
        self.limit = 1.0 if vae is None else math.inf  # of what a frame's values may be
        sizes = config.networks
        self._config = config
        self.text = TextEncoder(sizes.text)
        self.base = Generator(sizes.base, sizes.text.width, config.frame_shape, sizes.target)
        self.residual = Generator(sizes.residual, sizes.text.width, config.frame_shape, sizes.target, config.frames)
        self.register_buffer("signal", signal_levels(), persistent=False)
        self.register_buffer("shares", frame_shares(config.frames, config.base_noise_share, config.base_noise_shares), persistent=False)

    @property
    def config(self) -> ModelConfig:
        """Sizes of the networks and of the clips."""
        return self._config

    def generate(self, captions: Sequence[str], seeds: Sequence[int], steps: int, on_step: OnStep | None = None) -> npt.NDArray[np.uint8]:
        """As `sampling.sample`."""
        return sampling.sample(self, captions, seeds, steps, on_step)

    def save(self, folder: Path) -> None:
        """One safetensors file for each network, the autoencoder if there is one, and `model.json`."""
        save_weights(folder, self.config, self.state_dict())
        if self.vae is not None:
            save_autoencoder(self.vae, folder)

    def weight_files(self) -> dict[str, nn.Module]:
        """One file for each network, named as those of plain weights, and the autoencoder's if there is one."""
        files: dict[str, nn.Module] = {f"{part}.safetensors": self.get_submodule(part) for part in PARTS}
        return files | ({f"vae/{QUANTIZED}": self.vae} if self.vae is not None else {})

    @property
    def frame_shape(self) -> tuple[int, int, int, int]:
        """Shape of one clip: frames, channels, height, width."""
        return (self.config.frames, *self.config.frame_shape)

    def to_space(self, frames: Tensor) -> Tensor:
        """Frames of pixels in [-1, 1], [batch, frames, 3, height, width] -> what the generators work on."""
        return frames if self.vae is None else encode(self.vae, frames)

    def to_frames(self, clips: Tensor) -> Tensor:
        """The inverse of `to_space`."""
        return clips if self.vae is None else decode(self.vae, clips)

    def encode(self, captions: Sequence[str]) -> Tensor:
        """Captions -> [batch, length, width]."""
        tokens = tokenize(captions, self.config.networks.text)
        encoded: Tensor = self.text(tokens.to(self.signal.device))
        return encoded

    def scales(self, timestep: Tensor, shares: Tensor | None = None) -> Scales:
        """Signal and noise of z_t^mid, timestep int64 [batch]; with shares [batch, k] those of z'_t^i, [batch * k]."""
        level = self.signal[timestep]
        if shares is None:
            return Scales(level.sqrt(), (1 - level).sqrt())
        level = level.unsqueeze(1).expand_as(shares).flatten()
        return Scales(level.sqrt(), ((1 - level) * (1 - shares.flatten())).sqrt())

    def predict_base(self, noisy: Tensor, timestep: Tensor, text: Tensor) -> Tensor:
        """b^ of the base frame, noisy = z_t^mid [batch, c, h, w]."""
        predicted: Tensor = self.base(noisy, self.scales(timestep), timestep, text)
        return predicted

    def still(self, noisy: Tensor, base: Tensor, timestep: Tensor) -> Tensor:
        """The base frame that b^ means: noisy = z_t^mid and base = b^, [batch, c, h, w] -> as they are, within the limit."""
        level = self.signal[timestep].reshape(-1, 1, 1, 1)
        return ((noisy - (1 - level).sqrt() * base) / level.sqrt()).clamp(-self.limit, self.limit)

    def predict_residual(self, noisy: Tensor, base: Tensor, still: Tensor, timestep: Tensor, text: Tensor, frames: Tensor) -> Tensor:
        """r^ of chosen frames: noisy [batch, k, c, h, w], frames int64 [batch, k] -> as noisy.

        base = b^ and still, the base frame that it means, [batch, c, h, w]; timestep int64 [batch].
        """
        batch, count = frames.shape
        without_base = remove_base(noisy, base, self.signal[timestep], self.shares[frames])
        predicted = self.residual(
            without_base.flatten(0, 1),
            self.scales(timestep, self.shares[frames]),
            timestep.repeat_interleave(count),
            text.repeat_interleave(count, dim=0),
            frames.flatten(),
            still.repeat_interleave(count, dim=0),
        )
        return torch.unflatten(predicted, 0, (batch, count))

    def predict_noise(self, noisy: Tensor, timestep: Tensor, text: Tensor) -> Tensor:
        """eps^ of all frames with ONE call of the base generator (equations 8 and 9); timestep int64 [batch]."""
        batch, count = noisy.shape[:2]
        centre = middle(count)
        base = self.predict_base(noisy[:, centre], timestep, text)
        still = self.still(noisy[:, centre], base, timestep)
        others = torch.tensor([frame for frame in range(count) if frame != centre], device=noisy.device)
        residual = torch.zeros_like(noisy)
        residual[:, others] = self.predict_residual(noisy[:, others], base, still, timestep, text, others.expand(batch, -1))
        return mix(base, residual, self.shares)

    def guided_noise(self, noisy: Tensor, timestep: Tensor, text: Tensor, guidance: float) -> Tensor:
        """eps^ of all frames, led away from the prediction without a caption (classifier-free guidance, Ho and Salimans, 2022).

        text [2 * batch, length, width], the texts to lead away from first. Both predictions are decomposed, each with its own b^: so
        what is led is the score of the whole clip. The base generator is called once, on two frames of each clip.
        """
        without, with_text = self.predict_noise(noisy.repeat(2, 1, 1, 1, 1), timestep.repeat(2), text).chunk(2)
        return without + guidance * (with_text - without)


def save_weights(folder: Path, config: ModelConfig, weights: Mapping[str, Tensor]) -> None:
    """The files of a model whose state dict is `weights`."""
    for part in PARTS:
        save_file(_of_part(weights, part), folder / f"{part}.safetensors")
    (folder / CONFIG).write_bytes(canonical_json(config.wire()))


def _of_part(weights: Mapping[str, Tensor], part: str) -> dict[str, Tensor]:
    prefix = f"{part}."
    return {name.removeprefix(prefix): tensor.cpu().contiguous() for name, tensor in weights.items() if name.startswith(prefix)}
