"""FineTuneCycle: a calendar for one model; each scheduled time creates one TrainingRun under the next version."""

from __future__ import annotations

from videogen_operator.kinds.fine_tune_cycle.metrics import GAUGES, samples
from videogen_operator.kinds.fine_tune_cycle.observed import INDEXES, KIND, RELEASE, Observed, keys, observe, queries, read_of_release
from videogen_operator.kinds.fine_tune_cycle.plan import plan
from videogen_operator.plan import Kind
from videogen_operator.resources import FINE_TUNE_CYCLES, MODEL_RELEASES, TRAINING_RUNS

FINE_TUNE_CYCLE: Kind[Observed] = Kind(
    name=KIND,
    resources=(FINE_TUNE_CYCLES, TRAINING_RUNS, MODEL_RELEASES),
    keys=keys,
    observe=observe,
    queries=queries,
    plan=plan,
    gauges=GAUGES,
    indexes=INDEXES,
    reads={RELEASE: read_of_release},
    samples=samples,
)
