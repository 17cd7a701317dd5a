"""What `benchmarks.reproduce` trains: ways to train the three families, and which of them follow each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from videogen_api.meta import ModelFamily

VIDEOFUSION, ZERO, LATENTS = ModelFamily.VIDEOFUSION, ModelFamily.TEXT2VIDEO_ZERO, ModelFamily.ALIGN_YOUR_LATENTS
# Steps of a training. Text2Video-Zero's sees one frame of a clip, Align-Your-Latents' begins with what that one has learned.
STEPS = {VIDEOFUSION: 2000, ZERO: 3000, LATENTS: 1500}


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One way to train: its name in the family's table, and what its recipe has of its own."""

    family: ModelFamily
    name: str
    recipe: Mapping[str, Any] = field(default_factory=dict)
    steps: int | None = None  # None: as many as a training has
    image: Case | None = None  # whose bundle it begins with

    @property
    def title(self) -> str:
        """The name, also among those of other families."""
        return f"{self.family.value} {self.name}"


def shares(base: float) -> dict[str, Any]:
    """A recipe's block with this share of the noise common to all frames."""
    block = {"baseScenario": "Experimental", "baseNoiseShare": f"{base:.2f}", "baseLearningRateScale": "1"}
    return {"videoFusion": block}


AS_DRAWN = {"optimizer": {"learningRate": "0"}, "schedule": {"type": "Constant"}}  # a step at rate 0 changes no weight
GUIDANCE = "2"
UNTRAINED = Case(family=VIDEOFUSION, name="untrained", recipe=shares(0.7) | AS_DRAWN, steps=1)
SHARED = Case(family=VIDEOFUSION, name="λ = 0.7", recipe=shares(0.7))
INDEPENDENT = Case(family=VIDEOFUSION, name="λ = 0", recipe=shares(0.0))
_ZERO_BLOCK = {"text2VideoZero": {"motionDown": "0", "textGuidance": GUIDANCE}}
IMAGE_UNTRAINED = Case(family=ZERO, name="untrained", recipe=_ZERO_BLOCK, steps=0)
IMAGE = Case(family=ZERO, name="trained", recipe=_ZERO_BLOCK)
_LATENTS_BLOCK = {"alignYourLatents": {"textGuidance": GUIDANCE}}
TEMPORAL_UNTRAINED = Case(family=LATENTS, name="untrained", recipe=_LATENTS_BLOCK | AS_DRAWN, steps=1, image=IMAGE)
TEMPORAL = Case(family=LATENTS, name="trained", recipe=_LATENTS_BLOCK, image=IMAGE)

COLUMNS = {  # of each family's table
    VIDEOFUSION: (UNTRAINED, INDEPENDENT, SHARED),
    ZERO: (IMAGE_UNTRAINED, IMAGE),
    LATENTS: (TEMPORAL_UNTRAINED, TEMPORAL),
}
_CHAINS = ((IMAGE, TEMPORAL, TEMPORAL_UNTRAINED), (SHARED,), (INDEPENDENT,), (UNTRAINED,), (IMAGE_UNTRAINED,))


def chains(families: Sequence[ModelFamily]) -> list[tuple[Case, ...]]:
    """The cases of these families, those that need another one's bundle after it in one chain; the longest chain first.

    Without Text2Video-Zero, Align-Your-Latents still has its image model, which is trained and not measured.
    """
    kept = [tuple(case for case in chain if case.family in families) for chain in _CHAINS]
    return [chain for chain in kept if chain]
