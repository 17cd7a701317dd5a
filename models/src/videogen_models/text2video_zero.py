"""Text2Video-Zero (Khachatryan et al., ICCV 2023, arXiv 2303.13439): a text-to-image model draws videos without training.

Algorithm 1, for frames k = 1..m of one clip; T and T' < T are timesteps, delta t = T - T':

    1. x_T^1 ~ N(0, I), denoised by DDIM with the image model to x_T'^1
    2. x~_T'^k = W_k(x_T'^1), the translation by lambda (k - 1) delta                                  (`motion_field`)
    3. x_T^k = sqrt(A) x~_T'^k + sqrt(1 - A) eps^k for k > 1, A = alpha^_T / alpha^_T': the diffusion from T' to T
    4. DDIM of all frames from T to 0, each attending to frame 1                                       (`cross_frame`)
    5. if wanted, the background of x_T^k is smoothed and step 4 repeated                              (`background`)

Frame 1 keeps its own x_T: it is what the image model draws from the same noise. Unlike the authors' code, which takes
alpha^_{T-1} / alpha^_{T'-1}, A is that of the marginals, so step 3 ends at exactly the noise of T; without guidance, or
with it, any number of frames and of clips is right. Latents are [batch, frames, channels, height, width].
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from diffusers import DDIMScheduler
from torch import Tensor, nn

from videogen_api.bundle import canonical_json
from videogen_api.meta import ModelFamily, Observation
from videogen_api.recipe import Recipe, Resolution, Text2VideoZero
from videogen_models.align_your_latents import clean_estimate
from videogen_models.backbone_folder import backbone_files, load_backbone, save_backbone
from videogen_models.background import Smoothing, latent_mask, smooth, united
from videogen_models.image_backbone import ImageBackbone
from videogen_models.motion_field import translations, warp
from videogen_models.noise import add_noise
from videogen_models.sampling import to_pixels
from videogen_models.schedule import TIMESTEPS
from videogen_models.video_model import CONFIG, OnStep, VideoModel, check_pairs, read_config


@dataclass(frozen=True, slots=True, kw_only=True)
class Motion:
    """How the scene moves. With `warp_at` = `resume_at`, the whole scene shifts and no object moves by itself."""

    strength: float = 12.0  # lambda: pixels of a 512 x 512 frame, from one frame to the next
    direction: tuple[float, float] = (1.0, 1.0)  # delta: what lies in this direction, right and below, comes into view
    warp_at: int = 881  # T'
    resume_at: int = 941  # T

    def __post_init__(self) -> None:
        if not 0 <= self.warp_at <= self.resume_at <= TIMESTEPS:
            raise ValueError(
                f"the motion has warp_at {self.warp_at} and resume_at {self.resume_at}; accepted are 0 to {TIMESTEPS}, the first not above"
                " the second, as 881 and 941 of the paper"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How a clip is drawn."""

    steps: int = 50
    guidance: float = 7.5  # classifier-free guidance (Ho and Salimans, 2022): 1 is the text's prediction, without guidance
    negative: str = ""  # what guidance leads away from
    motion: Motion = field(default_factory=Motion)
    smoothing: Smoothing | None = None
    chunk: int = 8  # frames, besides the first one, that the U-Net sees at once; fewer take less memory

    def __post_init__(self) -> None:
        if not 1 <= self.steps <= TIMESTEPS:
            raise ValueError(f"sampling steps are {self.steps}; accepted are 1 to {TIMESTEPS}")
        if not self.guidance >= 0:
            raise ValueError(f"guidance is {self.guidance}; accepted are 0 and more, the paper has 7.5, and 1 switches it off")
        if self.chunk < 1:
            raise ValueError(f"chunk is {self.chunk}; accepted is 1 frame or more")


@dataclass(frozen=True, slots=True)
class Phases:
    """Which timesteps are visited when, and the two that matter."""

    before: list[int]  # down to T, by frame 1 alone
    between: list[int]  # from T down to T', by frame 1 alone
    after: list[int]  # from T to the end, by all frames
    warp_at: int
    resume_at: int


def phases(timesteps: Sequence[int], motion: Motion) -> Phases:
    """Split a sampler's falling timesteps at T and T', taking for each the nearest that is visited."""
    start, turn = (min(range(len(timesteps)), key=lambda i: abs(timesteps[i] - wanted)) for wanted in (motion.resume_at, motion.warp_at))
    steps = list(timesteps)
    return Phases(steps[:start], steps[start:turn], steps[start:], warp_at=steps[turn], resume_at=steps[start])


def visited(scheduler: DDIMScheduler, steps: int) -> list[int]:
    """Falling timesteps of `steps` (1..1000) steps, spaced as the image model was made for, to the top also if they do not divide 1000."""
    count = int(scheduler.config.num_train_timesteps)
    found = scheduler.timesteps.tolist()
    if scheduler.config.timestep_spacing == "leading":
        found = [step * count // steps + scheduler.config.steps_offset for step in reversed(range(steps))]
    return list(dict.fromkeys(min(timestep, count - 1) for timestep in found))


def ddpm_forward(noisy: Tensor, noise: Tensor, signal: Tensor, later: Tensor) -> Tensor:
    """q(x_T | x_T') = N(sqrt(A) x_T', (1 - A) I), A = later / signal; noisy and noise of one shape.

    signal = alpha^_T' and later = alpha^_T <= signal are scalars of the schedule.
    """
    return add_noise(noisy, noise, (later / signal).to(noisy.device).expand(len(noisy)))


@dataclass(frozen=True, slots=True)
class Denoiser:
    """The image model with its text and sampler, for clips of any number of frames."""

    backbone: ImageBackbone
    scheduler: Any
    text: Tensor  # [batch, length, width], with guidance [2 * batch, length, width]: those to lead away from come first
    guidance: float
    chunk: int
    tick: Callable[[], None]  # before each step
    timesteps: list[int]  # all of the sampler, falling

    def run(self, latents: Tensor, timesteps: Sequence[int]) -> Tensor:
        """DDIM, eta = 0 (Song et al., 2021, equation 12), over consecutive timesteps of the sampler; latents as they come."""
        levels, following = self.scheduler.alphas_cumprod, dict(pairwise(self.timesteps))
        for timestep in timesteps:
            self.tick()
            later = levels[following[timestep]] if timestep in following else self.scheduler.final_alpha_cumprod
            latents = self._step(self.predict(latents, timestep), latents, timestep, later)
        return latents

    def _step(self, predicted: Tensor, noisy: Tensor, timestep: int, later: Tensor) -> Tensor:
        """diffusers' own step goes a fixed stride down, which is the next timestep only if the number of steps divides 1000."""
        level = self.scheduler.alphas_cumprod[timestep]
        clean = clean_estimate(self.scheduler, predicted, noisy, torch.full((len(noisy),), timestep, device=noisy.device))
        noise = (noisy - level.sqrt() * clean) / (1 - level).sqrt()
        return later.sqrt() * clean + (1 - later).sqrt() * noise

    def predict(self, latents: Tensor, timestep: int) -> Tensor:
        """The model's output for all frames, some at a time, each time together with the first one, which they attend to."""
        first, others = latents[:, :1], latents[:, 1:]
        parts = others.split(self.chunk, dim=1) if others.shape[1] else (others,)
        predicted = [self._predict(torch.cat([first, part], dim=1), timestep) for part in parts]
        return torch.cat([predicted[0], *(part[:, 1:] for part in predicted[1:])], dim=1)

    def _predict(self, clips: Tensor, timestep: int) -> Tensor:
        batch, frames = clips.shape[:2]
        copies = len(self.text) // batch  # 2 with guidance; the U-Net's batch is (copies, batch, frames)
        seen = clips.flatten(0, 1).repeat(copies, 1, 1, 1).to(self.text.dtype)
        output = self.backbone.unet(seen, timestep, encoder_hidden_states=self.text, cross_attention_kwargs={"frames": frames}).sample
        output = output.to(torch.float32).unflatten(0, (copies, batch, frames))
        return output[0] if copies == 1 else output[0] + self.guidance * (output[1] - output[0])


def noises(seeds: Sequence[int], frames: int, shape: Sequence[int]) -> tuple[Tensor, Tensor]:
    """x_T^1 [batch, c, h, w] and eps^k of the other frames [batch, frames - 1, c, h, w]; shape = (c, h, w).

    Each clip draws from a generator of its own, frame by frame: it depends neither on its batch nor on its chunks nor on
    the device, and a longer clip begins with the noise of the shorter one.
    """
    drawn = []
    for seed in seeds:
        generator = torch.Generator().manual_seed(seed)
        drawn.append(torch.stack([torch.randn(*shape, generator=generator) for _ in range(frames)]))
    clips = torch.stack(drawn)
    return clips[:, 0], clips[:, 1:]


def start(denoiser: Denoiser, first: Tensor, noise: Tensor, shifts: Tensor, plan: Phases) -> Tensor:
    """x_T^k of all frames, steps 1 to 3: first [batch, c, h, w], noise [batch, frames - 1, c, h, w] -> [batch, frames, c, h, w]."""
    resumed = denoiser.run(first.unsqueeze(1), plan.before)
    turned = denoiser.run(resumed, plan.between)[:, 0]
    levels = denoiser.scheduler.alphas_cumprod
    moved = warp(turned, shifts[1:])
    return torch.cat([resumed, ddpm_forward(moved, noise, levels[plan.warp_at], levels[plan.resume_at])], dim=1)


def smoothed(backbone: ImageBackbone, noisy: Tensor, clean: Tensor, shifts: Tensor, smoothing: Smoothing) -> Tensor:
    """x-_T^k, step 5: noisy = x_T^k and clean = x_0^k, which says where the foreground is, [batch, frames, c, h, w] -> the same."""
    frames = backbone.decode(clean.flatten(0, 1))
    mask = latent_mask(smoothing.foreground(frames), (clean.shape[-2], clean.shape[-1])).unflatten(0, clean.shape[:2])
    mask = united(mask, warp(mask[:, 0], shifts))
    return smooth(noisy, warp(noisy[:, 0], shifts), mask, smoothing.strength)


@torch.inference_mode()
def sample_latents(
    backbone: ImageBackbone,
    captions: Sequence[str],
    seeds: Sequence[int],
    frames: int,
    options: Options | None = None,
    on_step: OnStep | None = None,
) -> Tensor:
    """Clean latents, float32 [batch, frames, c, h, w]; as `sample`, without decoding."""
    options = options or Options()
    _check(captions, seeds, frames)
    scheduler = backbone.scheduler(options.steps)
    timesteps = visited(scheduler, options.steps)
    plan = phases(timesteps, options.motion)
    passes = 2 if options.smoothing else 1
    tick = _ticking(len(plan.before) + len(plan.between) + passes * len(plan.after), on_step)
    denoiser = Denoiser(backbone, scheduler, _text(backbone, captions, options), options.guidance, options.chunk, tick, timesteps)
    first, noise = (drawn.to(denoiser.text.device) for drawn in noises(seeds, frames, backbone.latent_shape))
    shifts = translations(frames, options.motion.strength, options.motion.direction, backbone.latent_shape[1:])
    noisy = start(denoiser, first, noise, shifts, plan)
    clean = denoiser.run(noisy, plan.after)
    if options.smoothing:
        clean = denoiser.run(smoothed(backbone, noisy, clean, shifts, options.smoothing), plan.after)
    return clean


@torch.inference_mode()
def sample(
    backbone: ImageBackbone,
    captions: Sequence[str],
    seeds: Sequence[int],
    frames: int,
    options: Options | None = None,
    on_step: OnStep | None = None,
) -> npt.NDArray[np.uint8]:
    """Videos, uint8 [batch, frames, height, width, 3], one for each pair of caption and seed (0 .. 2**63 - 1).

    A clip depends on its own caption and seed only. `on_step` is called before each denoising step, with the steps done
    and their number, and cancels by raising. Raises ValueError for numbers out of range.
    """
    latents = sample_latents(backbone, captions, seeds, frames, options, on_step)
    return to_pixels(backbone.decode(latents.flatten(0, 1)).unflatten(0, latents.shape[:2]))


class Text2VideoZeroConfig(Observation):
    """How a model's clips are drawn; `model.json` of a bundle, whose image model lies beside it."""

    family: Literal[ModelFamily.TEXT2VIDEO_ZERO] = ModelFamily.TEXT2VIDEO_ZERO
    frames: int
    resolution: Resolution
    frame_rate: int
    motion_strength: float
    motion_direction: tuple[float, float]
    warp_at: int
    resume_at: int
    background_smoothing: float
    text_guidance: float

    def options(self, steps: int) -> Options:
        """The options of a generation of `steps` steps."""
        motion = Motion(strength=self.motion_strength, direction=self.motion_direction, warp_at=self.warp_at, resume_at=self.resume_at)
        smoothing = Smoothing(strength=self.background_smoothing) if self.background_smoothing else None
        return Options(steps=steps, guidance=self.text_guidance, motion=motion, smoothing=smoothing)


def text2video_zero_config(recipe: Recipe) -> Text2VideoZeroConfig:
    """What a recipe says of it."""
    wanted = recipe.text2_video_zero or Text2VideoZero()
    return Text2VideoZeroConfig(
        frames=recipe.frames,
        resolution=recipe.resolution,
        frame_rate=recipe.frame_rate,
        motion_strength=float(wanted.motion_strength),
        motion_direction=(float(wanted.motion_right), float(wanted.motion_down)),
        warp_at=wanted.warp_at,
        resume_at=wanted.resume_at,
        background_smoothing=float(wanted.background_smoothing),
        text_guidance=float(wanted.text_guidance),
    )


class Text2VideoZeroModel(VideoModel):
    """An image model and how it is animated. Raises ValueError if the resolution does not fit the image model."""

    def __init__(self, backbone: ImageBackbone, config: Text2VideoZeroConfig) -> None:
        super().__init__()
        backbone.resize(config.resolution)
        self.backbone = backbone
        self._config = config

    @property
    def config(self) -> Text2VideoZeroConfig:
        """Its clips, and how they are drawn."""
        return self._config

    def generate(self, captions: Sequence[str], seeds: Sequence[int], steps: int, on_step: OnStep | None = None) -> npt.NDArray[np.uint8]:
        """As `sample`."""
        return sample(self.backbone, captions, seeds, self.config.frames, self.config.options(steps), on_step)

    def save(self, folder: Path) -> None:
        """The image model's five folders, and `model.json`."""
        save_backbone(self.backbone, folder)
        (folder / CONFIG).write_bytes(canonical_json(self.config.wire()))

    def weight_files(self) -> dict[str, nn.Module]:
        """Those of the image model."""
        return backbone_files(self.backbone)

    @classmethod
    def load(cls, folder: Path) -> Text2VideoZeroModel:
        """The model of a bundle. Raises CorruptError."""
        return cls(load_backbone(folder), read_config(folder, Text2VideoZeroConfig))


def _check(captions: Sequence[str], seeds: Sequence[int], frames: int) -> None:
    check_pairs(captions, seeds)
    if frames < 1:
        raise ValueError(f"frames are {frames}; accepted is 1 or more")


def _text(backbone: ImageBackbone, captions: Sequence[str], options: Options) -> Tensor:
    """[batch, length, width]; with guidance [2 * batch, length, width], the negative text in front."""
    if options.guidance == 1:
        return backbone.encode(captions)
    return backbone.encode([options.negative] * len(captions) + list(captions))


def _ticking(total: int, on_step: OnStep | None) -> Callable[[], None]:
    done = iter(range(total))

    def tick() -> None:
        number = next(done)
        if on_step:
            on_step(number, total)

    return tick
