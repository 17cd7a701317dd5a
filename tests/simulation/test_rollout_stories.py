"""What a service lives through, in a closed loop: queueing, waiting, missing data, quarantine, lost pods, lost memory."""

import random
from datetime import timedelta
from typing import Any

import pytest

from videogen_operator.kinds.model_release import MODEL_RELEASE
from videogen_operator.plan import Failure, Inputs
from videogen_testing.releases import (
    NAMESPACE,
    SERVICE,
    SETTINGS,
    a_gate,
    a_gateway,
    a_node,
    a_release,
    a_result,
    a_run,
    an_alert,
    digest_of,
    name_of,
)
from videogen_testing.service_simulation import KEY, Simulation

STEPS = [
    {"weightPercent": 10, "minimumRequests": 50, "minimumSeconds": 10},
    {"weightPercent": 50, "minimumRequests": 100, "minimumSeconds": 10},
]
LATENCY = {"name": "latency", "metric": "LatencyP95Seconds", "maximum": "10", "windowSeconds": 20}
ROLLOUT = {"steps": STEPS, "checks": [LATENCY], "checkIntervalSeconds": 5}
WINDOW = {"windowSeconds": 60}


def release(version: str, **spec: Any) -> dict[str, Any]:
    whole: dict[str, Any] = {"rollout": ROLLOUT, "rollback": WINDOW} | spec
    return a_release(version, **whole)


def serving(version: str = "1.0.0", *, seed: int | None = None, **spec: Any) -> Simulation:
    """A service with one stable release."""
    simulation = Simulation(release(version, **spec), seed=seed)
    simulation.until(version, "Stable")
    simulation.tick(2)
    return simulation


def add(simulation: Simulation, version: str, **spec: Any) -> None:
    simulation.put(release(version, at=simulation.now, **spec))


def test_a_first_release_takes_all_traffic_as_soon_as_a_pod_is_ready() -> None:
    simulation = Simulation(release("1.0.0"))
    simulation.tick(2)
    assert (simulation.state("1.0.0"), simulation.weights()) == ("Starting", {})
    assert ("HTTPRoute", NAMESPACE, SERVICE) in simulation.objects  # so that the gateway is asked before traffic comes
    simulation.tick(3)
    assert (simulation.state("1.0.0"), simulation.weights()) == ("Stable", {"1.0.0": 100})
    assert simulation.condition("1.0.0")["message"] == "100 % of standard"


def test_releases_made_together_roll_out_one_after_the_other_in_the_order_of_their_versions() -> None:
    simulation = Simulation(release("1.10.0"), release("1.9.0"), release("1.2.0"))
    simulation.until("1.2.0", "Stable")
    assert simulation.condition("1.10.0")["message"] == f"waits for {name_of('1.9.0')}, which is Starting"
    simulation.until("1.10.0", "Stable")
    assert [simulation.state(version) for version in ("1.2.0", "1.9.0")] == ["Superseded", "Standby"]
    simulation.until("1.9.0", "Superseded")
    simulation.tick(9)
    assert [name for kind, _, name in simulation.objects if kind == "Deployment"] == [name_of("1.10.0").replace(".", "-")]


@pytest.mark.parametrize("missing", ["requests", "prometheus"])
def test_without_data_a_canary_is_neither_raised_nor_rolled_back(missing: str) -> None:
    simulation = serving()
    if missing == "requests":
        simulation.requests_per_tick = 0
    else:
        simulation.prometheus = False
    add(simulation, "1.1.0")
    simulation.until("1.1.0", "Canary")
    simulation.tick(40)
    assert (simulation.state("1.1.0"), simulation.weights()["1.1.0"]) == ("Canary", 10)
    assert simulation.condition("1.1.0")["reason"] == "ChecksInconclusive"
    simulation.requests_per_tick, simulation.prometheus = 100, True
    simulation.until("1.1.0", "Stable")


def test_a_step_lasts_for_its_seconds_and_until_its_requests_are_answered() -> None:
    steps = [
        {"weightPercent": 10, "minimumRequests": 100, "minimumSeconds": 10},
        {"weightPercent": 50, "minimumRequests": 1, "minimumSeconds": 100},
    ]
    simulation = serving()
    add(simulation, "1.1.0", rollout=ROLLOUT | {"steps": steps})
    simulation.until("1.1.0", "Canary")
    simulation.tick(9)
    assert simulation.weights()["1.1.0"] == 10
    assert "90 of 100 requests" in simulation.condition("1.1.0")["message"]
    simulation.tick(2)
    assert simulation.weights()["1.1.0"] == 50
    simulation.tick(18)
    assert simulation.state("1.1.0") == "Canary"
    simulation.tick(3)
    assert simulation.state("1.1.0") == "Stable"


def test_a_person_holds_resumes_and_promotes_and_every_request_is_answered_once() -> None:
    simulation = serving()
    add(simulation, "1.1.0")
    simulation.until("1.1.0", "Canary")
    simulation.request("1.1.0", "hold@a")
    simulation.tick(20)
    assert (simulation.state("1.1.0"), simulation.status("1.1.0")["lastHandledRequest"]) == ("Held", "hold@a")
    simulation.request("1.1.0", "resume@b")
    simulation.tick()
    assert simulation.state("1.1.0") == "Canary"
    simulation.request("1.1.0", "promote@c")
    simulation.tick()
    assert (simulation.state("1.1.0"), simulation.weights()["1.1.0"]) == ("Stable", 100)
    assert simulation.status("1.1.0")["lastHandledRequest"] == "promote@c"


@pytest.mark.parametrize("token", ["promote", "explode@1", "@1", "resume@1", "retry@1"])
def test_a_request_that_cannot_be_done_is_answered_and_changes_nothing(token: str) -> None:
    simulation = serving()
    add(simulation, "1.1.0")
    simulation.until("1.1.0", "Canary")
    simulation.request("1.1.0", token)
    simulation.settle()
    assert (simulation.state("1.1.0"), simulation.status("1.1.0")["lastHandledRequest"]) == ("Canary", token)
    assert "RequestRefused" in simulation.transcript[-1]


def rolled_back() -> Simulation:
    simulation = serving()
    add(simulation, "1.1.0", artifact={"digest": digest_of("bad")})
    simulation.until("1.1.0", "Canary")
    simulation.request("1.1.0", "abort@1")
    simulation.tick()
    assert simulation.status("1.1.0")["rollback"]["to"] == name_of("1.0.0")
    return simulation


def test_a_quarantined_digest_gets_no_traffic_under_another_version_nor_after_deletion() -> None:
    simulation = rolled_back()
    add(simulation, "1.2.0", artifact={"digest": digest_of("bad")})
    simulation.remove("1.1.0")
    add(simulation, "1.1.0", artifact={"digest": digest_of("bad")})
    simulation.tick(20)
    for version in ("1.1.0", "1.2.0"):
        assert (simulation.state(version), simulation.condition(version)["reason"]) == ("Rejected", "Quarantined")
        assert simulation.condition(version, "Stalled")["status"] == "True"
    assert simulation.weights() == {"1.0.0": 100}


def test_a_retry_lifts_the_quarantine_for_this_release_alone_until_it_is_stable() -> None:
    simulation = rolled_back()
    add(simulation, "1.2.0", artifact={"digest": digest_of("bad")})
    simulation.tick(2)
    simulation.request("1.1.0", "retry@2")
    simulation.until("1.1.0", "Canary")
    assert simulation.condition("1.2.0")["reason"] == "Quarantined"
    simulation.until("1.1.0", "Stable")
    simulation.until("1.2.0", "Stable")  # what has become stable after all is quarantined no more
    assert simulation.condition("1.1.0", "RolledBack")["reason"] == "NotRolledBack"


def test_a_retried_release_can_be_rolled_back_again_and_an_old_alert_does_not_do_it() -> None:
    simulation = rolled_back()
    old = an_alert(name_of("1.1.0"), at=simulation.now)
    simulation.tick(3)
    simulation.request("1.1.0", "retry@2")
    simulation.until("1.1.0", "Canary")
    simulation.alerts.append(old)
    simulation.tick()
    assert (simulation.state("1.1.0"), simulation.answers[old["fingerprint"]]) == ("Canary", "Stale")
    simulation.latency["1.1.0"] = 60
    simulation.until("1.1.0", "RolledBack")
    assert simulation.status("1.1.0")["rollback"]["reason"] == "CheckFailed"


def test_a_release_whose_gates_fail_is_not_started_by_a_retry() -> None:
    run = a_run(digest=digest_of("1.1.0"), results=[a_result(value="250")])
    simulation = serving()
    simulation.put(run)
    add(simulation, "1.1.0", gates=[a_gate()], lineage={"run": "training"})
    simulation.tick(2)
    simulation.request("1.1.0", "retry@1")
    simulation.tick(5)
    assert (simulation.state("1.1.0"), simulation.condition("1.1.0")["reason"]) == ("Rejected", "GateFailed")


def test_gates_wait_for_the_evaluation_and_keep_it_when_the_run_is_deleted() -> None:
    simulation = serving()
    simulation.put(a_run(digest=digest_of("1.1.0")))
    add(simulation, "1.1.0", gates=[a_gate()], lineage={"run": "training"})
    simulation.tick(3)
    assert (simulation.state("1.1.0"), simulation.condition("1.1.0")["reason"]) == ("Gating", "GatesPending")
    simulation.put(a_run(digest=digest_of("1.1.0"), results=[a_result()]))
    simulation.tick()
    simulation.drop("TrainingRun", "training")
    simulation.until("1.1.0", "Stable")
    assert simulation.status("1.1.0")["evaluation"][0]["value"] == "150"
    assert simulation.status("1.1.0")["summary"]["gates"] == "1/1"


def test_failed_rounds_must_be_consecutive_and_rounds_without_data_are_no_evidence() -> None:
    simulation = serving()
    add(simulation, "1.1.0", rollout=ROLLOUT | {"failureLimit": 3, "checks": [LATENCY | {"windowSeconds": 5, "minimumRequests": 1}]})
    simulation.until("1.1.0", "Canary")
    simulation.latency["1.1.0"] = 30
    simulation.tick(2)
    simulation.latency["1.1.0"] = 1
    simulation.tick(1)
    simulation.latency["1.1.0"] = 30
    simulation.tick(2)
    assert (simulation.state("1.1.0"), simulation.status("1.1.0")["rollout"]["failedChecks"]) == ("Canary", 2)
    simulation.prometheus = False
    simulation.tick(10)
    assert (simulation.state("1.1.0"), simulation.status("1.1.0")["rollout"]["failedChecks"]) == ("Canary", 2)
    simulation.prometheus = True
    simulation.tick()
    assert simulation.state("1.1.0") == "RolledBack"


def test_a_canary_takes_no_more_than_its_ready_pods_can_carry() -> None:
    simulation = serving()
    simulation.ready_limit["1.1.0"] = 1
    steps = [
        {"weightPercent": 20, "minimumRequests": 1, "minimumSeconds": 0},
        {"weightPercent": 80, "minimumRequests": 1, "minimumSeconds": 0},
    ]
    add(simulation, "1.1.0", rollout=ROLLOUT | {"steps": steps}, serving={"replicas": 4})
    simulation.tick(20)
    assert (simulation.weights()["1.1.0"], simulation.step("1.1.0")) == (20, 0)
    assert "1 of 4 pods are available" in simulation.condition("1.1.0")["message"]
    simulation.ready_limit["1.1.0"] = 4
    while simulation.weights()["1.1.0"] < 80:
        simulation.tick()
    simulation.ready_limit["1.1.0"] = 2
    simulation.tick()
    assert simulation.weights() == {"1.0.0": 50, "1.1.0": 50}


def test_a_canary_carries_the_service_while_the_stable_release_has_no_pods() -> None:
    simulation = serving()
    add(simulation, "1.1.0", rollout=ROLLOUT | {"steps": [{"weightPercent": 10, "minimumRequests": 100_000}]})
    simulation.until("1.1.0", "Canary")
    simulation.broken.add("1.0.0")
    simulation.tick(2)
    assert (simulation.weights()["1.1.0"], simulation.state("1.1.0")) == (100, "Canary")
    simulation.broken.clear()
    simulation.tick(2)
    assert simulation.weights() == {"1.0.0": 90, "1.1.0": 10}


def test_the_only_release_keeps_the_traffic_when_it_loses_its_pods_and_says_so() -> None:
    simulation = serving()
    simulation.broken.add("1.0.0")
    simulation.tick(2)
    assert simulation.weights() == {"1.0.0": 100}
    ready = simulation.condition("1.0.0")
    assert (ready["status"], ready["reason"]) == ("False", "PodsLost")
    simulation.broken.clear()
    simulation.tick(2)
    assert simulation.condition("1.0.0")["status"] == "True"


def test_the_standby_is_recalled_when_the_stable_release_is_deleted() -> None:
    simulation = serving()
    add(simulation, "1.1.0")
    simulation.until("1.1.0", "Stable")
    simulation.remove("1.1.0")
    simulation.tick()
    assert (simulation.state("1.0.0"), simulation.weights()) == ("Stable", {"1.0.0": 100})


def test_with_two_canaries_worth_of_history_a_rollback_of_stable_leaves_the_canary_and_recalls_the_standby() -> None:
    simulation = serving()
    add(simulation, "1.1.0", rollback={"windowSeconds": 600})
    simulation.until("1.1.0", "Stable")
    add(simulation, "1.2.0")
    simulation.until("1.2.0", "Canary")
    simulation.alerts.append(an_alert(name_of("1.1.0"), at=simulation.now))
    simulation.settle()
    states = {version: simulation.state(version) for version in ("1.0.0", "1.1.0", "1.2.0")}
    assert states == {"1.0.0": "Stable", "1.1.0": "RolledBack", "1.2.0": "Canary"}
    assert simulation.weights() == {"1.0.0": 90, "1.1.0": 0, "1.2.0": 10}  # what was rolled back stays listed for a moment
    simulation.tick()
    assert simulation.weights() == {"1.0.0": 90, "1.2.0": 10}


def test_a_full_cluster_blocks_with_numbers_and_goes_on_when_there_is_room() -> None:
    simulation = serving()
    add(simulation, "1.1.0", serving={"gpus": 2})
    simulation.tick(3)
    ready = simulation.condition("1.1.0")
    assert (simulation.state("1.1.0"), ready["reason"]) == ("Queued", "InsufficientCapacity")
    assert ready["message"].startswith("2 pods of 2 GPUs, 1 CPUs and 2 GiB each are asked for, and there is room for 0")
    simulation.put(a_node("node-2", gpus=4))
    simulation.until("1.1.0", "Stable")


def test_without_a_gateway_nothing_takes_traffic_and_the_condition_says_which_one_is_missing() -> None:
    simulation = Simulation(release("1.0.0"))
    simulation.drop("Gateway", "videogen", "videogen-system")
    simulation.tick(10)
    assert (simulation.state("1.0.0"), simulation.condition("1.0.0")["reason"]) == ("Starting", "GatewayNotFound")
    assert "Gateway videogen-system/videogen does not exist" in simulation.condition("1.0.0")["message"]
    simulation.put(a_gateway())
    simulation.until("1.0.0", "Stable")


def test_pods_that_never_become_ready_end_the_rollout_and_let_the_next_one_start() -> None:
    simulation = serving()
    simulation.broken.add("1.1.0")
    add(simulation, "1.1.0")
    add(simulation, "1.2.0")
    simulation.until("1.1.0", "Failed")
    assert simulation.condition("1.1.0")["reason"] == "StartFailed"
    simulation.until("1.2.0", "Stable")
    assert name_of("1.1.0").replace(".", "-") not in {name for kind, _, name in simulation.objects if kind == "Deployment"}


def test_an_older_version_that_waited_does_not_replace_a_newer_one_but_one_made_on_purpose_does() -> None:
    simulation = serving()
    simulation.put(a_run(digest=digest_of("1.1.0")))
    add(simulation, "1.1.0", gates=[a_gate()], lineage={"run": "training"})
    simulation.tick(2)
    add(simulation, "1.2.0")
    simulation.until("1.2.0", "Stable")
    simulation.put(a_run(digest=digest_of("1.1.0"), results=[a_result()]))
    simulation.tick(3)
    assert simulation.state("1.1.0") == "Superseded"
    add(simulation, "1.1.5")
    simulation.until("1.1.5", "Stable")


def test_an_operator_that_lost_every_status_goes_on_with_what_the_route_says() -> None:
    simulation = serving()
    add(simulation, "1.1.0")
    simulation.until("1.0.0", "Superseded")
    simulation.tick(10)
    for item in simulation.releases().values():
        item["status"] = {"observedGeneration": -1}
    simulation.tick(3)
    assert {version: simulation.state(version) for version in ("1.0.0", "1.1.0")} == {"1.0.0": "Superseded", "1.1.0": "Stable"}
    assert simulation.weights() == {"1.1.0": 100}


def test_a_canary_whose_pods_are_moved_loses_no_rollout_and_keeps_its_digest_clean() -> None:
    simulation = serving()
    add(simulation, "1.1.0", serving={"startDeadlineSeconds": 120})
    simulation.until("1.1.0", "Canary")
    simulation.broken.add("1.1.0")  # drained: nothing of it has crashed
    simulation.tick(10)
    assert (simulation.state("1.1.0"), simulation.weights()) == ("Canary", {"1.0.0": 100})
    ready = simulation.condition("1.1.0")
    assert (ready["status"], ready["reason"]) == ("False", "PodsLost")
    assert "takes its traffic, and it is rolled back unless a pod is ready before" in ready["message"]
    simulation.broken.clear()
    simulation.until("1.1.0", "Stable")


def test_a_policy_that_the_cluster_does_not_know_keeps_nothing_else_from_being_done() -> None:
    simulation = serving()
    simulation.refused["BackendTrafficPolicy"] = Failure("BackendTrafficPolicy", SERVICE, 404, "not found")
    add(simulation, "1.1.0")
    simulation.until("1.1.0", "Canary")
    assert "gateway.stickyUsers=false" in simulation.condition("1.0.0")["message"]
    simulation.alerts.append(an_alert(name_of("1.1.0"), at=simulation.now))
    simulation.request("1.0.0", "hold@1")
    simulation.tick(20)
    assert list(simulation.answers.values()) == ["RolledBack"]
    assert simulation.status("1.0.0")["lastHandledRequest"] == "hold@1"
    assert ("Deployment", NAMESPACE, name_of("1.1.0").replace(".", "-")) not in simulation.objects


def test_a_release_for_which_there_is_no_room_does_not_hold_up_those_behind_it() -> None:
    simulation = serving()
    add(simulation, "1.1.0", serving={"replicas": 1, "cpu": "1000"})
    add(simulation, "1.2.0")
    simulation.until("1.2.0", "Stable")
    assert simulation.state("1.1.0") == "Superseded"


def test_a_release_whose_bundle_is_quarantined_while_it_starts_takes_no_traffic() -> None:
    simulation = serving()
    add(simulation, "1.1.0", artifact={"digest": digest_of("same")})
    simulation.until("1.1.0", "Stable")
    add(simulation, "1.2.0", artifact={"digest": digest_of("same")})
    simulation.until("1.2.0", "Starting")
    simulation.alerts.append(an_alert(name_of("1.1.0"), at=simulation.now))
    simulation.tick(5)
    assert {version: simulation.state(version) for version in ("1.1.0", "1.2.0")} == {"1.1.0": "RolledBack", "1.2.0": "RolledBack"}
    assert simulation.condition("1.2.0")["reason"] == "Quarantined"


def test_errors_are_no_requests_that_raise_the_weight() -> None:
    simulation = serving()
    add(simulation, "1.1.0", rollout=ROLLOUT | {"checks": []})
    simulation.errors["1.1.0"] = 1.0
    simulation.tick(60)
    assert (simulation.state("1.1.0"), simulation.weights()["1.1.0"]) == ("Canary", 10)


def test_without_checks_of_its_own_a_release_may_fail_five_percent_of_its_requests() -> None:
    simulation = serving()
    add(simulation, "1.1.0", rollout={key: value for key, value in ROLLOUT.items() if key != "checks"})
    simulation.until("1.1.0", "Canary")
    simulation.errors["1.1.0"] = 0.2
    simulation.until("1.1.0", "RolledBack")
    assert "error ratio 0.2, may be at most 0.05" in simulation.condition("1.1.0")["message"]


@pytest.mark.parametrize(
    "change", [{"spec": {"service": "standard", "model": {"type": "of-tomorrow"}}}, {"rollout": {"state": "OfTomorrow"}}]
)
@pytest.mark.parametrize("version", ["1.0.0", "1.1.0"])
def test_what_a_newer_operator_has_written_about_a_release_with_traffic_leaves_the_traffic_as_it_is(
    change: dict[str, Any], version: str
) -> None:
    simulation = serving()
    add(simulation, "1.1.0")
    simulation.until("1.1.0", "Canary")
    before, children = simulation.weights(), {key for key in simulation.objects if key[0] == "Deployment"}
    release = simulation.releases()[version]
    release["status"] = release["status"] | change if "rollout" in change else release["status"]
    release["spec"] = change.get("spec", release["spec"])
    for _ in range(60):
        simulation.now += timedelta(seconds=5)
        observed = MODEL_RELEASE.observe(simulation, KEY)
        assert observed is not None
        plan = MODEL_RELEASE.plan(observed, Inputs(now=simulation.now, settings=SETTINGS))
        assert (plan.apply, plan.beside, plan.delete) == ((), (), ())
    assert [write.object["metadata"]["name"] for write in plan.statuses] == [name_of(version)]
    assert simulation.weights() == before
    assert {key for key in simulation.objects if key[0] == "Deployment"} == children


def test_a_release_that_cannot_be_read_and_has_no_traffic_holds_up_nobody() -> None:
    simulation = serving()
    broken = release("1.1.0", at=simulation.now)
    broken["spec"]["model"]["type"] = "of-tomorrow"
    simulation.put(broken)
    add(simulation, "1.2.0")
    simulation.until("1.2.0", "Stable")


def test_an_operator_that_lost_every_status_in_a_canary_keeps_the_service_running() -> None:
    simulation = serving()
    add(simulation, "1.1.0")
    simulation.until("1.1.0", "Canary")
    for item in simulation.releases().values():
        item["status"] = {"observedGeneration": -1}
    simulation.settle()
    assert (simulation.state("1.0.0"), simulation.weights()["1.0.0"]) == ("Stable", 100)
    simulation.until("1.1.0", "Stable")


def test_an_alert_waits_while_the_stable_release_is_away_and_the_bad_one_goes_no_further() -> None:
    simulation = serving()
    add(simulation, "1.1.0")
    simulation.until("1.1.0", "Canary")
    simulation.broken.add("1.0.0")
    simulation.tick()
    simulation.alerts.append(an_alert(name_of("1.1.0"), at=simulation.now))
    simulation.tick(20)
    assert (simulation.state("1.1.0"), simulation.answers) == ("Canary", {})
    assert sum("NotRolledBack" in line for line in simulation.transcript) == 1
    simulation.broken.clear()
    simulation.tick(3)
    assert (simulation.state("1.1.0"), list(simulation.answers.values())) == ("RolledBack", ["RolledBack"])


def test_the_proven_standby_and_not_the_canary_takes_over_from_a_stable_release_without_pods() -> None:
    simulation = serving()
    add(simulation, "1.1.0", rollback={"windowSeconds": 6000})
    simulation.until("1.1.0", "Stable")
    add(simulation, "1.2.0")
    simulation.until("1.2.0", "Canary")
    simulation.broken.add("1.1.0")
    simulation.tick()
    assert simulation.weights()["1.0.0"] == 100


def test_a_gateway_that_does_not_hear_keeps_the_pods_that_it_still_sends_requests_to() -> None:
    simulation = serving()
    add(simulation, "1.1.0")
    simulation.until("1.1.0", "Canary")
    simulation.gateway = False
    simulation.alerts.append(an_alert(name_of("1.1.0"), at=simulation.now))
    simulation.tick(40)
    child = ("Deployment", NAMESPACE, name_of("1.1.0").replace(".", "-"))
    assert (simulation.state("1.1.0"), child in simulation.objects) == ("RolledBack", True)
    simulation.gateway = True
    simulation.tick(2)
    assert child not in simulation.objects


def test_a_stable_release_with_few_requests_does_not_write_its_status_every_round() -> None:
    simulation = serving()
    add(simulation, "1.1.0", rollback={"windowSeconds": 6000})
    simulation.until("1.1.0", "Stable")
    simulation.requests_per_tick = 1
    simulation.tick(10)
    before = simulation.writes
    for requests in (1, 2, 0, 1, 2):
        simulation.requests_per_tick = requests
        simulation.tick(4)
    assert simulation.writes == before


def test_a_refused_deployment_is_told_and_a_refused_route_stops_everything() -> None:
    simulation = serving()
    simulation.refused["Deployment"] = Failure("Deployment", name_of("1.1.0").replace(".", "-"), 403, "quota exceeded")
    add(simulation, "1.1.0")
    simulation.tick(2)
    assert "quota exceeded" in simulation.condition("1.1.0")["message"]
    simulation.refused = {"HTTPRoute": Failure("HTTPRoute", SERVICE, 404, "the server could not find the requested resource")}
    simulation.tick(5)
    assert simulation.state("1.1.0") == "Starting"
    assert simulation.condition("1.0.0")["reason"] == "GatewayNotFound"
    simulation.refused = {}
    simulation.until("1.1.0", "Stable")


def test_a_settled_service_costs_no_writes() -> None:
    simulation = serving()
    add(simulation, "1.1.0")
    simulation.until("1.1.0", "Stable")
    simulation.tick(4)
    before = simulation.writes
    simulation.tick(5)
    assert simulation.writes == before  # checks go on, and say the same


def test_a_rolled_back_release_keeps_its_pods_until_its_requests_have_ended() -> None:
    simulation = rolled_back()
    child = ("Deployment", NAMESPACE, name_of("1.1.0").replace(".", "-"))
    begun = simulation.now
    while child in simulation.objects:
        simulation.tick()
    assert timedelta(seconds=30) <= simulation.now - begun <= timedelta(seconds=40)


@pytest.mark.parametrize("seed", range(12))
def test_invariants_hold_whatever_happens_in_whatever_order(seed: int) -> None:
    dice = random.Random(seed)
    simulation = serving(seed=seed)
    for number in range(1, 5):
        add(simulation, f"1.{number}.0", artifact={"digest": digest_of(str(dice.randrange(3)))})
        for _ in range(20):
            _something_happens(simulation, dice)
            simulation.tick()
    assert simulation.transcript


def _something_happens(simulation: Simulation, dice: random.Random) -> None:
    version = dice.choice(list(simulation.releases()))
    match dice.randrange(12):
        case 0:
            simulation.latency[version] = dice.choice([1.0, 30.0])
        case 1:
            simulation.broken ^= {version}
        case 2:
            simulation.prometheus = not simulation.prometheus
        case 3:
            simulation.request(version, f"{dice.choice(['abort', 'promote', 'hold', 'resume', 'retry'])}@{dice.randrange(10**6)}")
        case 4:
            simulation.alerts.append(an_alert(name_of(version), at=simulation.now, fingerprint=str(dice.randrange(10**6))))
        case 5:
            simulation.gateway = not simulation.gateway
        case 6 if dice.random() < 0.2 and len(simulation.releases()) > 1:
            simulation.remove(version)
        case _:
            pass
