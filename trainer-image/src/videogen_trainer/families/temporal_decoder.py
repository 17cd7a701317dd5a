"""FineTuneDecoder: the decoder gets temporal layers, so that it does not flicker (arXiv 2304.08818, section 3.1.1).

They learn against a discriminator of 3D convolutions that judges patches of clips, and that is in no bundle. Both take their step at
once, each by its own losses. Encoder, image decoder and the layers that draw clips stay as they are.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from videogen_api.job import Job
from videogen_models.latent_video import AlignYourLatentsModel
from videogen_models.sampling import from_pixels
from videogen_models.temporal_decoder import DISCRIMINATORS, TemporalDecoder, VideoDiscriminator, decoder_losses
from videogen_trainer.data import Batch
from videogen_trainer.distributed import World
from videogen_trainer.families.align_your_latents import encoded, encoded_clips, initial_model
from videogen_trainer.families.learner import Learner
from videogen_trainer.families.text2video_zero import encoder_cache_of


class DecoderLearner(Learner):
    """The decoder's temporal layers learn, and beside the model the discriminator."""

    model: AlignYourLatentsModel
    terms = ("reconstruction", "adversarial", "discriminator")
    loss_may_leap = True  # the adversarial loss is weighed anew in each step, so that its gradient stays what it was

    def __init__(self, job: Job, storage: Path, world: World) -> None:
        self._device = world.device
        self.model = initial_model(job, storage, world)
        torch.manual_seed(job.recipe.seed)  # the same new networks, whatever was loaded before
        self.model.decode_by_time(self.model.config.temporal)
        size = DISCRIMINATORS[job.recipe.architecture]
        self._discriminator = VideoDiscriminator(size.widths, size.groups).to(world.device)
        self.model.to(world.device).requires_grad_(False)
        assert self.model.decoder is not None
        self.model.decoder.trained()
        self.objective = DecoderObjective(self.model.decoder, self._discriminator)
        self.cache = encoder_cache_of(job, storage, self.model.backbone)

    @torch.no_grad()
    def prepare(self, batch: Batch) -> tuple[Any, ...]:
        """Latents and frames in [-1, 1]."""
        frames = from_pixels(batch.frames.to(self._device))
        if kept := self.cache:
            return encoded_clips(self.model.backbone, batch, kept).to(self._device), frames
        return encoded(self.model.backbone, frames), frames

    def learned(self) -> dict[str, nn.Parameter]:
        """The temporal layers by their names in the model, and the discriminator's weights."""
        theirs = {f"discriminator.{name}": parameter for name, parameter in self._discriminator.named_parameters()}
        return super().learned() | theirs


class DecoderObjective(nn.Module):
    """The losses of both players as a module, in 32 bits, which autoencoders need."""

    def __init__(self, decoder: TemporalDecoder, discriminator: VideoDiscriminator) -> None:
        super().__init__()
        self.decoder, self.discriminator = decoder, discriminator

    def forward(self, latents: Tensor, frames: Tensor) -> Tensor:
        """latents [batch, frames, c, h, w], frames [batch, frames, 3, height, width] -> [3]."""
        with torch.autocast(frames.device.type, enabled=False):
            return torch.stack(decoder_losses(self.decoder, self.discriminator, latents, frames))
