"""When training has diverged: a loss, a gradient or a weight that is no number, or a loss or a gradient that has exploded."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from videogen_api.recipe import Precision, Recipe
from videogen_api.training_run import Reason
from videogen_trainer.distributed import World
from videogen_trainer.failure import Failure
from videogen_trainer.sharding import own
from videogen_trainer.state import TrainState

# The loss scale begins at 2**16 and is halved by each overflow: this many in a row are no matter of scale.
_SKIPS_IN_A_ROW = 30


def judge(state: TrainState, recipe: Recipe, loss: float, gradient: float, *, may_leap: bool = False) -> None:
    """Raises Failure(Diverged) unless loss and gradient norm (before clipping) are finite, and have not exploded. With FP16 an
    overflowing gradient is normal now and then: the loss scaler leaves the step out.

    One loss that is out of all proportion is enough, unless it `may_leap`; one such norm is not, for gradients are clipped. Loss and
    norm are the same numbers in all processes, and so is what is found.
    """
    overflows = not math.isfinite(gradient) and math.isfinite(loss)
    state.skipped = state.skipped + 1 if overflows else 0
    left_out = overflows and recipe.precision is Precision.FP16 and state.skipped <= _SKIPS_IN_A_ROW
    if not math.isfinite(loss) or (overflows and not left_out):
        raise _diverged(state, f"loss {loss:.4g}, gradient norm {gradient:.4g}")
    values = {"loss": loss} if left_out else {"loss": loss, "gradient norm": gradient}
    factor = float(recipe.divergence_factor)
    if not may_leap and (usual := state.levels["loss"]).leaps_to(loss, factor):
        far = f"more than {factor**2:g} (recipe.divergenceFactor {factor:g}, squared) times its mean of {usual.mean:.4g}"
        raise _diverged(state, f"loss {loss:.4g} is {far}, which no batch explains")
    _judge_levels(state, factor, values)
    if not state.is_suspect:
        state.sound_step = state.step


def _judge_levels(state: TrainState, factor: float, values: Mapping[str, float]) -> None:
    for name, value in values.items():
        level, usual = state.levels[name], state.levels[name].mean
        level.add(value, factor)
        if level.has_exploded:
            far = f"more than recipe.divergenceFactor {factor:g} times its mean of {usual:.4g}"
            raise _diverged(state, f"{name} {value:.4g} is {far}, as most of the time since step {state.sound_step + 1}")


def judge_weights(state: TrainState, world: World | None = None) -> None:
    """Raises Failure(Diverged) unless all that a checkpoint would hold is finite: nobody could resume from anything else.

    A last update can do that harm after a loss and a gradient that were finite, and only the next step's loss would tell.
    Where each process has its part of the state, all of them must call it with their world, and all raise.
    """
    parts = {file: {name: own(tensor) for name, tensor in part.items()} for file, part in state.parts().items()}
    harmed = next((f"{file} {name}" for file, part in parts.items() if (name := _harmed(part))), None)
    found = harmed is not None
    if world.any(found) if world and state.is_sharded else found:
        raise _diverged(state, f"{harmed or 'what another process holds'} is not finite any more")


def _harmed(tensors: Mapping[str, Tensor]) -> str | None:
    """Key of a tensor with a value that is not finite. A sum with such a value is not finite either, and reads a tensor once; a sum
    that overflows only makes us look closer.
    """
    if not tensors or bool(torch.stack([tensor.sum() for tensor in tensors.values()]).isfinite().all()):
        return None
    return next((key for key, tensor in tensors.items() if not bool(tensor.isfinite().all())), None)


def _diverged(state: TrainState, found: str) -> Failure:
    rate = state.optimizer.param_groups[-1]["lr"]
    advice = "a smaller recipe.optimizer.learningRate or a longer warm-up helps"
    return Failure(Reason.DIVERGED, f"step {state.step}: {found} at learning rate {rate:.3g}; {advice}")
