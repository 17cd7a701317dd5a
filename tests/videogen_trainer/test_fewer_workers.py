"""Fewer workers than were asked for take the same micro-batches, more of them one after the other."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from videogen_api.job import Job, Report
from videogen_api.training_run import Reason
from videogen_testing.attempted import WORK, losses
from videogen_trainer import checkpoint
from videogen_trainer.data import positions
from videogen_trainer.failure import Failure
from videogen_trainer.launch import launch_config
from videogen_trainer.objective import Objective
from videogen_trainer.tasks import check

Train = Callable[..., Report]


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many clips each forward pass of training has had."""
    forward, seen = Objective.forward, list[int]()

    def counted(self: Objective, clean: torch.Tensor, *rest: Any) -> torch.Tensor:
        seen.append(len(clean))
        return forward(self, clean, *rest)

    monkeypatch.setattr(Objective, "forward", counted)
    return seen


@pytest.mark.parametrize("workers, accumulation, fewer", [(4, 1, 2), (4, 1, 1), (4, 3, 3), (8, 3, 6), (2, 4, 1)])
@pytest.mark.parametrize("each", [1, 2], ids=["one process each", "two processes each"])
def test_the_micro_batches_of_a_step_are_the_same(workers: int, accumulation: int, fewer: int, each: int) -> None:
    def micro_batches(processes: int, parts: int) -> list[range]:
        ranks = [(part, rank) for part in range(parts) for rank in range(processes)]
        return [positions(5, part, batch=96, parts=parts, rank=rank, processes=processes) for part, rank in ranks]

    assert micro_batches(fewer * each, workers * accumulation // fewer) == micro_batches(workers * each, accumulation)


def test_one_worker_in_place_of_two_learns_from_passes_of_the_same_size(
    storage: Path, make_job: Callable[..., Job], train: Train, passes: list[int]
) -> None:
    assert train(make_job({"gradientAccumulationSteps": 2})).reason is Reason.COMPLETED
    expected = losses(storage)
    shutil.rmtree(storage / "runs")
    fewer = make_job(workers=1, gradientAccumulationSteps=2)
    assert train(fewer).reason is Reason.COMPLETED
    assert losses(storage) == expected, "to the bit, since the sums are made in the same order"
    assert passes == [2] * (2 * 2 * fewer.recipe.steps)


def test_a_checkpoint_of_fewer_workers_is_gone_on_from_by_all(storage: Path, make_job: Callable[..., Job], train: Train) -> None:
    assert train(make_job(gradientAccumulationSteps=2)).reason is Reason.COMPLETED
    shutil.rmtree(checkpoint.folder_of(storage / WORK / "checkpoints", 4))
    resumed = train(make_job())
    assert (resumed.reason, resumed.resumed_from_step, resumed.last_step) == (Reason.COMPLETED, 2, 4), resumed.message


def test_pods_wait_for_each_other_as_long_as_the_job_says(make_job: Callable[..., Job]) -> None:
    assert launch_config(make_job(joinSeconds=1800), {}).rdzv_configs["timeout"] == 1800


def test_a_batch_that_does_not_come_out_even_is_refused(make_job: Callable[..., Job]) -> None:
    with pytest.raises(Failure, match=r"gradientAccumulationSteps = 1 x 1 x 3 = 3") as caught:
        check(make_job(gradientAccumulationSteps=3))
    assert caught.value.reason is Reason.INVALID_JOB
