"""Conditions as a value: built anew each pass, keeping lastTransitionTime where the status did not change."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any


@dataclass(frozen=True, slots=True)
class Wanted:
    """A condition as a plan states it; `when_false=False` leaves an abnormal-true condition out while it is False."""

    type: str
    status: bool | None  # None is Unknown
    reason: str
    message: str = ""
    when_false: bool = True


def merged(observed: Iterable[Mapping[str, Any]], wanted: Iterable[Wanted], generation: int, now: datetime) -> list[dict[str, Any]]:
    """The new list of conditions, sorted by type; times move only where the status flips."""
    before = {condition["type"]: condition for condition in observed}
    return [
        _condition(want, before.get(want.type, {}), generation, now)
        for want in sorted(wanted, key=lambda w: w.type)
        if want.status is not False or want.when_false
    ]


def _condition(want: Wanted, old: Mapping[str, Any], generation: int, now: datetime) -> dict[str, Any]:
    status = {True: "True", False: "False", None: "Unknown"}[want.status]
    kept = old.get("status") == status and old.get("lastTransitionTime")
    return {
        "type": want.type,
        "status": status,
        "reason": want.reason,
        "message": want.message[:2048],
        "observedGeneration": generation,
        "lastTransitionTime": kept or timestamp(now),
    }


def timestamp(moment: datetime) -> str:
    """RFC 3339 in UTC with whole seconds, as Kubernetes writes it."""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
