"""Several processes of a training at once, without torch's agent: forked from one that has imported the trainer, and joined by gloo."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from videogen_api.job import Job, Report
from videogen_testing import kernels
from videogen_testing.control_plane import free_port
from videogen_testing.forks import Fork
from videogen_testing.patience import HANGS


def train_in(processes: int, job: Job, storage: Path, program: Sequence[str] = ("-m", "videogen_trainer")) -> Report:
    """One attempt of the job in so many processes of one thread each, started as the agent starts them -> the report of rank 0."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "job.json")
        path.write_text(job.model_dump_json(by_alias=True, exclude_none=True))
        command = [sys.executable, "-u", *program, "--job", str(path), "--storage", str(storage), "--reports", folder]
        port = str(free_port())
        started = []
        for rank in range(processes):
            variables = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
            own = {name: str(value) for name, value in variables.items()}
            started.append(Fork(command, kernels.environment() | own))
        try:
            _wait_for(started, Path(folder))
            return Report.model_validate_json(Path(folder, "process-0.json").read_bytes())
        finally:
            for process in started:
                process.end()


def _wait_for(started: Sequence[Fork], reports: Path) -> None:
    """Until all have ended well. One that has not fails at once: the others would wait for it."""
    deadline = time.monotonic() + HANGS
    while None in (codes := [process.poll() for process in started]) and not any(codes):
        assert time.monotonic() < deadline, f"exit codes {codes} after {HANGS} s"
        time.sleep(0.05)
    assert not any(codes), (codes, [path.read_text() for path in reports.glob("process-*.json")])
