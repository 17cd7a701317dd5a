"""What Argo CD shows of each kind in each state, and what its actions ask for: by its own Lua machine, over what the real plans write."""

from collections.abc import Callable
from copy import deepcopy
from datetime import timedelta
from typing import Any

import pytest

from videogen_api.fine_tune_cycle import ConditionType
from videogen_api.fine_tune_cycle import Reason as CycleReason
from videogen_api.meta import ANNOTATION_REQUEST
from videogen_api.preflight import Problem
from videogen_api.training_run import Reason as RunReason
from videogen_operator.kinds.fine_tune_cycle.plan import RUN_NOW
from videogen_operator.kinds.model_release.requests import VERBS
from videogen_operator.kinds.model_release.states import State
from videogen_operator.plan import Failure
from videogen_testing.argo_cd import Health, acted, action_names, customizations, health, offered
from videogen_testing.cycle_simulation import START, a_cycle
from videogen_testing.cycle_simulation import Simulation as Cycles
from videogen_testing.flux import flux_health
from videogen_testing.kstatus import kstatus
from videogen_testing.release_states import in_each_state
from videogen_testing.run_simulation import Simulation as Run
from videogen_testing.runs import EVALUATE, RELEASE, TRAIN, ended, passed, release_status, running, trained

HEALTHY, PROGRESSING, SUSPENDED, DEGRADED = "Healthy", "Progressing", "Suspended", "Degraded"
RELEASES: dict[State, set[str]] = {
    **{state: {PROGRESSING} for state in (State.PENDING, State.GATING, State.QUEUED, State.STARTING, State.CANARY)},
    State.HELD: {SUSPENDED},
    State.STABLE: {PROGRESSING, HEALTHY},  # it has no traffic yet, or lost its pods; then it serves
    State.STANDBY: {HEALTHY},
    State.SUPERSEDED: {HEALTHY},
    **{state: {DEGRADED} for state in (State.REJECTED, State.ROLLED_BACK, State.WITHDRAWN, State.FAILED)},
}
KSTATUS = {"InProgress": {PROGRESSING, SUSPENDED}, "Current": {HEALTHY}, "Failed": {DEGRADED}}  # what a release is for Flux and Helm
OFFERED = ("promote", "hold", "resume", "abort", "retry")  # of the verbs; the others are for kubectl
LASTING = [state for state in State if state != State.PENDING]


def text(report: Any) -> str:
    return str(report.model_dump_json(by_alias=True, exclude_none=True))


@pytest.fixture(scope="module")
def releases() -> dict[State, list[dict[str, Any]]]:
    return in_each_state()


# Releases -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", LASTING)
def test_the_health_of_a_release(releases: dict[State, list[dict[str, Any]]], state: State) -> None:
    told = health(releases[state])
    assert told, f"no story comes to {state}"
    assert {one.status for one in told} <= RELEASES[state]
    for item, one in zip(releases[state], told, strict=True):
        assert one.status in KSTATUS[kstatus(item)], "one word for all who wait"
        assert "\n" not in one.message
        said = item["status"]["conditions"]
        assert any(one.message in {f"{of['reason']}: {of['message']}", f"{state}: a later release has taken over"} for of in said)


def test_a_stable_release_that_serves_is_healthy(releases: dict[State, list[dict[str, Any]]]) -> None:
    serving = [item for item in releases[State.STABLE] if item["status"]["traffic"]["weightPercent"] == 100]
    assert {one.status for one in health(serving)} == {HEALTHY}


def test_a_release_that_nobody_can_replace_and_whose_checks_fail_is_degraded(releases: dict[State, list[dict[str, Any]]]) -> None:
    item = deepcopy(releases[State.STABLE][-1])
    failing = {"type": "ChecksFailing", "status": "True", "reason": "CheckFailed", "message": "errors 9 %; no other release can take over"}
    item["status"]["conditions"].append(failing)
    assert health([item]) == [Health(DEGRADED, "CheckFailed: errors 9 %; no other release can take over")]


@pytest.mark.parametrize("state", LASTING)
def test_an_action_of_a_release_is_offered_where_the_operator_does_it(releases: dict[State, list[dict[str, Any]]], state: State) -> None:
    expected = {verb for verb in OFFERED if state in VERBS[verb]}
    assert all(one == expected for one in offered(releases[state]))


@pytest.mark.parametrize("verb", OFFERED)
def test_an_action_of_a_release_is_a_request(releases: dict[State, list[dict[str, Any]]], verb: str) -> None:
    assert action_names("ModelRelease") == set(OFFERED)
    item = releases[State.CANARY][0]
    assert_asks(item, acted(item, verb), verb)


def assert_asks(item: dict[str, Any], changed: dict[str, Any], verb: str) -> None:
    """The request, and nothing else."""
    token = changed["metadata"]["annotations"].pop(ANNOTATION_REQUEST)
    asked, at, identifier = token.partition("@")
    assert (asked, at) == (verb, "@")
    assert identifier.startswith("argo-cd-20")
    if not item["metadata"].get("annotations"):
        changed["metadata"].pop("annotations")
    assert changed == item


# Runs -----------------------------------------------------------------------------------------------------------

APPROVE: dict[str, Any] = {"name": "review", "task": "Approve", "approvals": [{"kind": "release", "team": "qa"}]}


def nobody_has_looked() -> Run:
    return Run()


def it_waits_for_its_claim() -> Run:
    sim = Run(storage={"claimName": "late"})
    sim.settle()
    return sim


def it_starts() -> Run:
    sim = Run()
    sim.settle()
    return sim


def it_trains() -> Run:
    sim = it_starts()
    sim.set_pods(running())
    sim.settle()
    return sim


def it_is_suspended() -> Run:
    sim = it_trains()
    sim.spec(suspend=True)
    sim.settle()
    return sim


def it_is_resumed_and_nobody_has_seen_it() -> Run:
    sim = it_is_suspended()
    sim.spec(suspend=False)
    return sim


def it_waits_for_an_approval() -> Run:
    sim = Run(phases=[APPROVE, TRAIN])
    sim.settle()
    return sim


def it_waits_for_its_window() -> Run:
    sim = Run(phases=[TRAIN | {"window": {"notBefore": "2027-01-04T00:00:00Z"}}])
    sim.settle()
    return sim


def it_waits_in_a_queue() -> Run:
    sim = Run(phases=[TRAIN | {"placement": {"queueName": "research"}}])
    sim.settle()
    (job,) = sim.jobs()
    sim.put(dict(job) | {"spec": job["spec"] | {"runPolicy": job["spec"].get("runPolicy", {}) | {"suspend": True}}})
    sim.settle()
    return sim


def its_preflight_has_found_something() -> Run:
    sim = Run()
    sim.preflight = ended(0, passed(Problem(path="spec.recipe.steps", message="found nonsense")))
    sim.settle()
    return sim


def it_is_done() -> Run:
    sim = it_trains()
    sim.set_pods(ended(0, text(trained())))
    sim.settle()
    return sim


def its_release_is_a_canary() -> Run:
    sim = Run(phases=[TRAIN, RELEASE])
    sim.release_status = release_status("Canary", ready=False, Reconciling="Canary")
    sim.settle()
    sim.set_pods(ended(0, text(trained())))
    sim.settle()
    return sim


def it_has_failed() -> Run:
    sim = Run(phases=[TRAIN | {"attempts": 1}, EVALUATE])
    sim.settle()
    sim.set_pods(ended(1))
    sim.settle()
    return sim


def it_cannot_be_read() -> Run:
    sim = Run()
    sim.spec(recipe={"steps": "many"})
    sim.step()
    return sim


RUNS: dict[Callable[[], Run], tuple[str, str, set[str]]] = {  # health, beginning of its message, what is offered
    nobody_has_looked: (PROGRESSING, "the operator has not looked at it", {"suspend"}),
    it_waits_for_its_claim: (PROGRESSING, "ClaimNotFound: ", {"suspend"}),
    it_starts: (PROGRESSING, "Starting: ", {"suspend"}),
    it_trains: (PROGRESSING, "Training: ", {"suspend"}),
    it_is_suspended: (SUSPENDED, "Suspended: ", {"resume"}),
    it_is_resumed_and_nobody_has_seen_it: (PROGRESSING, "the operator has not looked at it", {"suspend"}),
    it_waits_for_an_approval: (SUSPENDED, "WaitingForApproval: ", {"suspend"}),
    it_waits_for_its_window: (PROGRESSING, "WaitingForWindow: ", {"suspend"}),
    it_waits_in_a_queue: (PROGRESSING, "Queued: ", {"suspend"}),
    its_preflight_has_found_something: (DEGRADED, "PreflightFailed: ", {"suspend", "retry"}),
    its_release_is_a_canary: (PROGRESSING, "Releasing: ", {"suspend"}),
    it_is_done: (HEALTHY, "Completed: ", set()),
    it_has_failed: (DEGRADED, "AttemptsExhausted: ", {"retry"}),
    it_cannot_be_read: (DEGRADED, "Unreadable: ", {"suspend"}),
}


@pytest.mark.parametrize("story", RUNS, ids=lambda story: story.__name__)
def test_the_health_and_the_actions_of_a_run(story: Callable[[], Run]) -> None:
    item = {"status": {"observedGeneration": -1}} | story().run()  # as the API server's default has it
    expected, message, actions = RUNS[story]
    (told,) = health([item])
    assert (told.status, offered([item])) == (expected, [actions]), told
    assert told.message.startswith(message)
    assert "\n" not in told.message


def test_the_actions_of_a_run_are_what_the_operator_reads() -> None:
    assert action_names("TrainingRun") == {"suspend", "resume", "retry"}
    run = it_trains().run()
    assert acted(run, "suspend") == run | {"spec": run["spec"] | {"suspend": True}}
    run = it_is_suspended().run()
    assert acted(run, "resume") == run | {"spec": run["spec"] | {"suspend": False}}
    run = it_has_failed().run()
    assert_asks(run, acted(run, "retry"), "retry")


def test_a_retry_by_action_lets_a_failed_run_begin_again() -> None:
    sim = it_has_failed()
    sim.put(acted(sim.run(), "retry"))
    sim.settle()
    assert health([sim.run()])[0].status == PROGRESSING


def test_a_budget_that_is_used_up_waits_for_a_person() -> None:
    run, cycle = deepcopy(it_trains().run()), deepcopy(its_run_is_at_work().objects["FineTuneCycle", "weekly"])
    (succeeded,) = (one for one in run["status"]["conditions"] if one["type"] == "Succeeded")
    succeeded |= {"reason": RunReason.BUDGET_EXCEEDED.value, "message": "2000 of 2000 GPU hours"}
    exceeded = {
        "type": ConditionType.BUDGET_EXCEEDED.value,
        "status": "True",
        "reason": CycleReason.BUDGET_SPENT.value,
        "message": "all of 2000",
    }
    cycle["status"]["conditions"].append(exceeded)
    assert health([run, cycle]) == [
        Health(SUSPENDED, "BudgetExceeded: 2000 of 2000 GPU hours"),
        Health(SUSPENDED, "BudgetSpent: all of 2000"),
    ]
    assert flux_health([run, cycle]) == ["InProgress", "InProgress"]


# Cycles ---------------------------------------------------------------------------------------------------------


def cycles(moment: timedelta = timedelta(), end: str = "keep", **spec: Any) -> Cycles:
    """At this time after the first scheduled time, or, without one, a day before it."""
    sim = Cycles(a_cycle(schedule="0 3 * * *", **spec))
    sim.until(START + (timedelta(hours=3) + moment if moment else timedelta(hours=1)), end=end)
    return sim


def no_cycle_was_looked_at() -> Cycles:
    return Cycles(a_cycle())


def its_time_is_to_come() -> Cycles:
    return cycles()


def its_run_is_at_work() -> Cycles:
    return cycles(timedelta(minutes=1))


def its_next_run_waits_for_the_last() -> Cycles:
    return cycles(timedelta(days=1, minutes=1), concurrencyPolicy="Queue")


def its_last_run_has_failed() -> Cycles:
    return cycles(timedelta(hours=3), end="fail")


def its_next_run_after_a_failure_is_at_work() -> Cycles:
    sim = its_last_run_has_failed()
    sim.until(START + timedelta(days=1, hours=3, minutes=1), end="keep")
    return sim


def its_last_run_has_succeeded() -> Cycles:
    return cycles(timedelta(hours=3), end="succeed")


def the_cycle_is_suspended() -> Cycles:
    return cycles(suspend=True)


def its_schedule_never_fires() -> Cycles:
    sim = cycles()
    sim.edit(schedule="0 0 31 2 *")
    sim.settle()
    return sim


def its_service_has_no_stable_release() -> Cycles:
    return cycles(timedelta(minutes=1), startFrom={"service": "standard"})


def its_run_is_refused() -> Cycles:
    sim = Cycles(a_cycle(schedule="0 3 * * *"))
    sim.refused["*"] = Failure("TrainingRun", "", 403, "exceeded quota")
    sim.until(START + timedelta(hours=3, minutes=1), end="keep")
    return sim


CYCLES: dict[Callable[[], Cycles], tuple[str, str, set[str]]] = {
    no_cycle_was_looked_at: (PROGRESSING, "the operator has not looked at it", {"suspend"}),
    its_time_is_to_come: (HEALTHY, "Scheduled: ", {"suspend", RUN_NOW}),
    its_run_is_at_work: (HEALTHY, "Running: ", {"suspend"}),
    its_next_run_waits_for_the_last: (HEALTHY, "Queued: ", {"suspend"}),
    its_last_run_has_failed: (DEGRADED, "Failed: run weekly-20260101-0300: ", {"suspend", RUN_NOW}),
    its_next_run_after_a_failure_is_at_work: (HEALTHY, "Running: ", {"suspend"}),
    its_last_run_has_succeeded: (HEALTHY, "Scheduled: ", {"suspend", RUN_NOW}),
    the_cycle_is_suspended: (SUSPENDED, "Suspended: ", {"resume", RUN_NOW}),
    its_schedule_never_fires: (DEGRADED, "ScheduleInvalid: ", {"suspend"}),
    its_service_has_no_stable_release: (PROGRESSING, "NoStableRelease: ", {"suspend", RUN_NOW}),
    its_run_is_refused: (PROGRESSING, "RunRefused: ", {"suspend", RUN_NOW}),
}


@pytest.mark.parametrize("story", CYCLES, ids=lambda story: story.__name__)
def test_the_health_and_the_actions_of_a_cycle(story: Callable[[], Cycles]) -> None:
    item = story().objects["FineTuneCycle", "weekly"]
    expected, message, actions = CYCLES[story]
    (told,) = health([item])
    assert (told.status, offered([item])) == (expected, [actions]), told
    assert told.message.startswith(message)
    assert "\n" not in told.message


def test_the_actions_of_a_cycle_are_what_the_operator_reads() -> None:
    assert action_names("FineTuneCycle") == {"suspend", "resume", RUN_NOW}
    item = its_time_is_to_come().objects["FineTuneCycle", "weekly"]
    assert acted(item, "suspend") == item | {"spec": item["spec"] | {"suspend": True}}
    assert acted(item, "resume") == item | {"spec": item["spec"] | {"suspend": False}}
    assert_asks(item, acted(item, RUN_NOW), RUN_NOW)


def test_run_now_by_action_makes_a_run() -> None:
    sim = its_time_is_to_come()
    sim.objects["FineTuneCycle", "weekly"] = acted(sim.objects["FineTuneCycle", "weekly"], RUN_NOW)
    sim.settle()
    assert len(sim.created) == 1


# All ------------------------------------------------------------------------------------------------------------


def test_nobody_approves_by_an_action() -> None:
    assert not any("approve" in name for kind in ("TrainingRun", "ModelRelease", "FineTuneCycle") for name in action_names(kind))
    assert "approve.videogen" not in str(customizations())


# Flux -----------------------------------------------------------------------------------------------------------

BY_ARGO_CD = {HEALTHY: "Current", DEGRADED: "Failed", PROGRESSING: "InProgress", SUSPENDED: "InProgress"}


def test_flux_is_told_the_same_of_releases(releases: dict[State, list[dict[str, Any]]]) -> None:
    items = [item for state in LASTING for item in releases[state]]
    assert flux_health(items) == [BY_ARGO_CD[one.status] for one in health(items)]


@pytest.mark.parametrize("story", RUNS, ids=lambda story: story.__name__)
def test_flux_is_told_the_same_of_a_run(story: Callable[[], Run]) -> None:
    assert flux_health([{"status": {"observedGeneration": -1}} | story().run()]) == [BY_ARGO_CD[RUNS[story][0]]]


@pytest.mark.parametrize("story", CYCLES, ids=lambda story: story.__name__)
def test_flux_is_told_the_same_of_a_cycle_but_that_a_suspended_one_is_done(story: Callable[[], Cycles]) -> None:
    item = {"status": {"observedGeneration": -1}} | story().objects["FineTuneCycle", "weekly"]
    assert flux_health([item]) == ["Current" if story is the_cycle_is_suspended else BY_ARGO_CD[CYCLES[story][0]]]
