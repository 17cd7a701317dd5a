"""Memory that a step has freed is there for the next one."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from videogen_api.job import Job
from videogen_testing.patience import HANGS
from videogen_trainer import tasks
from videogen_trainer.progress import ProgressReporter

# Page faults of each of three steps that take 256 MB in blocks of 8 MB and free them.
FAULTS = """
import resource, sys
from videogen_trainer.heap import keep_freed_memory

if sys.argv[1] == "kept":
    keep_freed_memory()
for _ in range(3):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    blocks = [bytearray(b"x") * (8 << 20) for _ in range(32)]
    del blocks
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how: str) -> list[int]:
    shown = subprocess.run([sys.executable, "-c", FAULTS, how], check=True, capture_output=True, text=True, timeout=HANGS).stdout
    return [int(line) for line in shown.split()]


def test_a_step_takes_no_new_pages_for_what_the_one_before_has_freed() -> None:
    first, *others = faults("kept")
    assert max(others) < first / 10
    assert min(faults("given back")) > first / 2, "without it every step takes them anew"


def test_an_attempt_on_the_cpu_keeps_what_it_frees(
    make_job: Callable[..., Job], storage: Path, silent: ProgressReporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[bool] = []
    monkeypatch.setattr(tasks, "keep_freed_memory", lambda: called.append(True))
    assert tasks.attempt(make_job({"steps": 1}), storage, {}, silent, lambda: False).last_step == 1
    assert called == [True]
