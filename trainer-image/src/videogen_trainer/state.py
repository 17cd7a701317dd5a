"""All that training changes, and how it goes into a checkpoint and back.

There is no random state in it: every random number of a run is a function of (seed, sample), see `randomness.sample_generator`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from diffusers.training_utils import EMAModel
from pydantic import ValidationError
from torch import Tensor, nn

from videogen_api.recipe import Precision, Recipe
from videogen_trainer.explosion import Level
from videogen_trainer.optimizer import SLOW, moments, new_optimizer, restore_moments
from videogen_trainer.sharding import is_shard, own, part_of, whole

_DTYPES = {Precision.FP32: torch.float32, Precision.FP16: torch.float16, Precision.BF16: torch.bfloat16}
_HOW = {"compile", "gradient_checkpointing", "sharding", "divergence_factor"}  # fields of a recipe that say how, and not what, is learned


@dataclass(slots=True, kw_only=True)
class TrainState:
    """Weights (always 32 bits), their moving average, AdamW's moments, the loss scale, the number of steps done.

    With `recipe.sharding` each process has its part of them.
    """

    learned: Mapping[str, nn.Parameter]  # all that learns, by its name in the model
    optimizer: torch.optim.Optimizer
    ema: EMAModel
    scaler: torch.amp.GradScaler
    step: int = 0
    skipped: int = 0  # FP16: steps skipped in a row because the scaled gradient overflowed
    levels: dict[str, Level] = field(default_factory=lambda: {"loss": Level(), "gradient norm": Level()})
    sound_step: int = -1  # the newest step that began with weights of an ordinary loss; -1: none yet

    @property
    def is_suspect(self) -> bool:
        """Whether the last loss or gradient was not ordinary: by chance, or because an explosion has begun."""
        return any(level.beyond for level in self.levels.values())

    @property
    def parameters(self) -> list[nn.Parameter]:
        """All that learns, in the optimiser's order: what learns slowly, then the others."""
        return [parameter for group in self.optimizer.param_groups for parameter in group["params"]]

    def set_rates(self, slow: float, others: float) -> None:
        """Set the learning rates of what learns slowly, if anything does, and of everything else."""
        for group in self.optimizer.param_groups:
            group["lr"] = slow if group[SLOW] else others

    @property
    def is_sharded(self) -> bool:
        """Whether each process has its part only."""
        return any(is_shard(parameter) for parameter in self.learned.values())

    def averaged_weights(self, *, kept: bool = True) -> dict[str, Tensor]:
        """The moving average of what learns, by its names in the model, whole.

        With shards every process must call it; those that do not keep the tensors get empty ones.
        """
        return {name: whole(average, kept=kept) for name, average in self._averages().items()}

    def exchange_averages(self) -> None:
        """Weights and their moving averages change places; once more, and all is to the bit what it was. It takes no memory."""
        for parameter, average in zip(self.learned.values(), self.ema.shadow_params, strict=True):
            parameter.data, average.data = average.data, parameter.data

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """Everything for a checkpoint, by file and name, whole. With shards every process must call it."""
        return {file: {name: whole(tensor) for name, tensor in part.items()} for file, part in self.parts().items()}

    def shards(self, *, leads: bool) -> dict[str, dict[str, Tensor]]:
        """As `tensors`, for a checkpoint in parts: this process' shards, and in the one that leads also what is whole."""
        return {
            file: {name: own(tensor) for name, tensor in part.items() if leads or is_shard(tensor)} for file, part in self.parts().items()
        }

    def parts(self) -> dict[str, dict[str, Tensor]]:
        """As `tensors`, what this process has of it."""
        return {"model": dict(self.learned), "ema": self._averages(), "optimizer": moments(self.optimizer, self._names())}

    def _averages(self) -> dict[str, Tensor]:
        return dict(zip(self.learned, self.ema.shadow_params, strict=True))

    def _names(self) -> dict[nn.Parameter, str]:
        names = {parameter: name for name, parameter in self.learned.items()}
        return {parameter: names[parameter] for parameter in self.parameters}

    def values(self) -> dict[str, Any]:
        """The numbers for a checkpoint beside its tensors."""
        levels = {name: asdict(level) for name, level in self.levels.items()}
        scaler = self.scaler.state_dict()
        return {
            "averaged": self.ema.optimization_step,
            "scaler": scaler,
            "skipped": self.skipped,
            "levels": levels,
            "sound": self.sound_step,
        }

    def restore(self, tensors: Mapping[str, Mapping[str, Tensor]], values: Mapping[str, Any]) -> None:
        """Become the state that a checkpoint holds; it must be of the same recipe. One of an older image knows no levels."""
        with torch.no_grad():
            for name, parameter in self.learned.items():
                parameter.copy_(part_of(tensors["model"][name], parameter))
            for name, average in self._averages().items():
                average.copy_(part_of(tensors["ema"][name], average))
        restore_moments(self.optimizer, self._names(), tensors["optimizer"])
        self.ema.optimization_step = values["averaged"]
        self.scaler.load_state_dict(values["scaler"])
        self.skipped = values["skipped"]
        self.levels |= {name: Level(**level) for name, level in values.get("levels", {}).items()}
        self.step = values["step"]
        self.sound_step = values.get("sound", self.step)


def new_state(learned: Mapping[str, nn.Parameter], slow: str | None, recipe: Recipe, device: torch.device) -> TrainState:
    """The state before the first step; parameters whose names begin with `slow` are a group of their own."""
    begins = [slow is not None and name.startswith(slow) for name in learned]
    groups = [[parameter for parameter, its in zip(learned.values(), begins, strict=True) if its is wanted] for wanted in (True, False)]
    optimizer = new_optimizer(groups[0], groups[1], recipe.optimizer)
    in_lists = not any(is_shard(parameter) for parameter in learned.values())  # a list takes tensors of one kind
    ema = EMAModel(learned.values(), decay=float(recipe.ema_decay), foreach=in_lists)
    scaler = torch.amp.GradScaler(device.type, enabled=recipe.precision is Precision.FP16)
    return TrainState(learned=learned, optimizer=optimizer, ema=ema, scaler=scaler)


def autocast(precision: Precision, device: torch.device) -> torch.autocast:
    """The number format of the forward pass; a new context for each use."""
    return torch.autocast(device.type, dtype=_DTYPES[precision], enabled=precision is not Precision.FP32)


def is_same_recipe(saved: object, recipe: Recipe) -> bool:
    """Whether a checkpoint, which holds the recipe as JSON, may be resumed with this one.

    Compared by what both mean, as the API server does it: a field that the writer did not know has its default. How it is
    computed is not compared: a run may go on with or without compiled networks, activations that are kept, or shards.
    """
    try:
        known = Recipe.model_validate(saved)
    except ValidationError:
        return False
    return known.model_dump(exclude=_HOW) == recipe.model_dump(exclude=_HOW)
