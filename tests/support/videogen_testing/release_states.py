"""Releases in every state that they come to, as the real plan writes their status in a service that is simulated."""

from collections import defaultdict
from collections.abc import Callable
from copy import deepcopy
from typing import Any

from videogen_operator.kinds.model_release.states import State
from videogen_testing.releases import a_gate, a_release, a_result, a_run
from videogen_testing.service_simulation import Simulation as Service

PACE: dict[str, Any] = {
    "rollout": {"steps": [{"weightPercent": 10, "minimumRequests": 50, "minimumSeconds": 20}], "checkIntervalSeconds": 5},
    "rollback": {"windowSeconds": 100},
    "serving": {"startDeadlineSeconds": 40},
}
OLD, NEW = "1.0.0", "1.1.0"


def service(**spec: Any) -> Service:
    """1.0.0 is stable, and 1.1.0 was just made."""
    made = Service(a_release(OLD, **PACE))
    made.until(OLD, "Stable")
    made.put(a_release(NEW, at=made.now, **PACE, **spec))
    return made


def a_rollout_that_is_held_and_promoted(see: Callable[[Service], None]) -> None:
    made = service()
    see(made)
    for state in ("Starting", "Canary"):
        made.until(NEW, state)
        see(made)
    made.request(NEW, "hold@1")
    made.until(NEW, "Held")
    see(made)
    made.request(NEW, "resume@1")
    for version, state in ((NEW, "Stable"), (OLD, "Standby"), (OLD, "Superseded")):
        made.until(version, state)
        see(made)
    made.tick(8)
    see(made)


def gates_that_wait_and_fail(see: Callable[[Service], None]) -> None:
    made = service(gates=[a_gate()], lineage={"run": "training"})
    made.until(NEW, "Gating")
    see(made)
    made.put(a_run(digest=a_release(NEW)["spec"]["artifact"]["digest"], results=[a_result(value="900")], ended="True"))
    made.until(NEW, "Rejected")
    see(made)


def a_release_that_does_not_start_and_one_that_waits_for_it(see: Callable[[Service], None]) -> None:
    made = service()
    made.broken.add(NEW)
    made.until(NEW, "Starting")
    made.put(a_release("1.2.0", at=made.now, **PACE))
    made.tick()
    see(made)
    made.until(NEW, "Failed")
    see(made)


def traffic_that_is_taken_back(see: Callable[[Service], None], verb: str = "abort", state: str = "RolledBack") -> None:
    made = service()
    made.until(NEW, "Canary")
    made.request(NEW, f"{verb}@1")
    made.until(NEW, state)
    see(made)


def a_withdrawal(see: Callable[[Service], None]) -> None:
    traffic_that_is_taken_back(see, "withdraw", "Withdrawn")


STORIES = (
    a_rollout_that_is_held_and_promoted,
    gates_that_wait_and_fail,
    a_release_that_does_not_start_and_one_that_waits_for_it,
    traffic_that_is_taken_back,
    a_withdrawal,
)


def in_each_state() -> dict[State, list[dict[str, Any]]]:
    """Releases as they are in each state that lasts."""
    seen: dict[State, list[dict[str, Any]]] = defaultdict(list)

    def see(made: Service) -> None:
        for version, item in made.releases().items():
            seen[State(made.state(version))].append(deepcopy(item))

    for story in STORIES:
        story(see)
    return seen
