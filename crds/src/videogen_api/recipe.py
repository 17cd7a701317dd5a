"""What to train and how: written once, used in TrainingRun.spec and in the trainer's job file.

Numbers that are not whole are decimal strings, because the API conventions forbid floats in specs.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field, StringConstraints

from videogen_api.meta import Decimal, Digest, Model, PositiveDecimal, StoragePath, k8s
from videogen_api.noise_shares import BLOCK_RULES, USUAL_SHARE, BaseScenario, ResidualScenario, Share, residual_of

UnitDecimal = Annotated[str, StringConstraints(pattern=r"^0\.[0-9]{1,9}$", max_length=11)]

Prompt = Annotated[str, StringConstraints(min_length=1, max_length=256)]


class Architecture(StrEnum):
    """Sizes of the networks."""

    TINY = "Tiny"
    SMALL = "Small"
    PAPER = "Paper"


class Precision(StrEnum):
    """Number format of the forward and backward pass; weights are always 32 bits."""

    FP32 = "FP32"
    FP16 = "FP16"
    BF16 = "BF16"


class ScheduleType(StrEnum):
    """Shape of the learning rate after its warm-up."""

    COSINE = "Cosine"
    LINEAR = "Linear"
    CONSTANT = "Constant"


class OptimizerName(StrEnum):
    """How AdamW keeps its two moments of each weight."""

    ADAMW = "AdamW"  # 32 bits each
    ADAMW_8BIT = "AdamW8bit"  # 8 bits each, in blocks of 256 with a scale (Dettmers et al., 2022, arXiv 2110.02861)


class PredictionType(StrEnum):
    """What the U-Net of an image model is trained to predict."""

    EPSILON = "Epsilon"  # the noise (Ho et al., 2020)
    V_PREDICTION = "VPrediction"  # the velocity (Salimans and Ho, 2022, arXiv 2202.00512)


class Sharding(StrEnum):
    """What of the training state each process keeps."""

    FULL = "Full"  # its share of weights, gradients and optimiser states (fully sharded data parallelism)


class Resolution(Model):
    """Size of a frame."""

    height: int = Field(ge=16, le=1024, multiple_of=8, description="Rows of pixels; a multiple of 8.")
    width: int = Field(ge=16, le=1024, multiple_of=8, description="Columns of pixels; a multiple of 8.")


class Optimizer(Model):
    """AdamW (Loshchilov and Hutter, 2019)."""

    name: OptimizerName = Field(
        default=OptimizerName.ADAMW,
        description="AdamW, or AdamW8bit, whose states take 2 bytes a weight instead of 8 (tensors of fewer than 4,096 weights keep 8).",
    )
    learning_rate: PositiveDecimal = Field(default="1e-5", description="Peak learning rate, after the warm-up.")
    weight_decay: PositiveDecimal = Field(default="0.01", description="Decoupled weight decay.")
    gradient_clip_norm: PositiveDecimal = Field(
        default="1.0", description="The gradient's global norm is scaled down to this; 0 switches clipping off."
    )


class Loss(Model):
    """What of the denoising error counts how much, with the names of diffusers' training examples."""

    snr_gamma: PositiveDecimal | None = Field(
        default=None,
        description="γ of the min-SNR weights (arXiv 2303.09556; there 5): steps with more signal than γ times the noise count less;"
        " absent: every step counts as the model family has it.",
        json_schema_extra=k8s(rules=[("double(self) > 0.0", "snrGamma must be greater than 0, for example 5; leave it out for none")]),
    )
    noise_offset: Share = Field(
        default="0", description="Strength, 0 to 1, of noise that is the same for all pixels of a channel; 0 is without, 0.1 is much."
    )
    prediction_type: PredictionType | None = Field(
        default=None,
        description="What a new image model learns to predict: Epsilon (as if absent) or VPrediction. One of initFrom or backbone predicts"
        " what it was trained for.",
    )


class Schedule(Model):
    """Learning rate over the steps: linear warm-up, then the type's decay to 0 at the last step."""

    type: ScheduleType = Field(default=ScheduleType.COSINE, description="Cosine, Linear or Constant.")
    warmup_steps: int = Field(default=0, ge=0, le=10_000_000, description="Steps of linear warm-up from 0.")


class Checkpoints(Model):
    """How often the complete training state is saved; an interrupted run resumes from the last one."""

    every_steps: int = Field(default=1000, ge=1, le=1_000_000, description="Steps between two checkpoints.")
    keep_last: int = Field(default=3, ge=1, le=100, description="How many of the newest checkpoints are kept.")
    keep_best: int = Field(
        default=0,
        ge=0,
        le=100,
        description="How many checkpoints of the lowest loss are kept beside the newest. The loss is its mean over about the 1,000 steps"
        " before each: after a divergence that grew over several checkpoints there is one from before to go back to.",
    )


class Samples(Model):
    """Videos that show how far training has come, generated from the moving average of the weights."""

    every_steps: int = Field(ge=1, le=1_000_000, description="Steps between two sets of videos; training waits while they are generated.")
    prompts: list[Prompt] = Field(
        min_length=1,
        max_length=8,
        description="What the videos shall show; each has the same noise every time.",
        json_schema_extra=k8s(atomic=True),
    )
    sampling_steps: int = Field(default=25, ge=1, le=1000, description="Denoising steps of a video.")


class Space(StrEnum):
    """What a model's networks see as a frame."""

    PIXEL = "Pixel"
    LATENT = "Latent"


class VideoFusion(Model):
    """VideoFusion's own parameters: shares of the noise's VARIANCE, mixed by their square roots."""

    base_noise_share: Share | None = Field(
        default=None,
        description="λ: share of the noise variance that all frames of a clip have in common, in the range of its scenarios."
        f" Absent: the rest of residualNoiseShare, or {USUAL_SHARE}.",
    )
    residual_noise_share: Share | None = Field(
        default=None, description="1 - λ: share of the noise variance that each frame has alone. Absent: the rest of baseNoiseShare."
    )
    base_scenario: BaseScenario | None = Field(
        default=None,
        description="What the videos show, and with it the range of baseNoiseShare: Standard 0.65-0.75, HighDetail 0.60-0.70, TextHeavy"
        " 0.75-0.85, Experimental any, in a run without a Release phase. Absent: any beside residualScenario, Standard without it.",
    )
    residual_scenario: ResidualScenario | None = Field(
        default=None,
        description="How the videos move, and with it the range of residualNoiseShare: Standard 0.25-0.35, HighMotion 0.35-0.45, Static"
        " 0.20-0.30. Both scenarios may be named, for example TextHeavy and Static: the shares then suit both. Absent: baseScenario alone"
        " counts.",
    )
    base_learning_rate_scale: PositiveDecimal | None = Field(
        default=None,
        description="The base generator learns at learningRate times this. Absent: 1 where its weights are new, and 0.1 where it starts"
        " from a VideoFusion model, of initFrom or an earlier phase (the paper: a small rate for what is pretrained, not frozen).",
    )
    base_noise_shares: list[Share] | None = Field(
        default=None,
        min_length=2,
        max_length=128,
        description="λ of each frame, if they differ: as many as recipe.frames, and 1 for the base frame, number frames / 2 counted from 0."
        " Absent: baseNoiseShare for all others.",
        json_schema_extra=k8s(atomic=True),
    )
    text_guidance: PositiveDecimal = Field(
        default="1",
        description="Scale of classifier-free guidance by the text when clips are generated; 1 is without. With another scale one training"
        " sample in ten is without its caption, so that guidance has something to lead away from.",
    )
    space: Space = Field(
        default=Space.PIXEL,
        description="Pixel, or Latent: in the latents of the autoencoder of recipe.backbone or initFrom, which stays as it is.",
    )

    @property
    def base_share(self) -> str:
        """λ, also where the recipe leaves it out."""
        return self.base_noise_share or (residual_of(self.residual_noise_share) if self.residual_noise_share else USUAL_SHARE)

    @property
    def shares(self) -> list[str]:
        """λ, or that of each frame if they differ."""
        return self.base_noise_shares or [self.base_share]


class AlignYourLatents(Model):
    """Align-Your-Latents' own parameters: how its temporal layers learn, and how clips are drawn with them."""

    consistency_weight: PositiveDecimal = Field(
        default="0.5", description="Weight of the temporal consistency term in the loss; 0 is the paper's loss."
    )
    clip_frames: int | None = Field(
        default=None,
        ge=3,
        le=512,
        description="Frames of a generated clip, before its interpolations, where they are more than the recipe's frames, which the"
        " training sees: attention then reaches that many frames to each side. Absent: as many as frames.",
    )
    context_frames: int = Field(
        default=0,
        ge=0,
        le=2,
        description="Frames of a generated clip that are drawn before the others, which continue them: 0, 1 (by the image model), or 2"
        " (also the one after it); fewer than frames.",
    )
    context_guidance: PositiveDecimal = Field(
        default="1",
        description="Scale s of the guidance by the context frames (equation 4), which contextFrames: 1 or 2 gives; 1 is without.",
    )
    text_guidance: PositiveDecimal = Field(
        default="1", description="Scale of classifier-free guidance by the text when clips are generated; 1 is without."
    )
    interpolations: int | None = Field(
        default=None,
        ge=1,
        le=2,
        description="How often three frames are put between two of a generated clip. Layers do it that a TrainInterpolation phase trains"
        " on clips of 4^n + 1 closer frames: 8 frames become 29 with 1 and 113 with 2, at 4 and 16 times frameRate. Absent: as those of"
        " initFrom do, and in a TrainInterpolation phase once.",
    )


class Text2VideoZero(Model):
    """Text2Video-Zero's own parameters: how an image model draws a clip."""

    motion_strength: PositiveDecimal = Field(
        default="12", description="λ: how far the scene moves from one frame to the next, in pixels of a 512 x 512 frame."
    )
    motion_right: Decimal = Field(default="1", description="δx: what lies right comes into view, with a minus what lies left.")
    motion_down: Decimal = Field(default="1", description="δy: what lies below comes into view, with a minus what lies above.")
    warp_at: int = Field(default=881, ge=0, le=1000, description="T': timestep at which the first frame is moved to make the others.")
    resume_at: int = Field(default=941, ge=0, le=1000, description="T: timestep from which all frames are drawn; not below warpAt.")
    background_smoothing: Share = Field(
        default="0", description="How much the background of all frames becomes that of the first, 0 to 1 (the paper: 0.6); 0 is without."
    )
    text_guidance: PositiveDecimal = Field(
        default="7.5", description="Scale of classifier-free guidance by the text when clips are generated; 1 is without."
    )


class Backbone(Model):
    """A pretrained text-to-image model (Stable Diffusion 1 or 2) that the user put into the storage."""

    path: StoragePath = Field(
        description="Folder in the storage, in diffusers' layout: unet, vae, text_encoder, tokenizer, scheduler, with safetensors."
    )
    digest: Digest = Field(
        description="sha256: and 64 hex digits, over the paths, sizes and SHA-256 sums of the files in these five folders; the error of a"
        " wrong one tells the right one."
    )

    @property
    def sha256(self) -> str:
        """The digest's 64 hex digits."""
        return self.digest.removeprefix("sha256:")


class Recipe(Model):
    """A complete, reproducible training recipe."""

    architecture: Architecture = Field(
        default=Architecture.SMALL, description="Size of the networks: Tiny (about 1 M parameters each, for CPUs), Small, Paper."
    )
    frames: int = Field(default=16, ge=2, le=128, description="Frames of a clip.")
    resolution: Resolution = Field(description="Size of a frame.")
    frame_rate: int = Field(default=8, ge=1, le=60, description="Frames per second of generated videos.")
    global_batch_size: int = Field(ge=1, le=65536, description="Clips per optimiser step, over all processes.")
    gradient_accumulation_steps: int = Field(default=1, ge=1, le=1024, description="Forward passes that one optimiser step adds up.")
    steps: int = Field(
        ge=0, le=10_000_000, description="Optimiser steps. Text2VideoZero may have 0, and is then its image model as it is; others need 1."
    )
    precision: Precision = Field(default=Precision.FP32, description="FP32, FP16 (with loss scaling) or BF16.")
    optimizer: Optimizer = Field(default=Optimizer(), description="AdamW and its parameters.")
    loss: Loss = Field(default=Loss(), description="How the denoising error is weighted.")
    schedule: Schedule = Field(default=Schedule(), description="Learning rate over the steps.")
    ema_decay: UnitDecimal = Field(
        default="0.999", description="Decay of the exponential moving average of the weights; it is what gets evaluated and released."
    )
    checkpoints: Checkpoints = Field(default=Checkpoints(), description="How often the state is saved.")
    samples: Samples | None = Field(
        default=None,
        description="Videos to look at during training, as mp4 and contact sheet in samples/step-<n> of the phase's folder; absent: none.",
    )
    seed: int = Field(default=0, ge=0, le=2**31 - 1, description="All random numbers derive from it.")
    video_fusion: VideoFusion | None = Field(
        default=None,
        description="Parameters of VideoFusion, for models of this family alone; absent: the defaults.",
        json_schema_extra=k8s(rules=BLOCK_RULES),
    )
    align_your_latents: AlignYourLatents | None = Field(
        default=None,
        description="Parameters of Align-Your-Latents, for models of this family alone; absent: the defaults.",
        json_schema_extra=k8s(
            rules=[
                (
                    "self.contextFrames > 0 || self.contextGuidance.matches('^1([.]0+)?$')",
                    "contextGuidance leads by context frames and needs contextFrames: 1 or 2; without them leave it at 1",
                )
            ]
        ),
    )
    text2_video_zero: Text2VideoZero | None = Field(
        default=None,
        description="Parameters of Text2Video-Zero, for models of this family alone; absent: the defaults.",
        json_schema_extra=k8s(rules=[("self.warpAt <= self.resumeAt", "warpAt may not be greater than resumeAt, for example 881 and 941")]),
    )
    backbone: Backbone | None = Field(
        default=None,
        description="Image model that AlignYourLatents and Text2VideoZero begin with, and whose autoencoder VideoFusion takes in space"
        " Latent; absent: initFrom's, or a new one of the architecture's size, which Text2VideoZero trains whole.",
    )
    cache_latents: bool = Field(
        default=False,
        description="AlignYourLatents, and Text2VideoZero with an image model that is given: what the frozen autoencoder and text"
        " encoder make of each clip is computed once and kept in the phase's folder until the phase has ended.",
    )
    compile: bool = Field(
        default=False,
        description="Compile the networks for training (torch.compile): the first steps take minutes, the others less. Needs a trainer"
        " image with a C++ compiler.",
    )
    gradient_checkpointing: bool | None = Field(
        default=None,
        description="Compute activations again in the backward pass instead of keeping them: less memory, about a third more time;"
        " absent: for architecture Paper of VideoFusion and AlignYourLatents.",
    )
    sharding: Sharding | None = Field(
        default=None,
        description="Full: each process of a training or Tune phase keeps its share of weights, gradients and optimiser states, and a pass"
        " has only a few layers whole. Absent: each keeps everything.",
    )
    divergence_factor: PositiveDecimal = Field(
        default="10",
        description="Threshold of divergence, as a multiple of the mean. Training has diverged when the loss, or the gradient's norm"
        " before clipping, is more than this many times its mean over about the last 1,000 steps, and stays there: by 10"
        " steps more than are below; or in the very step in which the loss leaps to"
        " more than this squared times its mean, as it never varied. At least 2, or 0: only when one of them is no finite number.",
        json_schema_extra=k8s(
            rules=[("double(self) == 0.0 || double(self) >= 2.0", "divergenceFactor must be at least 2, for example 10; 0 switches it off")]
        ),
    )

    @property
    def fusion(self) -> VideoFusion:
        """VideoFusion's parameters, also where the recipe leaves them out."""
        return self.video_fusion or VideoFusion()
