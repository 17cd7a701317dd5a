"""TrainingRun: phases in order, each worked on by attempts, each attempt one PyTorchJob."""

from __future__ import annotations

from videogen_operator.kinds.training_run.live import is_news, with_reports
from videogen_operator.kinds.training_run.metrics import GAUGES, samples
from videogen_operator.kinds.training_run.observed import INDEXES, Seen, keys, observe, queries, reporter
from videogen_operator.kinds.training_run.plan import plan
from videogen_operator.kinds.training_run.records import record
from videogen_operator.kinds.training_run.sources import KIND
from videogen_operator.plan import Kind
from videogen_operator.resources import (
    CLAIMS,
    FINE_TUNE_CYCLES,
    MODEL_RELEASES,
    NETWORK_POLICIES,
    NODES,
    PODS,
    PYTORCH_JOBS,
    TRAINING_RUNS,
    WORKLOADS,
)

TRAINING_RUN: Kind[Seen] = Kind(
    name=KIND,
    resources=(TRAINING_RUNS, PYTORCH_JOBS, PODS, CLAIMS, NODES, MODEL_RELEASES, NETWORK_POLICIES, FINE_TUNE_CYCLES, WORKLOADS),
    keys=keys,
    observe=observe,
    queries=queries,
    plan=plan,
    reporter=reporter,
    is_news=is_news,
    with_reports=with_reports,
    record=record,
    gauges=GAUGES,
    indexes=INDEXES,
    samples=samples,
)
