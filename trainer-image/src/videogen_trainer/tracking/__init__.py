"""Where an attempt's curves go besides `curve.jsonl`: TensorBoard's event files always, an MLflow server if the run names one.

Only the leader tells anything. Nothing here may slow the work down or end it: what does not go well is said once, in the log,
in the progress and in the report.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from videogen_api.evaluation import MetricResult
from videogen_api.job import Job, Report
from videogen_api.training_run import Reason
from videogen_trainer.distributed import World
from videogen_trainer.failure import Failure
from videogen_trainer.goodput import Meter
from videogen_trainer.report import shorten

_LOG = logging.getLogger(__name__)
_METRIC_LENGTH = 64  # of a value in progress


class Sink(Protocol):
    """Takes curves. Its methods do not raise."""

    trouble: str  # why it takes nothing now; empty if it does

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Values by name, of one step."""

    def picture(self, step: int, path: Path) -> None:
        """An image file of that step."""

    def file(self, path: Path) -> None:
        """A file that belongs to the phase."""

    def flush(self) -> None:
        """Before a checkpoint: what was told must not be lost while the checkpoint stays."""

    def close(self, outcome: str) -> None:
        """The attempt ends, as FINISHED, KILLED (asked to stop) or FAILED."""

    def summary(self) -> str:
        """What of all is missing in the end, in words; empty if nothing is."""


class Tracking:
    """All sinks of an attempt, as a context; none before `begin`, and none in processes that do not lead."""

    def __init__(self, job: Job, storage: Path, world: World) -> None:
        self._job, self._storage, self._leads = job, storage, world.leads
        self._sinks: list[Sink] = []

    def begin(self, resumed: int) -> None:
        """The steps after `resumed` will be told; what was told of them before is void."""
        if not self._leads:
            return
        from videogen_trainer.tracking.event_files import EventFiles  # seconds after torch, but before there is anything to tell

        self._sinks.append(EventFiles(self._storage / self._job.work_path / "tensorboard", self._job.attempt, resumed))
        if self._job.tracking:
            from videogen_trainer.tracking.mlflow_run import MlflowRun

            self._sinks.append(MlflowRun(self._job.tracking.mlflow, self._job, self._storage))

    def step(self, step: int, values: Mapping[str, float]) -> None:
        """A step's values."""
        for sink in self._sinks:
            sink.scalars(step, values)

    def picture(self, step: int, folder: Path | None) -> None:
        """The contact sheet of a folder of samples, if there is one."""
        for sink in self._sinks if folder else []:
            assert folder
            sink.picture(step, folder / "contact-sheet.png")

    def results(self, results: Sequence[MetricResult]) -> None:
        """What an Evaluate phase has measured, with the ends of the intervals."""
        self.step(0, {name: value for result in results for name, value in _named(result).items()})

    def file(self, path: Path) -> None:
        """A file that belongs to the phase."""
        for sink in self._sinks:
            sink.file(path)

    def flush(self) -> None:
        """Before a checkpoint."""
        for sink in self._sinks:
            sink.flush()

    def metrics(self) -> dict[str, object]:
        """For progress: nothing, unless MLflow takes nothing."""
        troubles = [sink.trouble for sink in self._sinks[1:] if sink.trouble]
        return {"mlflow": shorten(troubles[0], _METRIC_LENGTH)} if troubles else {}

    def noted(self, report: Report) -> Report:
        """The report with what is missing; after the end."""
        missing = [said for sink in self._sinks if (said := sink.summary())]
        return report.model_copy(update={"message": shorten("; ".join([report.message, *missing]), 1024)}) if missing else report

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for sink in self._sinks:
            sink.close(_outcome(error))


def _outcome(error: BaseException | None) -> str:
    if error is None:
        return "FINISHED"
    return "KILLED" if isinstance(error, Failure) and error.reason is Reason.PREEMPTED else "FAILED"


def _named(result: MetricResult) -> dict[str, float]:
    parts = [result.metric.value, result.extractor, result.normalization.value if result.normalization else ""]
    name = "/".join(part for part in parts if part)
    ends = {"low": result.low, "high": result.high}
    return {name: float(result.value)} | {f"{name}-{end}": float(value) for end, value in ends.items() if value is not None}


def step_values(terms: Mapping[str, float], gradient: float, rates: Mapping[str, float], seconds: float, meter: Meter) -> dict[str, float]:
    """A training step's values, named as TensorBoard groups them: loss and its terms, learning rates, seconds of the step, and shares
    of the attempt's time.
    """
    wall = max(meter.clock() - meter.begun, 1e-9)
    values = {"loss/total": math.fsum(terms.values())} | {f"loss/{name}": value for name, value in terms.items()}
    return values | {
        "gradient/norm": gradient,
        **{f"rate/{name}": rate for name, rate in rates.items()},
        "step/seconds": seconds,
        "goodput/productive": meter.productive / wall,
        "goodput/data_wait": meter.data_wait / wall,
        "goodput/checkpoint_pause": meter.checkpoint_pause / wall,
    }
