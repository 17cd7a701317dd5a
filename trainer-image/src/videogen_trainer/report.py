"""The Report in the pod's termination message: JSON of at most 4096 bytes, which is what Kubernetes keeps."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from pathlib import Path

from videogen_api.job import ExitCode, Report
from videogen_api.training_run import Reason
from videogen_trainer.failure import EXIT_CODES, Failure
from videogen_trainer.goodput import Meter

_LOG = logging.getLogger(__name__)
LIMIT_BYTES = 4096
_CUT = " ..."


@dataclass(slots=True)
class Milestones:
    """How far an attempt has come; known whatever ends it."""

    resumed_from_step: int = 0
    last_step: int = 0  # the newest step that is saved
    sound_step: int = -1  # the newest step whose weights are known to be good, see `TrainState.sound_step`
    damaged: list[str] = field(default_factory=list)  # what is wrong with checkpoints that were left out, newest first
    meter: Meter = field(default_factory=lambda: Meter(clock=time.monotonic, begun=time.monotonic()))


def of_failure(failure: Failure, milestones: Milestones | None = None) -> Report:
    """The report of a failed attempt."""
    reached = milestones or Milestones()
    worked = reached.meter.productive or reached.meter.repeated_steps
    return Report(
        reason=failure.reason,
        message=noted(failure.message, reached),
        last_step=reached.last_step,
        resumed_from_step=reached.resumed_from_step,
        goodput=reached.meter.read() if worked else None,
    )


def noted(message: str, milestones: Milestones) -> str:
    """A report's message, with what is wrong with the checkpoint that the attempt could not resume from."""
    if not milestones.damaged or not milestones.resumed_from_step:
        return shorten(message, 1024)
    told = f"went on from step {milestones.resumed_from_step}, for the newest checkpoint is damaged: {milestones.damaged[0]}"
    return shorten(f"{message}; {told}", 1024)


def exit_code(report: Report) -> ExitCode:
    """The exit code that belongs to a report."""
    return EXIT_CODES.get(report.reason, ExitCode.FAILED)


def to_bytes(report: Report) -> bytes:
    """The report as JSON of at most 4096 bytes: what does not fit is cut from the texts, then from the lists."""
    for candidate in _smaller(report):
        data = _encoded(candidate)
        if len(data) <= LIMIT_BYTES:
            return data
    raise AssertionError("a report without texts and lists is always small enough")


def require_results(report: Report) -> None:
    """Raises Failure(ResultsTooLarge) if `to_bytes` would have to cut results: measuring again would not help."""
    shortest = _smaller(report)[-2]  # of those with results
    if (size := len(_encoded(shortest))) > LIMIT_BYTES:
        raise Failure(
            Reason.RESULTS_TOO_LARGE,
            f"evaluate.extractors: the report with {len(report.results)} results has {size} bytes, a pod keeps {LIMIT_BYTES}",
        )


def _encoded(report: Report) -> bytes:
    told = {"frames", "resolution"} if report.frames else set()  # by the report, for all results
    unsaid = {place: told | (set() if result.message else {"message"}) for place, result in enumerate(report.results)}
    return report.model_dump_json(by_alias=True, exclude_none=True, exclude={"results": unsaid}).encode()


def _smaller(report: Report) -> list[Report]:
    silent = [result.model_copy(update={"message": ""}) for result in report.results]
    quiet = report.model_copy(update={"results": silent})
    short = [quiet.model_copy(update={"message": shorten(report.message, length)}) for length in (512, 128)]
    bare = short[-1].model_copy(update={"datasets": []})
    return [report, quiet, *short, bare, bare.model_copy(update={"results": []})]


def shorten(text: str, length: int) -> str:
    """The text, cut to `length` characters with a mark if it is longer."""
    return text if len(text) <= length else text[: length - len(_CUT)] + _CUT


def write(report: Report, path: Path) -> None:
    """Write the termination message; a file that cannot be written is logged, the exit code still says the most."""
    level = logging.INFO if report.reason is Reason.COMPLETED else logging.ERROR
    _LOG.log(level, "%s %s", report.reason.value, report.message)
    try:
        path.write_bytes(to_bytes(report))
    except OSError as error:
        _LOG.warning("the report cannot be written to %s: %s", path, error)
