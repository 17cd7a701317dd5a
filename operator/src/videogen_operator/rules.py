"""What rules and state machines of all kinds have in common: the form of a finding, and the error of a move that no table has."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, TypeVar

R = TypeVar("R", bound=StrEnum)


@dataclass(frozen=True)  # without slots, for which a frozen generic class fails
class Finding(Generic[R]):
    """A rule's verdict on what stands in the way or calls for something: a reason of the kind's vocabulary, and the same for a person."""

    reason: R
    message: str


class IllegalMoveError(ValueError):
    """The table of transitions has no such move: a rule and the table disagree, which is a bug."""
