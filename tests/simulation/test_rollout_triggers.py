"""Every trigger of a rollback in every state of a rollout: what happens, as a golden transcript, and at once."""

from collections.abc import Callable
from copy import deepcopy
from functools import cache

import pytest

from videogen_testing.releases import a_gate, a_release, a_result, a_run, an_alert, name_of
from videogen_testing.service_simulation import Crashed, Simulation

ROLLOUT = {
    "steps": [
        {"weightPercent": 10, "minimumRequests": 50, "minimumSeconds": 20},
        {"weightPercent": 50, "minimumRequests": 200, "minimumSeconds": 20},
    ],
    "checks": [
        {"name": "latency", "metric": "LatencyP95Seconds", "maximum": "10", "maximumRatioToStable": "1.5", "windowSeconds": 20},
        {"name": "errors", "metric": "ErrorRatio", "maximum": "0.05", "windowSeconds": 20},
    ],
    "checkIntervalSeconds": 5,
}
ROLLBACK = {"windowSeconds": 100}
SERVING = {"startDeadlineSeconds": 40}
OLD, NEW = "1.0.0", "1.1.0"


def two_releases(seed: int | None = None) -> Simulation:
    """1.0.0 is stable, and 1.1.0 was just made."""
    simulation = Simulation(a_release(OLD, rollout=ROLLOUT, rollback=ROLLBACK, serving=SERVING), seed=seed)
    simulation.until(OLD, "Stable")
    simulation.tick(5)
    simulation.put(a_release(NEW, at=simulation.now, rollout=ROLLOUT, rollback=ROLLBACK, serving=SERVING))
    return simulation


@cache
def prepared(state: Callable[[Simulation], None], seed: int | None = None) -> Simulation:
    simulation = two_releases(seed)
    state(simulation)
    return simulation


def at(state: Callable[[Simulation], None], seed: int | None = None) -> Simulation:
    """A simulation that has come to a state, for this test alone."""
    return deepcopy(prepared(state, seed))


def gating(simulation: Simulation) -> None:
    simulation.put(a_release(NEW, at=simulation.now, gates=[a_gate()], lineage={"run": "training"}))
    simulation.until(NEW, "Gating")


def rejected(simulation: Simulation) -> None:
    digest = a_release(NEW)["spec"]["artifact"]["digest"]
    simulation.put(a_run(digest=digest, results=[a_result(value="900")], ended="True"))
    simulation.put(a_release(NEW, at=simulation.now, gates=[a_gate()], lineage={"run": "training"}))
    simulation.until(NEW, "Rejected")


def queued(simulation: Simulation) -> None:
    simulation.put(a_release("1.0.5", at=simulation.now, rollout=ROLLOUT, rollback=ROLLBACK, serving=SERVING))
    simulation.until("1.0.5", "Canary")
    simulation.request("1.0.5", "hold@1")
    simulation.tick()
    assert simulation.state(NEW) == "Queued"


def failed(simulation: Simulation) -> None:
    simulation.broken.add(NEW)
    simulation.until(NEW, "Failed")


def standby(simulation: Simulation) -> None:
    simulation.until(NEW, "Stable")
    simulation.put(a_release("1.2.0", at=simulation.now, rollout=ROLLOUT, rollback=ROLLBACK, serving=SERVING))
    simulation.until(NEW, "Standby")


def rolled_back(simulation: Simulation) -> None:
    first_step(simulation)
    simulation.request(NEW, "abort@1")
    simulation.until(NEW, "RolledBack")
    simulation.tick(10)


def starting(simulation: Simulation) -> None:
    simulation.until(NEW, "Starting")


def first_step(simulation: Simulation) -> None:
    simulation.until(NEW, "Canary")
    simulation.tick()


def second_step(simulation: Simulation) -> None:
    simulation.until(NEW, "Canary")
    while simulation.weights()[NEW] < 50:
        simulation.tick()


def held(simulation: Simulation) -> None:
    first_step(simulation)
    simulation.request(NEW, "hold@1")
    simulation.until(NEW, "Held")


def stable_in_window(simulation: Simulation) -> None:
    simulation.until(NEW, "Stable")
    simulation.tick(4)


def stable_after_window(simulation: Simulation) -> None:
    simulation.until(OLD, "Superseded")
    simulation.tick(8)


def check(simulation: Simulation) -> None:
    simulation.say(f"{NEW} becomes slow")
    simulation.latency[NEW] = 25.0


def alert(simulation: Simulation) -> None:
    simulation.say(f"{NEW} becomes slow, and an alert names it")
    simulation.latency[NEW] = 25.0
    simulation.run_users()
    simulation.alerts.append(an_alert(name_of(NEW), at=simulation.now))


def abort(simulation: Simulation) -> None:
    simulation.request(NEW, "abort@7")


def quarantine(simulation: Simulation) -> None:
    simulation.request(NEW, "quarantine@7")


def withdraw(simulation: Simulation) -> None:
    simulation.request(NEW, "withdraw@7")


def pods(simulation: Simulation) -> None:
    simulation.say(f"{NEW} loses its pods for good, as when its nodes are gone")
    simulation.broken.add(NEW)


def crash(simulation: Simulation) -> None:
    simulation.say(f"the servers of {NEW} run out of memory")
    simulation.crashed[NEW] = 137


STATES = [
    gating, rejected, queued, starting, failed, first_step, second_step, held,
    stable_in_window, stable_after_window, standby, rolled_back,
]  # fmt: skip
TRIGGERS = [check, alert, abort, quarantine, withdraw, pods, crash]
ROLLS_BACK = {first_step, second_step, held, stable_in_window}  # in the others there is no traffic, or nobody to give it to
BACK = {(trigger, state) for trigger in TRIGGERS for state in ROLLS_BACK if trigger is not withdraw} | {
    (check, starting),
    (alert, starting),
}
BACK |= {(trigger, rolled_back) for trigger in TRIGGERS}
OUT = {(withdraw, state) for state in STATES if state is not rolled_back} | {(abort, state) for state in (gating, queued, starting)}
OUT |= {(quarantine, state) for state in (gating, rejected, queued, starting, failed, standby)}
ENDS = dict.fromkeys(BACK, "RolledBack") | dict.fromkeys(OUT, "Withdrawn")


@pytest.mark.parametrize("state", STATES, ids=lambda state: state.__name__)
@pytest.mark.parametrize("trigger", TRIGGERS, ids=lambda trigger: trigger.__name__)
def test_transcript(
    trigger: Callable[[Simulation], None], state: Callable[[Simulation], None], golden: Callable[[str, list[str]], None]
) -> None:
    simulation = at(state)
    simulation.transcript.clear()
    simulation.transcript += simulation.table()
    trigger(simulation)
    simulation.tick(15)
    answers = [f"answer to the alert: {answer}" for answer in simulation.answers.values()]
    golden(f"rollout_{trigger.__name__}_{state.__name__}", [*simulation.transcript, *answers, *simulation.table()])
    assert_end(simulation, trigger, state)


def assert_end(simulation: Simulation, trigger: Callable[[Simulation], None], state: Callable[[Simulation], None]) -> None:
    """A trigger takes the release to where it belongs, and no other one does."""
    end = simulation.state(NEW)
    assert (end if end in {"RolledBack", "Withdrawn"} else None) == ENDS.get((trigger, state))


@pytest.mark.parametrize("state", [state for state in STATES if state in ROLLS_BACK], ids=lambda state: state.__name__)
@pytest.mark.parametrize("trigger", [alert, abort, quarantine, withdraw], ids=lambda trigger: trigger.__name__)
def test_a_rollback_takes_one_pass_and_its_route_comes_first(
    trigger: Callable[[Simulation], None], state: Callable[[Simulation], None]
) -> None:
    simulation = at(state)
    simulation.settle()
    trigger(simulation)
    for (kind, _, _), item in simulation.objects.items():
        if kind == "Deployment":
            item["spec"]["replicas"] = 1  # somebody has changed them, so that they are to be written as well
    simulation.writes_until_crash = 1  # only the first write of the pass is carried out
    with pytest.raises(Crashed):
        simulation.pass_once()
    assert simulation.weights()[OLD] == 100
    assert simulation.weights().get(NEW, 0) == 0


@pytest.mark.parametrize("writes", range(4))
@pytest.mark.parametrize("state", STATES, ids=lambda state: state.__name__)
@pytest.mark.parametrize("trigger", TRIGGERS, ids=lambda trigger: trigger.__name__)
def test_an_operator_that_dies_after_any_write_ends_in_the_same_state(
    trigger: Callable[[Simulation], None], state: Callable[[Simulation], None], writes: int
) -> None:
    """An alert is delivered once more only while it is unanswered, as Alertmanager does after a broken connection."""
    ends = []
    for crash in (None, writes):
        simulation = at(state)
        trigger(simulation)
        simulation.writes_until_crash = crash
        try:
            simulation.tick(3)
        except Crashed:
            simulation.writes_until_crash = None
            if simulation.weights().get(NEW, 0) == 0:
                simulation.alerts.clear()  # even if it is never delivered again
            simulation.settle()
        simulation.writes_until_crash = None
        simulation.tick(15)
        ends.append({version: (simulation.state(version), simulation.weights().get(version, 0)) for version in (OLD, NEW)})
    assert ends[0] == ends[1]


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("state", STATES, ids=lambda state: state.__name__)
@pytest.mark.parametrize("trigger", TRIGGERS, ids=lambda trigger: trigger.__name__)
def test_invariants_hold_in_any_order_of_events(
    trigger: Callable[[Simulation], None], state: Callable[[Simulation], None], seed: int
) -> None:
    simulation = at(state, seed)
    trigger(simulation)
    simulation.tick(15)
    assert_end(simulation, trigger, state)
