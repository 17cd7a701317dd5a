"""The table of moves: complete, and strict."""

import pytest

from videogen_operator.kinds.model_release.states import (
    CANARIES,
    RETRIABLE,
    SERVING,
    TRANSITIONS,
    WAITING,
    WARM,
    Event,
    IllegalMoveError,
    State,
    moved,
)


def test_every_state_can_be_left_and_reached() -> None:
    assert set(TRANSITIONS) == set(State)
    assert all(TRANSITIONS.values())
    assert {target for moves in TRANSITIONS.values() for target in moves.values()} == set(State) - {State.PENDING}


def test_every_event_is_used() -> None:
    assert {event for moves in TRANSITIONS.values() for event in moves} == set(Event)


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("event", Event)
def test_a_move_that_is_not_in_the_table_is_one_clear_error(state: State, event: Event) -> None:
    if event in TRANSITIONS[state]:
        assert moved(state, event) == TRANSITIONS[state][event]
        return
    with pytest.raises(IllegalMoveError, match=f"event {event} in state {state}; accepted there: ") as error:
        moved(state, event)
    assert str(next(iter(TRANSITIONS[state]))) in str(error.value)


def test_whatever_serves_can_be_rolled_back_and_only_that_is_quarantined() -> None:
    for state in SERVING:
        assert moved(state, Event.ROLL_BACK) == State.ROLLED_BACK
    for state in (State.STANDBY, State.SUPERSEDED, State.FAILED, State.REJECTED, State.QUEUED, State.STARTING):
        assert Event.ROLL_BACK not in TRANSITIONS[state]
        assert moved(state, Event.BAR) == moved(state, Event.WITHDRAW) == State.WITHDRAWN


def test_whatever_is_not_out_already_can_be_withdrawn_and_comes_back_only_by_a_retry() -> None:
    out = {State.ROLLED_BACK, State.WITHDRAWN}
    assert {state for state in State if Event.WITHDRAW in TRANSITIONS[state]} == set(State) - out
    for state in out:
        assert {event for event, target in TRANSITIONS[state].items() if target not in out} == {Event.RETRY}


def test_the_groups_of_states_fit_together() -> None:
    assert CANARIES < SERVING < WARM
    assert not WARM & WAITING
    assert not RETRIABLE & WARM
