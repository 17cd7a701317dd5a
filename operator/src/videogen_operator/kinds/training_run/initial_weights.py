"""The weights that a run starts from are resolved once: their digest goes into the status before the first job that uses it.

So all attempts begin with the same weights, whatever becomes of the run or release that they came from.
"""

from __future__ import annotations

from dataclasses import replace

from videogen_api.job import ArtifactReference
from videogen_api.pinned import PinnedWeights
from videogen_api.training_run import Reason
from videogen_operator.kinds.training_run.observed import Observed
from videogen_operator.kinds.training_run.step import Step, note
from videogen_operator.kinds.training_run.waiting import Situation, Wait


def followed(observed: Observed) -> Observed:
    """The snapshot with `status.initFrom` as it shall be: pinned if the source can be had, and with a word if it changed since."""
    init, source, known = observed.spec.init_from, observed.init_from, observed.status.init_from
    if init is None or not isinstance(source, ArtifactReference):
        return observed
    if known is None:
        known = PinnedWeights(release=init.release, run=init.run, path=source.path, digest=source.digest)
    said = "" if known.digest == source.digest else _changed(known, source)
    pinned = known.model_copy(update={"message": said})
    return replace(observed, status=observed.status.model_copy(update={"init_from": pinned}))


def are_new(observed: Observed) -> bool:
    """Whether this pass pins the weights. No job may begin with them before that is written."""
    return observed.status.init_from is not None and not (observed.run.get("status") or {}).get("initFrom")


def pinned(situation: Situation) -> Step:
    """Write down what the run starts from; the next pass uses it."""
    weights = situation.observed.status.init_from
    assert weights is not None
    said = f"starts from {_source(weights)}: bundle {weights.digest}"
    return Step(status=situation.status, said=Wait(Reason.PENDING, said), notes=(note(situation, "WeightsPinned", said),), again=0.0)


def _changed(known: PinnedWeights, source: ArtifactReference) -> str:
    return (
        f"{_source(known)} has another bundle now, {source.digest}; this run keeps {known.digest}, with which it began;"
        " make a new run to start from the other one"
    )


def _source(weights: PinnedWeights) -> str:
    return f"ModelRelease {weights.release}" if weights.release else f"TrainingRun {weights.run}"
