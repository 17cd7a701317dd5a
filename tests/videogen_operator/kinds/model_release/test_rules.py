"""The rules as a table: a state, what is known, and the one move that follows."""

from datetime import timedelta
from typing import Any

import pytest

from videogen_api.model_release import CheckVerdict, ModelReleaseSpec, Reason, Signal
from videogen_operator.kinds.model_release.requests import VERBS
from videogen_operator.kinds.model_release.rollout import Facts, Obstacle, Rollout, Round, Trigger
from videogen_operator.kinds.model_release.rules import step
from videogen_operator.kinds.model_release.states import BARRABLE, SERVING, WITHDRAWABLE, Event, State
from videogen_testing.releases import START, a_release

CHECK = {"name": "errors", "metric": "ErrorRatio", "maximum": "0.05"}
ROLLOUT = {"steps": [{"weightPercent": 10, "minimumRequests": 5, "minimumSeconds": 10}, {"weightPercent": 50}], "checks": [CHECK]}
SPEC = ModelReleaseSpec.model_validate(a_release(rollout=ROLLOUT)["spec"])
LATER = START + timedelta(seconds=60)
FAILED, PASSED = (
    Round((CheckVerdict.model_validate({"name": "errors", "verdict": verdict, "message": "error ratio"}),), 9)
    for verdict in ("Failed", "Passed")
)
QUARANTINED = Obstacle(Reason.QUARANTINED, "its digest is quarantined", Event.REJECT)
GATE = Obstacle(Reason.GATE_FAILED, "FVD is 900", Event.REJECT)
COMING = Obstacle(Reason.GATES_PENDING, "waits for the evaluation", Event.WAIT)
OLDER = Obstacle(Reason.OLDER_VERSION, "1.2.0 is stable", Event.REJECT)
NO_NODE = Trigger(Reason.START_FAILED, "no pod was ready")
POD = {"ready": 2, "available": 2, "reachable": 2}

Row = tuple[str, State, dict[str, Any], Event | None]
ROWS: list[Row] = [
    ("what was just made waits for its gates", State.PENDING, {"obstacle": COMING}, Event.WAIT),
    ("a failed gate rejects", State.PENDING, {"obstacle": GATE}, Event.REJECT),
    ("nothing in the way admits", State.PENDING, {}, Event.ADMIT),
    ("an operator without memory believes the route", State.PENDING, {"adopted": True}, Event.TAKE_OVER),
    ("a rollback that the route has and the status has not", State.PENDING, {"unfinished": NO_NODE}, Event.ROLL_BACK),
    ("what waits stays while it waits", State.GATING, {"obstacle": COMING}, None),
    ("a later version overtakes", State.GATING, {"obstacle": COMING, "overtaken_by": "1.2.0"}, Event.OVERTAKE),
    ("what is rejected stays while it must", State.REJECTED, {"obstacle": GATE}, None),
    ("and goes on by itself when it need not", State.REJECTED, {}, Event.ADMIT),
    ("no request lifts a gate", State.REJECTED, {"obstacle": GATE, "request": "retry"}, None),
    ("a request lifts a quarantine", State.REJECTED, {"obstacle": QUARANTINED, "request": "retry"}, Event.RETRY),
    ("and takes an older version", State.REJECTED, {"obstacle": OLDER, "request": "retry"}, Event.RETRY),
    ("its turn has come", State.QUEUED, {"may_start": True}, Event.START),
    ("its turn has not come", State.QUEUED, {}, None),
    ("pods are not ready", State.STARTING, {"stable": "1.0.0"}, None),
    ("no node takes its pods", State.STARTING, {"stable": "1.0.0", "unplaced": "no node"}, Event.REQUEUE),
    ("they will never be ready", State.STARTING, {"stable": "1.0.0", "fatal": NO_NODE}, Event.GIVE_UP),
    ("its digest was barred meanwhile", State.STARTING, {"stable": "1.0.0", "obstacle": QUARANTINED}, Event.REJECT),
    ("pods carry the first step", State.STARTING, POD | {"stable": "1.0.0"}, Event.TAKE_TRAFFIC),
    ("but the gateway does not know them", State.STARTING, POD | {"stable": "1.0.0", "reachable": 0}, None),
    ("the gateway has not taken the route", State.STARTING, POD | {"stable": "1.0.0", "route_problem": "no answer"}, None),
    ("nobody else is stable", State.STARTING, POD, Event.TAKE_OVER),
    ("time, requests and checks allow the next step", State.CANARY, POD | {"stable": "1.0.0", "round": PASSED}, Event.ADVANCE),
    ("no round was judged", State.CANARY, POD | {"stable": "1.0.0"}, None),
    ("a held canary stays", State.HELD, POD | {"stable": "1.0.0", "round": PASSED}, None),
    ("a check failed", State.CANARY, POD | {"stable": "1.0.0", "fallback": "1.0.0", "round": FAILED}, Event.ROLL_BACK),
    ("a check failed and nobody can take over", State.CANARY, POD | {"stable": "1.0.0", "round": FAILED}, None),
    ("a failed check of a stable release, with a standby", State.STABLE, POD | {"fallback": "1.0.0", "round": FAILED}, Event.ROLL_BACK),
    ("and without one", State.STABLE, POD | {"round": FAILED}, None),
    (
        "one that fails and is replaced is the standby",
        State.STABLE,
        POD | {"fallback": "1.1.0", "stable": "1.1.0", "outranked": True, "round": FAILED},
        Event.YIELD,
    ),
    ("an alert", State.STABLE, POD | {"fallback": "1.0.0", "alert": "alert Slow"}, Event.ROLL_BACK),
    ("an alert, and nobody can take over", State.STABLE, POD | {"alert": "alert Slow"}, None),
    ("a canary's server crashed", State.CANARY, {"fallback": "1.0.0", "stable": "1.0.0", "crash": "137"}, Event.ROLL_BACK),
    ("a stable release's server crashed just now", State.STABLE, {"fallback": "1.0.0", "crash": "137"}, None),
    ("a canary whose digest is barred", State.CANARY, POD | {"fallback": "1.0.0", "stable": "1.0.0", "barred": "barred"}, Event.ROLL_BACK),
    ("the candidate was promoted", State.STABLE, POD | {"stable": "1.1.0", "outranked": True}, Event.YIELD),
    ("the stable release is gone", State.STANDBY, POD, Event.RECALL),
    ("its window lasts", State.STANDBY, POD | {"stable": "1.1.0", "window_end": LATER + timedelta(seconds=1)}, None),
    ("its window is over", State.STANDBY, POD | {"stable": "1.1.0", "window_end": LATER}, Event.RETIRE),
    ("another try", State.ROLLED_BACK, {"request": "retry"}, Event.RETRY),
    ("of one that was withdrawn, too", State.WITHDRAWN, {"request": "retry"}, Event.RETRY),
    ("what was replaced stays so", State.SUPERSEDED, {}, None),
]


def moved(state: State, **known: Any) -> Event | None:
    rollout = Rollout(state=state, since=START, traffic_since=START if state in SERVING else None, lost=START if "crash" in known else None)
    _, move = step(rollout, SPEC, Facts(now=LATER, **known))
    return move.event if move else None


@pytest.mark.parametrize(("sentence", "state", "known", "event"), ROWS, ids=[row[0] for row in ROWS])
def test_the_first_rule_with_a_verdict_moves(sentence: str, state: State, known: dict[str, Any], event: Event | None) -> None:
    assert moved(state, **known) == event, sentence


@pytest.mark.parametrize("state", State)
def test_every_state_can_be_withdrawn_and_barred_without_anybody_who_takes_over(state: State) -> None:
    obstacle = GATE if state in {State.GATING, State.REJECTED} else None
    assert moved(state, request="withdraw", obstacle=obstacle) == (Event.WITHDRAW if state in WITHDRAWABLE else None)
    if state in BARRABLE:
        assert moved(state, request="quarantine", obstacle=obstacle) == Event.BAR


@pytest.mark.parametrize("state", sorted(SERVING))
@pytest.mark.parametrize(("verb", "signals"), [("abort", ()), ("quarantine", (Signal.REQUEST,))])
def test_only_quarantine_blames(state: State, verb: str, signals: tuple[Signal, ...]) -> None:
    facts = Facts(now=LATER, request=verb, fallback="1.0.0", stable="" if state == State.STABLE else "1.0.0", **POD)
    rollout, move = step(Rollout(state=state, since=START, traffic_since=START), SPEC, facts)
    assert move is not None
    assert (rollout.state, move.reason, move.signals) == (State.ROLLED_BACK, Reason.ROLLED_BACK_REQUEST, signals)


def test_every_verb_is_obeyed_by_some_rule_in_each_state_that_takes_it() -> None:
    """What requests.py accepts, the rules do: otherwise a request would be answered and forgotten."""
    for verb, states in VERBS.items():
        for state in states:
            known: dict[str, Any] = {"request": verb, "obstacle": QUARANTINED if state in {State.REJECTED, State.GATING} else None}
            facts = POD | {"fallback": "1.0.0", "stable": "" if state == State.STABLE else "1.0.0"} | known
            assert moved(state, **facts) is not None, (verb, state)
