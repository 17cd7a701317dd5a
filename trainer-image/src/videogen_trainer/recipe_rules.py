"""What a recipe must fulfil for its model's family and its task: the CRD's rules once more, for jobs that came past the API server."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal

from videogen_api.job import Job
from videogen_api.meta import ModelFamily
from videogen_api.noise_shares import outside, problems_of_frames
from videogen_api.recipe import OptimizerName, Precision, Recipe, Space
from videogen_api.training_run import Split, Task


def recipe_problems(job: Job) -> Iterator[str]:
    """The rules for a recipe that are broken."""
    recipe, family = job.recipe, job.model.family
    if recipe.steps < 1 and job.task is not Task.ADAPT and (family is not ModelFamily.TEXT2VIDEO_ZERO or job.task is Task.FINE_TUNE):
        yield f"recipe.steps is 0; a model of family {family} needs at least 1, of type {ModelFamily.TEXT2VIDEO_ZERO} alone it may be 0"
    yield from _out_of_place(job)
    yield from _foreign_blocks(job)
    yield from _engine(job)
    fusion = recipe.fusion
    yield from _shares(recipe)
    if recipe.backbone and family is ModelFamily.VIDEOFUSION and fusion.space is Space.PIXEL:
        # beside initFrom it may be: a second Train phase begins with the first's bundle
        yield f"recipe.backbone is set; it is for {_IMAGE_BASED}, and for videoFusion.space Latent: leave it out"
    if fusion.space is Space.LATENT and job.task in (Task.TRAIN, Task.TUNE) and not (recipe.backbone or job.init_from):
        yield "recipe.videoFusion.space is Latent; it needs an autoencoder: that of recipe.backbone, or of a bundle in initFrom"
    given = recipe.backbone or job.init_from
    if recipe.cache_latents and not (family is ModelFamily.ALIGN_YOUR_LATENTS or (family is ModelFamily.TEXT2VIDEO_ZERO and given)):
        yield (
            f"recipe.cacheLatents is true; it needs encoders that do not learn, those of family {ModelFamily.ALIGN_YOUR_LATENTS}, or of"
            f" {ModelFamily.TEXT2VIDEO_ZERO} with recipe.backbone or initFrom: leave it out"
        )
    if (latents := recipe.align_your_latents) and not latents.context_frames and float(latents.context_guidance) != 1:
        yield f"recipe.alignYourLatents.contextGuidance is {latents.context_guidance}; it needs contextFrames: 1 or 2, else leave it at 1"
    if latents and latents.context_frames >= recipe.frames:
        yield f"recipe.alignYourLatents.contextFrames is {latents.context_frames}, recipe.frames {recipe.frames}; it must be less"
    if latents and latents.clip_frames and latents.clip_frames <= recipe.frames:
        yield f"recipe.alignYourLatents.clipFrames is {latents.clip_frames}, recipe.frames {recipe.frames}; it must be more, or left out"
    if (zero := recipe.text2_video_zero) and zero.warp_at > zero.resume_at:
        yield f"recipe.text2VideoZero.warpAt is {zero.warp_at}; it may not be greater than resumeAt, {zero.resume_at}"


def _shares(recipe: Recipe) -> Iterator[str]:
    fusion, scenarios = recipe.fusion, (recipe.fusion.base_scenario, recipe.fusion.residual_scenario)
    base, residual = fusion.base_noise_share, fusion.residual_noise_share
    if fusion.base_noise_shares:
        yield from problems_of_frames(fusion.base_noise_shares, recipe.frames, *scenarios)
        if base or residual:
            yield "recipe.videoFusion.baseNoiseShares tells the share of each frame; leave baseNoiseShare and residualNoiseShare out"
    elif problem := outside(fusion.base_share, *scenarios):
        yield f"recipe.videoFusion.baseNoiseShare is {fusion.base_share}; it {problem}"
    if base and residual and Decimal(base) + Decimal(residual) != 1:
        yield f"recipe.videoFusion.baseNoiseShare is {base} and residualNoiseShare {residual}; they must add up to 1"


def _out_of_place(job: Job) -> Iterator[str]:
    """What a task of training needs beside data."""
    task, family = job.task, job.model.family
    accepted = FAMILIES.get(task, tuple(ModelFamily))
    if family not in accepted:
        yield f"task is {task}; it is for models of family {' and '.join(accepted)}, the run's is {family}"
    if task in {Task.FINE_TUNE, Task.ALIGN_CROSS_MODAL, Task.TRAIN_INTERPOLATION} and job.init_from is None:
        yield f"initFrom is missing; a job with task {task} starts from the weights of a bundle"
    if task in {Task.ADAPT, Task.FINE_TUNE_DECODER} and job.init_from is None and job.recipe.backbone is None:
        yield f"initFrom and recipe.backbone are missing; a job with task {task} starts from the image model of one of them"


FAMILIES = {
    Task.ADAPT: (ModelFamily.TEXT2VIDEO_ZERO, ModelFamily.ALIGN_YOUR_LATENTS),
    **dict.fromkeys((Task.ALIGN_CROSS_MODAL, Task.TRAIN_INTERPOLATION, Task.FINE_TUNE_DECODER), (ModelFamily.ALIGN_YOUR_LATENTS,)),
}


def tuning_problems(job: Job) -> Iterator[str]:
    """What a Tune job does not fulfil."""
    fusion = job.recipe.fusion
    if job.model.family is not ModelFamily.VIDEOFUSION:
        family = job.model.family
        yield f"task: Tune searches baseNoiseShare, which models of family {ModelFamily.VIDEOFUSION} alone have; the run's is {family}"
    if fusion.base_noise_shares:
        yield "recipe.videoFusion.baseNoiseShares is set; Tune searches one share for all frames: leave it out"
    if missing := [split for split in Split if all(entry.reference.split is not split for entry in job.data)]:
        yield f"data has no split {missing[0]}; a Tune phase learns from {Split.TRAIN} and is judged by {Split.HELD_OUT}"
    for value in job.tune.values if job.tune else ():
        if problem := outside(value, fusion.base_scenario, fusion.residual_scenario):
            yield f"tune.values has {value}; each {problem}"


_IMAGE_BASED = f"models of family {ModelFamily.ALIGN_YOUR_LATENTS} and {ModelFamily.TEXT2VIDEO_ZERO}"


def _foreign_blocks(job: Job) -> Iterator[str]:
    recipe = job.recipe
    blocks = {
        ModelFamily.VIDEOFUSION: ("videoFusion", recipe.video_fusion is not None),
        ModelFamily.ALIGN_YOUR_LATENTS: ("alignYourLatents", recipe.align_your_latents is not None),
        ModelFamily.TEXT2VIDEO_ZERO: ("text2VideoZero", recipe.text2_video_zero is not None),
    }
    for family, (name, is_set) in blocks.items():
        if is_set and family is not job.model.family:
            yield f"recipe.{name} is set; it is for models of family {family}, the run's is {job.model.family}: leave it out"


def _engine(job: Job) -> Iterator[str]:
    recipe, loss = job.recipe, job.recipe.loss
    if loss.snr_gamma is not None and not float(loss.snr_gamma):
        yield f"recipe.loss.snrGamma is {loss.snr_gamma}; it must be greater than 0, for example 5: leave it out for none"
    if loss.prediction_type and job.model.family is ModelFamily.VIDEOFUSION:
        yield f"recipe.loss.predictionType is set; it is for {_IMAGE_BASED}: leave it out"
    if recipe.sharding is None:
        return
    if recipe.optimizer.name is OptimizerName.ADAMW_8BIT:
        yield "recipe.sharding is Full, and recipe.optimizer.name AdamW8bit, whose blocks would not end where shards do; take AdamW"
    if recipe.compile:
        yield "recipe.sharding is Full, and recipe.compile true; leave one of them out"
    if recipe.precision is Precision.FP16:
        yield "recipe.sharding is Full, and recipe.precision FP16; take BF16 or FP32"
    if job.task is Task.FINE_TUNE_DECODER:
        yield "recipe.sharding is Full, and task FineTuneDecoder, whose adaptive weight needs whole gradients; train it by a run without"
