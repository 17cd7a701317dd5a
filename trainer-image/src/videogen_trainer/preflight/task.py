"""Attempt 0 of a phase: look at everything that the run's phases will need, by the checks of the phases themselves, and begin nothing.
If all is there, tell what was computed before of the phase's inputs.

It only reads, and needs no torch. What is found is the report's `preflight`; the exit code says whether it could be looked at.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from videogen_api.job import Job, Report
from videogen_api.preflight import MOST_PROBLEMS, PreflightResult, Problem
from videogen_models.sealed import CorruptError
from videogen_trainer import records, report
from videogen_trainer.failure import Failure
from videogen_trainer.preflight.needs import Need, needs
from videogen_trainer.preflight.versions import check_version

TEXT_BYTES = 3000  # of all problems in a report


def run(job: Job, storage: Path) -> Report:
    """Look at what the phases of `job.preflight` need."""
    looked_at = [(need.path, _problem(need)) for need in _needs(job, storage)]
    found = [Problem(path=path, message=message) for path, message in looked_at if message]
    message = f"{len(looked_at)} things looked at, {len(found)} problems"
    record = records.find(job, storage) if job.look_up and not found else None
    if record is not None:
        return Report(preflight=PreflightResult(checked=len(looked_at)), record=record)
    return Report(message=message, preflight=PreflightResult(checked=len(looked_at), problems=_fitting(found)))


def _needs(job: Job, storage: Path) -> Iterator[Need]:
    if job.new_version:
        yield Need("spec.model.version", partial(check_version, job, storage))
    if job.preflight:
        yield from needs(job.preflight, storage)


def _problem(need: Need) -> str:
    """What is wrong; nothing if all is well."""
    try:
        need.look()
    except Failure as failure:
        return failure.message
    except (CorruptError, OSError) as error:
        return str(error)
    return ""


def _fitting(problems: list[Problem]) -> list[Problem]:
    """As many as a report has room for, each with an equal share of it; the last one counts those that are left out."""
    kept = problems[:MOST_PROBLEMS]
    if len(problems) > MOST_PROBLEMS:
        kept[-1] = Problem(path="spec", message=f"{len(problems) - MOST_PROBLEMS + 1} more problems, which are told when these are mended")
    room = TEXT_BYTES // max(1, len(kept))
    return [problem.model_copy(update={"message": _cut(problem.message, min(1024, room - len(problem.path)))}) for problem in kept]


def _cut(text: str, most: int) -> str:
    """The beginning of the text, of at most so many bytes as JSON."""
    length = most
    while len(Problem(path="", message=text[:length]).model_dump_json().encode()) - len('{"path":"","message":""}') > most:
        length = length * 3 // 4
    return report.shorten(text, length)
