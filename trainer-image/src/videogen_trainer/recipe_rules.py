"""What a recipe must fulfil for its model's family: the CRD's rules once more, for jobs that came past the API server."""

from __future__ import annotations

from collections.abc import Iterator

from videogen_api.job import Job
from videogen_api.meta import ModelType
from videogen_api.recipe import OptimizerName, Precision, Sharding, VideoFusion
from videogen_api.training_run import Reason
from videogen_trainer.failure import Failure


def check_recipe(job: Job) -> None:
    """Raises Failure(InvalidJob) with the first rule that is broken."""
    for problem in _problems(job):
        raise Failure(Reason.INVALID_JOB, problem)


def _problems(job: Job) -> Iterator[str]:
    recipe, family = job.recipe, job.model.type
    if recipe.steps < 1 and family is not ModelType.TEXT2VIDEO_ZERO:
        yield f"recipe.steps is 0; a model of type {family} needs at least 1, of type {ModelType.TEXT2VIDEO_ZERO} alone it may be 0"
    yield from _foreign_blocks(job)
    yield from _engine(job)
    if (
        recipe.backbone and family is ModelType.VIDEOFUSION
    ):  # beside initFrom it may be: a second Train phase begins with the first's bundle
        yield f"recipe.backbone is set; it is for {_IMAGE_BASED}: leave it out"
    if (latents := recipe.align_your_latents) and not latents.context_frames and float(latents.context_guidance) != 1:
        yield f"recipe.alignYourLatents.contextGuidance is {latents.context_guidance}; it needs contextFrames: 1, else leave it at 1"
    if (zero := recipe.text2_video_zero) and zero.warp_at > zero.resume_at:
        yield f"recipe.text2VideoZero.warpAt is {zero.warp_at}; it may not be greater than resumeAt, {zero.resume_at}"


_IMAGE_BASED = f"models of type {ModelType.ALIGN_YOUR_LATENTS} and {ModelType.TEXT2VIDEO_ZERO}"


def _foreign_blocks(job: Job) -> Iterator[str]:
    recipe = job.recipe
    blocks = {
        ModelType.VIDEOFUSION: ("videoFusion", recipe.video_fusion != VideoFusion()),
        ModelType.ALIGN_YOUR_LATENTS: ("alignYourLatents", recipe.align_your_latents is not None),
        ModelType.TEXT2VIDEO_ZERO: ("text2VideoZero", recipe.text2_video_zero is not None),
    }
    for family, (name, is_set) in blocks.items():
        if is_set and family is not job.model.type:
            yield f"recipe.{name} is set; it is for models of type {family}, the run's is {job.model.type}: leave it out"


def _engine(job: Job) -> Iterator[str]:
    recipe, loss = job.recipe, job.recipe.loss
    if loss.snr_gamma is not None and not float(loss.snr_gamma):
        yield f"recipe.loss.snrGamma is {loss.snr_gamma}; it must be greater than 0, for example 5: leave it out for none"
    if loss.prediction_type and job.model.type is ModelType.VIDEOFUSION:
        yield f"recipe.loss.predictionType is set; it is for {_IMAGE_BASED}: leave it out"
    if recipe.sharding is Sharding.NONE:
        return
    if recipe.optimizer.name is OptimizerName.ADAMW_8BIT:
        yield "recipe.sharding is Full, and recipe.optimizer.name AdamW8bit, whose blocks would not end where shards do; take AdamW"
    if recipe.compile:
        yield "recipe.sharding is Full, and recipe.compile true; leave one of them out"
    if recipe.precision is Precision.FP16:
        yield "recipe.sharding is Full, and recipe.precision FP16; take BF16 or FP32"
