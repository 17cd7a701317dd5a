"""The model families: what each of them does its own way in `loop.train`."""

from __future__ import annotations

from pathlib import Path

from videogen_api.job import Job
from videogen_api.meta import ModelFamily
from videogen_api.training_run import Task
from videogen_trainer.distributed import World
from videogen_trainer.families.align_your_latents import AlignYourLatentsLearner, ImageModelLearner
from videogen_trainer.families.interpolation import InterpolationLearner
from videogen_trainer.families.learner import Learner
from videogen_trainer.families.temporal_decoder import DecoderLearner
from videogen_trainer.families.text2video_zero import Text2VideoZeroLearner
from videogen_trainer.families.videofusion import VideoFusionLearner

__all__ = ["Learner", "learner_of"]

_LEARNERS: dict[ModelFamily, type[Learner]] = {
    ModelFamily.VIDEOFUSION: VideoFusionLearner,
    ModelFamily.ALIGN_YOUR_LATENTS: AlignYourLatentsLearner,
    ModelFamily.TEXT2VIDEO_ZERO: Text2VideoZeroLearner,
}


# What the tasks of training learn that do not learn what the family's Train does.
_OF_TASKS: dict[tuple[ModelFamily, Task], type[Learner]] = {
    (ModelFamily.ALIGN_YOUR_LATENTS, Task.ADAPT): ImageModelLearner,
    (ModelFamily.ALIGN_YOUR_LATENTS, Task.TRAIN_INTERPOLATION): InterpolationLearner,
    (ModelFamily.ALIGN_YOUR_LATENTS, Task.FINE_TUNE_DECODER): DecoderLearner,
}


def learner_of(job: Job, storage: Path, world: World) -> Learner:
    """The job's model before step 0, on its device. Raises Failure: ArtifactInvalid, InvalidJob."""
    learner = _OF_TASKS.get((job.model.family, job.task), _LEARNERS[job.model.family])
    return learner(job, storage, world)
