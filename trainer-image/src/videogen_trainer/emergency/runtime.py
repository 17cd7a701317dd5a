"""The server's own code without Triton: tensors in, tensors or a failure out (`videogen_serving.service`).

What is missing is Triton itself: its HTTP and gRPC, its queue, and the copies into and out of its Python backend.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from videogen_api.job import ArtifactReference
from videogen_api.meta import ModelIdentity, release_name
from videogen_api.training_run import Reason
from videogen_models.bundle import own_copy
from videogen_models.video_model import ClipConfig
from videogen_serving.metrics import RequestMetrics
from videogen_serving.pipeline import Pipeline
from videogen_serving.request import PROMPT_LIMIT as _PROMPT_LIMIT
from videogen_serving.request import SEED_LIMIT, Outcome
from videogen_serving.service import Failure as Refusal
from videogen_serving.service import Service
from videogen_serving.settings import Settings
from videogen_trainer.failure import Failure

SEEDS = SEED_LIMIT + 1
CANCELLED = Outcome.CANCELLED.value
PROMPT_LIMIT = _PROMPT_LIMIT  # characters


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the server said, and how long it took."""

    outcome: str
    seconds: float
    message: str = ""  # of one that is not ok
    video: bytes = b""
    metadata: Mapping[str, object]


class _Unread:
    """A series of metrics that nobody scrapes: the trainer's pod has no /metrics, and outcomes are in the answers."""

    def increment(self, value: float, /) -> None: ...

    def observe(self, value: float, /) -> None: ...


class _UnreadSeries:
    def counter(self, name: str, description: str, labels: Mapping[str, str]) -> _Unread:  # noqa: ARG002
        return _Unread()

    def histogram(self, name: str, description: str, labels: Mapping[str, str], bounds: Sequence[float]) -> _Unread:  # noqa: ARG002
        return _Unread()


@dataclass(frozen=True, slots=True)
class Runtime:
    """A bundle as its release would serve it."""

    service: Service
    clips: ClipConfig  # what it generates

    @classmethod
    def open(cls, artifact: ArtifactReference, storage: Path, model: ModelIdentity, *, steps: int, seconds: int) -> Runtime:
        """Verify and load the bundle, and warm up, as Triton's model does. Raises Failure(ArtifactInvalid)."""
        try:
            with own_copy(storage / artifact.path, artifact.digest) as (copy, _):
                settings = Settings(
                    release=release_name(model),
                    bundle_path=copy,
                    bundle_digest=artifact.digest,
                    sampling_steps=steps,
                    timeout_seconds=seconds,
                )
                pipeline = Pipeline.load(settings, clock=time.perf_counter, new_seed=lambda: 0)
        except ValueError as error:
            raise Failure(Reason.ARTIFACT_INVALID, f"{error}; train the model again or restore the bundle") from error
        pipeline.warm_up()
        return cls(
            Service(pipeline, RequestMetrics(_UnreadSeries(), settings.release), settings.sampling_steps, time.perf_counter),
            pipeline.model.config,
        )

    def ask(self, prompt: str, seed: int, is_cancelled: Callable[[], bool]) -> Answer:
        """One request, as Triton hands it over."""
        begun = time.perf_counter()
        inputs = {"PROMPT": np.array([prompt.encode()], dtype=np.object_), "SEED": np.array([seed], dtype=np.int64)}
        answer = self.service.answer(inputs, is_cancelled)
        seconds = time.perf_counter() - begun
        if isinstance(answer, Refusal):
            return Answer(outcome=answer.outcome.value, seconds=seconds, message=answer.message, metadata={})
        metadata = json.loads(answer["METADATA"][0])
        return Answer(outcome=Outcome.OK.value, seconds=seconds, video=answer["VIDEO"][0], metadata=metadata)
