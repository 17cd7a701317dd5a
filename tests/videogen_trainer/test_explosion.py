"""A loss that explodes and stays finite: found, told, undone; and ordinary losses of diffusion, which vary by orders of magnitude."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from videogen_api.job import ExitCode, Job, Report
from videogen_api.training_run import Reason
from videogen_testing.attempted import WORK, curve
from videogen_testing.curation import silent
from videogen_testing.stopping import StopAfter
from videogen_trainer import checkpoint, tasks
from videogen_trainer.distributed import World
from videogen_trainer.divergence import judge
from videogen_trainer.explosion import ENOUGH, KNOWN, WINDOW, Level
from videogen_trainer.failure import Failure
from videogen_trainer.families import learner_of
from videogen_trainer.progress import ProgressReporter
from videogen_trainer.state import new_state

Train = Callable[..., Report]
MakeJob = Callable[..., Job]
CALM = 11  # steps before the rate is made 500 times what it was
CONSTANT: dict[str, Any] = {"schedule": {"type": "Constant"}, "optimizer": {"learningRate": "1e-3"}, "steps": 25}


def found_at(values: Iterable[float], factor: float = 10.0) -> int | None:
    """Place of the value with which the series has exploded."""
    level = Level()
    for place, value in enumerate(values):
        level.add(value, factor)
        if level.has_exploded:
            return place
    return None


def leapt_at(values: Iterable[float], factor: float = 10.0) -> int | None:
    """Place of the first value that is out of all proportion."""
    level = Level()
    for place, value in enumerate(values):
        if level.leaps_to(value, factor):
            return place
        level.add(value, factor)
    return None


def test_an_explosion_is_found_when_it_has_lasted_as_long_as_it_must() -> None:
    assert found_at([1.0] * 100 + [100.0] * 50) == 100 + ENOUGH - 1


@pytest.mark.parametrize("growth", [1.02, 1.1, 2.0])
def test_an_explosion_that_grows_slowly_is_found(growth: float) -> None:
    place = found_at([1.0] * 300 + [growth**step for step in range(600)])
    assert place is not None
    assert growth ** (place - 300) < 1e3 * growth**ENOUGH


def varied(level: Iterable[float]) -> list[float]:
    """The values, each by up to half more."""
    random = np.random.default_rng(3)
    return [value * (1 + random.random() / 2) for value in level]


@pytest.mark.parametrize("times", [150.0, 1e5, 1e30])
def test_a_leap_out_of_all_proportion_is_found_at_once(times: float) -> None:
    assert leapt_at([*varied([0.2] * 300), 0.2 * times]) == 300
    assert leapt_at([*varied([0.2] * 300), 0.2 * 90]) is None


def test_a_loss_that_has_fallen_much_must_leap_further() -> None:
    falling = varied(3 * 0.99**step for step in range(300))
    assert leapt_at([*falling, 150.0 * sum(falling) / 300]) is None
    assert leapt_at([*falling, 1500.0 * sum(falling) / 300]) == 300


def test_before_a_series_is_known_nothing_is_out_of_proportion() -> None:
    assert leapt_at([1.0] * (KNOWN - 1) + [1e30]) is None
    assert leapt_at([1.0] * KNOWN + [1e30]) == KNOWN
    assert not Level(mean=1.0, count=WINDOW).leaps_to(1e30, 10.0)  # of a checkpoint of an older image


def test_an_explosion_in_the_second_step_is_found() -> None:
    assert found_at([1.7] + [2.75e4] * ENOUGH) == ENOUGH


def test_a_few_bad_batches_are_no_explosion() -> None:
    bad = [50.0] * (ENOUGH - 1)
    assert found_at(([1.0] * 50 + bad) * 20) is None
    assert leapt_at(([1.0] * 50 + bad) * 20) is None


def test_an_explosion_that_dips_now_and_then_is_found() -> None:
    place = found_at([1.0] * 100 + [100.0, 100.0, 100.0, 1.0] * 20)
    assert place is not None and place < 100 + 3 * ENOUGH


def test_a_jump_of_less_than_the_factor_becomes_what_is_usual() -> None:
    level = Level()
    for value in [1.0] * 100 + [9.0] * 5 * WINDOW:
        level.add(value, 10.0)
    assert (level.has_exploded, round(level.mean)) == (False, 9)


@pytest.mark.parametrize("spread", [0.5, 1.0, 1.5, 2.0, 2.3], ids=lambda spread: f"log-deviation {spread}")
def test_losses_that_vary_by_orders_of_magnitude_are_no_explosion(spread: float) -> None:
    """2.3 was measured of VideoFusion's losses with batches of one clip, min-SNR weights and networks that have learned."""
    random = np.random.default_rng(0)
    for _ in range(20):
        ordinary = np.exp(spread * random.standard_normal(3000)).tolist()
        assert found_at(ordinary) is None
        assert leapt_at(ordinary) is None
        assert leapt_at([*ordinary, 1e30]) == 3000


def test_a_first_loss_that_is_small_by_chance_does_not_stay_the_measure() -> None:
    random = np.random.default_rng(1)
    assert found_at([1e-3, *np.exp(random.standard_normal(500)).tolist()]) is None


def test_a_loss_that_is_negative_is_measured_by_its_size() -> None:
    """The loss of a decoder against a discriminator may be."""
    random = np.random.default_rng(2)
    assert found_at(random.standard_normal(5000).tolist()) is None
    assert found_at([*random.standard_normal(100).tolist(), *[-100.0] * 20]) is not None


def test_first_values_of_zero_are_no_measure() -> None:
    assert found_at([0.0] * 3 + [1.0] * 50) is None
    assert leapt_at([0.0] * KNOWN + [1.0] * 50) is None


def test_a_factor_of_zero_switches_it_off() -> None:
    assert found_at([1.0] * 100 + [1e30] * 100, factor=0.0) is None
    assert leapt_at([1.0] * 100 + [1e30] * 100, factor=0.0) is None


@dataclass(frozen=True)
class Calm:
    """A run that learned calmly, and 14 steps before its end, and the storage that it left."""

    folder: Path
    job: Job

    def faster(self, times: str, into: Path) -> Job:
        """The job that goes on at so many times the rate, with a copy of the storage."""
        shutil.copytree(self.folder, into, dirs_exist_ok=True)
        return self.job.model_copy(update={"learning_rate_scale": times})


@pytest.fixture(scope="module")
def calm(squares: Path, make_job: MakeJob, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Calm]:
    """`calm(keepLast=2)`: the run that keeps these checkpoints; each made once."""

    @cache
    def make(steps: int = CALM, **kept: int) -> Calm:
        torch.set_num_threads(1)
        folder = Path(shutil.copytree(squares, tmp_path_factory.mktemp("calm") / "storage"))
        job = make_job(CONSTANT | {"steps": steps + 14, "globalBatchSize": 2, "checkpoints": {"everySteps": 3, **kept}})
        assert tasks.attempt(job, folder, {}, silent(), StopAfter(steps)).last_step == steps
        return Calm(folder, job)

    return make


@pytest.fixture
def fast(calm: Callable[..., Calm], storage: Path) -> Job:
    """The job of a run that learned calmly, to go on 500 times as fast: a real explosion, which clipping keeps finite.

    The first weights that it harms are those of step 12, and a checkpoint has them.
    """
    return calm(keepLast=2).faster("500", storage)


def test_a_clipped_run_that_explodes_has_diverged_and_goes_back_to_before(train: Train, fast: Job, storage: Path) -> None:
    root = storage / WORK / "checkpoints"
    assert checkpoint.steps(root) == [11, 9]
    report = train(fast)
    assert report.reason is Reason.DIVERGED, report.message
    assert "more than recipe.divergenceFactor 10 times its mean" in report.message
    assert report.message.endswith("the next attempt resumes from the checkpoint of step 11")
    rows = [row["loss"] for row in curve(storage)]
    assert max(rows[: CALM + 1]) < 5 and min(rows[CALM + 1 :]) > 10
    assert len(rows) == CALM + ENOUGH  # and the step that found it, which was not done
    assert (report.last_step, checkpoint.steps(root)) == (11, [11])
    again = train(fast.model_copy(update={"learning_rate_scale": "1"}))
    assert (again.reason, again.resumed_from_step, again.last_step) == (Reason.COMPLETED, 11, 25)


def test_a_loss_that_leaps_ends_the_attempt_in_that_step(train: Train, calm: Callable[..., Calm], storage: Path) -> None:
    """Of weights that one update at a rate 5000 times too high has moved. No good checkpoint was saved since the one resumed from."""
    job = calm(KNOWN + 1, keepLast=2).faster("5000", storage)
    report = train(job)
    assert (report.reason, report.last_step) == (Reason.DIVERGED, KNOWN)
    assert report.message.startswith(f"step {KNOWN + 2}: loss ")
    assert "more than 100 (recipe.divergenceFactor 10, squared) times its mean" in report.message
    assert checkpoint.steps(storage / WORK / "checkpoints") == [KNOWN]


def test_one_gradient_of_any_size_ends_nothing_nor_does_a_loss_that_may_leap(make_job: MakeJob, storage: Path) -> None:
    recipe = make_job().recipe
    learner = learner_of(make_job(), storage, World())
    state = new_state(learner.learned(), learner.slow, recipe, torch.device("cpu"))
    for _ in range(KNOWN):
        judge(state, recipe, 1.0, 1.0)
    judge(state, recipe, 1.0, 1e30)
    with pytest.raises(Failure, match="which no batch explains"):
        judge(state, recipe, 1e30, 1.0)
    judge(state, recipe, 1e30, 1.0, may_leap=True)


def test_an_explosion_that_an_interruption_cuts_in_two_is_found_in_the_same_step(train: Train, fast: Job, storage: Path) -> None:
    stopped = train(fast, StopAfter(6))
    assert (stopped.reason, stopped.last_step) == (Reason.PREEMPTED, 17)
    root = storage / WORK / "checkpoints"
    assert checkpoint.steps(root) == [17, 15, 12, 11]  # two are kept, and those of steps that are suspect
    report = train(fast)
    assert report.message.startswith(f"step {CALM + ENOUGH}: ")
    assert (report.reason, report.resumed_from_step, report.last_step) == (Reason.DIVERGED, 17, 11)
    assert checkpoint.steps(root) == [11]


def test_two_processes_find_an_explosion_in_the_same_step(fast: Job, start_trainer: Callable[..., Any], storage: Path) -> None:
    code, report = start_trainer(fast.model_copy(update={"processes_per_worker": 2})).wait()
    assert (code, report.reason, report.last_step) == (ExitCode.DIVERGED, Reason.DIVERGED, CALM), report.message
    assert report.message.startswith(f"step {CALM + ENOUGH}: ")
    assert report.message.endswith("the next attempt resumes from the checkpoint of step 11")
    assert checkpoint.steps(storage / WORK / "checkpoints") == [11]


def test_the_best_checkpoint_is_there_to_go_back_to(train: Train, calm: Callable[..., Calm], storage: Path) -> None:
    """The loss rises for as long as the rate is too high, and never by the factor: the newest checkpoint is no good one."""
    fast = calm(keepLast=1, keepBest=1).faster("100", storage)
    assert train(fast, StopAfter(12)).last_step == 23
    root = storage / WORK / "checkpoints"
    assert checkpoint.steps(root) == [23, 12]
    means = [checkpoint.load(root, step)[1]["levels"]["loss"]["mean"] for step in (23, 12)]
    assert means[0] > means[1]


def test_without_a_factor_a_ruined_run_goes_on(train: Train, fast: Job) -> None:
    recipe = fast.recipe.model_copy(update={"divergence_factor": "0"})
    report = train(fast.model_copy(update={"recipe": recipe}))
    assert (report.reason, report.resumed_from_step, report.last_step) == (Reason.COMPLETED, 11, 25)


def test_a_checkpoint_of_an_image_that_knew_no_explosions_is_resumed(train: Train, fast: Job, storage: Path) -> None:
    root = storage / WORK / "checkpoints"
    tensors, values = checkpoint.load(root, CALM)
    del values["levels"], values["sound"], values["recipe"]["divergenceFactor"]
    checkpoint.save(root, CALM, tensors, values, keep_last=2)
    again = train(fast.model_copy(update={"learning_rate_scale": "1"}))
    assert (again.reason, again.resumed_from_step) == (Reason.COMPLETED, CALM)


def highest_count(storage: Path, work: str = WORK) -> int:
    """How near a training came to being told as an explosion, 0 to `ENOUGH`."""
    highest = 0
    for name in ("loss", "gradient"):
        level = Level()
        for row in curve(storage, work):
            level.add(row[name], 10.0)
            highest = max(highest, level.beyond)
    return highest


@pytest.mark.parametrize(
    "recipe",
    [
        {"optimizer": {"learningRate": "1e-2"}, "schedule": {"type": "Constant"}},
        {"globalBatchSize": 1, "precision": "FP16", "optimizer": {"learningRate": "3e-3"}, "steps": 6},  # slow on CPUs
        {"globalBatchSize": 1, "loss": {"snrGamma": "5"}, "optimizer": {"learningRate": "3e-3"}, "steps": 60},
    ],
    ids=["a high rate without warm-up", "FP16", "batches of one clip with min-SNR weights"],
)
def test_ordinary_training_is_no_explosion(train: Train, make_job: MakeJob, storage: Path, recipe: dict[str, Any]) -> None:
    report = train(make_job({"steps": 25, "checkpoints": {"everySteps": 100}} | recipe))
    assert report.reason is Reason.COMPLETED, report.message
    assert highest_count(storage) <= 3


@pytest.mark.parametrize(
    ("family", "task", "after"),
    [
        ("Text2VideoZero", "Train", None),
        ("Text2VideoZero", "Adapt", "image"),
        ("AlignYourLatents", "Train", "image"),
        ("AlignYourLatents", "FineTune", "trained"),
        ("AlignYourLatents", "AlignCrossModal", "trained"),
        ("AlignYourLatents", "FineTuneDecoder", "trained"),
    ],
)
def test_ordinary_training_of_every_family_and_phase_is_no_explosion(
    begun: Any, tmp_path: Path, silent: ProgressReporter, make_job: MakeJob, family: str, task: str, after: str | None
) -> None:
    storage = Path(shutil.copytree(begun.folder, tmp_path / "storage"))
    recipe = {
        "videoFusion": None,
        "globalBatchSize": 2,
        "steps": 20,
        "optimizer": {"learningRate": "3e-3"},
        "checkpoints": {"everySteps": 100},
    }
    begin = {"initFrom": getattr(begun, after)} if after else {}
    job = make_job(recipe, task=task, model={"family": family, "version": "1.0.0"}, **begin)
    report = tasks.attempt(job, storage, {}, silent, lambda: False)
    assert report.reason is Reason.COMPLETED, report.message
    assert highest_count(storage) <= 3
