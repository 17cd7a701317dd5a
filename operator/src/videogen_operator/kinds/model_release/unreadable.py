"""What goes on while a release that takes traffic cannot be read: nothing but to take traffic from the others.

A newer operator has written it, or a CRD of another version let it pass. What it is meant to take is unknown, so the route stays as it is,
and with it all rollouts. A rollback needs no more than the route: the share of the one goes to the other. So it goes on.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import replace
from typing import Any

from videogen_operator.kinds.model_release.facts import Pass, facts_of
from videogen_operator.kinds.model_release.judging.quarantine import Entry
from videogen_operator.kinds.model_release.observed import Observed, Release, release_of, with_rollout
from videogen_operator.kinds.model_release.rollout import Move, absorb, after
from videogen_operator.kinds.model_release.route import IDLE, identity
from videogen_operator.kinds.model_release.rules import step
from videogen_operator.kinds.model_release.states import CANARIES, SERVING, Event, State


def taken_back(context: Pass) -> tuple[dict[str, Release], dict[str, Move]]:
    """All releases, of which only those may have moved whose traffic is taken back, and the standby that takes it."""
    roster, moves = {release.name: release for release in context.observed.releases}, {}
    heir = next((other.name for other in context.observed.unreadable if other.weight and other.ready), "")
    for name, release in sorted(roster.items()):
        if release.rollout.state not in SERVING:
            continue
        facts = facts_of(release, roster, context)
        if release.rollout.state in CANARIES and heir:
            facts = replace(facts, fallback=heir)
        rollout, move = step(release.rollout, release.spec, facts)
        if move is not None and move.event == Event.ROLL_BACK:
            moves[name] = move
            roster[name] = with_rollout(release, rollout)
            standby = roster.get(facts.fallback)
            if standby is not None and standby.rollout.state == State.STANDBY:
                moves[standby.name] = Move(Event.RECALL, "takes all traffic again")
                roster[standby.name] = with_rollout(standby, after(standby.rollout, moves[standby.name], context.inputs.now))
        else:
            roster[name] = with_rollout(release, absorb(release.rollout, release.spec, facts))
    return roster, moves


def heir_of(observed: Observed, roster: Mapping[str, Release]) -> str:
    """Who takes what is taken back: the stable release, or else the one that cannot be read."""
    stable = next((release.name for release in roster.values() if release.rollout.state == State.STABLE), "")
    return stable or next((other.name for other in observed.unreadable if other.weight), "")


def moved(observed: Observed, roster: Mapping[str, Release], quarantine: tuple[Entry, ...]) -> dict[str, Any]:
    """The route as it is, with the shares of those that were rolled back at their heir, and with why in the same write."""
    assert observed.route is not None, "what takes traffic is in a route"
    spec: dict[str, Any] = deepcopy(dict(observed.route["spec"]))
    heir = heir_of(observed, roster)
    backends = [backend for rule in spec["rules"] for backend in rule.get("backendRefs") or []]
    taker = next((backend for backend in backends if release_of(backend) == heir and backend.get("weight", 1)), None)
    for backend in backends:
        release = roster.get(release_of(backend))
        if taker and release and release.rollout.state == State.ROLLED_BACK and backend.get("weight", 1) > IDLE:
            taker["weight"] += backend["weight"] - IDLE
            backend["weight"] = IDLE
    return {**identity(observed, quarantine), "spec": spec}
