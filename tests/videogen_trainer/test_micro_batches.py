"""Memory that runs out in a pass makes passes smaller, in all processes, and changes nothing of what is learned."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from videogen_api.job import ExitCode, Job, Report
from videogen_api.training_run import Reason
from videogen_testing.attempted import WORK
from videogen_trainer import tasks
from videogen_trainer.data import Batch
from videogen_trainer.objective import Objective
from videogen_trainer.progress import ProgressReporter


def take_all_memory() -> None:
    """The error that PyTorch's allocator really raises."""
    torch.empty(2**60, dtype=torch.uint8)


class Backward(torch.autograd.Function):
    """Runs out of memory in the backward pass."""

    @staticmethod
    def forward(_: Any, losses: torch.Tensor) -> torch.Tensor:
        return losses.clone()

    @staticmethod
    def backward(*_: Any) -> Any:
        take_all_memory()


@pytest.fixture
def run(storage: Path, silent: ProgressReporter) -> Callable[..., tuple[Report, list[dict[str, float]]]]:
    """Train from the beginning -> the report and the curve."""

    def run_it(job: Job) -> tuple[Report, list[dict[str, float]]]:
        shutil.rmtree(storage / "runs", ignore_errors=True)
        report = tasks.attempt(job, storage, {}, silent, lambda: False)
        return report, [json.loads(line) for line in (storage / WORK / "curve.jsonl").read_text().splitlines()]

    return run_it


@pytest.fixture(scope="module")
def known() -> dict[str, list[dict[str, float]]]:
    return {}


@pytest.fixture
def at_once(run: Callable[..., Any], known: dict[str, list[dict[str, float]]]) -> Callable[[Job], list[dict[str, float]]]:
    """The curve of a job with room for all clips: a job is trained once for all tests."""

    def curve(job: Job) -> list[dict[str, float]]:
        key = job.model_dump_json()
        known[key] = known.get(key) or run(job)[1]
        return known[key]

    return curve


def with_room_for(clips: int, monkeypatch: pytest.MonkeyPatch, *, after_passes: int = 0, backward: bool = False) -> list[int]:
    """More clips in a pass run out of memory, once some passes were made -> how many clips the passes had."""
    forward, seen = Objective.forward, list[int]()

    def limited(self: Objective, clean: torch.Tensor, *rest: Any) -> torch.Tensor:
        seen.append(len(clean))
        full = len(clean) > clips and len(seen) > after_passes
        if full and not backward:
            take_all_memory()
        losses = forward(self, clean, *rest)
        return Backward.apply(losses) if full else losses  # type: ignore[no-any-return,no-untyped-call]

    monkeypatch.setattr(Objective, "forward", limited)
    return seen


CASES = {
    "from the first pass on": ({}, {"after_passes": 0}, [4, 2, 2, 2, 2, 2, 2]),
    "later": ({}, {"after_passes": 1}, [4, 4, 2, 2, 2, 2]),
    "in a backward pass": ({}, {"after_passes": 1, "backward": True}, [4, 4, 2, 2, 2, 2]),
    "twice": ({"globalBatchSize": 8}, {}, [8, 4] + [2] * 12),
    "in the second part of a step, whose first part had its gradients": (
        {"globalBatchSize": 8, "gradientAccumulationSteps": 2},
        {"after_passes": 3},
        [4, 4, 4, 4] + [2] * 8,
    ),
    "with a number that is odd": ({"globalBatchSize": 5}, {}, [5] + [3] + [2, 2, 1] * 3),
}


@pytest.mark.parametrize("recipe, limit, passes", CASES.values(), ids=CASES)
def test_what_is_learned_in_pieces_is_what_is_learned_at_once(
    run: Callable[..., Any],
    at_once: Callable[[Job], list[dict[str, float]]],
    make_job: Callable[..., Job],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    recipe: dict[str, Any],
    limit: dict[str, Any],
    passes: list[int],
) -> None:
    job = make_job({"steps": 3} | recipe)
    whole = at_once(job)
    seen = with_room_for(2, monkeypatch, **limit)
    with caplog.at_level(logging.WARNING):
        report, pieces = run(job)
    assert (report.reason, report.last_step) == (Reason.COMPLETED, 3)
    assert seen == passes
    for name in ("loss", "gradient", "base", "residual"):
        assert [line[name] for line in pieces] == pytest.approx([line[name] for line in whole], rel=1e-3), name
    assert "a pass has 2 clips; the batch of a step stays" in caplog.text


def test_when_one_clip_is_too_much_it_is_told(
    run: Callable[..., Any], make_job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = with_room_for(0, monkeypatch)
    report, _ = run(make_job())
    assert seen == [4, 2, 1]
    assert report.reason is Reason.OUT_OF_MEMORY
    assert "memory does not suffice for one clip; make recipe.frames" in report.message


def test_another_error_of_a_pass_is_not_taken_for_it(
    run: Callable[..., Any], make_job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Objective, "forward", lambda self, *_: torch.ones(2) @ torch.ones(3))
    assert run(make_job())[0].reason is Reason.TRAINER_FAILED


def test_the_pieces_of_a_batch_are_the_batch() -> None:
    batch = Batch(frames=torch.arange(5), captions=list("abcde"), positions=range(10, 15))
    pieces = batch.pieces(2)
    assert [piece.positions for piece in pieces] == [range(10, 12), range(12, 14), range(14, 15)]
    assert torch.cat([piece.frames for piece in pieces]).tolist() == batch.frames.tolist()
    assert [caption for piece in pieces for caption in piece.captions] == batch.captions
    assert batch.pieces(5) == [batch]


# The trainer as it is, but that the second process has no room for more than two clips of its four, once some passes were made; in
# their backward pass, when a part of the gradients is sent already.
SHORT_OF_MEMORY = """
import os, torch
from videogen_trainer import __main__, averaging
from videogen_trainer.objective import Objective

averaging.BUCKET_BYTES = 4096
forward, passes = Objective.forward, []

def limited(self, clean, *rest):
    passes.append(len(clean))
    if os.environ.get("RANK") == "1" and len(clean) > 2 and len(passes) > {passes}:
        def fail(_):
            hook.remove()
            torch.empty(2**60, dtype=torch.uint8)
        hook = next(self.parameters()).register_hook(fail)
    return forward(self, clean, *rest)

Objective.forward = limited
__main__.main()
"""


@pytest.mark.parametrize("passes", [0, 3])
def test_all_processes_make_their_passes_smaller_when_one_is_short_of_memory(
    storage: Path, make_job: Callable[..., Job], start_trainer: Callable[..., Any], run: Callable[..., Any], passes: int
) -> None:
    recipe = {"steps": 6, "globalBatchSize": 8}
    path = storage / "short.py"
    path.write_text(SHORT_OF_MEMORY.format(passes=passes))
    trainer = start_trainer(make_job(recipe, processesPerWorker=2), program=("-c", LAUNCHED.format(program=str(path))))
    code, report = trainer.wait()
    assert (code, report.reason, report.last_step) == (ExitCode.SUCCEEDED, Reason.COMPLETED, 6), trainer.log.read_text()
    assert trainer.log.read_text().count("from here on a pass has 2 clips") == 2
    together = [json.loads(line)["loss"] for line in (storage / WORK / "curve.jsonl").read_text().splitlines()]
    _, alone = run(make_job(recipe))
    assert together == pytest.approx([line["loss"] for line in alone], rel=1e-3)


# The agent starts `python -m videogen_trainer`; here it starts the program above.
LAUNCHED = """
from videogen_trainer import __main__, launch

elastic_launch = launch.elastic_launch

def launched(config, python):
    return lambda *command: elastic_launch(config, python)("-u", {program!r}, *command[3:])

launch.elastic_launch = launched
__main__.main()
"""
