"""A trainer whose disk is full."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from videogen_api.job import Job, Report
from videogen_testing import kernels
from videogen_testing.forks import Fork
from videogen_testing.patience import HANGS

# As `python -m videogen_trainer`, which may write no file larger than the first argument says.
_LIMITED = """
import resource, sys
most = int(sys.argv.pop(1))
resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
from videogen_trainer.__main__ import main
main()
"""


def limited(wanted: Job, storage: Path, most: int) -> tuple[int, Report]:
    """The trainer as a process that may write no file larger than this: what a full disk does to a write, without a disk."""
    (storage / "job.json").write_text(json.dumps(wanted.model_dump(mode="json", by_alias=True, exclude_none=True)))
    message = storage / "message"
    command = [sys.executable, "-c", _LIMITED, str(most), "--job", str(storage / "job.json"), "--storage", str(storage)]
    variables = kernels.environment() | {"VIDEOGEN_TERMINATION_MESSAGE_PATH": str(message)}
    trainer = Fork(command, variables)
    try:
        return trainer.wait(HANGS), Report.model_validate_json(message.read_bytes())
    finally:
        trainer.end()
