"""Which trial of a search is the best, and whether the others are worse by more than chance."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from videogen_api.training_run import Reason
from videogen_api.tuning import Objective, Trial
from videogen_trainer.failure import Failure


@dataclass(frozen=True, slots=True)
class Choice:
    """The trial that later phases train with, and why."""

    chosen: Trial
    best: Trial
    equal: list[Trial]  # others than the best one that cannot be told from it
    diverged: list[Trial]

    def message(self, own: str) -> str:
        """The choice in words; `own` is the recipe's value."""
        best, metric = self.best, self.best.metric
        words = f"{best.value} has the best {metric}, {_measured(best)}"
        if self.equal:
            others = _listed([f"{one.value} ({_measured(one)})" for one in self.equal])
            words += (
                f"; {others} cannot be told from it by the 95 % intervals, and {self.chosen.value} is the nearest to the recipe's {own}"
            )
        if self.diverged:
            words += f"; {_listed([one.value for one in self.diverged])} diverged"
        return f"chosen is baseNoiseShare {self.chosen.value}: {words}"


def choose(trials: Sequence[Trial], objective: Objective, own: str) -> Choice:
    """The best trial by the objective; if others cannot be told from it, that of them all which is nearest to the recipe's `own` value.

    Raises Failure(Diverged) if every trial diverged.
    """
    measured = [trial for trial in trials if trial.result is not None]
    if not measured:
        said = "every trial diverged; a smaller recipe.optimizer.learningRate or a longer warm-up helps"
        raise Failure(Reason.DIVERGED, f"tune: {said}")

    def rank(trial: Trial) -> Decimal:
        value = Decimal(str(trial.result))
        return value if objective.lower_is_better else -value

    best = min(measured, key=rank)
    equal = [trial for trial in measured if trial is not best and not is_better(best, trial, lower=objective.lower_is_better)]
    chosen = min([best, *equal], key=lambda trial: (abs(Decimal(trial.value) - Decimal(own)), rank(trial)))
    diverged = [trial for trial in trials if trial.result is None]
    return Choice(chosen=chosen.model_copy(update={"chosen": True}), best=best, equal=equal, diverged=diverged)


def is_better(best: Trial, other: Trial, *, lower: bool) -> bool:
    """Whether the 95 % interval of the two results' difference is without 0, by those of the results alone (MOVER: Zou and
    Donner, Statistics in Medicine 27, 2008). `lower`: the lower result is the better one.
    """
    (_, worst_of_best), (best_of_other, _) = _ends(best, lower=lower), _ends(other, lower=lower)
    one, two = float(str(best.result)), float(str(other.result))
    return abs(two - one) > math.hypot(worst_of_best - one, best_of_other - two)


def _ends(trial: Trial, *, lower: bool) -> tuple[float, float]:
    """The better and the worse end of a trial's interval; its result, where there is none."""
    low, high = (float(end if end is not None else str(trial.result)) for end in (trial.low, trial.high))
    return (low, high) if lower else (high, low)


def _measured(trial: Trial) -> str:
    return f"{float(str(trial.result)):.4g} ({float(trial.low or 'nan'):.4g} to {float(trial.high or 'nan'):.4g})"


def _listed(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
