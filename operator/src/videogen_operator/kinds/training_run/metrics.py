"""What Prometheus is told of a TrainingRun: its state, live progress, and whose turn it is."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from videogen_operator.kubernetes_objects import NOTHING, conditions
from videogen_operator.plan import Gauge, Manifest, Sample
from videogen_operator.quantities import number

RUN = ("namespace", "run")
STATE = Gauge("videogen_training_run", "1 for the reason of the run's Succeeded condition.", (*RUN, "reason"))
PERCENT = Gauge("videogen_training_progress_percent", "Share of the phase that is done.", (*RUN, "phase"))
METRIC = Gauge("videogen_training_metric", "Newest value that the trainer reported.", (*RUN, "phase", "metric"))
TURN = ("namespace", "run", "phase", "team")
SINCE = Gauge("videogen_training_turn_since_time_seconds", "Since when it is the team's turn, seconds since 1970.", TURN)
DUE = Gauge("videogen_training_due_time_seconds", "End of the window of the phase whose turn it is, seconds since 1970.", TURN)
HOURS = Gauge("videogen_training_gpu_hours", "GPU hours that the phase has used.", (*RUN, "phase"))
GAUGES = (STATE, PERCENT, METRIC, HOURS, SINCE, DUE)


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
        for turn in phase.get("waitingFor", []):
            for gauge, field in ((SINCE, "since"), (DUE, "due")):
                if moment := turn.get(field):
                    yield gauge, (*name, phase["name"], turn["team"]), datetime.fromisoformat(moment).timestamp()
