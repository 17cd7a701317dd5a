"""Which trial is chosen, and what is said about it."""

from __future__ import annotations

import pytest

from videogen_api.training_run import Reason
from videogen_api.tuning import Objective, Trial
from videogen_trainer.failure import Failure
from videogen_trainer.trials import choose, is_better


def trial(value: str, result: float | None, spread: float = 1.0, objective: Objective = Objective.FVD) -> Trial:
    """A trial whose interval has `spread` on either side."""
    if result is None:
        return Trial(value=value, metric=objective.metric)
    return Trial(value=value, metric=objective.metric, result=f"{result:g}", low=f"{result - spread:g}", high=f"{result + spread:g}")


@pytest.mark.parametrize(
    "objective, best", [(Objective.FVD, "0.65"), (Objective.ARTEFACT_RATE, "0.65"), (Objective.CLIP_SCORE, "0.75"),
                        (Objective.INCEPTION_SCORE, "0.75"), (Objective.TEMPORAL_COHERENCE, "0.75")]
)  # fmt: skip
def test_the_objective_says_whether_lower_or_higher_is_better(objective: Objective, best: str) -> None:
    trials = [trial(value, result, objective=objective) for value, result in (("0.65", 100), ("0.70", 110), ("0.75", 120))]
    choice = choose(trials, objective, "0.70")
    assert (choice.chosen.value, choice.best.value, choice.equal) == (best, best, [])
    assert choice.chosen.chosen
    assert choice.message("0.70") == (
        f"chosen is baseNoiseShare {best}: {best} has the best {objective}, "
        + ("100 (99 to 101)" if best == "0.65" else "120 (119 to 121)")
    )


def test_of_trials_that_cannot_be_told_apart_the_nearest_to_the_recipes_value_is_taken_and_it_is_said() -> None:
    trials = [trial("0.65", 100), trial("0.68", 101), trial("0.71", 101.3), trial("0.75", 130)]
    choice = choose(trials, Objective.FVD, "0.70")
    assert (choice.best.value, choice.chosen.value) == ("0.65", "0.71")
    assert choice.message("0.70") == (
        "chosen is baseNoiseShare 0.71: 0.65 has the best FVD, 100 (99 to 101); 0.68 (101 (100 to 102)) and 0.71 (101.3 (100.3 to"
        " 102.3)) cannot be told from it by the 95 % intervals, and 0.71 is the nearest to the recipe's 0.70"
    )


def test_of_two_that_are_equally_near_the_better_one_is_taken() -> None:
    assert choose([trial("0.65", 100.5), trial("0.75", 100)], Objective.FVD, "0.70").chosen.value == "0.75"
    assert choose([trial("0.65", 100.5), trial("0.75", 100)], Objective.CLIP_SCORE, "0.70").chosen.value == "0.65"


def test_exactly_equal_results_are_a_tie() -> None:
    assert choose([trial("0.65", 100, 0), trial("0.70", 100, 0)], Objective.FVD, "0.70").chosen.value == "0.70"


@pytest.mark.parametrize("lower", [True, False])
def test_a_difference_is_judged_by_the_ends_that_face_each_other(lower: bool) -> None:
    """Of asymmetric intervals (MOVER), and by the root of the summed squares of the two distances."""
    sign = 1 if lower else -1

    def skewed(value: str, middle: float, towards: float, away: float) -> Trial:
        low, high = sorted((middle - towards, middle + away)) if lower else sorted((middle + towards, middle - away))
        return Trial(value=value, metric=Objective.FVD.metric, result=f"{middle}", low=f"{low}", high=f"{high}")

    best = skewed("0.65", 100, 9, 3)  # 3 towards the worse side
    near, far = skewed("0.70", 100 + sign * 4.9, 4, 9), skewed("0.70", 100 + sign * 5.1, 4, 9)  # 4 towards the better side
    assert not is_better(best, near, lower=lower)
    assert is_better(best, far, lower=lower)


def test_a_trial_that_diverged_is_out_of_the_race_and_named() -> None:
    choice = choose([trial("0.65", None), trial("0.70", 120), trial("0.75", None)], Objective.FVD, "0.65")
    assert choice.chosen.value == "0.70"
    assert choice.message("0.65").endswith("; 0.65 and 0.75 diverged")


def test_if_all_diverged_so_has_the_search() -> None:
    with pytest.raises(Failure, match="every trial diverged") as caught:
        choose([trial("0.65", None), trial("0.70", None)], Objective.FVD, "0.70")
    assert caught.value.reason is Reason.DIVERGED
