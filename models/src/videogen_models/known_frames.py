"""Prediction and interpolation with Align-Your-Latents: some frames of a clip are known (arXiv 2304.08818, 3.2 and 3.3).

A mask m says which; the network sees c_S = (m o z, m). The first 0 to 2 frames are known in prediction, every fourth one in
interpolation; nothing else differs. Latents are [batch, frames, c, h, w], masks bool [batch, frames].
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from diffusers import DDIMScheduler
from torch import Tensor

from videogen_models.align_your_latents import VideoUNet, clean_estimate
from videogen_models.schedule import sampling_timesteps
from videogen_models.video_model import OnStep

LARGEST_CONTEXT = 2  # frames; two show how things move
SPACING = 4  # key frame, three new ones, key frame
PAIRS_AT_ONCE = 8  # of key frames, between which frames are drawn; fewer take less memory


def first_frames(counts: Sequence[int], frames: int) -> Tensor:
    """m_S of prediction, bool [len(counts), frames]: of clip number n the first counts[n] frames (0..2) are known."""
    if wrong := [count for count in counts if not 0 <= count <= min(LARGEST_CONTEXT, frames - 1)]:
        raise ValueError(f"{wrong[0]} of {frames} frames are context; accepted are 0 to {min(LARGEST_CONTEXT, frames - 1)}")
    return torch.arange(frames) < torch.tensor(list(counts)).reshape(-1, 1)


def draw_context(clips: int, generator: torch.Generator) -> list[int]:
    """S for each clip of a training batch, 0, 1 or 2 alike often (p_S of equation 3); 0 teaches what guidance starts from."""
    return torch.randint(LARGEST_CONTEXT + 1, (clips,), generator=generator).tolist()


def key_frames(clips: int, frames: int) -> Tensor:
    """m of interpolation, bool [clips, frames]: frames 0, 4, 8, ... are known. Raises ValueError if the last one is not."""
    if frames < 2 or (frames - 1) % SPACING:
        raise ValueError(f"{frames} frames do not end with a key frame; accepted are {SPACING} n + 1, for example 5 or 29")
    return (torch.arange(frames) % SPACING == 0).expand(clips, -1)


def interpolated_length(frames: int) -> int:
    """Frames after one interpolation: 8 -> 29 -> 113."""
    return SPACING * (frames - 1) + 1


def spread(keys: Tensor) -> Tensor:
    """Key frames at their places of the interpolated clip, zeros between: [batch, n, ...] -> [batch, 4 (n - 1) + 1, ...]."""
    clip = keys.new_zeros(keys.shape[0], interpolated_length(keys.shape[1]), *keys.shape[2:])
    clip[:, ::SPACING] = keys
    return clip


def condition(latents: Tensor, known: Tensor) -> Tensor:
    """c_S = (m o z, m): [batch, frames, c + 1, h, w]; unknown frames do not matter, be they infinite."""
    mask = known.to(latents.device).reshape(*latents.shape[:2], 1, 1, 1)
    return torch.cat([latents.masked_fill(~mask, 0), mask.expand_as(latents[:, :, :1]).to(latents.dtype)], dim=2)


@dataclass(frozen=True, slots=True)
class Guidance:
    """How much further than the model says to go; with both 1 it is the model. `nothing` is the encoded empty caption."""

    context: float = 1.0  # s of equation 4
    text: float = 1.0
    nothing: Tensor | None = None  # [1, length, width]; needed if text is not 1

    def __post_init__(self) -> None:
        if self.text != 1 and self.nothing is None:
            raise ValueError(f"text guidance is {self.text}, which needs the encoded empty caption; pass it as `nothing`")


@dataclass(frozen=True, slots=True)
class Sampler:
    """DDIM (Song et al., 2021, eta = 0) with a video model of latents."""

    model: VideoUNet
    scheduler: DDIMScheduler
    steps: int
    guidance: Guidance = Guidance()
    on_step: OnStep | None = None

    @torch.inference_mode()
    def complete(self, noise: Tensor, text: Tensor, latents: Tensor, known: Tensor, rate: int | None = None) -> Tensor:
        """Fill in unknown frames: noise and latents [batch, frames, c, h, w] -> the same; known frames stay as they are."""
        given = condition(latents, known)
        rates = None if rate is None else torch.full((len(noise),), rate, device=noise.device)
        clip = self._denoise(noise, lambda noisy, timestep: self.predict(noisy, timestep, text, given, rates))
        return torch.where(known.to(clip.device).reshape(*clip.shape[:2], 1, 1, 1), latents, clip)

    @torch.inference_mode()
    def image(self, noise: Tensor, text: Tensor) -> Tensor:
        """One frame a clip from the image model alone: noise [batch, c, h, w] -> as noise."""
        network = self.model.image

        def predict(noisy: Tensor, timestep: Tensor) -> Tensor:
            found: Tensor = network(noisy, timestep, text).sample
            if self.guidance.nothing is None or self.guidance.text == 1:
                return found
            without: Tensor = network(noisy, timestep, self.guidance.nothing.expand_as(text)).sample
            return without + self.guidance.text * (found - without)

        return self._denoise(noise, predict)

    def predict(self, noisy: Tensor, timestep: Tensor, text: Tensor, given: Tensor, rate: Tensor | None = None) -> Tensor:
        """f' = f(z) + s (f(z; c_S) - f(z)) (equation 4), and the same for the text beside it; given = c_S, as `condition` says."""
        found: Tensor = self.model(noisy, timestep, text, given, rate)
        guided = found
        if self.guidance.context != 1:
            without: Tensor = self.model(noisy, timestep, text, None, rate)
            guided = guided + (self.guidance.context - 1) * (found - without)
        if self.guidance.text != 1:
            assert self.guidance.nothing is not None
            without = self.model(noisy, timestep, self.guidance.nothing.expand_as(text), given, rate)
            guided = guided + (self.guidance.text - 1) * (found - without)
        return guided

    def _denoise(self, noisy: Tensor, predict: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        for done, (now, later) in enumerate(pairwise([*sampling_timesteps(self.steps), -1])):
            if self.on_step:
                self.on_step(done, self.steps)
            timestep = torch.full((len(noisy),), now, device=noisy.device)
            noisy = ddim_step(self.scheduler, predict(noisy, timestep), noisy, now, later)
        return noisy


def ddim_step(scheduler: DDIMScheduler, predicted: Tensor, noisy: Tensor, now: int, later: int) -> Tensor:
    """From timestep `now` to `later`, -1 for the clean clip, with eta = 0; `predicted` is noise or velocity.

    diffusers' own step goes to `now` minus a fixed stride, which is not where the next one starts unless the number of steps
    divides 1000, and leaves noise in the clip.
    """
    level, next_level = scheduler.alphas_cumprod[now], scheduler.alphas_cumprod[later] if later >= 0 else torch.ones(())
    clean = clean_estimate(scheduler, predicted, noisy, torch.full((len(noisy),), now, device=noisy.device))
    noise = (noisy - level.sqrt() * clean) / (1 - level).sqrt()
    return next_level.sqrt() * clean + (1 - next_level).sqrt() * noise


def interpolate(sampler: Sampler, noise: Tensor, text: Tensor, keys: Tensor, rate: int) -> Tensor:
    """Three new frames between two: keys [batch, n, c, h, w], noise and result [batch, 4 (n - 1) + 1, c, h, w]; rate 0 first, 1 for the
    result again.

    The model sees five frames, as in its training: two neighbouring key frames and those between them, some pairs at a time.
    """
    given, drawn, texts = pairs(spread(keys)), pairs(noise), text.repeat_interleave(keys.shape[1] - 1, dim=0)
    parts = zip(drawn.split(PAIRS_AT_ONCE), texts.split(PAIRS_AT_ONCE), given.split(PAIRS_AT_ONCE), strict=True)
    found = torch.cat([sampler.complete(*part, key_frames(len(part[0]), SPACING + 1), rate) for part in parts])
    return torch.cat([found[:, :-1].reshape(len(keys), -1, *keys.shape[2:]), keys[:, -1:]], dim=1)


def pairs(clips: Tensor) -> Tensor:
    """What lies between two key frames, with them: [batch, 4 (n - 1) + 1, ...] -> [batch * (n - 1), 5, ...], clip by clip."""
    return clips.unfold(1, SPACING + 1, SPACING).movedim(-1, 2).flatten(0, 1)


def interpolation_passes(clips: int, frames: int, times: int) -> int:
    """How often `interpolate` denoises from start to end for so many clips of `frames` key frames, interpolated `times` times."""
    return sum(-(-clips * SPACING**level * (frames - 1) // PAIRS_AT_ONCE) for level in range(times))
