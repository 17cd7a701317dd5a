"""All that training changes, and how it goes into a checkpoint and back.

There is no random state in it: every random number of a run is a function of (seed, sample), see `randomness.sample_generator`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.training_utils import EMAModel
from pydantic import ValidationError
from torch import Tensor, nn

from videogen_api.recipe import Precision, Recipe

_DTYPES = {Precision.FP32: torch.float32, Precision.FP16: torch.float16, Precision.BF16: torch.bfloat16}
_MOMENTS = ("step", "exp_avg", "exp_avg_sq")


@dataclass(slots=True, kw_only=True)
class TrainState:
    """Weights (always 32 bits), their moving average, AdamW's moments, the loss scale, the number of steps done."""

    learned: Mapping[str, nn.Parameter]  # all that learns, by its name in the model
    optimizer: torch.optim.AdamW
    ema: EMAModel
    scaler: torch.amp.GradScaler
    step: int = 0
    skipped: int = 0  # FP16: steps skipped in a row because the scaled gradient overflowed

    @property
    def parameters(self) -> list[nn.Parameter]:
        """All that learns, in the optimiser's order: what learns slowly, then the others."""
        return [parameter for group in self.optimizer.param_groups for parameter in group["params"]]

    def set_rates(self, slow: float, others: float) -> None:
        """Set the learning rates of what learns slowly, if anything does, and of everything else."""
        groups = self.optimizer.param_groups
        for group, rate in zip(groups, (slow, others)[-len(groups) :], strict=True):
            group["lr"] = rate

    def averaged_weights(self) -> dict[str, Tensor]:
        """The moving average of what learns, by its names in the model."""
        return dict(zip(self.learned, self.ema.shadow_params, strict=True))

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """Everything for a checkpoint, by file and name."""
        names = {parameter: name for name, parameter in self.learned.items()}
        moments = {
            f"{names[parameter]}:{key}": value
            for parameter in self.parameters
            for key, value in self.optimizer.state.get(parameter, {}).items()
        }
        return {"model": dict(self.learned), "ema": self.averaged_weights(), "optimizer": moments}

    def values(self) -> dict[str, Any]:
        """The numbers for a checkpoint beside its tensors."""
        return {"averaged": self.ema.optimization_step, "scaler": self.scaler.state_dict(), "skipped": self.skipped}

    def restore(self, tensors: Mapping[str, Mapping[str, Tensor]], values: Mapping[str, Any]) -> None:
        """Become the state that a checkpoint holds; it must be of the same recipe."""
        with torch.no_grad():
            for name, parameter in self.learned.items():
                parameter.copy_(tensors["model"][name])
            for name, average in self.averaged_weights().items():
                average.copy_(tensors["ema"][name])
        self._restore_moments(tensors["optimizer"])
        self.ema.optimization_step = values["averaged"]
        self.scaler.load_state_dict(values["scaler"])
        self.skipped = values["skipped"]
        self.step = values["step"]

    def _restore_moments(self, moments: Mapping[str, Tensor]) -> None:
        if not moments:
            return  # saved before the first step
        names = {parameter: name for name, parameter in self.learned.items()}
        state = {index: {key: moments[f"{names[parameter]}:{key}"] for key in _MOMENTS} for index, parameter in enumerate(self.parameters)}
        self.optimizer.load_state_dict({"state": state, "param_groups": self.optimizer.state_dict()["param_groups"]})


def new_state(learned: Mapping[str, nn.Parameter], slow: str | None, recipe: Recipe, device: torch.device) -> TrainState:
    """The state before the first step; parameters whose names begin with `slow` are a group of their own."""
    begins = [slow is not None and name.startswith(slow) for name in learned]
    groups = [[parameter for parameter, its in zip(learned.values(), begins, strict=True) if its is wanted] for wanted in (True, False)]
    optimizer = torch.optim.AdamW(
        [{"params": group} for group in groups if group],
        lr=0.0,
        weight_decay=float(recipe.optimizer.weight_decay),
        fused=True,
    )
    ema = EMAModel(learned.values(), decay=float(recipe.ema_decay), foreach=True)
    scaler = torch.amp.GradScaler(device.type, enabled=recipe.precision is Precision.FP16)
    return TrainState(learned=learned, optimizer=optimizer, ema=ema, scaler=scaler)


def autocast(precision: Precision, device: torch.device) -> torch.autocast:
    """The number format of the forward pass; a new context for each use."""
    return torch.autocast(device.type, dtype=_DTYPES[precision], enabled=precision is not Precision.FP32)


def is_same_recipe(saved: object, recipe: Recipe) -> bool:
    """Whether a checkpoint, which holds the recipe as JSON, may be resumed with this one.

    Compared by what both mean, as the API server does it: a field that the writer did not know has its default.
    """
    try:
        return Recipe.model_validate(saved) == recipe
    except ValidationError:
        return False
