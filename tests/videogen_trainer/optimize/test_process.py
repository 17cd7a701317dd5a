"""The task in a real process that is stopped as the kubelet stops a pod."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from videogen_api.job import ExitCode, Job
from videogen_api.training_run import Reason
from videogen_trainer import tasks
from videogen_trainer.progress import ProgressReporter

WORK = "runs/demo-01234567/optimize"
DATA = [{"reference": {"dataset": "squares", "version": "v1", "split": "HeldOut"}}]


def test_a_stopped_optimisation_ends_as_preempted_and_keeps_what_it_has_measured(
    storage: Path, make_job: Callable[..., Job], start_trainer: Callable[..., Any], silent: ProgressReporter
) -> None:
    first = tasks.attempt(make_job({"steps": 1}), storage, {}, silent, lambda: False).artifact
    optimize = {"quantization": "Int8Weights", "samples": 1_000_000, "samplingSteps": 1}
    job = make_job({"steps": 1}, task="Optimize", artifact=first, optimize=optimize, data=DATA, workPath=WORK)
    trainer = start_trainer(job, fresh=True)
    while not (kept := list((storage / WORK / "optimizing").rglob("batch-*.safetensors"))):
        assert trainer.process.poll() is None, trainer.log.read_text()
        time.sleep(0.02)
    trainer.process.send_signal(signal.SIGTERM)
    code, report = trainer.wait()
    assert (code, report.reason) == (ExitCode.PREEMPTED, Reason.PREEMPTED), trainer.log.read_text()
    assert report.message.startswith("asked to stop; the next attempt goes on after the last")
    assert all(path.is_file() for path in kept)
