"""Shares of the noise: content profiles and their ranges, and what a Tune phase puts into a recipe."""

import re
from decimal import Decimal

import pytest

from videogen_api.noise_shares import RANGES, ContentProfile, residual_of, share_problems, within
from videogen_api.recipe import Recipe, Resolution, Space
from videogen_api.tuning import TunedParameter, TuningParameter, applied

RECIPE = Recipe(resolution=Resolution(height=16, width=16), global_batch_size=1, steps=1)
RESIDUAL = {
    ContentProfile.STANDARD: ("0.25", "0.35"),
    ContentProfile.HIGH_MOTION: ("0.35", "0.45"),
    ContentProfile.STATIC: ("0.20", "0.30"),
}


@pytest.mark.parametrize("profile", RESIDUAL)
def test_profiles_known_by_their_residual_share_have_the_base_shares_that_go_with_it(profile: ContentProfile) -> None:
    low, high = RANGES[profile]
    assert (Decimal(1) - Decimal(high), Decimal(1) - Decimal(low)) == tuple(map(Decimal, RESIDUAL[profile]))


def problems(profile: ContentProfile | None, base: str = "0.70", shares: list[str] | None = None, frames: int = 4) -> list[str]:
    return list(share_problems(profile, base, shares, frames))


@pytest.mark.parametrize("profile", ContentProfile)
def test_a_profile_takes_both_ends_of_its_range_and_nothing_beyond(profile: ContentProfile) -> None:
    low, high = map(Decimal, RANGES[profile])
    assert problems(profile, str(low)) == problems(profile, str(high)) == []
    for outside in (low - Decimal("0.0001"), high + Decimal("0.0001")):
        (said,) = problems(profile, str(outside))
        assert f"baseNoiseShare is {outside}" in said
        assert f"{profile} {low}-{high}" in said


def test_without_a_profile_any_share_is_taken() -> None:
    assert problems(None, "0") == problems(None, "1") == []


SHARES: dict[str, tuple[ContentProfile | None, list[str], str]] = {
    "too few": (None, ["0.7", "1", "0.7"], r"has 3 shares; recipe.frames is 4"),
    "a base frame with noise of its own": (None, ["0.7", "0.7", "0.9", "0.7"], r"\[2\] is 0.9; .*must be 1"),
    "one outside the profile's range": (ContentProfile.STANDARD, ["0.7", "0.76", "1", "0.7"], r"\[1\] is 0.76; .*Standard 0.65-0.75"),
}


@pytest.mark.parametrize("name", SHARES)
def test_shares_of_frames_are_refused_for(name: str) -> None:
    profile, shares, message = SHARES[name]
    (said,) = problems(profile, shares=shares)
    assert re.search(message, said)


def test_shares_of_frames_within_the_range_are_taken_and_the_one_share_does_not_count_then() -> None:
    assert problems(ContentProfile.TEXT_HEAVY, "0.70", ["0.75", "0.80", "1", "0.85"]) == []


@pytest.mark.parametrize("base, residual", [("0.70", "0.30"), ("0.65", "0.35"), ("0.7", "0.3"), ("1", "0"), ("0.6625", "0.3375")])
def test_base_and_residual_share_are_one_variance(base: str, residual: str) -> None:
    assert residual_of(base) == residual


def test_what_was_tuned_replaces_the_share_of_the_recipe_and_nothing_else() -> None:
    tuned = applied(RECIPE, [TunedParameter(parameter=TuningParameter.BASE_NOISE_SHARE, value="0.65")])
    assert (tuned.video_fusion.base_noise_share, tuned.video_fusion.residual_noise_share) == ("0.65", "0.35")
    assert tuned.model_copy(update={"video_fusion": RECIPE.video_fusion}) == RECIPE
    assert Recipe.model_validate(tuned.wire()) == tuned
    assert applied(RECIPE, []) == RECIPE


def test_a_recipe_from_before_there_were_profiles_means_what_it_meant() -> None:
    old = {"baseNoiseShare": "0.5", "residualNoiseShare": "0.5", "baseLearningRateScale": "0.1"}
    read = Recipe.model_validate(RECIPE.wire() | {"videoFusion": old}).video_fusion
    assert (read.content_profile, read.base_noise_shares, read.text_guidance, read.space) == (None, None, "1", Space.PIXEL)
    assert read.base_learning_rate_scale == "0.1"


def test_the_rule_for_the_api_server_has_every_profile_and_its_range() -> None:
    rule = within("self.contentProfile", "self.baseNoiseShare")
    assert all(f"['{profile}', '{low}', '{high}']" in rule for profile, (low, high) in RANGES.items())
