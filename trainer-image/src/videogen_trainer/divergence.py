"""When training has diverged: a loss or a gradient that is no number, found in the very step, before it can do harm."""

from __future__ import annotations

import math

from videogen_api.recipe import Precision, Recipe
from videogen_api.training_run import Reason
from videogen_trainer.failure import Failure
from videogen_trainer.state import TrainState

# The loss scale begins at 2**16 and is halved by each overflow: this many in a row are no matter of scale.
_SKIPS_IN_A_ROW = 30


def judge(state: TrainState, recipe: Recipe, loss: float, gradient: float) -> None:
    """Raises Failure(Diverged) unless loss and gradient norm are finite. With FP16 an overflowing gradient is normal now and
    then: the loss scaler leaves the step out.
    """
    overflows = not math.isfinite(gradient) and math.isfinite(loss)
    state.skipped = state.skipped + 1 if overflows else 0
    if math.isfinite(loss) and (not overflows or (recipe.precision is Precision.FP16 and state.skipped <= _SKIPS_IN_A_ROW)):
        return
    raise Failure(
        Reason.DIVERGED,
        f"step {state.step}: loss {loss:.4g}, gradient norm {gradient:.4g} at learning rate {state.optimizer.param_groups[1]['lr']:.3g};"
        " a smaller recipe.optimizer.learningRate or a longer warm-up helps",
    )
