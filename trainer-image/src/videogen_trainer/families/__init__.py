"""The model families: what each of them does its own way in `loop.train`."""

from __future__ import annotations

from pathlib import Path

from videogen_api.job import Job
from videogen_api.meta import ModelType
from videogen_trainer.distributed import World
from videogen_trainer.families.align_your_latents import AlignYourLatentsLearner
from videogen_trainer.families.learner import Learner
from videogen_trainer.families.text2video_zero import Text2VideoZeroLearner
from videogen_trainer.families.videofusion import VideoFusionLearner

__all__ = ["Learner", "learner_of"]

_LEARNERS: dict[ModelType, type[Learner]] = {
    ModelType.VIDEOFUSION: VideoFusionLearner,
    ModelType.ALIGN_YOUR_LATENTS: AlignYourLatentsLearner,
    ModelType.TEXT2VIDEO_ZERO: Text2VideoZeroLearner,
}


def learner_of(job: Job, storage: Path, world: World) -> Learner:
    """The job's model before step 0, on its device. Raises Failure: ArtifactInvalid, InvalidJob."""
    return _LEARNERS[job.model.type](job, storage, world)
