"""Shares of the noise: scenarios and their ranges, and what a Tune phase puts into a recipe."""

import re
from decimal import Decimal

import pytest

from videogen_api.noise_shares import BaseScenario, ResidualScenario, outside, problems_of_frames, residual_of
from videogen_api.recipe import Recipe, Resolution, VideoFusion
from videogen_api.tuning import TunedParameter, TuningParameter, applied

RECIPE = Recipe(resolution=Resolution(height=16, width=16), global_batch_size=1, steps=1)
BASE, RESIDUAL = BaseScenario, ResidualScenario
# R-LAM: the schedule's two tables, as base shares; what both tables allow where two are named.
RANGES: list[tuple[BaseScenario | None, ResidualScenario | None, str, str]] = [
    (None, None, "0.65", "0.75"),
    (BASE.STANDARD, None, "0.65", "0.75"),
    (BASE.HIGH_DETAIL, None, "0.60", "0.70"),
    (BASE.TEXT_HEAVY, None, "0.75", "0.85"),
    (None, RESIDUAL.STANDARD, "0.65", "0.75"),
    (None, RESIDUAL.HIGH_MOTION, "0.55", "0.65"),
    (None, RESIDUAL.STATIC, "0.70", "0.80"),
    (BASE.TEXT_HEAVY, RESIDUAL.STATIC, "0.75", "0.80"),
    (BASE.HIGH_DETAIL, RESIDUAL.HIGH_MOTION, "0.60", "0.65"),
]


@pytest.mark.parametrize("base, residual, low, high", RANGES)
def test_scenarios_take_both_ends_of_their_range_and_nothing_beyond(
    base: BaseScenario | None, residual: ResidualScenario | None, low: str, high: str
) -> None:
    assert outside(low, base, residual) == outside(high, base, residual) == ""
    for share in (Decimal(low) - Decimal("0.0001"), Decimal(high) + Decimal("0.0001")):
        assert f"must lie in {low}-{high}" in outside(str(share), base, residual)


def test_an_experiment_takes_any_share() -> None:
    assert outside("0", BASE.EXPERIMENTAL, None) == outside("1", BASE.EXPERIMENTAL, None) == ""


def test_two_scenarios_without_a_share_in_common_are_told_apart_from_a_wrong_share() -> None:
    assert "have no share in common" in outside("0.75", BASE.TEXT_HEAVY, RESIDUAL.HIGH_MOTION)


SHARES: dict[str, tuple[list[str], str]] = {
    "too few": (["0.7", "1", "0.7"], r"has 3 shares; recipe.frames is 4"),
    "a base frame with noise of its own": (["0.7", "0.7", "0.9", "0.7"], r"\[2\] is 0.9; .*must be 1"),
    "one outside the range": (["0.7", "0.76", "1", "0.7"], r"\[1\] is 0.76; it must lie in 0.65-0.75, the range of baseScenario Standard"),
}


@pytest.mark.parametrize("name", SHARES)
def test_shares_of_frames_are_refused_for(name: str) -> None:
    shares, message = SHARES[name]
    (said,) = problems_of_frames(shares, 4, None, None)
    assert re.search(message, said)


def test_shares_of_frames_within_the_range_are_taken() -> None:
    assert list(problems_of_frames(["0.75", "0.80", "1", "0.85"], 4, BASE.TEXT_HEAVY, None)) == []


@pytest.mark.parametrize("base, residual", [("0.70", "0.30"), ("0.65", "0.35"), ("0.7", "0.3"), ("1", "0"), ("0.6625", "0.3375")])
def test_base_and_residual_share_are_one_variance(base: str, residual: str) -> None:
    assert residual_of(base) == residual


def test_a_share_that_is_left_out_is_the_rest_of_the_other_and_else_the_usual_one() -> None:
    assert (VideoFusion().base_share, VideoFusion(residual_noise_share="0.40").base_share) == ("0.70", "0.60")
    assert VideoFusion(base_noise_share="0.8").base_share == "0.8"


def test_what_was_tuned_replaces_the_share_of_the_recipe_and_nothing_else() -> None:
    tuned = applied(RECIPE, [TunedParameter(parameter=TuningParameter.BASE_NOISE_SHARE, value="0.65")])
    assert (tuned.fusion.base_noise_share, tuned.fusion.residual_noise_share) == ("0.65", "0.35")
    assert tuned.model_copy(update={"video_fusion": None}) == RECIPE
    assert Recipe.model_validate(tuned.wire()) == tuned
    assert applied(RECIPE, []) == RECIPE
