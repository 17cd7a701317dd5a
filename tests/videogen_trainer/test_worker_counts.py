"""A training resumes from a checkpoint in another number of processes: it learns the same, but for the order of sums."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from videogen_api.job import Job
from videogen_api.training_run import Reason
from videogen_testing.attempted import WORK, losses
from videogen_testing.ranks import train_in
from videogen_trainer import checkpoint

STEPS, SAFE = 8, 3
BOUND = 1e-5  # of a loss, relative, in each of the steps after the checkpoint
RECIPE: dict[str, Any] = {"steps": STEPS, "videoFusion": None, "checkpoints": {"everySteps": SAFE, "keepLast": STEPS}}
CASES = [(family, *counts, None) for family in ("VideoFusion", "AlignYourLatents", "Text2VideoZero") for counts in ((1, 2), (2, 1))]
CASES += [("VideoFusion", 2, 1, 2)]  # with the accumulation that the operator gives to one worker in place of two


@pytest.mark.parametrize(("family", "before", "after", "accumulation"), CASES)
def test_in_another_number_of_processes_the_same_is_learned(
    storage: Path, make_job: Callable[..., Job], family: str, before: int, after: int, accumulation: int | None
) -> None:
    job = make_job(RECIPE, model={"family": family, "version": "1.0.0"})
    never_stopped = train_in(before, job, storage)
    assert never_stopped.reason is Reason.COMPLETED, never_stopped.message
    expected = losses(storage)
    assert len(expected) == STEPS
    root = storage / WORK / "checkpoints"
    for step in set(checkpoint.steps(root)) - {SAFE}:  # as if all had been killed in the step after that one
        shutil.rmtree(checkpoint.folder_of(root, step))
    shutil.rmtree(storage / "bundles")
    resumed = train_in(after, job.model_copy(update={"gradient_accumulation_steps": accumulation}), storage)
    assert (resumed.reason, resumed.resumed_from_step, resumed.last_step) == (Reason.COMPLETED, SAFE, STEPS), resumed.message
    assert resumed.goodput
    assert resumed.goodput.repeated_steps == STEPS - SAFE
    found = losses(storage)
    assert found[:SAFE] == expected[:SAFE]
    assert found[SAFE:] == pytest.approx(expected[SAFE:], rel=BOUND)
