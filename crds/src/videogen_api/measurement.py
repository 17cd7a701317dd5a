"""What a run of a cycle has measured of a release in production, as the release keeps it."""

from __future__ import annotations

from pydantic import Field

from videogen_api.evaluation import MetricResult
from videogen_api.meta import ObjectName, Observation, Timestamp, k8s

MEASUREMENTS = 8  # that a release keeps
RESULTS = 16  # of each


class Measurement(Observation):
    """The results of one run."""

    run: ObjectName = Field(description="TrainingRun that measured.")
    cycle: ObjectName = Field(description="FineTuneCycle that made it.")
    time: Timestamp = Field(description="When its last phase ended.")
    results: list[MetricResult] = Field(default=[], max_length=RESULTS, description="What it measured.", json_schema_extra=k8s(atomic=True))
