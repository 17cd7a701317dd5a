"""What serving, Evaluate and bundles know of a model, whatever its family."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ValidationError
from torch import nn

from videogen_api.recipe import Resolution
from videogen_models.sealed import CorruptError

Config = TypeVar("Config", bound=BaseModel)
OnStep = Callable[[int, int], None]  # (steps done, steps in all), before each step; may raise to cancel
CONFIG = "model.json"


class ClipConfig(Protocol):
    """What a family's configuration says of the clips that its models generate."""

    @property
    def frames(self) -> int:
        """Frames of a clip."""

    @property
    def resolution(self) -> Resolution:
        """Size of a frame."""

    @property
    def frame_rate(self) -> int:
        """Frames a second."""


class VideoModel(nn.Module, ABC):
    """A text-to-video model. Devices and weights are handled as those of every module."""

    @property
    @abstractmethod
    def config(self) -> ClipConfig:
        """Its clips, and what else the family needs to build it."""

    @abstractmethod
    def generate(self, captions: Sequence[str], seeds: Sequence[int], steps: int, on_step: OnStep | None = None) -> npt.NDArray[np.uint8]:
        """Videos, uint8 [batch, frames, height, width, 3], one for each pair of caption and seed (0 .. 2**63 - 1).

        A clip depends on its own caption and seed only; noise is drawn on the CPU. `on_step` is called before each denoising
        step, 1 or more of them for each of `steps` (1..1000), and cancels by raising. Raises ValueError for numbers out of range.
        """

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write all files of a bundle but its manifest; the same weights give the same bytes, wherever `folder` is."""

    @abstractmethod
    def weight_files(self) -> Mapping[str, nn.Module]:
        """All networks, by the file of a bundle that has their weights when these are quantized (`quantization`)."""


def read_config(folder: Path, kind: type[Config]) -> Config:
    """What `model.json` of a bundle says. Raises CorruptError if it is no valid description of this kind."""
    try:
        return kind.model_validate_json((folder / CONFIG).read_bytes())
    except (OSError, ValidationError) as error:
        raise CorruptError(f"{folder / CONFIG}: {error}") from error


def check_pairs(captions: Sequence[str], seeds: Sequence[int]) -> None:
    """Raises ValueError unless there is one seed for each caption, and at least one caption."""
    if not captions or len(captions) != len(seeds):
        raise ValueError(f"{len(captions)} captions and {len(seeds)} seeds; each clip needs one of both, and at least one is needed")
