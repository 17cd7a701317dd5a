"""Shares of VideoFusion's noise: what a content profile allows, and the rules, as CEL for the API server and as Python for jobs
that came past it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from decimal import Decimal
from enum import StrEnum
from typing import Annotated

from pydantic import StringConstraints

Share = Annotated[str, StringConstraints(pattern=r"^(0(\.[0-9]{1,4})?|1(\.0{1,4})?)$", max_length=6)]
Rules = list[tuple[str, str]]


class ContentProfile(StrEnum):
    """What the videos show; each has a range of base noise shares (`RANGES`)."""

    STANDARD = "Standard"
    HIGH_DETAIL = "HighDetail"
    TEXT_HEAVY = "TextHeavy"
    HIGH_MOTION = "HighMotion"
    STATIC = "Static"


# Lowest and highest base share. HighMotion and Static are known by their residual shares, 0.35-0.45 and 0.20-0.30: the rest is base.
RANGES = {
    ContentProfile.STANDARD: ("0.65", "0.75"),
    ContentProfile.HIGH_DETAIL: ("0.60", "0.70"),
    ContentProfile.TEXT_HEAVY: ("0.75", "0.85"),
    ContentProfile.HIGH_MOTION: ("0.55", "0.65"),
    ContentProfile.STATIC: ("0.70", "0.80"),
}
OUTSIDE = "must lie in the range of contentProfile: " + ", ".join(f"{profile} {low}-{high}" for profile, (low, high) in RANGES.items())


def residual_of(base: str) -> str:
    """The other share of one variance, with as many digits: 0.30 of 0.70."""
    return str(Decimal(1) - Decimal(base))


def number(text: str) -> str:
    """CEL: the number that a share is; what the schema refuses anyway is 0, so that no rule fails on it."""
    return f"({text}.matches('^[0-9]+([.][0-9]+)?$') ? double({text}) : 0.0)"


def within(profile: str, text: str) -> str:
    """CEL: whether a share lies in the profile's range; of a profile that the schema refuses anyway, in any."""
    ranges = [[str(name), low, high] for name, (low, high) in RANGES.items()]
    return f"{ranges}.all(r, r[0] != {profile} || (double(r[1]) <= {number(text)} && {number(text)} <= double(r[2])))"


# Of recipe.videoFusion.
BLOCK_RULES: Rules = [
    (
        f"!has(self.contentProfile) || has(self.baseNoiseShares) || {within('self.contentProfile', 'self.baseNoiseShare')}",
        f"baseNoiseShare {OUTSIDE}",
    ),
    (
        "!has(self.baseNoiseShares) || (self.baseNoiseShare == '0.70' && self.residualNoiseShare == '0.30')",
        "baseNoiseShares tells the share of each frame; leave baseNoiseShare and residualNoiseShare out",
    ),
    (
        "!has(self.baseNoiseShares) || size(self.baseNoiseShares) < 2"
        f" || {number('self.baseNoiseShares[size(self.baseNoiseShares) / 2]')} == 1.0",
        "the share of the base frame, the middle one of baseNoiseShares (number frames / 2, counted from 0), must be 1",
    ),
    (
        "!has(self.baseNoiseShares) || !has(self.contentProfile)"
        f" || self.baseNoiseShares.filter(s, !{within('self.contentProfile', 's')}).size() <= 1",
        f"baseNoiseShares, but for the base frame's, {OUTSIDE}",
    ),
]
# Of a TrainingRun: rule, message, field.
RUN_RULES = (
    (
        "!has(self.spec.recipe.videoFusion.baseNoiseShares)"
        " || size(self.spec.recipe.videoFusion.baseNoiseShares) == self.spec.recipe.frames",
        "recipe.videoFusion.baseNoiseShares must have one share for each of recipe.frames",
        ".spec.recipe.videoFusion.baseNoiseShares",
    ),
)


def in_range(profile: ContentProfile | None, base: str) -> bool:
    """Whether a content profile, if there is one, allows this base share."""
    if profile is None:
        return True
    low, high = RANGES[profile]
    return Decimal(low) <= Decimal(base) <= Decimal(high)


def share_problems(profile: ContentProfile | None, base: str, shares: Sequence[str] | None, frames: int) -> Iterator[str]:
    """What is wrong with the shares of a recipe of `frames` frames, in words; nothing if they are right."""
    if shares is None:
        if not in_range(profile, base):
            yield f"recipe.videoFusion.baseNoiseShare is {base}; it {OUTSIDE}"
        return
    if len(shares) != frames:
        yield f"recipe.videoFusion.baseNoiseShares has {len(shares)} shares; recipe.frames is {frames}, and each frame has one"
        return
    if Decimal(shares[frames // 2]) != 1:
        yield f"recipe.videoFusion.baseNoiseShares[{frames // 2}] is {shares[frames // 2]}; it is the base frame's and must be 1"
    for frame, share in enumerate(shares):
        if frame != frames // 2 and not in_range(profile, share):
            yield f"recipe.videoFusion.baseNoiseShares[{frame}] is {share}; it {OUTSIDE}"
