"""Where an attempt's seconds go."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from videogen_api.job import Goodput, Job
from videogen_testing.attempted import WORK
from videogen_trainer import checkpoint, report, tasks
from videogen_trainer.curve import Curve
from videogen_trainer.goodput import Meter
from videogen_trainer.progress import ProgressReporter


class Clock:
    """A clock that others move."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_only_steps_that_are_new_are_productive_and_waiting_is_not() -> None:
    clock = Clock()
    meter = Meter(clock=clock, begun=90.0)
    for repeated in (True, False, False):
        with meter.waiting_for_data():
            clock.now += 1.0
        clock.now += 4.0
        meter.step(5.0, repeated=repeated)
    with meter.saving():
        clock.now += 5.0
    told = meter.read()
    assert (told.wall_seconds, told.productive_seconds, told.data_wait_seconds) == ("30.000", "8.000", "3.000")
    assert (told.checkpoint_pause_seconds, told.repeated_steps, told.share) == ("5.000", 1, "0.26")
    assert meter.metrics()["goodput"] == "0.26"


def test_a_pause_that_ends_with_an_error_is_counted() -> None:
    clock = Clock()
    meter = Meter(clock=clock, begun=100.0)
    with pytest.raises(OSError, match="full"), meter.saving():
        clock.now += 2.0
        raise OSError("full")
    assert meter.checkpoint_pause == 2.0


@pytest.mark.parametrize("wall, productive, share", [("0.000", "0.000", "0.00"), ("1.000", "1.001", "1.00"), ("9.000", "8.999", "0.99")])
def test_the_share_is_one_that_status_accepts(wall: str, productive: str, share: str) -> None:
    told = Goodput(wall_seconds=wall, productive_seconds=productive, data_wait_seconds="0", checkpoint_pause_seconds="0")
    assert told.share == share


def test_the_curve_tells_how_far_a_killed_attempt_had_come(tmp_path: Path) -> None:
    clock = Clock()
    curve = Curve(tmp_path / "curve.jsonl", 0, clock)
    for step in (1, 2, 3):
        clock.now += 0.6
        curve.add(step=step)
    again = Curve(tmp_path / "curve.jsonl", 1, clock)  # killed without another word; step 1 has a checkpoint
    assert again.reached == 2
    assert [json.loads(line)["step"] for line in (tmp_path / "curve.jsonl").read_text().splitlines()] == [1]
    assert Curve(tmp_path / "curve.jsonl", 1, clock).reached == 2  # killed again at once


class Told(ProgressReporter):
    """Keeps what training reports."""

    def __init__(self) -> None:
        self.metrics: list[dict[str, Any]] = []

    def report(self, done: int, total: int, metrics: Mapping[str, object], *, final: bool = False) -> None:
        self.metrics.append(dict(metrics))


def test_an_attempt_reports_its_goodput_and_which_steps_it_repeated(make_job: Callable[..., Job], storage: Path) -> None:
    told, seconds = Told(), itertools.count(0.0, 1.0)
    assert tasks.attempt(make_job(), storage, {}, told, lambda: False).goodput
    newest = checkpoint.folder_of(storage / WORK / "checkpoints", 4) / "optimizer.safetensors"
    newest.write_bytes(b"")
    again = tasks.attempt(make_job(), storage, {}, told, lambda: False, Meter(clock=lambda: next(seconds), begun=0.0))
    assert again.goodput
    assert (again.resumed_from_step, again.goodput.repeated_steps) == (2, 2)
    assert again.goodput.productive_seconds == "0.000"
    assert float(again.goodput.checkpoint_pause_seconds) == 1.0
    assert float(again.goodput.data_wait_seconds) == 2.0
    assert told.metrics[-1]["repeatedSteps"] == 2
    assert told.metrics[3]["repeatedSteps"] == 0
    assert float(told.metrics[3]["goodput"]) > 0
    assert len(told.metrics[-1]) <= 16  # what status keeps


def test_a_failed_attempt_reports_its_goodput_once_it_has_worked() -> None:
    milestones = report.Milestones(meter=Meter(clock=lambda: 10.0, begun=0.0))
    failure = report.Failure(report.Reason.PREEMPTED, "asked to stop")
    assert report.of_failure(failure, milestones).goodput is None
    milestones.meter.step(5.0, repeated=False)
    told = report.of_failure(failure, milestones).goodput
    assert told
    assert told.share == "0.50"
