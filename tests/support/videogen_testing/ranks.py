"""Several processes of a training at once, forked from one that has imported the trainer: PyTorch is started once, not for each."""

from __future__ import annotations

import multiprocessing
import os
import time
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from pathlib import Path

import torch

from videogen_api.job import Job, Report
from videogen_testing.control_plane import free_port
from videogen_trainer import loop, tasks
from videogen_trainer.progress import ProgressReporter

assert loop  # which tasks would import late, in each process
_LIMIT_SECONDS = 100


def train_in(processes: int, job: Job, storage: Path) -> Report:
    """One attempt of the job in so many processes of one thread each, which gloo joins -> the report of rank 0."""
    context, port = multiprocessing.get_context("forkserver"), str(free_port())
    context.set_forkserver_preload([__name__])
    ends, started = [], []
    for rank in range(processes):
        mine, its = context.Pipe(duplex=False)
        variables = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        environment = {name: str(value) for name, value in variables.items()}
        started.append(
            context.Process(target=_attempt, args=(its, job.model_dump_json(by_alias=True, exclude_none=True), storage, environment))
        )
        started[-1].start()
        its.close()
        ends.append(mine)
    try:
        assert all(end.poll(_LIMIT_SECONDS) for end in ends), "a process gave no report"
        return next(Report.model_validate_json(end.recv()) for end in ends)
    finally:
        for process in started:
            process.kill()
            process.join()


def _attempt(told: Connection, job: str, storage: Path, environment: dict[str, str]) -> None:
    os.environ.update(environment)
    torch.set_num_threads(1)
    reporter = ProgressReporter(None, 5, time.monotonic, lambda: datetime.now(UTC))
    told.send(tasks.attempt(Job.model_validate_json(job), storage, os.environ, reporter, lambda: False).model_dump_json(by_alias=True))
    os._exit(0)  # gloo's clean-up waits for peers that have gone
