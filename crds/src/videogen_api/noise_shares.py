"""Shares of VideoFusion's noise: what a scenario allows, and the rules, as CEL for the API server and as Python for jobs that came past it.

There are two tables of scenarios, one of the base noise and one of the residual noise. Both may be named: a share must then suit both.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from enum import StrEnum
from typing import Annotated

from pydantic import StringConstraints

from videogen_api.cel import Rules

Share = Annotated[str, StringConstraints(pattern=r"^(0(\.[0-9]{1,4})?|1(\.0{1,4})?)$", max_length=6)]


class BaseScenario(StrEnum):
    """What the videos show, for the base noise."""

    STANDARD = "Standard"
    HIGH_DETAIL = "HighDetail"
    TEXT_HEAVY = "TextHeavy"
    EXPERIMENTAL = "Experimental"  # any share; such a run releases nothing


class ResidualScenario(StrEnum):
    """How the videos move, for the residual noise."""

    STANDARD = "Standard"
    HIGH_MOTION = "HighMotion"
    STATIC = "Static"


# Teams that approve another share than the stable release has.
BASE_APPROVERS: dict[str, tuple[str, ...]] = {
    BaseScenario.STANDARD: ("ml-lead",),
    BaseScenario.HIGH_DETAIL: ("ml-lead", "content-team"),
    BaseScenario.TEXT_HEAVY: ("ml-lead",),
    BaseScenario.EXPERIMENTAL: ("ml-lead",),
}
RESIDUAL_APPROVERS: dict[str, tuple[str, ...]] = {
    ResidualScenario.STANDARD: ("ml-lead",),
    ResidualScenario.HIGH_MOTION: ("ml-lead", "content-team"),
    ResidualScenario.STATIC: ("ml-lead",),
}
USUAL_SHARE = "0.70"  # of the base noise, where a recipe names neither share
# Lowest and highest share, of the base noise and of the residual noise.
BASE_RANGES: dict[str, tuple[str, str]] = {
    BaseScenario.STANDARD: ("0.65", "0.75"),
    BaseScenario.HIGH_DETAIL: ("0.60", "0.70"),
    BaseScenario.TEXT_HEAVY: ("0.75", "0.85"),
    BaseScenario.EXPERIMENTAL: ("0", "1"),
}
RESIDUAL_RANGES: dict[str, tuple[str, str]] = {
    ResidualScenario.STANDARD: ("0.25", "0.35"),
    ResidualScenario.HIGH_MOTION: ("0.35", "0.45"),
    ResidualScenario.STATIC: ("0.20", "0.30"),
}


def residual_of(base: str) -> str:
    """The other share of one variance, with as many digits: 0.30 of 0.70."""
    return str(Decimal(1) - Decimal(base))


def _table(ranges: Mapping[str, tuple[str, str]]) -> str:
    return ", ".join(f"{name} {low}-{high}" for name, (low, high) in ranges.items())


OUTSIDE = f"must lie in the range of baseScenario: {_table(BASE_RANGES)}; with neither scenario in that of Standard"
OUTSIDE_RESIDUAL = f"must leave a residualNoiseShare in the range of residualScenario: {_table(RESIDUAL_RANGES)}"
CONTRADICTION = "baseScenario TextHeavy and residualScenario HighMotion have no share in common; choose another of one of them"


def number(text: str) -> str:
    """CEL: the number that a share is; what the schema refuses anyway is 0, so that no rule fails on it."""
    return f"({text}.matches('^[0-9]+([.][0-9]+)?$') ? double({text}) : 0.0)"


def _between(low: Decimal, high: Decimal) -> str:
    """CEL: whether the base share s lies there; shares have four decimals, so half of the last one is nobody's."""
    half = Decimal("0.00005")
    return f"({low - half} < s && s < {high + half})"


def _by(field: str, ranges: Mapping[str, tuple[Decimal, Decimal]]) -> str:
    return "(" + " && ".join(f"({field} != '{name}' || {_between(*ends)})" for name, ends in ranges.items()) + ")"


def suits_base(block: str, share: str) -> str:
    """CEL: whether the number `share` suits the base scenario of `block`, a recipe's videoFusion."""
    ranges = {str(name): (Decimal(low), Decimal(high)) for name, (low, high) in BASE_RANGES.items()}
    named, standard = _by(f"{block}.baseScenario", ranges), _between(*ranges["Standard"])
    return f"[{share}].all(s, has({block}.baseScenario) ? {named} : has({block}.residualScenario) || {standard})"


def suits_residual(block: str, share: str) -> str:
    """CEL: whether the rest of the number `share` suits the residual scenario of `block`."""
    ranges = {str(name): (1 - Decimal(high), 1 - Decimal(low)) for name, (low, high) in RESIDUAL_RANGES.items()}
    return f"[{share}].all(s, !has({block}.residualScenario) || {_by(f'{block}.residualScenario', ranges)})"


def suits_standard(share: str) -> str:
    """CEL: whether the number `share` suits a recipe without a videoFusion block."""
    return f"[{share}].all(s, {_between(*map(Decimal, BASE_RANGES[BaseScenario.STANDARD]))})"


_SHARE = (
    f"(has(self.baseNoiseShare) ? {number('self.baseNoiseShare')}"
    f" : has(self.residualNoiseShare) ? 1.0 - {number('self.residualNoiseShare')} : {USUAL_SHARE})"
)

# Of recipe.videoFusion.
BLOCK_RULES: Rules = [
    (
        "!has(self.baseNoiseShare) || !has(self.residualNoiseShare)"
        f" || [{number('self.baseNoiseShare')} + {number('self.residualNoiseShare')}].all(s, s > 0.99995 && s < 1.00005)",
        "baseNoiseShare and residualNoiseShare are shares of one variance and must add up to 1, for example 0.70 and 0.30",
    ),
    (f"has(self.baseNoiseShares) || {suits_base('self', _SHARE)}", f"baseNoiseShare {OUTSIDE}"),
    (f"has(self.baseNoiseShares) || {suits_residual('self', _SHARE)}", f"baseNoiseShare {OUTSIDE_RESIDUAL}"),
    (
        "!has(self.baseScenario) || !has(self.residualScenario)"
        " || self.baseScenario != 'TextHeavy' || self.residualScenario != 'HighMotion'",
        CONTRADICTION,
    ),
    (
        "!has(self.baseNoiseShares) || (!has(self.baseNoiseShare) && !has(self.residualNoiseShare))",
        "baseNoiseShares tells the share of each frame; leave baseNoiseShare and residualNoiseShare out",
    ),
    (
        "!has(self.baseNoiseShares) || size(self.baseNoiseShares) < 2"
        f" || {number('self.baseNoiseShares[size(self.baseNoiseShares) / 2]')} == 1.0",
        "the share of the base frame, the middle one of baseNoiseShares (number frames / 2, counted from 0), must be 1",
    ),
    (
        f"!has(self.baseNoiseShares) || self.baseNoiseShares.filter(f, !{suits_base('self', number('f'))}).size() <= 1",
        f"baseNoiseShares, but for the base frame's, {OUTSIDE}",
    ),
    (
        f"!has(self.baseNoiseShares) || self.baseNoiseShares.filter(f, !{suits_residual('self', number('f'))}).size() <= 1",
        f"baseNoiseShares, but for the base frame's, {OUTSIDE_RESIDUAL}",
    ),
]
# CEL over a TrainingRun's spec, message, field.
RUN_RULES = (
    (
        "!has(recipe.videoFusion) || !has(recipe.videoFusion.baseNoiseShares) || size(recipe.videoFusion.baseNoiseShares) == recipe.frames",
        "must have one share for each of recipe.frames",
        "recipe.videoFusion.baseNoiseShares",
    ),
    (
        "fusion.all(f, !has(f.baseScenario) || f.baseScenario != 'Experimental' || !('Release' in tasks))",
        "a run with videoFusion.baseScenario Experimental has no Release phase; choose the scenario that the release is for",
        "recipe.videoFusion.baseScenario",
    ),
)


def range_of(base: BaseScenario | None, residual: ResidualScenario | None) -> tuple[Decimal, Decimal]:
    """Lowest and highest base share that suits both scenarios, with neither those of Standard; if none does, the first is greater."""
    low, high = Decimal(0), Decimal(1)
    if base or not residual:
        low, high = map(Decimal, BASE_RANGES[base or BaseScenario.STANDARD])
    if residual:
        least, most = map(Decimal, RESIDUAL_RANGES[residual])
        low, high = max(low, 1 - most), min(high, 1 - least)
    return low, high


def approvers(base: BaseScenario | None, residual: ResidualScenario | None) -> tuple[str, ...]:
    """Teams that approve another share in these scenarios, with neither those of Standard."""
    of_base = BASE_APPROVERS[base or BaseScenario.STANDARD] if base or not residual else ()
    return tuple(dict.fromkeys((*of_base, *(RESIDUAL_APPROVERS[residual] if residual else ()))))


def changes_quarterly(base: BaseScenario | None, residual: ResidualScenario | None) -> bool:
    """Whether λ changes once a quarter in these scenarios, with neither those of Standard; in the others it changes as needed."""
    return (base or BaseScenario.STANDARD) == BaseScenario.STANDARD and (residual or ResidualScenario.STANDARD) == ResidualScenario.STANDARD


def are_equal(some: Sequence[str], others: Sequence[str]) -> bool:
    """Whether the shares are the same numbers: 0.7 is 0.70."""
    return [Decimal(one) for one in some] == [Decimal(one) for one in others]


def outside(share: str, base: BaseScenario | None, residual: ResidualScenario | None) -> str:
    """What is wrong with a base share in these scenarios, in words; "" if nothing is."""
    low, high = range_of(base, residual)
    if low > high:
        return CONTRADICTION
    said = [f"{name} {value}" for name, value in (("baseScenario", base), ("residualScenario", residual)) if value]
    return (
        "" if low <= Decimal(share) <= high else f"must lie in {low}-{high}, the range of {' and '.join(said) or 'baseScenario Standard'}"
    )


def problems_of_frames(shares: Sequence[str], frames: int, base: BaseScenario | None, residual: ResidualScenario | None) -> Iterator[str]:
    """What is wrong with the shares of each of `frames` frames, in words; nothing if they are right."""
    if len(shares) != frames:
        yield f"recipe.videoFusion.baseNoiseShares has {len(shares)} shares; recipe.frames is {frames}, and each frame has one"
        return
    if Decimal(shares[frames // 2]) != 1:
        yield f"recipe.videoFusion.baseNoiseShares[{frames // 2}] is {shares[frames // 2]}; it is the base frame's and must be 1"
    for frame, share in enumerate(shares):
        if frame != frames // 2 and (problem := outside(share, base, residual)):
            yield f"recipe.videoFusion.baseNoiseShares[{frame}] is {share}; it {problem}"
