"""The benchmarks of the trainer: all loops do the same work, and what is slow or lost is told."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from benchmarks import goodput, trainer, training
from benchmarks.goodput import Attempt

from videogen_api.job import Job
from videogen_api.meta import ModelFamily


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    training.fill(tmp_path, clips=8)
    return tmp_path


def a_job(work: str = "w", steps: int = 4, **more: int) -> Job:
    return training.training_job(work, batch=2, steps=steps, every=steps, **more)


@pytest.mark.parametrize("family", list(ModelFamily))
def test_the_loops_of_the_peers_begin_with_the_loss_that_ours_begins_with_and_measure_every_step(
    storage: Path, family: ModelFamily
) -> None:
    init = None if family is ModelFamily.VIDEOFUSION else training.image_model(storage)
    job = training.training_job("w", batch=8, steps=2, every=2, family=family, init_from=init)
    measured = {
        loop: found.ranks
        for loop, found in training.run_in_turns({loop: (loop, job) for loop in ("ours", *trainer.PEERS)}, storage).items()
    }
    first = {loop: ranks[0]["losses"][0] for loop, ranks in measured.items()}
    assert {loop: len(ranks[0]["ends"]) for loop, ranks in measured.items()} == dict.fromkeys(measured, 2)
    for loop in trainer.PEERS:  # untrained networks, other noise: the same loss but for what the noise makes of it
        assert first[loop] == pytest.approx(first["ours"], rel=0.5)
        assert measured[loop][0]["peak"] == pytest.approx(measured["ours"][0]["peak"], rel=0.5)


def test_the_cached_loop_is_compared_with_peers_that_encode_in_every_step(storage: Path) -> None:
    work = trainer.Workload(storage=storage, image_model=training.image_model(storage), batch=2, steps=8)
    figures = {figure.name: figure for figure in trainer.speeds(work, ModelFamily.ALIGN_YOUR_LATENTS, 1)}
    assert figures["AlignYourLatents, cached, 1 process: time of a step, of that of plain"].aim == pytest.approx(1 / 1.2)
    assert figures["AlignYourLatents, 1 process: time of a step, of that of plain"].aim == 1.0
    assert len(figures) == 18


def test_a_loop_that_fails_is_told_with_its_output(storage: Path) -> None:
    job = a_job().model_copy(update={"data": [a_job().data[0].model_copy(update={"digest": "sha256:" + "0" * 64})]})
    with pytest.raises(RuntimeError, match=r"ours ended with 1: (.|\n)*Dataset"):
        training.run_in_turns({"ours": ("ours", job)}, storage)


def test_a_speed_is_the_median_of_the_steps_after_the_first_ones_that_lie_in_one_turn() -> None:
    ends = [0.0, 50.0, 100.0, 101.0, 103.0, 106.0, 208.0, 210.0]
    cpu = [0.0, 9.0, 18.0, 18.5, 19.5, 20.0, 24.0, 24.5]
    ranks: list[dict[str, Any]] = [{"ends": ends, "cpu": cpu, "waited": 27.5, "peak": 2e6}, {"ends": [], "peak": 3e6}]
    measured = training.Measured(ranks, [(-5.0, 107.0), (207.0, 215.0)])
    assert trainer.speed_of(measured) == trainer.Speed(step_seconds=2.0, cpu_seconds=0.5, peak_megabytes=3.0, wait_percent=25.0)
    with pytest.raises(RuntimeError, match="no step lies in one turn"):
        trainer.speed_of(training.Measured(ranks, [(-5.0, 102.0)]))


def test_loops_take_turns_and_none_works_in_that_of_another(storage: Path) -> None:
    jobs = {loop: (loop, a_job(loop, steps=24, processes=2)) for loop in ("ours", "plain")}
    measured = training.run_in_turns(jobs, storage, seconds=0.3)
    turns = sorted((begun, end, loop) for loop, found in measured.items() for begun, end in found.turns)
    assert all(end <= later for (_, end, _), (later, _, _) in pairwise(turns))
    assert min(len(found.turns) for found in measured.values()) > 2
    for found in measured.values():
        for done in found.ranks[0]["ends"]:
            assert any(begun <= done <= end + 0.05 for begun, end in found.turns), "a signal takes a moment"


def test_the_pauses_are_of_one_state_and_looking_is_a_part_of_them(tmp_path: Path) -> None:
    figures = list(trainer.pauses(tmp_path / "checkpoints", "Tiny", rounds=1))
    pause = figures[0]
    assert pause.peer
    assert figures[1].value == pytest.approx(pause.value / pause.peer)
    assert (tmp_path / "checkpoints/step-000000002").is_dir()


def told(productive: float, repeated: float) -> dict[str, float]:
    return {"productiveSeconds": productive, "repeatedSteps": repeated, "dataWaitSeconds": 1.0, "checkpointPauseSeconds": 0.5}


def test_goodput_counts_what_every_attempt_told_and_what_kills_cost() -> None:
    attempts = [Attempt(told(40.0, 0.0), killed="a pod"), Attempt({}, killed="a pod"), Attempt(told(45.0, 12.0))]
    figures = {figure.name.split(":")[0] + figure.name.rpartition(":")[2]: figure for figure in goodput.figures_of(attempts, 100.0, 8)}
    assert figures["goodput productive of all seconds"].value == pytest.approx(0.85)
    values = [(figure.value, figure.verdict) for figure in goodput.figures_of(attempts, 100.0, 8)]
    assert values[1:] == [
        (pytest.approx(0.15), "MISSED"),
        (0.02, ""),
        (0.01, ""),
        (2, ""),
        (0, "met"),
        (0.75, ""),  # 12 steps by two kills, of an interval of 8
        (1.5, "MISSED"),
    ]


@pytest.mark.parametrize(("most", "verdict"), [(8.0, "met"), (9.0, "MISSED")])
def test_the_kill_that_cost_most_may_cost_one_interval_whatever_the_others_cost(most: float, verdict: str) -> None:
    attempts = [Attempt(told(90.0, repeated), killed="a pod") for repeated in (0.0, 0.0, most, 1.0)]
    *_, mean, largest = goodput.figures_of([*attempts, Attempt(told(1.0, 0.0))], 400.0, 8)
    assert (mean.value < 0.5, mean.verdict) == (True, "")
    assert (largest.value, largest.verdict) == (most / 8, verdict)


def test_a_training_that_nothing_was_killed_of_shows_nothing() -> None:
    figures = list(goodput.figures_of([Attempt(told(99.0, 0.0))], 100.0, 8))
    assert [figure.name for figure in figures if figure.verdict == "MISSED"] == ["trainings without a kill, which show nothing"]


def test_a_kill_at_the_very_end_has_lost_nothing() -> None:
    *_, largest = goodput.figures_of([Attempt(told(99.0, 0.0), killed="a pod")], 100.0, 8)
    assert (largest.value, largest.verdict) == (0.0, "met")
