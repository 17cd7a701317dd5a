"""The states of a release in its service, and the only moves between them.

Theory of operation. All releases of a service share 100 % of its traffic. At any time at most one of them is Stable
(it takes what nobody else takes), at most one is the candidate (Starting, Canary or Held), and at most one is the
Standby: the release that was Stable before, with its pods still running, so that going back is one write of the
route. Everybody else waits (Pending, Gating, Rejected, Queued) or is done (Superseded, RolledBack, Withdrawn, Failed).

    Pending -> Gating -> Queued -> Starting -> Canary -> Stable -> Standby -> Superseded
                 |  ^                 |        |    ^      |          |
               Rejected             Failed    Held--'      |        (recall) -> Stable
                                               '-----------'--> RolledBack

A person takes any of them to Withdrawn, also the only one that serves, and back by a retry.

Each pass takes at most one step of each release: first the newest measurements are absorbed into the value, then the
first rule with a verdict moves it. So nothing skips an observation: a move is written to the status, and the next
pass sees the world with it. The rules see the other releases only as facts (is there a stable one? one that could
take the traffic back?); the caller steps the candidate first, then the stable, then the standby, then the waiting
ones, so that a promotion or a rollback moves everybody concerned within one pass.

What is remembered is what cannot be observed again. Weights are not: they follow from the states and the ready pods
(traffic.py). A rollback is, in the route's annotation, written by the same request as the weights (judging/quarantine.py):
an operator that dies before it wrote the status finds it there (`finish_rollback`).

The rules that choose a move are in rules.py. Not here: where facts come from (facts.py, checks.py, eligibility.py)
and what objects a state needs (objects.py, route.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from videogen_operator.rules import IllegalMoveError


class State(StrEnum):
    """Where a release is on its way through the service."""

    PENDING = "Pending"  # not looked at yet
    GATING = "Gating"  # waits for something that may still come: a run's evaluation, a claim
    REJECTED = "Rejected"  # a gate failed, the artifact is another one, its digest is quarantined, or a later version is stable
    QUEUED = "Queued"  # may start, once no other release is a candidate and there is room
    STARTING = "Starting"  # its pods are being made ready; no traffic yet
    CANARY = "Canary"  # takes the weight of its step
    HELD = "Held"  # a canary that a person holds at its step
    STABLE = "Stable"  # takes all traffic that no canary takes
    STANDBY = "Standby"  # was stable; its pods are kept for a rollback
    SUPERSEDED = "Superseded"  # replaced; its pods are gone
    ROLLED_BACK = "RolledBack"  # its traffic was taken back; its digest is quarantined if two signals blame it (judging/judgement.py)
    WITHDRAWN = "Withdrawn"  # a person took it out of the service, or out of the race before it took traffic
    FAILED = "Failed"  # its pods never became ready


class Event(StrEnum):
    """What can happen to a release."""

    WAIT = "Wait"
    REJECT = "Reject"
    ADMIT = "Admit"
    OVERTAKE = "Overtake"
    START = "Start"
    GIVE_UP = "GiveUp"
    REQUEUE = "Requeue"
    TAKE_TRAFFIC = "TakeTraffic"
    ADVANCE = "Advance"
    HOLD = "Hold"
    RESUME = "Resume"
    TAKE_OVER = "TakeOver"
    YIELD = "Yield"
    RECALL = "Recall"
    RETIRE = "Retire"
    ROLL_BACK = "RollBack"
    WITHDRAW = "Withdraw"
    BAR = "Bar"
    RETRY = "Retry"


_S, _E = State, Event
_MOVES: Mapping[State, Mapping[Event, State]] = {
    _S.PENDING: {
        _E.WAIT: _S.GATING, _E.REJECT: _S.REJECTED, _E.ADMIT: _S.QUEUED, _E.OVERTAKE: _S.SUPERSEDED, _E.ROLL_BACK: _S.ROLLED_BACK,
        _E.TAKE_OVER: _S.STABLE,  # adopted: the route already gives it all traffic
    },
    _S.GATING: {_E.REJECT: _S.REJECTED, _E.ADMIT: _S.QUEUED, _E.OVERTAKE: _S.SUPERSEDED},
    _S.REJECTED: {_E.WAIT: _S.GATING, _E.ADMIT: _S.QUEUED, _E.RETRY: _S.QUEUED},
    _S.QUEUED: {_E.WAIT: _S.GATING, _E.REJECT: _S.REJECTED, _E.OVERTAKE: _S.SUPERSEDED, _E.START: _S.STARTING},
    _S.STARTING: {
        _E.TAKE_TRAFFIC: _S.CANARY, _E.TAKE_OVER: _S.STABLE, _E.GIVE_UP: _S.FAILED, _E.REJECT: _S.REJECTED, _E.REQUEUE: _S.QUEUED,
    },
    _S.CANARY: {_E.ADVANCE: _S.CANARY, _E.HOLD: _S.HELD, _E.TAKE_OVER: _S.STABLE, _E.ROLL_BACK: _S.ROLLED_BACK},
    _S.HELD: {_E.RESUME: _S.CANARY, _E.TAKE_OVER: _S.STABLE, _E.ROLL_BACK: _S.ROLLED_BACK},
    _S.STABLE: {_E.YIELD: _S.STANDBY, _E.ROLL_BACK: _S.ROLLED_BACK},
    _S.STANDBY: {_E.RECALL: _S.STABLE, _E.RETIRE: _S.SUPERSEDED},
    _S.SUPERSEDED: {_E.RETRY: _S.QUEUED},
    _S.ROLLED_BACK: {_E.RETRY: _S.QUEUED, _E.BAR: _S.ROLLED_BACK},
    _S.WITHDRAWN: {_E.RETRY: _S.QUEUED, _E.BAR: _S.WITHDRAWN},
    _S.FAILED: {_E.RETRY: _S.QUEUED},
}  # fmt: skip

WAITING = frozenset({State.PENDING, State.GATING, State.REJECTED, State.QUEUED})
CANARIES = frozenset({State.CANARY, State.HELD})
CANDIDATES = frozenset({State.STARTING, State.CANARY, State.HELD})
SERVING = frozenset({State.CANARY, State.HELD, State.STABLE})
WARM = frozenset({State.STARTING, State.CANARY, State.HELD, State.STABLE, State.STANDBY})  # their pods shall run
RETRIABLE = frozenset({State.REJECTED, State.SUPERSEDED, State.ROLLED_BACK, State.WITHDRAWN, State.FAILED})
WITHDRAWABLE = frozenset(State) - {State.ROLLED_BACK, State.WITHDRAWN}  # what a person may take out of the service or of the race
BARRABLE = frozenset(State) - SERVING  # a person may bar the digest; of those that serve, the traffic is taken back first
DRAINING = frozenset({State.ROLLED_BACK, State.WITHDRAWN, State.SUPERSEDED, State.QUEUED})  # what they had taken may still last

TRANSITIONS: Mapping[State, Mapping[Event, State]] = {
    state: {
        **moves,
        **({_E.WITHDRAW: _S.WITHDRAWN} if state in WITHDRAWABLE else {}),
        **({_E.BAR: _S.WITHDRAWN} if state in BARRABLE & WITHDRAWABLE else {}),
    }
    for state, moves in _MOVES.items()
}


def moved(state: State, event: Event) -> State:
    """The state after an event. Raises IllegalMoveError if the table does not have it."""
    try:
        return TRANSITIONS[state][event]
    except KeyError:
        accepted = ", ".join(TRANSITIONS[state]) or "nothing"
        raise IllegalMoveError(f"rollout: event {event} in state {state}; accepted there: {accepted}") from None
