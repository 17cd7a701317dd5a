"""VideoFusion's training objective (arXiv 2303.08320, section 3.3), and the random numbers of a step.

Base frame:    || eps^mid - z_phi(z_t^mid, t) ||^2
Other frames:  || eps^i - sqrt(lambda_i) sg(b^) - sqrt(1 - lambda_i) z_psi(z'_t^i, t, i) ||^2,   b^ = z_phi(z_t^mid, t)

sg stops the gradient, in the target, in z' and in the base frame that the residual generator sees: the base generator
learns from base frames only. Each term is a mean over pixels; a preset may draw some of the other frames at random instead of
all, which leaves the expectation as it is. With the target Frame both terms are multiplied by (1 - alpha^) / alpha^, which
makes the error of the noise that of the frame, and by 1 / max(1 - alpha^, 1/4), which keeps details from being drowned.

The noise eps^i of every frame has variance 1, so a frame's SNR is that of an ordinary diffusion, whatever lambda is: with
snrGamma both terms are multiplied by min(SNR, gamma) / SNR instead, for either target. A noise offset is decomposed as the
noise is: b and every r^i have one of the same strength, so eps^i has it too, and the frames share lambda of its variance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from videogen_models.noise import add_noise, middle, mix
from videogen_models.schedule import TIMESTEPS
from videogen_models.videofusion import VideoFusionModel
from videogen_trainer.diffusion_loss import noise_weights, with_offset
from videogen_trainer.randomness import sample_generator


@dataclass(frozen=True, slots=True, kw_only=True)
class Draw:
    """Random numbers of one batch."""

    timestep: Tensor  # int64 [batch]
    frames: Tensor  # int64 [batch, k], numbers of the other frames that take part
    base: Tensor  # [batch, c, h, w], standard normal
    residual: Tensor  # [batch, k, c, h, w], standard normal
    chance: Tensor  # [batch], uniform in 0..1: which samples learn without their caption

    def to(self, device: torch.device) -> Draw:
        """The same numbers on a device."""
        return Draw(
            timestep=self.timestep.to(device),
            frames=self.frames.to(device),
            base=self.base.to(device),
            residual=self.residual.to(device),
            chance=self.chance.to(device),
        )


def draw(seed: int, positions: Sequence[int], frame_shape: Sequence[int], count: int | None, offset: float = 0.0) -> Draw:
    """Random numbers for the samples at `positions` (numbers that never repeat in a run), frame_shape = (frames, c, h, w).

    Each sample has a generator of its own: its numbers depend neither on the batch nor on the number of processes.
    """
    samples = [_draw_one(sample_generator(seed, position), frame_shape, count, offset) for position in positions]
    timestep, frames, base, residual, chance = (torch.stack(values) for values in zip(*samples, strict=True))
    return Draw(timestep=timestep, frames=frames, base=base, residual=residual, chance=chance)


def _draw_one(
    generator: torch.Generator, frame_shape: Sequence[int], count: int | None, offset: float
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    total = frame_shape[0]
    others = torch.tensor([frame for frame in range(total) if frame != middle(total)])
    chosen = others[torch.randperm(total - 1, generator=generator)[: count or total - 1]].sort().values
    timestep = torch.randint(0, TIMESTEPS, (), generator=generator)
    base = torch.randn(*frame_shape[1:], generator=generator)
    residual = torch.randn(len(chosen), *frame_shape[1:], generator=generator)
    chance = torch.rand((), generator=generator)  # after the others, which are as they always were
    base = with_offset(base, offset, generator)
    return timestep, chosen, base, with_offset(residual, offset, generator, each_frame=True), chance


class Objective(nn.Module):
    """The loss as a module, so that all networks are one."""

    def __init__(self, model: VideoFusionModel, gamma: float | None = None) -> None:
        super().__init__()
        self.model = model
        self.gamma = gamma  # of the min-SNR weights; None: the target's own

    def forward(self, clean: Tensor, tokens: Tensor, drawn: Draw) -> Tensor:
        """clean [batch, frames, c, h, w], pixels in [-1, 1] or latents, tokens int64 [batch, length] -> [2]: of base, of others."""
        model = self.model
        signal, text = model.signal[drawn.timestep], model.text(tokens)
        noisy_middle = add_noise(clean[:, middle(clean.shape[1])], drawn.base, signal)
        base = model.predict_base(noisy_middle, drawn.timestep, text)

        shares = model.shares[drawn.frames]
        noise = mix(drawn.base, drawn.residual, shares)
        rows = torch.arange(len(clean), device=clean.device).unsqueeze(1)
        noisy = add_noise(clean[rows, drawn.frames], noise, signal)
        fixed = base.detach()
        still = model.still(noisy_middle, fixed, drawn.timestep)
        residual = model.predict_residual(noisy, fixed, still, drawn.timestep, text, drawn.frames)

        base_error = (base - drawn.base).square().mean(dim=(1, 2, 3))
        residual_error = (mix(fixed, residual, shares) - noise).square().mean(dim=(1, 2, 3, 4))
        weight = self._weight(signal)
        return torch.stack([(weight * base_error).mean(), (weight * residual_error).mean()])

    def _weight(self, signal: Tensor) -> Tensor | float:
        if self.gamma is not None:
            return noise_weights(signal, self.gamma)
        return (1 - signal) / signal / (1 - signal).clamp(min=0.25) if self.model.config.networks.target == "Frame" else 1.0
