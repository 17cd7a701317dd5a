"""How long a clip takes is measured on clips that are generated alone, and their number and places are the same for all processes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from videogen_api.evaluation import TIMED_CLIPS, Metric
from videogen_api.job import Job
from videogen_api.training_run import Reason
from videogen_models.videofusion import VideoFusionModel
from videogen_trainer import tasks
from videogen_trainer.distributed import World
from videogen_trainer.evaluate import task, timing
from videogen_trainer.evaluate.task import BATCH, batches
from videogen_trainer.evaluate.timing import Timing
from videogen_trainer.progress import ProgressReporter

CALL = 0.2  # seconds that a generation takes of however many clips, as on a GPU that one clip leaves idle


def test_a_clip_that_shares_its_batch_is_not_faster(
    storage: Path, make_job: Callable[..., Job], silent: ProgressReporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = tasks.attempt(make_job({"steps": 1}), storage, {}, silent, lambda: False)
    generate, now = VideoFusionModel.generate, [0.0]

    def slow(model: VideoFusionModel, captions: Sequence[str], *asked: Any) -> Any:
        now[0] += CALL
        return generate(model, captions, *asked)

    monkeypatch.setattr(VideoFusionModel, "generate", slow)
    monkeypatch.setattr(task, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    monkeypatch.setattr(timing, "ALONE", 1)
    data = [{"reference": {"dataset": "squares", "version": "v1", "split": "HeldOut"}}]
    assert trained.artifact, trained.message
    fields = {"data": data, "artifact": trained.artifact.wire(), "evaluate": {"samples": 16, "samplingSteps": 1}}
    report = tasks.attempt(make_job(task="Evaluate", workPath="runs/judge", **fields), storage, {}, silent, lambda: False)
    assert report.reason is Reason.COMPLETED, report.message
    result = next(result for result in report.results if result.metric is Metric.GENERATION_SECONDS)
    assert float(result.value) == pytest.approx(CALL)
    assert result.samples == BATCH, "those of the batch whose clips were alone"
    assert f"one at a time; {CALL / 8:.3f}" in result.message and "each in batches of 8, 1 steps on" in result.message


@pytest.mark.parametrize("samples, timed", [(2, 2), (8, 8), (20, 20), (64, 64), (65, 64), (100, 64), (1000, 64), (4096, 64)])
def test_as_many_clips_are_alone_as_the_gates_default_asks_for(samples: int, timed: int) -> None:
    whole = batches(0, samples)
    assert sum(len(places) for number, places in enumerate(whole) if Timing(len(whole)).alone(number)) == timed
    assert timing.ALONE * BATCH == TIMED_CLIPS


@pytest.mark.parametrize("size", [2, 3, 4, 8])
def test_all_processes_have_as_many_of_them(size: int) -> None:
    plan = Timing(125)
    found = [sum(plan.alone(number) for number in World(rank=rank, size=size).share(range(125))) for rank in range(size)]
    assert sum(found) == timing.ALONE
    assert max(found) - min(found) <= 1


def test_every_clip_is_generated_once_and_its_time_is_of_one_kind() -> None:
    plan = Timing(20)
    pieces = [piece for number, places in enumerate(batches(0, 160)) for piece in plan.pieces(number, places)]
    assert [place for piece in pieces for place in piece] == list(range(160))
    assert {len(piece) for piece in pieces} == {1, 8}
    for number in (0, 1):
        rows = plan.rows(number, 4.0, 8)
        kind, other = ("seconds", "pace") if plan.alone(number) else ("pace", "seconds")
        assert rows[kind].tolist() == [[0.5, 8.0]]
        assert rows[other].shape == (0, 2)
    assert {plan.alone(0), plan.alone(1)} == {True, False}


def test_a_message_without_batches_says_nothing_of_them() -> None:
    assert timing.generated_how(np.zeros((0, 2)), 8, 50, "a GPU") == "one at a time, 50 steps on a GPU"
    pace = np.array([[0.25, 8], [1.0, 4]])
    assert timing.generated_how(pace, 8, 50, "a GPU") == "one at a time; 0.500000 each in batches of 8, 50 steps on a GPU"
