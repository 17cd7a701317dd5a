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


_STEPS = "(has(p.train) && has(p.train.steps) ? p.train.steps : self.spec.recipe.steps)"
_WARMUP = "(has(p.train.warmupSteps) ? p.train.warmupSteps : self.spec.recipe.schedule.warmupSteps)"
_LATENTS, _ZERO = "(self.spec.model.family == 'AlignYourLatents')", "(self.spec.model.family == 'Text2VideoZero')"
_VIDEO = "p.task in ['Train', 'FineTune', 'AlignCrossModal', 'TrainInterpolation', 'FineTuneDecoder']"  # all but Adapt
_GOING_ON = "p.task in ['FineTune', 'AlignCrossModal', 'TrainInterpolation']"
_OF_IMAGE = "p.task in ['Adapt', 'FineTuneDecoder']"  # need no more than an image model
_OF_LATENTS = "p.task in ['AlignCrossModal', 'TrainInterpolation', 'FineTuneDecoder']"
_TRAIN, _ADAPT, _INTERPOLATE = "p.task == 'Train'", "p.task == 'Adapt'", "p.task == 'TrainInterpolation'"


def _some(phases: str) -> str:
    return f"self.spec.phases.exists(p, {phases})"


def _first_before(one: str, other: str) -> str:
    """Of the first phases of both kinds, `one` is there and comes before `other`, which is there."""
    return f"({_some(one)} && self.spec.phases.map(p, {one}).indexOf(true) < self.spec.phases.map(p, {other}).indexOf(true))"


# CEL over a whole TrainingRun, message, field.
PHASE_RULES: tuple[tuple[str, str, str], ...] = (
    (
        f"self.spec.phases.all(p, !has(p.train) || {_WARMUP} <= {_STEPS})",
        "train.warmupSteps of a phase, or the recipe's schedule.warmupSteps in its place, may not be greater than the phase's steps",
        ".spec.phases",
    ),
    (
        f"self.spec.phases.all(p, !({_VIDEO}) || ({_TRAIN} && {_ZERO}) || ({_TRAIN} && !has(p.train)) || {_STEPS} >= 1)",
        "the steps of a phase must be greater than or equal to 1; an Adapt phase alone may have 0, and a Train phase of a model of type"
        " Text2VideoZero",
        ".spec.phases",
    ),
    (
        f"!{_some(_OF_LATENTS)} || {_LATENTS}",
        "AlignCrossModal, TrainInterpolation and FineTuneDecoder phases are for models of family AlignYourLatents",
        ".spec.phases",
    ),
    (
        f"!{_some(_ADAPT)} || {_LATENTS} || {_ZERO}",
        "an Adapt phase is for models of family Text2VideoZero and AlignYourLatents, whose image model it trains",
        ".spec.phases",
    ),
    (
        f"has(self.spec.initFrom) || !{_some(_GOING_ON)} || {_first_before(_TRAIN, _GOING_ON)}"
        f" || ({_ZERO} && {_first_before(_ADAPT, _GOING_ON)})",
        "a FineTune, AlignCrossModal or TrainInterpolation phase starts from trained weights: it needs initFrom, or a Train phase before"
        " it (for models of family Text2VideoZero also an Adapt phase)",
        ".spec.phases",
    ),
    (
        f"has(self.spec.initFrom) || has(self.spec.recipe.backbone) || !{_some(_OF_IMAGE)}"
        f" || (({_ZERO} || !{_some(_ADAPT)}) && {_first_before(_TRAIN, _OF_IMAGE)})",
        "an Adapt or FineTuneDecoder phase starts from an image model: it needs initFrom, recipe.backbone, or a Train phase before it"
        " (of a model of family AlignYourLatents: of a run that does not adapt it)",
        ".spec.phases",
    ),
    (
        f"!{_LATENTS} || !{_some(_ADAPT)} || !{_some(_VIDEO)}"
        f" || self.spec.phases.map(p, {_ADAPT}).lastIndexOf(true) < self.spec.phases.map(p, {_VIDEO}).indexOf(true)",
        "an Adapt phase of a model of family AlignYourLatents must come before its other training phases: temporal layers fit the"
        " image model that they were trained in",
        ".spec.phases",
    ),
    (
        "!has(self.spec.recipe.alignYourLatents) || !has(self.spec.recipe.alignYourLatents.interpolations) || has(self.spec.initFrom)"
        f" || {_some(_INTERPOLATE)}",
        "recipe.alignYourLatents.interpolations needs a TrainInterpolation phase, or initFrom a model that had one; leave it out",
        ".spec.recipe.alignYourLatents.interpolations",
    ),
    (
        "!has(self.spec.recipe.alignYourLatents) || !has(self.spec.recipe.alignYourLatents.clipFrames)"
        " || self.spec.recipe.alignYourLatents.clipFrames > self.spec.recipe.frames",
        "recipe.alignYourLatents.clipFrames must be more than recipe.frames, which clips have without it",
        ".spec.recipe.alignYourLatents.clipFrames",
    ),
    (
        "!has(self.spec.recipe.alignYourLatents) || self.spec.recipe.alignYourLatents.contextFrames < self.spec.recipe.frames",
        "recipe.alignYourLatents.contextFrames must be less than recipe.frames: the others continue them",
        ".spec.recipe.alignYourLatents.contextFrames",
    ),
)
