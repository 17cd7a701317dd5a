"""What the comparison of trainings says of given numbers."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from benchmarks import reproduce, reproduce_estimate
from benchmarks.reproduce_cases import IMAGE, INDEPENDENT, LATENTS, SHARED, TEMPORAL, TEMPORAL_UNTRAINED, VIDEOFUSION, ZERO, Case, chains
from benchmarks.reproduce_estimate import Cost, estimate, probes
from benchmarks.reproduce_tables import SHOWN, difference_table, mean_interval, verdict
from benchmarks.reproduce_workshop import JobError, Workshop, partners, progress_in

from videogen_api.evaluation import Metric
from videogen_api.job import Report
from videogen_models.bundle import load_model
from videogen_trainer import tasks
from videogen_trainer.goodput import Meter
from videogen_trainer.progress import ProgressReporter
from videogen_trainer.report import to_bytes


def test_the_interval_of_a_mean_is_students() -> None:
    assert mean_interval([1.0, 2.0, 3.0]) == pytest.approx((2 - 4.303 / 3**0.5, 2 + 4.303 / 3**0.5))


def test_the_interval_of_few_values_is_wider_than_that_of_many() -> None:
    few, many = mean_interval([1.0, 2.0]), mean_interval([1.0, 2.0] * 4)
    assert few[1] - few[0] > 10 * (many[1] - many[0])


@pytest.mark.parametrize(
    ("low", "high", "less", "better"),
    [(-2, -1, True, "λ = 0.7"), (-2, -1, False, "λ = 0"), (1, 2, True, "λ = 0"), (1, 2, False, "λ = 0.7"), (-1, 2, True, "not decided")],
)
def test_the_better_one_is_named_only_if_the_interval_leaves_out_0(low: float, high: float, less: bool, better: str) -> None:
    assert verdict(low, high, SHARED.name, INDEPENDENT.name, less=less) == better


def test_differences_are_taken_seed_by_seed() -> None:
    shared = [dict.fromkeys(SHOWN, value) for value in (10.0, 20.0, 30.0)]
    independent = [dict.fromkeys(SHOWN, value) for value in (12.0, 22.0, 32.0)]
    table = difference_table({"λ = 0.7": shared, "λ = 0": independent}, "λ = 0.7", "λ = 0")
    row = next(line for line in table.splitlines() if Metric.FVD.value in line)
    assert [cell.strip() for cell in row.strip("|").split("|")] == ["FVD", "-2", "-2 … -2", "λ = 0.7"]


def test_a_clip_has_a_partner_of_its_caption_and_another_one_each_round() -> None:
    assert partners(["a", "b", "a", "b"], ["b", "a", "a"]) == [1, 0, 2, 0]


def test_a_caption_without_a_partner_is_named() -> None:
    with pytest.raises(JobError, match="no training clip has the caption 'c'"):
        partners(["c"], ["a"])


def test_what_begins_with_an_image_model_follows_it_and_the_longest_chain_is_first() -> None:
    assert chains([VIDEOFUSION, ZERO, LATENTS])[0] == (IMAGE, TEMPORAL, TEMPORAL_UNTRAINED)
    assert chains([LATENTS]) == [(TEMPORAL, TEMPORAL_UNTRAINED)]
    assert {case.family for chain in chains([VIDEOFUSION]) for case in chain} == {VIDEOFUSION}


def test_an_image_model_is_probed_for_the_family_that_begins_with_it() -> None:
    zero, latents = probes([LATENTS])
    assert (zero.family, latents.family) == (ZERO, LATENTS)
    assert latents.image is zero


def test_the_estimate_is_when_the_last_of_the_processes_ends() -> None:
    cost = {VIDEOFUSION: Cost(start=5, step=0.5, look=8, clip=0.25)}
    case = Case(family=VIDEOFUSION, name="one")
    assert cost[VIDEOFUSION].seconds(steps=10, samples=4) == 19
    assert estimate(lambda _: 19, [(case,), (case,)], seeds=3, workers=2) == 3 * 19
    assert estimate(lambda _: 19, [(case, case), (case,)], seeds=1, workers=2) == 2 * 19


def test_the_estimate_counts_an_image_model_that_is_trained_and_not_measured() -> None:
    seconds = {ZERO: 100.0, LATENTS: 7.0}
    assert estimate(lambda case: seconds[case.family], chains([LATENTS]), seeds=1, workers=1) == 114
    assert estimate(lambda case: seconds[case.family], chains([ZERO, LATENTS]), seeds=1, workers=2) == 114


@pytest.mark.parametrize(("seconds", "words"), [(3720, "1 h 02 min from here, if nothing is done yet"), (7300, "more than the 2 h")])
def test_an_estimate_that_is_too_long_is_told(seconds: float, words: str) -> None:
    assert reproduce.expected(seconds).partition(": ")[2].find(words) >= 0


def test_the_progress_of_a_job_is_the_newest_in_its_log() -> None:
    log = "2026-01-01 videogen_trainer.progress INFO 1 of 300: step 1, steps 300\n... INFO 12 of 300: step 12, steps 300\nmore: 3 of 4\n"
    assert progress_in(log) == "12 of 300"
    assert progress_in("importing") == "starting"


def test_the_two_noises_are_compared_where_there_are_several_seeds() -> None:
    seeds = [dict.fromkeys(SHOWN, float(value)) for value in (1, 2)]
    found = {VIDEOFUSION: {SHARED.name: seeds, INDEPENDENT.name: seeds[::-1], reproduce.REAL: seeds[:1]}, ZERO: {"trained": seeds}}
    assert "λ = 0.7 minus λ = 0" in reproduce.report(found, 8, 2)
    assert "minus" not in reproduce.report(found, 8, 1)
    assert "minus" not in reproduce.report({ZERO: found[ZERO]}, 8, 2)


FEW = [
    *("--seeds", "1", "--steps", "2", "--clips", "432", "--samples", "4", "--sampling-steps", "2"),
    *("--frames", "4", "--side", "16", "--jobs", "1"),
]


@pytest.fixture
def attempts(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The jobs are done by the trainer in this process, which spares its start, and those of the estimate are short; their names."""
    done: list[str] = []
    monkeypatch.setattr(reproduce_estimate, "STEPS", 2)
    monkeypatch.setattr(reproduce_estimate, "SAMPLES", 2)

    def attempt(_workshop: Workshop, path: Path, message: Path, name: str) -> None:
        done.append(name)
        reporter = ProgressReporter(None, 5, time.monotonic, lambda: datetime.now(UTC))
        meter = Meter(clock=time.monotonic, begun=time.monotonic())
        result = tasks.attempt(tasks.read_job(path), path.parents[1], {}, reporter, lambda: False, meter)
        message.write_bytes(to_bytes(result))

    monkeypatch.setattr(Workshop, "_attempt", attempt)
    return done


def columns(table: str, family: str) -> list[str]:
    """Of a family's table in the output."""
    head = next(line for line in table.partition(f"\n{family}:\n")[2].splitlines() if line.startswith("| metric"))
    return [cell.strip() for cell in head.strip("|").split("|")][1:]


def bundle_of(folder: Path, slug: str) -> dict[str, Any]:
    """Weights that a job's report names."""
    report = Report.model_validate_json((folder / f"jobs/{slug}.report.json").read_bytes())
    assert report.artifact
    return dict(load_model(folder / report.artifact.path).state_dict())


def test_every_family_has_its_row_of_untrained_trained_and_real(
    tmp_path: Path, attempts: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    command = [*FEW, "--folder", str(tmp_path)]
    assert reproduce.main(command) == 0
    shown = capsys.readouterr().out
    assert columns(shown, "VideoFusion") == ["untrained", "λ = 0", "λ = 0.7", "real clips"]
    for family in ("Text2VideoZero", "AlignYourLatents"):
        assert columns(shown, family) == ["untrained", "trained", "real clips"]
    assert "7 of 7: seed 0" in shown
    image, temporal = bundle_of(tmp_path, "Text2VideoZero-trained-0"), bundle_of(tmp_path, "AlignYourLatents-trained-0")
    drawn = bundle_of(tmp_path, "AlignYourLatents-untrained-0")
    shared = [name for name in image if name in temporal]
    assert shared
    assert [name for name in shared if not image[name].equal(temporal[name]) or not image[name].equal(drawn[name])] == []
    assert any(not drawn[name].equal(temporal[name]) for name in temporal if name not in shared)
    count = len(attempts)
    assert reproduce.main(command) == 0
    assert len(attempts) == count, "what was done is not done again"


def test_the_estimate_alone_trains_nothing_but_probes(tmp_path: Path, attempts: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert reproduce.main([*FEW, "--clips", "108", "--families", "Text2VideoZero", "--estimate", "--folder", str(tmp_path)]) == 0
    assert attempts == ["curate 0", "Text2VideoZero probe 0", "Text2VideoZero probe evaluate 0"]
    assert "estimate, from a few steps of each family: 0 h" in capsys.readouterr().out


def test_a_job_that_fails_ends_the_command_with_its_log(tmp_path: Path, attempts: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert reproduce.main([*FEW, "--clips", "4", "--families", "Text2VideoZero", "--folder", str(tmp_path)]) == 1
    failed = "Text2VideoZero probe 0: DatasetTooSmall: data: 2 clips (shapes 2), recipe.globalBatchSize is 8"
    assert failed in capsys.readouterr().err
    assert attempts == ["curate 0", "Text2VideoZero probe 0"]
