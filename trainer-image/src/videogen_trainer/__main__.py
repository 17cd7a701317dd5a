"""`python -m videogen_trainer`: read the job, do it, leave a Report and an exit code. Environment and clock come in here."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import NoReturn

from videogen_api.job import ENV_JOB_SHA256, JOB_PATH, STORAGE_PATH, TERMINATION_MESSAGE_PATH, Job, Report
from videogen_api.training_run import TRAINING, Reason, Task
from videogen_models.sealed import bytes_written
from videogen_trainer import records, report, tasks
from videogen_trainer.failure import Failure
from videogen_trainer.goodput import Meter
from videogen_trainer.progress import ProgressReporter, endpoint_of
from videogen_trainer.stopping import Stopped, StopRequest, on_termination

_BEGUN = time.monotonic()  # before torch is imported, which takes seconds
_GOES_ON = (*TRAINING, Task.TUNE, Task.OPTIMIZE, Task.BUILD_TEMPLATES, Task.TEST_SCENARIOS)  # where an attempt ended, once asked to stop
ENV_TERMINATION_MESSAGE_PATH = "VIDEOGEN_TERMINATION_MESSAGE_PATH"


def main() -> None:
    """One attempt of one job, as the pod's only process, as the agent of several, or as one of those."""
    arguments = _arguments()
    logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    if arguments.reports:
        _process(arguments)
    target = Path(os.environ.get(ENV_TERMINATION_MESSAGE_PATH, TERMINATION_MESSAGE_PATH))
    result = _pod(arguments)
    report.write(result, target)
    _exit(result)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="videogen_trainer", description="Run one attempt of one job.")
    parser.add_argument("--job", type=Path, default=Path(JOB_PATH), help="job file (default: %(default)s)")
    parser.add_argument("--storage", type=Path, default=Path(STORAGE_PATH), help="root of the storage (default: %(default)s)")
    parser.add_argument("--reports", type=Path, help=argparse.SUPPRESS)  # set for the processes that the agent starts
    return parser.parse_args()


def _pod(arguments: argparse.Namespace) -> Report:
    on_termination(_end_at_once)  # what is imported first takes seconds
    try:
        job = tasks.read_job(arguments.job, os.environ.get(ENV_JOB_SHA256))
        result = _attempt(job, arguments.storage, StopRequest()) if tasks.processes_of(job) == 1 else _launched(job, arguments)
    except Failure as failure:
        return report.of_failure(failure)
    except Stopped:
        return Report(reason=Reason.PREEMPTED, message="asked to stop before it began")
    on_termination(lambda: None)  # the work is done, and its record a matter of seconds
    records.keep(job, arguments.storage, result, os.environ)
    return result


def _launched(job: Job, arguments: argparse.Namespace) -> Report:
    from videogen_trainer.launch import launch  # torch's agent; a pod with one process needs none

    with tempfile.TemporaryDirectory(prefix="videogen-reports-") as folder:
        passed_on = ["--job", str(arguments.job), "--storage", str(arguments.storage)]
        return launch(job, passed_on, os.environ, Path(folder))


def _process(arguments: argparse.Namespace) -> NoReturn:
    """One of several processes of a pod."""
    from videogen_trainer.launch import STOP, start_reporting

    finish = start_reporting(arguments.reports, int(os.environ["LOCAL_RANK"]))
    result = _attempt(
        tasks.read_job(arguments.job, os.environ.get(ENV_JOB_SHA256)), arguments.storage, StopRequest(arguments.reports / STOP)
    )
    finish(result)
    _exit(result)


def _attempt(job: Job, storage: Path, stop: StopRequest) -> Report:
    on_termination(stop.ask if job.task in _GOES_ON and job.attempt else _interrupt)
    if job.task is not Task.CURATE and job.attempt:  # which need torch for its relevance filter alone, and two seconds less without
        # One thread unless told otherwise: small networks only lose by more, and resuming is bit-identical for one number only.
        import torch

        torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    progress = ProgressReporter(endpoint_of(os.environ), job.progress_interval_seconds, time.monotonic, lambda: datetime.now(UTC))
    result = tasks.attempt(job, storage, os.environ, progress, stop, Meter(clock=time.monotonic, begun=_BEGUN))
    return result.model_copy(update={"bytes_written": bytes_written() or None})


def _end_at_once() -> NoReturn:
    raise Stopped


def _interrupt() -> NoReturn:
    raise Failure(Reason.PREEMPTED, "asked to stop; the next attempt begins this phase again")


def _exit(result: Report) -> NoReturn:
    """End at once: after a lost peer the communication libraries would wait for it in their own clean-up."""
    logging.shutdown()
    sys.stdout.flush()
    os._exit(report.exit_code(result))


if __name__ == "__main__":
    main()
