"""What Prometheus is told of a TrainingRun: its state and live progress."""

from __future__ import annotations

from collections.abc import Iterator

from videogen_operator.kubernetes_objects import NOTHING, conditions
from videogen_operator.plan import Gauge, Manifest, Sample
from videogen_operator.quantities import number

RUN = ("namespace", "run")
STATE = Gauge("videogen_training_run", "1 for the reason of the run's Succeeded condition.", (*RUN, "reason"))
PERCENT = Gauge("videogen_training_progress_percent", "Share of the phase that is done.", (*RUN, "phase"))
METRIC = Gauge("videogen_training_metric", "Newest value that the trainer reported.", (*RUN, "phase", "metric"))
HOURS = Gauge("videogen_training_gpu_hours", "GPU hours that the phase has used.", (*RUN, "phase"))
GAUGES = (STATE, PERCENT, METRIC, HOURS)


def samples(run: Manifest) -> Iterator[Sample]:
    """Of one run."""
    name, status = (run["metadata"]["namespace"], run["metadata"]["name"]), run.get("status") or NOTHING
    if reason := conditions(run).get("Succeeded", NOTHING).get("reason"):
        yield STATE, (*name, reason), 1
    for phase in status.get("phases", []):
        if (hours := number(str(phase.get("gpuHours") or ""))) is not None:
            yield HOURS, (*name, phase["name"]), hours
        progress = phase.get("progress") or NOTHING
        if "progressPercentage" in progress:
            yield PERCENT, (*name, phase["name"]), progress["progressPercentage"]
        for one in progress.get("metrics", []):
            if (value := number(one["value"])) is not None:
                yield METRIC, (*name, phase["name"], one["name"]), value
