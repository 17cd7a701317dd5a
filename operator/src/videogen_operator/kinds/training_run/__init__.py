"""TrainingRun: phases in order, each worked on by attempts, each attempt one PyTorchJob."""

from __future__ import annotations

from videogen_operator.kinds.training_run.observed import KIND, Seen, keys, observe, queries
from videogen_operator.kinds.training_run.plan import plan
from videogen_operator.plan import Kind
from videogen_operator.resources import CLAIMS, MODEL_RELEASES, NODES, PODS, PYTORCH_JOBS, TRAINING_RUNS

TRAINING_RUN: Kind[Seen] = Kind(
    name=KIND,
    resources=(TRAINING_RUNS, PYTORCH_JOBS, PODS, CLAIMS, NODES, MODEL_RELEASES),
    keys=keys,
    observe=observe,
    queries=queries,
    plan=plan,
)
