"""A trainer whose disk is full."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path

from videogen_api.job import Job, Report


def limited(wanted: Job, storage: Path, most: int) -> tuple[int, Report]:
    """The trainer as a process that may write no file larger than this: what a full disk does to a write, without a disk."""
    (storage / "job.json").write_text(json.dumps(wanted.model_dump(mode="json", by_alias=True, exclude_none=True)))
    message = storage / "message"
    done = subprocess.run(
        [sys.executable, "-m", "videogen_trainer", "--job", str(storage / "job.json"), "--storage", str(storage)],
        env={"VIDEOGEN_TERMINATION_MESSAGE_PATH": str(message), "OMP_NUM_THREADS": "1"},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (most, most)),
        timeout=60,
        check=False,
    )
    return done.returncode, Report.model_validate_json(message.read_bytes())
