"""Task Tune: which values of a parameter to try, how to judge them, and what was found.

Each trial trains from the same weights with the same seed, batches and steps, and generates the same clips; only the
parameter differs. What is chosen becomes the recipe of the run's later phases.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

from pydantic import ConfigDict, Field

from videogen_api.cel import Rules
from videogen_api.evaluation import DEFAULT_EXTRACTORS, Extractor, Metric
from videogen_api.meta import Decimal, Model, Observation, k8s
from videogen_api.noise_shares import (
    OUTSIDE,
    OUTSIDE_RESIDUAL,
    Share,
    number,
    residual_of,
    suits_base,
    suits_residual,
    suits_standard,
)
from videogen_api.recipe import Recipe


class TuningParameter(StrEnum):
    """What can be searched. BaseNoiseShare: λ of VideoFusion, recipe.videoFusion.baseNoiseShare; the residual's is the rest."""

    BASE_NOISE_SHARE = "BaseNoiseShare"


class Objective(StrEnum):
    """The metric that tells which trial is best; of FVD and ArtefactRate the lowest value is, of the others the highest."""

    FVD = "FVD"
    INCEPTION_SCORE = "InceptionScore"
    CLIP_SCORE = "CLIPScore"
    TEMPORAL_COHERENCE = "TemporalCoherence"
    ARTEFACT_RATE = "ArtefactRate"

    @property
    def metric(self) -> Metric:
        """The metric of this name."""
        return Metric(self.value)

    @property
    def lower_is_better(self) -> bool:
        """Whether the lowest value is the best."""
        return self in {Objective.FVD, Objective.ARTEFACT_RATE}


_JUDGED_BY = {"FVD": "I3D", "InceptionScore": "C3D", "CLIPScore": "CLIP", "TemporalCoherence": "CLIP"}
_EXTRACTOR_RULES: Rules = [
    (
        f"!has(self.extractor) || (self.objective in {_JUDGED_BY} && {_JUDGED_BY}[self.objective] == self.extractor.architecture)",
        "FVD needs an extractor of architecture I3D, InceptionScore C3D, CLIPScore and TemporalCoherence CLIP, ArtefactRate none",
    ),
    (
        f"!has(self.extractor) || !(self.extractor.name in {list(DEFAULT_EXTRACTORS)})",
        f"{' and '.join(DEFAULT_EXTRACTORS)} are the trainer's own networks; give yours another name",
    ),
]


class Tuning(Model):
    """A search over the values of one parameter."""

    model_config = ConfigDict(json_schema_extra=k8s(rules=_EXTRACTOR_RULES))

    parameter: TuningParameter = Field(description="What is searched: BaseNoiseShare, the λ of recipe.videoFusion.")
    values: list[Share] = Field(
        min_length=2,
        max_length=16,
        description="Values to try, in this order; they lie in the ranges of recipe.videoFusion's scenarios.",
        json_schema_extra=k8s(**{"x-kubernetes-list-type": "set"}),
    )
    steps: int = Field(
        ge=1, le=10_000_000, description="Optimiser steps of each trial; warm-up and decay of the recipe are shortened in proportion."
    )
    objective: Objective = Field(
        description="Metric that judges: FVD or ArtefactRate, the lower the better; InceptionScore, CLIPScore or TemporalCoherence."
    )
    samples: int = Field(default=256, ge=2, le=1_000_000, description="Clips to generate in each trial.")
    sampling_steps: int = Field(default=50, ge=1, le=1000, description="Denoising steps (DDIM) of one generation.")
    extractor: Extractor | None = Field(
        default=None, description="Feature network of the user's own that the objective is measured by; absent: the trainer's own."
    )


class Trial(Observation):
    """One value that was tried."""

    value: Share = Field(description="The value of the parameter.")
    metric: Metric = Field(description="The objective.")
    result: Decimal | None = Field(default=None, description="What was measured; absent: the training diverged.")
    low: Decimal | None = Field(default=None, description="Lower end of the bootstrap 95 % interval.")
    high: Decimal | None = Field(default=None, description="Upper end of the bootstrap 95 % interval.")
    chosen: bool = Field(default=False, description="Whether the later phases train with it.")


class TunedParameter(Observation):
    """A parameter of the recipe that a Tune phase has chosen."""

    parameter: TuningParameter = Field(description="Which one.")
    value: Share = Field(description="The value that the phases after it train with, instead of the recipe's.")


TRAINS_WITH_IT = ["Train", "FineTune"]  # the training tasks that models of family VideoFusion have
# CEL over one phase, its `task` and whether it `has_data`.
OF_A_PHASE: Rules = [
    ("(task == 'Tune') == has(self.tune)", "a Tune phase, and no other, has a tune block"),
    (
        "task != 'Tune' || (has_data && self.data.exists(d, !has(d.split) || d.split == 'Train')"
        " && self.data.exists(d, has(d.split) && d.split == 'HeldOut'))",
        "a Tune phase needs data of both splits: Train to learn from, HeldOut to be judged by",
    ),
]
# CEL over the `tasks` of all phases.
ORDER: Rules = [
    (
        f"!('Tune' in tasks) || tasks.lastIndexOf('Tune') < tasks.map(t, t in {TRAINS_WITH_IT}).lastIndexOf(true)",
        "a Tune phase needs a Train or FineTune phase after it, which trains with the value that it has found",
    ),
    (
        "!('Curate' in tasks) || !('Tune' in tasks) || tasks.lastIndexOf('Curate') < tasks.indexOf('Tune')",
        "Curate phases must come before the first Tune phase",
    ),
]
# CEL over a TrainingRun's spec, message, field.
RUN_RULES = (
    (
        "family == 'VideoFusion' || !('Tune' in tasks)",
        "a Tune phase searches baseNoiseShare, which models of family VideoFusion alone have",
        "phases",
    ),
    (
        "!('Tune' in tasks) || fusion.all(f, !has(f.baseNoiseShares))",
        "a Tune phase searches one share for all frames; leave baseNoiseShares out",
        "recipe.videoFusion.baseNoiseShares",
    ),
    (
        f"!('Tune' in tasks) || phases.all(p, !has(p.tune) || p.tune.values.all(v, size(fusion) == 0 ? {suits_standard(number('v'))}"
        f" : fusion.all(f, {suits_base('f', number('v'))})))",
        f"each of tune.values {OUTSIDE}",
        "phases",
    ),
    (
        f"!('Tune' in tasks) || phases.all(p, !has(p.tune) || p.tune.values.all(v, fusion.all(f, {suits_residual('f', number('v'))})))",
        f"each of tune.values {OUTSIDE_RESIDUAL}",
        "phases",
    ),
)


def applied(recipe: Recipe, tuned: Sequence[TunedParameter]) -> Recipe:
    """The recipe with the values that were chosen."""
    for one in tuned:
        recipe = with_base_noise_share(recipe, one.value)
    return recipe


def with_base_noise_share(recipe: Recipe, share: str) -> Recipe:
    """The recipe with another λ and the residual share that goes with it."""
    changed = recipe.fusion.model_copy(update={"base_noise_share": share, "residual_noise_share": residual_of(share)})
    return recipe.model_copy(update={"video_fusion": changed})
