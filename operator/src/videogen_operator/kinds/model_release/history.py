"""The history of a release's traffic: when, how much, why, and by whom it was decided."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from videogen_api.model_release import Reason, TrafficChange
from videogen_operator.conditions import timestamp
from videogen_operator.kinds.model_release.rollout import Move
from videogen_operator.kinds.model_release.states import Event

LENGTH = 20  # newest changes; a rollout with ten steps and its rollback are twelve
OPERATOR, ALERT, CHECKS = "operator", "alert", "checks"
# Moves that change the split, the one that the others follow from first.
_DECIDE = (Event.ROLL_BACK, Event.WITHDRAW, Event.BAR, Event.TAKE_OVER, Event.TAKE_TRAFFIC, Event.ADVANCE, Event.RECALL)


@dataclass(frozen=True, slots=True)
class Cause:
    """What changed the split in this pass."""

    why: str
    by: str


def cause_of(moves: Mapping[str, Move], requests: Mapping[str, str]) -> Cause:
    """The move that decided, or that pods came or went. `requests` are the tokens that this pass answers, by release."""
    decided = [(_DECIDE.index(move.event), name, move) for name, move in moves.items() if move.event in _DECIDE]
    if not decided:
        return Cause("its pods or those of another release became ready, or are no longer", OPERATOR)
    _, name, move = min(decided, key=lambda one: one[:2])
    by = {Reason.ROLLED_BACK_ALERT: ALERT, Reason.ROLLED_BACK_CHECK: CHECKS}.get(move.reason or Reason.PENDING, OPERATOR)
    return Cause(f"{name}: {move.message}", f"request {requests[name]}" if name in requests and by == OPERATOR else by)


def extended(history: Sequence[TrafficChange], weight: int, cause: Cause, now: datetime) -> list[TrafficChange]:
    """The history with this weight, if it is another one than before; nothing before the first traffic."""
    if weight == (history[-1].weight_percent if history else 0):
        return list(history)
    return [*history, TrafficChange(time=timestamp(now), weight_percent=weight, why=cause.why[:512], by=cause.by)][-LENGTH:]
