"""Values of one training phase in place of the recipe's, and the CEL rules of phases that train.

A run has one recipe; a phase that trains may take other steps and another rate, and fine-tuning a smaller one by itself.
"""

from __future__ import annotations

from decimal import Context, Decimal

from pydantic import Field

from videogen_api.meta import Model, PositiveDecimal
from videogen_api.recipe import Recipe

GENTLER = 10  # a FineTune phase without a rate of its own learns at the recipe's divided by this
_SMALLEST, _LARGEST = Decimal("1e-99"), Decimal("1e99")  # with one digit before the point that PositiveDecimal can hold


class PhaseTraining(Model):
    """What a phase that trains does in another way than the recipe says."""

    steps: int | None = Field(
        default=None,
        ge=0,
        le=10_000_000,
        description="Optimiser steps; absent: the recipe's. An Adapt phase may have 0, and a Train phase of a Text2VideoZero.",
    )
    learning_rate: PositiveDecimal | None = Field(
        default=None, description="Peak learning rate; absent: the recipe's, and in a FineTune phase a tenth of it."
    )
    warmup_steps: int | None = Field(
        default=None, ge=0, le=10_000_000, description="Steps of linear warm-up, not more than the phase's steps; absent: the recipe's."
    )


def phase_recipe(recipe: Recipe, values: PhaseTraining | None, *, gentle: bool) -> Recipe:
    """The recipe that a phase is trained by: `recipe` with the phase's own values; `gentle`: at a tenth of its rate, if none is given."""
    own = values or PhaseTraining()
    rate = own.learning_rate or (_tenth(recipe.optimizer.learning_rate) if gentle else None)
    changes: dict[str, object] = {} if own.steps is None else {"steps": own.steps}
    if rate is not None:
        changes["optimizer"] = recipe.optimizer.model_copy(update={"learning_rate": rate})
    if own.warmup_steps is not None:
        changes["schedule"] = recipe.schedule.model_copy(update={"warmup_steps": own.warmup_steps})
    return recipe.model_copy(update=changes)


def _tenth(rate: str) -> str:
    """A tenth of a PositiveDecimal, as one: 5e-6 -> 5e-7, 0.002 -> 2e-4. What nobody can learn at stays: 0, 1e-99, 1e107."""
    result = Context(prec=10).divide(Decimal(rate), Decimal(GENTLER)).normalize()
    return f"{result:e}".replace("e+", "e") if _SMALLEST <= result <= _LARGEST else rate


_STEPS = "(has(p.train) && has(p.train.steps) ? p.train.steps : recipe.steps)"
_WARMUP = "(has(p.train.warmupSteps) ? p.train.warmupSteps : recipe.schedule.warmupSteps)"
_LATENTS, _ZERO = "family == 'AlignYourLatents'", "family == 'Text2VideoZero'"
_VIDEO = ["Train", "FineTune", "AlignCrossModal", "TrainInterpolation", "FineTuneDecoder"]  # all but Adapt
_GOING_ON = ["FineTune", "AlignCrossModal", "TrainInterpolation"]
_OF_IMAGE = ["Adapt", "FineTuneDecoder"]  # need no more than an image model
_OF_LATENTS = ["AlignCrossModal", "TrainInterpolation", "FineTuneDecoder"]


def _some(tasks: list[str]) -> str:
    return f"tasks.exists(t, t in {tasks})"


def _first_before(task: str, others: list[str]) -> str:
    """A phase of this task is there, and comes before the first of the others, one of which is there."""
    return f"('{task}' in tasks && tasks.indexOf('{task}') < tasks.map(t, t in {others}).indexOf(true))"


# CEL over a TrainingRun's spec, message, field.
PHASE_RULES: tuple[tuple[str, str, str], ...] = (
    (
        f"phases.all(p, !has(p.train) || {_WARMUP} <= {_STEPS})",
        "train.warmupSteps of a phase, or the recipe's schedule.warmupSteps in its place, may not be greater than the phase's steps",
        "phases",
    ),
    (
        f"(recipe.steps >= 1 && phases.all(p, !has(p.train) || !has(p.train.steps) || p.train.steps >= 1))"
        f" || phases.all(p, !(p.task in {_VIDEO}) || (p.task == 'Train' && ({_ZERO} || !has(p.train))) || {_STEPS} >= 1)",
        "the steps of a phase must be greater than or equal to 1; an Adapt phase alone may have 0, and a Train phase of a model of type"
        " Text2VideoZero",
        "phases",
    ),
    (
        f"{_LATENTS} || !{_some(_OF_LATENTS)}",
        "AlignCrossModal, TrainInterpolation and FineTuneDecoder phases are for models of family AlignYourLatents",
        "phases",
    ),
    (
        f"{_LATENTS} || {_ZERO} || !('Adapt' in tasks)",
        "an Adapt phase is for models of family Text2VideoZero and AlignYourLatents, whose image model it trains",
        "phases",
    ),
    (
        f"!{_some(_GOING_ON)} || has(self.initFrom) || {_first_before('Train', _GOING_ON)}"
        f" || ({_ZERO} && {_first_before('Adapt', _GOING_ON)})",
        "a FineTune, AlignCrossModal or TrainInterpolation phase starts from trained weights: it needs initFrom, or a Train phase before"
        " it (for models of family Text2VideoZero also an Adapt phase)",
        "phases",
    ),
    (
        f"!{_some(_OF_IMAGE)} || has(self.initFrom) || has(recipe.backbone)"
        f" || (({_ZERO} || !('Adapt' in tasks)) && {_first_before('Train', _OF_IMAGE)})",
        "an Adapt or FineTuneDecoder phase starts from an image model: it needs initFrom, recipe.backbone, or a Train phase before it"
        " (of a model of family AlignYourLatents: of a run that does not adapt it)",
        "phases",
    ),
    (
        f"!({_LATENTS}) || !('Adapt' in tasks) || !{_some(_VIDEO)}"
        f" || tasks.lastIndexOf('Adapt') < tasks.map(t, t in {_VIDEO}).indexOf(true)",
        "an Adapt phase of a model of family AlignYourLatents must come before its other training phases: temporal layers fit the"
        " image model that they were trained in",
        "phases",
    ),
    (
        "latents.all(r, !has(r.interpolations) || has(self.initFrom) || 'TrainInterpolation' in tasks)",
        "needs a TrainInterpolation phase, or initFrom a model that had one; leave it out",
        "recipe.alignYourLatents.interpolations",
    ),
    (
        "latents.all(r, !has(r.clipFrames) || r.clipFrames > recipe.frames)",
        "must be more than recipe.frames, which clips have without it",
        "recipe.alignYourLatents.clipFrames",
    ),
    (
        "latents.all(r, r.contextFrames < recipe.frames)",
        "must be less than recipe.frames: the others continue them",
        "recipe.alignYourLatents.contextFrames",
    ),
)
