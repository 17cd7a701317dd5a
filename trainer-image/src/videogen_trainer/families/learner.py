"""The interface of a model family to the training loop."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from videogen_api.job import Job
from videogen_models.video_model import VideoModel
from videogen_trainer.data import Batch
from videogen_trainer.distributed import World
from videogen_trainer.encoder_cache import EncoderCache


class Learner(ABC):
    """A model that is trained, and how. What of it learns requires a gradient; nothing else does."""

    model: VideoModel
    objective: nn.Module  # of what `prepare` returns -> the losses [len(terms)]; their sum is minimised
    terms: tuple[str, ...]  # names of the losses
    cache: EncoderCache | None = None  # of what does not learn
    slow: str | None = None  # prefix of the names of parameters that learn at a rate of their own
    loss_may_leap: bool = False  # by orders of magnitude from a step to the next, without harm
    slow_scale: float = 1.0  # that rate, as a share of the others'

    @abstractmethod
    def __init__(self, job: Job, storage: Path, world: World) -> None:
        """The model before step 0. Raises Failure: ArtifactInvalid, InvalidJob."""

    @abstractmethod
    def prepare(self, batch: Batch) -> tuple[Any, ...]:
        """What the objective takes, on the model's device. Random numbers are those of `randomness.sample_generator`."""

    def finished(self) -> None:
        """The training has ended, and all processes are past its last step: what was kept for the steps goes."""
        if self.cache:
            self.cache.remove()

    def learned(self) -> dict[str, nn.Parameter]:
        """All that learns, by its name in the model, or a name of its own if it is beside the model."""
        return {name: parameter for name, parameter in self.model.named_parameters() if parameter.requires_grad}

    @torch.no_grad()
    def take(self, weights: Mapping[str, Tensor]) -> None:
        """Give what learns other values, by its names in the model."""
        for name, parameter in self.learned().items():
            parameter.copy_(weights[name])
