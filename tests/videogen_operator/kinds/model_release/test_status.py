"""What a status says, as a table: a state and what is known beside it, and then its conditions, its STATUS, and how kstatus waits."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from videogen_api.model_release import Reason, RollbackRecord
from videogen_operator.kinds.model_release.observed import Release
from videogen_operator.kinds.model_release.rollout import Facts, Obstacle, Trigger
from videogen_operator.kinds.model_release.states import Event, State
from videogen_operator.kinds.model_release.status import View, status
from videogen_testing.kstatus import kstatus
from videogen_testing.releases import START, a_deployment, a_release, digest_of, name_of

OLD = name_of("1.0.0")
GATE = Obstacle(Reason.GATE_FAILED, "FVD is 900 and must be < 200", Event.REJECT)
COMING = Obstacle(Reason.GATES_PENDING, "waits for the evaluation", Event.WAIT)
RECORD = RollbackRecord(
    reason=Reason.ROLLED_BACK_ALERT, time="2026-11-02T09:00:00Z", digest=digest_of("1.1.0"), quarantined=False, judgement="an alert alone"
)
FAILED = {"failedChecks": 1, "verdicts": [{"name": "errors", "verdict": "Failed", "message": "error ratio 0.5"}]}
DOUBTFUL = {"verdicts": [{"name": "errors", "verdict": "Inconclusive", "message": "too few in the window"}]}
LOST = {"podsLostTime": "2026-11-02T09:00:00Z"}
NO_ROUTE = {"route_problem": "Gateway a/b does not exist"}
WORKS, DONE, FAILS = "InProgress", "Current", "Failed"

# A sentence; state, the rest of the rollout, facts; STATUS, kstatus, conditions that are True, and words of Ready's message.
Row = tuple[str, State, dict[str, Any], dict[str, Any], str, str, set[str], str]
ROWS: list[Row] = [
    ("one that was just made", State.PENDING, {}, {}, "Pending", WORKS, {"Reconciling"}, "about to be queued"),
    ("one that waits for its run", State.GATING, {}, {"obstacle": COMING}, "GatesPending", WORKS, {"Reconciling"}, "waits for"),
    ("one whose gate failed", State.REJECTED, {}, {"obstacle": GATE}, "GateFailed", FAILS, {"Stalled"}, "FVD is 900"),
    ("one without its turn", State.QUEUED, {}, {}, "InsufficientCapacity", WORKS, {"Reconciling"}, "no room"),
    ("one that starts", State.STARTING, {}, {}, "Starting", WORKS, {"Reconciling"}, "0 of 2 pods are ready"),
    ("one without a gateway", State.STARTING, {}, NO_ROUTE, "GatewayNotFound", WORKS, {"Reconciling"}, "does not exist"),
    ("a canary is not ready", State.CANARY, {}, {"ready": 2}, "Canary", WORKS, {"Reconciling"}, "step 1 of 2"),
    ("nor one that is held", State.HELD, {}, {"ready": 2}, "Held", WORKS, {"Reconciling"}, "held on request"),
    ("nor one whose checks know nothing", State.CANARY, DOUBTFUL, {"ready": 2}, "Canary", WORKS, {"Reconciling"}, "too few in the window"),
    ("a stable one is ready", State.STABLE, {}, {"ready": 2}, "Stable", DONE, {"Ready"}, "of standard"),
    ("with its fallback", State.STABLE, {}, {"fallback": OLD}, "Stable", DONE, {"Ready"}, f"{OLD} is kept for a rollback"),
    ("its checks fail", State.STABLE, FAILED, {}, "Stable", DONE, {"Ready", "ChecksFailing"}, "error ratio 0.5"),
    ("its policy is another's", State.STABLE, {}, {"policy_problem": "taken"}, "Stable", DONE, {"Ready", "PolicyConflict"}, ""),
    ("without pods it is not", State.STABLE, LOST, {}, "PodsLost", WORKS, {"Reconciling"}, "no other release can take over"),
    ("nor without a gateway", State.STABLE, {}, NO_ROUTE, "GatewayNotFound", WORKS, {"Reconciling"}, "does not exist"),
    ("a standby is ready, too", State.STANDBY, {}, {"window_end": START}, "Standby", DONE, {"Ready"}, "until 2026-11-02T09:00:00Z"),
    ("what was replaced is ready for nothing", State.SUPERSEDED, {}, {}, "Superseded", DONE, set(), ""),
    (
        "STATUS says what it is, and not why",
        State.ROLLED_BACK, {"reason": "Alert", "message": "alert Slow"}, {}, "RolledBack", FAILS, {"RolledBack", "Stalled"}, "an alert alone",
    ),
    ("what was withdrawn leaves nobody", State.WITHDRAWN, {}, {}, "Withdrawn", FAILS, {"Stalled"}, "which refuses requests"),
    ("unless another one serves", State.WITHDRAWN, {}, {"stable": OLD}, "Withdrawn", FAILS, {"Stalled"}, "retry@<id> brings it back"),
    ("what never started", State.FAILED, {"reason": "ImageNotFound"}, {}, "ImageNotFound", FAILS, {"Stalled"}, "publish a better version"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("sentence", "state", "rollout", "known", "shown", "waiter", "true", "words"), ROWS, ids=[row[0].replace(" ", "-") for row in ROWS]
)
def test_what_the_status_says(
    one: Callable[..., Release],
    sentence: str,
    state: State,
    rollout: dict[str, Any],
    known: dict[str, Any],
    shown: str,
    waiter: str,
    true: set[str],
    words: str,
) -> None:
    manifest = a_release("1.1.0", status={"rollout": {"state": state.value} | rollout})
    release = one(manifest, a_deployment(name_of("1.1.0")) | {"status": {"readyReplicas": 2 if "Ready" in true else 0}})
    object.__setattr__(release, "weight", 100)  # as the route says
    no_room = Trigger(Reason.INSUFFICIENT_CAPACITY, "there is no room")
    facts = Facts(now=START + timedelta(seconds=30), **known)
    back = RECORD if state == State.ROLLED_BACK else None
    found = status(View(release=release, facts=facts, waits_for=no_room, rollback=back, answered=""))
    conditions = {condition["type"]: condition for condition in found["conditions"]}
    assert {kind for kind, condition in conditions.items() if condition["status"] == "True"} == true, sentence
    assert (found["summary"]["status"], kstatus(manifest | {"status": found})) == (shown, waiter), sentence
    assert words in conditions.get("Ready", {}).get("message", ""), sentence


def test_every_state_has_a_row() -> None:
    assert {row[1] for row in ROWS} == set(State)


def test_what_took_the_traffic_back_is_the_reason_of_rolled_back(one: Callable[..., Release]) -> None:
    release = one(a_release(status={"rollout": {"state": "RolledBack", "reason": "Alert", "message": "alert Slow"}}))
    found = status(View(release=release, facts=Facts(now=START), waits_for=None, rollback=RECORD, answered=""))
    (condition,) = (one for one in found["conditions"] if one["type"] == "RolledBack")
    assert (condition["reason"], condition["message"]) == ("Alert", "alert Slow")
