"""What a service lives through, in a closed loop: queueing, waiting, missing data, quarantine, lost pods, lost memory."""

import random
from datetime import timedelta
from typing import Any

import pytest

from videogen_operator.kinds.model_release import MODEL_RELEASE
from videogen_operator.plan import Failure, Inputs
from videogen_testing.kstatus import kstatus
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
    assert (simulation.condition("1.1.0")["reason"], simulation.condition("1.1.0", "Reconciling")["reason"]) == (
        "Canary",
        "ChecksInconclusive",
    )
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
    simulation.request("1.1.0", "quarantine@1")
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
    edited(simulation, "1.0.0", replicas=4)
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
    simulation.alerts.append(an_alert(name_of("1.1.0"), at=simulation.now, name="Own", sender=NAMESPACE))
    simulation.settle()
    states = {version: simulation.state(version) for version in ("1.0.0", "1.1.0", "1.2.0")}
    assert states == {"1.0.0": "Stable", "1.1.0": "RolledBack", "1.2.0": "Canary"}
    assert simulation.weights() == {"1.0.0": 90, "1.1.0": 0, "1.2.0": 10}  # what was rolled back stays listed for a moment
    simulation.tick()
    assert simulation.weights() == {"1.0.0": 90, "1.2.0": 10}


def test_a_full_cluster_blocks_with_numbers_and_goes_on_when_there_is_room() -> None:
    simulation = serving()
    add(simulation, "1.1.0", serving={"resources": {"limits": {"nvidia.com/gpu": 2}}})
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


def test_an_older_version_does_not_replace_a_newer_one_unless_a_person_asks_for_it() -> None:
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
    simulation.tick(3)
    assert (simulation.state("1.1.5"), simulation.condition("1.1.5")["reason"]) == ("Rejected", "OlderVersion")
    assert "by the request retry@<id>" in simulation.condition("1.1.5")["message"]
    simulation.request("1.1.5", "retry@1")
    simulation.until("1.1.5", "Stable")
    assert simulation.state("1.2.0") == "Standby"


def test_versions_are_ordered_within_one_type_and_specialization_and_never_across() -> None:
    simulation = serving("2.0.0")
    other = release("1.0.0", at=simulation.now)
    other["spec"]["model"]["specialization"] = "hindi"
    simulation.put(other)
    simulation.until("1.0.0", "Stable")
    assert simulation.state("2.0.0") == "Standby"


def test_of_several_lines_of_versions_the_one_that_has_waited_longest_is_first() -> None:
    simulation = Simulation(release("3.0.0"))
    simulation.until("3.0.0", "Starting")
    first = release("9.0.0", at=simulation.now)
    first["spec"]["model"]["specialization"] = "hindi"
    simulation.put(first)
    simulation.tick()
    add(simulation, "3.1.0")
    simulation.tick()
    assert (simulation.state("9.0.0"), simulation.state("3.1.0")) == ("Queued", "Queued")
    simulation.until("9.0.0", "Starting")
    assert simulation.state("3.1.0") == "Queued"


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
    assert "gateway.trafficPolicy=false" in simulation.condition("1.0.0")["message"]
    simulation.alerts.append(an_alert(name_of("1.1.0"), at=simulation.now, name="Own", sender=NAMESPACE))
    simulation.request("1.0.0", "hold@1")
    simulation.tick(20)
    assert list(simulation.answers.values()) == ["RolledBack"]
    assert simulation.status("1.0.0")["lastHandledRequest"] == "hold@1"
    assert ("Deployment", NAMESPACE, name_of("1.1.0").replace(".", "-")) not in simulation.objects


def test_a_release_for_which_there_is_no_room_does_not_hold_up_those_behind_it() -> None:
    simulation = serving()
    add(simulation, "1.1.0", serving={"replicas": 1, "resources": {"requests": {"cpu": 1000}}})
    add(simulation, "1.2.0")
    simulation.until("1.2.0", "Stable")
    assert simulation.state("1.1.0") == "Superseded"


def test_a_release_whose_bundle_is_quarantined_while_it_starts_takes_no_traffic() -> None:
    simulation = serving()
    add(simulation, "1.1.0", artifact={"digest": digest_of("same")})
    simulation.until("1.1.0", "Stable")
    add(simulation, "1.2.0", artifact={"digest": digest_of("same")})
    simulation.until("1.2.0", "Starting")
    simulation.request("1.1.0", "quarantine@1")
    simulation.tick(5)
    assert {version: simulation.state(version) for version in ("1.1.0", "1.2.0")} == {"1.1.0": "RolledBack", "1.2.0": "Rejected"}
    assert simulation.condition("1.2.0")["reason"] == "Quarantined"


def canary_of_a_quarantined_bundle(*, stable_has_pods: bool) -> Simulation:
    """A canary, and a second release of its bundle that waited and whose digest a person barred."""
    simulation = serving()
    simulation.requests_per_tick = 1
    add(simulation, "1.1.0", artifact={"digest": digest_of("same")}, serving={"startDeadlineSeconds": 600})
    simulation.until("1.1.0", "Canary")
    add(simulation, "1.2.0", artifact={"digest": digest_of("same")})
    simulation.until("1.2.0", "Queued")
    if not stable_has_pods:
        simulation.broken.add("1.0.0")
        simulation.tick(2)
    simulation.request("1.2.0", "quarantine@1")
    simulation.tick(2)
    assert (simulation.state("1.2.0"), simulation.quarantined()) == ("Withdrawn", {digest_of("same"): ["Request"]})
    return simulation


def test_a_canary_whose_bundle_is_quarantined_gives_its_traffic_back() -> None:
    simulation = canary_of_a_quarantined_bundle(stable_has_pods=True)
    assert (simulation.state("1.1.0"), simulation.condition("1.1.0", "RolledBack")["reason"]) == ("RolledBack", "Quarantined")
    assert simulation.status("1.1.0")["rollback"]["to"] == name_of("1.0.0")
    assert simulation.weights() == {"1.0.0": 100}


def test_a_canary_whose_bundle_is_quarantined_carries_the_service_until_the_stable_release_is_back() -> None:
    simulation = canary_of_a_quarantined_bundle(stable_has_pods=False)
    simulation.requests_per_tick = 1000
    simulation.tick(20)
    assert (simulation.state("1.1.0"), simulation.step("1.1.0"), simulation.weights()["1.1.0"]) == ("Canary", 0, 100)
    simulation.broken.clear()
    simulation.tick(4)
    assert (simulation.state("1.1.0"), simulation.weights()) == ("RolledBack", {"1.0.0": 100})


def test_a_canary_whose_bundle_is_quarantined_is_all_that_a_service_without_another_release_has() -> None:
    simulation = canary_of_a_quarantined_bundle(stable_has_pods=False)
    simulation.remove("1.0.0")
    simulation.tick(2)
    assert (simulation.state("1.1.0"), simulation.weights()) == ("Stable", {"1.1.0": 100})


def test_a_standby_that_carries_the_service_stays_until_the_stable_release_is_back_whenever_its_window_ends() -> None:
    simulation = serving(serving={"startDeadlineSeconds": 600})
    add(simulation, "1.1.0", serving={"startDeadlineSeconds": 600})
    simulation.until("1.1.0", "Stable")
    simulation.broken.add("1.1.0")
    simulation.tick(30)  # its window is 60 s
    assert (simulation.state("1.0.0"), simulation.weights()) == ("Standby", {"1.0.0": 100})
    simulation.broken.clear()
    simulation.tick(3)
    assert (simulation.state("1.0.0"), simulation.weights()["1.1.0"]) == ("Superseded", 100)


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
    "change", [{"spec": {"service": "standard", "model": {"family": "OfTomorrow"}}}, {"rollout": {"state": "OfTomorrow"}}]
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
    assert name_of(version) in [write.object["metadata"]["name"] for write in plan.statuses]
    assert simulation.weights() == before
    assert {key for key in simulation.objects if key[0] == "Deployment"} == children


def unreadable_beside(version: str, *, standby: bool = False) -> Simulation:
    """A canary beside a stable release, one of which this operator cannot read; with a standby if asked for."""
    simulation = serving()
    if standby:
        add(simulation, "1.0.1", rollback={"windowSeconds": 6000})
        simulation.until("1.0.1", "Stable")
    add(simulation, "1.1.0")
    simulation.until("1.1.0", "Canary")
    simulation.releases()[version]["spec"]["model"]["family"] = "OfTomorrow"
    simulation.settle()
    stalled = simulation.condition(version, "Stalled")
    assert (stalled["reason"], simulation.status(version)["summary"]["status"]) == ("Unreadable", "Unreadable")
    return simulation


def an_alert_about(simulation: Simulation, version: str) -> None:
    simulation.alerts.append(an_alert(name_of(version), at=simulation.now, name="Own", sender=NAMESPACE))


@pytest.mark.parametrize("trigger", ["alert", "check", "abort", "quarantine"])
def test_a_canary_is_taken_back_to_a_stable_release_that_cannot_be_read(trigger: str) -> None:
    simulation = unreadable_beside("1.0.0")
    match trigger:
        case "alert":
            an_alert_about(simulation, "1.1.0")
        case "check":
            simulation.latency["1.1.0"] = 60
        case verb:
            simulation.request("1.1.0", f"{verb}@1")
    simulation.tick(5)
    assert (simulation.state("1.1.0"), simulation.weights()) == ("RolledBack", {"1.0.0": 100, "1.1.0": 0})
    assert simulation.status("1.1.0")["rollback"]["to"] == name_of("1.0.0")
    assert simulation.quarantined() == ({digest_of("1.1.0"): ["Request"]} if trigger == "quarantine" else {})
    assert list(simulation.answers.values()) == (["RolledBack"] if trigger == "alert" else [])
    owners = simulation.objects["HTTPRoute", NAMESPACE, SERVICE]["metadata"]["ownerReferences"]
    assert [one["name"] for one in owners] == [name_of("1.0.0"), name_of("1.1.0")]


def test_a_stable_release_is_taken_back_to_its_standby_beside_a_canary_that_cannot_be_read() -> None:
    simulation = unreadable_beside("1.1.0", standby=True)
    an_alert_about(simulation, "1.0.1")
    simulation.tick(3)
    assert {version: simulation.state(version) for version in ("1.0.0", "1.0.1")} == {"1.0.0": "Stable", "1.0.1": "RolledBack"}
    assert simulation.weights() == {"1.0.0": 90, "1.0.1": 0, "1.1.0": 10}
    assert simulation.kstatuses() == {"1.0.0": "Current", "1.0.1": "Failed", "1.1.0": "Failed"}


def test_what_cannot_be_done_beside_a_release_that_cannot_be_read_is_done_once_it_can() -> None:
    simulation = unreadable_beside("1.0.0")
    simulation.request("1.1.0", "promote@1")
    add(simulation, "1.2.0")
    simulation.tick(10)
    assert (simulation.state("1.1.0"), simulation.weights()["1.1.0"]) == ("Canary", 10)
    assert simulation.status("1.1.0").get("lastHandledRequest", "") == ""
    assert not any("RequestRefused" in line for line in simulation.transcript)
    simulation.releases()["1.0.0"]["spec"]["model"]["family"] = "VideoFusion"
    simulation.until("1.1.0", "Stable")
    assert simulation.condition("1.0.0", "Stalled") == {}


def test_a_release_that_cannot_be_read_and_has_no_traffic_holds_up_nobody() -> None:
    simulation = serving()
    broken = release("1.1.0", at=simulation.now)
    broken["spec"]["model"]["family"] = "OfTomorrow"
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
    simulation.alerts.append(an_alert(name_of("1.1.0"), at=simulation.now, name="Own", sender=NAMESPACE))
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
    simulation.alerts.append(an_alert(name_of("1.1.0"), at=simulation.now, name="Own", sender=NAMESPACE))
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


def test_a_traffic_policy_that_another_one_keeps_out_is_reported_on_what_serves() -> None:
    simulation = serving()
    policy = simulation.objects["BackendTrafficPolicy", NAMESPACE, SERVICE]
    said = {"type": "Accepted", "status": "False", "reason": "Conflicted", "message": "another policy targets it"}
    policy["status"] = {"ancestors": [{"controllerName": SETTINGS["gateway_controller"], "conditions": [said]}]}
    simulation.tick()
    conflict = simulation.condition("1.0.0", "PolicyConflict")
    assert (conflict["status"], conflict["reason"]) == ("True", "PolicyNotAccepted")
    assert simulation.condition("1.0.0")["status"] == "True", "it serves all the same"
    said["status"] = "True"
    simulation.tick()
    assert simulation.condition("1.0.0", "PolicyConflict") == {}


def test_whoever_sets_replicas_sets_them_of_the_deployment_and_nobody_else_does() -> None:
    simulation = serving()
    deployment = simulation.objects["Deployment", NAMESPACE, name_of("1.0.0").replace(".", "-")]
    simulation.releases()["1.0.0"]["spec"]["serving"]["replicas"] = 9  # as kubectl scale or an autoscaler does through /scale
    simulation.tick(2)
    assert (simulation.status("1.0.0")["replicas"], simulation.ready("1.0.0"), simulation.state("1.0.0")) == (9, 9, "Stable")
    pods = simulation.objects["Deployment", NAMESPACE, name_of("1.0.0").replace(".", "-")]["spec"]["template"]["metadata"]["labels"]
    key, _, value = simulation.status("1.0.0")["selector"].partition("=")
    assert pods[key] == value
    deployment = simulation.objects["Deployment", NAMESPACE, name_of("1.0.0").replace(".", "-")]
    deployment["spec"]["replicas"] = 3
    simulation.settle()
    assert simulation.objects["Deployment", NAMESPACE, name_of("1.0.0").replace(".", "-")]["spec"]["replicas"] == 9


def test_whoever_finds_the_last_room_taken_waits_with_a_reason_and_does_not_fail() -> None:
    simulation = serving()
    simulation.unplaced.add("1.1.0")  # another service was given the node in the same moment
    add(simulation, "1.1.0", serving={"startDeadlineSeconds": 40})
    simulation.until("1.1.0", "Starting")
    simulation.until("1.1.0", "Queued")
    ready = simulation.condition("1.1.0")
    assert ready["reason"] == "InsufficientCapacity"
    assert "the scheduler finds no node: 0/1 nodes are available: 1 Insufficient nvidia.com/gpu; tried again at" in ready["message"]
    simulation.settle()
    assert ("Deployment", NAMESPACE, name_of("1.1.0").replace(".", "-")) not in simulation.objects, "it holds nothing back"
    simulation.tick(150)
    assert "Failed" not in simulation.waited["1.1.0"]
    simulation.unplaced.clear()
    simulation.until("1.1.0", "Stable")


def test_a_release_without_room_lets_one_behind_it_pass_while_it_waits() -> None:
    simulation = serving()
    simulation.unplaced.add("1.1.0")
    add(simulation, "1.1.0")
    simulation.until("1.1.0", "Starting")
    add(simulation, "1.2.0")
    simulation.until("1.2.0", "Stable")
    assert simulation.state("1.1.0") == "Superseded"


def test_a_release_may_wait_as_pending_pods_so_that_nodes_are_brought() -> None:
    simulation = serving()
    simulation.unplaced.add("1.1.0")
    add(
        simulation,
        "1.1.0",
        serving={"resources": {"limits": {"nvidia.com/gpu": 2}}, "capacity": "RequestNodes", "startDeadlineSeconds": 60},
    )
    simulation.until("1.1.0", "Starting")
    simulation.tick(300)
    assert simulation.state("1.1.0") == "Starting"
    assert ("Deployment", NAMESPACE, name_of("1.1.0").replace(".", "-")) in simulation.objects
    ready = simulation.condition("1.1.0")
    assert ready["reason"] == "InsufficientCapacity"
    assert "the scheduler finds no node" in ready["message"]
    simulation.unplaced.clear()
    simulation.ready_after = 10  # a new node, and then most of the deadline for loading
    simulation.until("1.1.0", "Stable")


def test_the_status_tells_who_had_how_much_traffic_when_why_and_by_whom() -> None:
    simulation = serving()
    add(simulation, "1.1.0")
    simulation.until("1.1.0", "Canary")
    while simulation.weights()["1.1.0"] < 50:
        simulation.tick()
    simulation.request("1.1.0", "abort@7")
    simulation.settle()
    told = [(entry["weightPercent"], entry["by"]) for entry in simulation.status("1.1.0")["trafficHistory"]]
    assert told == [(10, "operator"), (50, "operator"), (0, "request abort@7")]
    assert simulation.status("1.1.0")["trafficHistory"][-1]["why"].startswith(f"{name_of('1.1.0')}: aborted on request; ")
    stable = simulation.status("1.0.0")["trafficHistory"]
    assert [entry["weightPercent"] for entry in stable] == [100, 90, 50, 100]
    assert stable[-1] == simulation.status("1.1.0")["trafficHistory"][-1] | {"weightPercent": 100}
    assert [entry["time"] for entry in stable] == sorted(entry["time"] for entry in stable)


@pytest.mark.parametrize(("trigger", "by"), [("alert", "alert"), ("check", "checks"), ("pods", "operator")])
def test_the_history_tells_what_took_the_traffic_back(trigger: str, by: str) -> None:
    simulation = serving()
    add(simulation, "1.1.0")
    simulation.until("1.1.0", "Canary")
    match trigger:
        case "alert":
            simulation.alerts.append(an_alert(name_of("1.1.0"), at=simulation.now, name="Own", sender=NAMESPACE))
        case "check":
            simulation.latency["1.1.0"] = 60
        case _:
            simulation.broken.add("1.1.0")
    simulation.tick(5)
    last = simulation.status("1.1.0")["trafficHistory"][-1]
    assert (last["weightPercent"], last["by"]) == (0, by)
    assert ("ready" in last["why"]) == (trigger == "pods")


def test_the_history_keeps_the_newest_changes() -> None:
    simulation = serving()
    add(simulation, "1.1.0", rollout=ROLLOUT | {"steps": [{"weightPercent": 10, "minimumRequests": 1_000_000}]})
    simulation.until("1.1.0", "Canary")
    for _ in range(30):
        simulation.broken ^= {"1.1.0"}
        simulation.tick(2)
    assert len(simulation.status("1.1.0")["trafficHistory"]) == 20


def test_the_guard_goes_on_without_a_standby_and_says_that_nobody_can_take_over() -> None:
    simulation = serving()
    simulation.tick(200)
    simulation.latency["1.0.0"] = 60
    simulation.tick(6)
    failing = simulation.condition("1.0.0", "ChecksFailing")
    assert (simulation.state("1.0.0"), simulation.condition("1.0.0")["status"], failing["status"]) == ("Stable", "True", "True")
    assert "P95 latency 60 s, may be at most 10 s; no other release can take over" in failing["message"]
    assert sum("ChecksFailing" in line for line in simulation.transcript) == 1
    before = simulation.writes
    simulation.tick(20)
    assert simulation.writes == before, "what stays as bad is not written again and again"
    simulation.latency["1.0.0"] = 1
    simulation.tick(10)
    assert simulation.condition("1.0.0", "ChecksFailing") == {}


def test_the_guard_goes_on_after_the_window_and_a_new_canary_does_not_pay_for_it() -> None:
    simulation = serving()
    add(simulation, "1.1.0")
    simulation.until("1.0.0", "Superseded")
    simulation.latency["1.1.0"] = 60
    simulation.tick(6)
    assert (simulation.state("1.1.0"), simulation.condition("1.1.0", "ChecksFailing")["status"]) == ("Stable", "True")
    add(simulation, "1.2.0")
    simulation.until("1.2.0", "Stable")
    assert simulation.state("1.1.0") == "Standby"
    assert simulation.condition("1.1.0", "ChecksFailing") == {}


def test_whoever_waits_for_a_rollout_sees_it_go_on_once_and_end_once() -> None:
    simulation = serving()
    add(simulation, "1.1.0")
    simulation.until("1.1.0", "Canary")
    simulation.request("1.1.0", "hold@1")
    simulation.tick(10)
    simulation.request("1.1.0", "resume@1")
    simulation.until("1.1.0", "Stable")
    simulation.until("1.0.0", "Superseded")
    simulation.tick(5)
    assert dict(simulation.waited) == {"1.0.0": ["InProgress", "Current"], "1.1.0": ["InProgress", "Current"]}


@pytest.mark.parametrize("verb", ["abort", "quarantine", "withdraw"])
def test_whoever_waits_for_a_release_that_is_taken_out_is_told_that_it_failed_and_the_stable_one_is_left_alone(verb: str) -> None:
    simulation = serving()
    add(simulation, "1.1.0")
    simulation.until("1.1.0", "Canary")
    simulation.request("1.1.0", f"{verb}@1")
    simulation.tick(5)
    assert dict(simulation.waited) == {"1.0.0": ["InProgress", "Current"], "1.1.0": ["InProgress", "Failed"]}


def test_a_new_generation_is_in_progress_until_the_operator_has_looked_at_it() -> None:
    simulation = serving()
    item = simulation.releases()["1.0.0"]
    item["spec"]["serving"]["replicas"] = 3
    item["metadata"]["generation"] += 1
    assert kstatus(item) == "InProgress"
    simulation.settle()
    assert kstatus(item) == "InProgress", "the new pod is not ready yet"
    simulation.tick(2)
    assert kstatus(item) == "Current"


def edited(simulation: Simulation, version: str, **serving: Any) -> None:
    """As `kubectl scale` and `kubectl edit` do."""
    item = simulation.releases()[version]
    item["spec"]["serving"].update(serving)
    item["metadata"]["generation"] += 1


def test_a_stable_release_whose_new_pods_find_no_room_serves_on_and_says_so() -> None:
    simulation = serving()
    simulation.ready_limit["1.0.0"] = 2
    edited(simulation, "1.0.0", replicas=20)
    simulation.tick(40)
    assert (simulation.condition("1.0.0")["status"], simulation.condition("1.0.0", "Reconciling")["status"]) == ("True", "True")
    assert "2 of 20 pods are ready" in simulation.condition("1.0.0")["message"]
    assert kstatus(simulation.releases()["1.0.0"]) == "InProgress"


def test_a_canary_that_is_scaled_up_keeps_its_share_while_the_new_pods_start() -> None:
    simulation = serving()
    add(simulation, "1.1.0", rollout=ROLLOUT | {"steps": [{"weightPercent": 50, "minimumRequests": 1_000_000}]})
    simulation.until("1.1.0", "Canary")
    simulation.tick(3)
    simulation.ready_limit["1.1.0"] = 2
    edited(simulation, "1.1.0", replicas=8)
    simulation.tick(3)
    assert simulation.weights()["1.1.0"] == 50


def test_a_canary_of_fewer_pods_says_from_how_many_it_takes_over() -> None:
    simulation = serving()
    edited(simulation, "1.0.0", replicas=6)
    simulation.tick(3)
    add(simulation, "1.1.0", rollout=ROLLOUT | {"steps": [{"weightPercent": 50, "minimumRequests": 1_000_000}]})
    simulation.until("1.1.0", "Canary")
    assert "2 pods take over from 6" in simulation.condition("1.1.0")["message"]


def test_the_status_column_shows_that_a_release_was_rolled_back_and_the_condition_why() -> None:
    simulation = serving()
    add(simulation, "1.1.0")
    simulation.until("1.1.0", "Canary")
    simulation.latency["1.1.0"] = 60
    simulation.until("1.1.0", "RolledBack")
    assert simulation.status("1.1.0")["summary"]["status"] == simulation.condition("1.1.0")["reason"] == "RolledBack"
    assert simulation.condition("1.1.0", "RolledBack")["reason"] == "CheckFailed"


def test_a_hotfix_passes_a_canary_that_is_aborted_without_blame_and_the_canary_comes_back_after_it() -> None:
    simulation = serving("1.1.0")
    add(simulation, "1.2.0")
    simulation.until("1.2.0", "Canary")
    add(simulation, "1.1.1")
    simulation.tick()
    assert simulation.state("1.1.1") == "Queued"
    simulation.request("1.2.0", "abort@1")
    simulation.until("1.1.1", "Stable")
    assert (simulation.state("1.2.0"), simulation.quarantined()) == ("RolledBack", {})
    assert simulation.status("1.2.0")["rollback"]["judgement"] == "a person took the traffic back, and blames nothing"
    simulation.request("1.2.0", "retry@2")
    simulation.until("1.2.0", "Stable")


def test_a_hotfix_for_the_version_before_a_bad_one_starts_once_that_one_is_taken_back() -> None:
    simulation = serving("1.1.0")
    add(simulation, "1.2.0", rollback={"windowSeconds": 6000})
    simulation.until("1.2.0", "Stable")
    add(simulation, "1.1.1")
    simulation.tick(2)
    assert simulation.condition("1.1.1")["reason"] == "OlderVersion"
    simulation.request("1.2.0", "abort@1")
    simulation.until("1.1.1", "Stable")
    assert (simulation.state("1.1.0"), simulation.state("1.2.0")) == ("Standby", "RolledBack")


def test_the_only_release_can_be_withdrawn_and_the_service_refuses_until_somebody_serves_again() -> None:
    simulation = serving()
    simulation.request("1.0.0", "withdraw@1")
    simulation.settle()
    assert (simulation.state("1.0.0"), simulation.weights(), simulation.refuses()) == ("Withdrawn", {}, True)
    ready = simulation.condition("1.0.0")
    assert (ready["status"], ready["reason"]) == ("False", "Withdrawn")
    assert "no other release serves standard, which refuses requests" in ready["message"]
    served = len(simulation.served)
    simulation.tick(20)
    assert len(simulation.served) == served
    assert not [name for kind, _, name in simulation.objects if kind == "Deployment"]
    add(simulation, "1.1.0")
    simulation.until("1.1.0", "Starting")
    assert simulation.refuses()
    simulation.until("1.1.0", "Stable")
    assert (simulation.weights(), simulation.refuses()) == ({"1.1.0": 100}, False)
    simulation.request("1.0.0", "retry@2")
    simulation.until("1.0.0", "Stable")  # a person who asks for an older one gets it


def test_a_service_stays_closed_after_its_withdrawn_release_was_deleted() -> None:
    simulation = serving()
    simulation.request("1.0.0", "withdraw@1")
    simulation.settle()
    add(simulation, "1.1.0")
    simulation.settle()
    simulation.remove("1.0.0")
    simulation.settle()
    assert (simulation.state("1.1.0"), simulation.refuses()) == ("Starting", True)
    simulation.until("1.1.0", "Stable")
    assert not simulation.refuses()


def test_a_withdrawn_release_is_replaced_at_once_by_its_standby_which_can_be_withdrawn_as_well() -> None:
    simulation = serving()
    add(simulation, "1.1.0", rollback={"windowSeconds": 6000})
    simulation.until("1.1.0", "Stable")
    simulation.request("1.1.0", "withdraw@1")
    simulation.settle()
    assert (simulation.state("1.0.0"), simulation.weights()["1.0.0"]) == ("Stable", 100)
    assert simulation.quarantined() == {}
    simulation.request("1.0.0", "withdraw@2")
    simulation.settle()
    assert (simulation.state("1.0.0"), simulation.refuses()) == ("Withdrawn", True)


def test_a_withdrawal_is_done_again_by_an_operator_that_lost_every_status() -> None:
    simulation = serving()
    simulation.request("1.0.0", "withdraw@1")
    simulation.tick(20)
    for item in simulation.releases().values():
        item["status"] = {"observedGeneration": -1}
    simulation.tick(20)
    assert (simulation.state("1.0.0"), simulation.weights()) == ("Withdrawn", {})


@pytest.mark.parametrize("by", ["abort", "withdraw"])
def test_a_digest_is_barred_after_its_release_was_taken_back_for_another_reason(by: str) -> None:
    simulation = serving()
    add(simulation, "1.1.0", artifact={"digest": digest_of("bad")})
    simulation.until("1.1.0", "Canary")
    simulation.request("1.1.0", f"{by}@1")
    simulation.tick(10)
    assert simulation.quarantined() == {}
    simulation.request("1.1.0", "quarantine@2")
    simulation.tick()
    assert simulation.quarantined() == {digest_of("bad"): ["Request"]}
    assert simulation.status("1.1.0")["rollback"]["quarantined"] is True
    add(simulation, "1.2.0", artifact={"digest": digest_of("bad")})
    simulation.tick(3)
    assert (simulation.state("1.2.0"), simulation.condition("1.2.0")["reason"]) == ("Rejected", "Quarantined")


def test_a_withdrawn_release_whose_earlier_quarantine_was_lifted_is_not_barred_again() -> None:
    simulation = rolled_back()
    simulation.request("1.1.0", "retry@2")
    simulation.until("1.1.0", "Stable")
    simulation.request("1.1.0", "withdraw@3")
    simulation.tick(2)
    assert (simulation.state("1.1.0"), simulation.quarantined()) == ("Withdrawn", {})


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
    match dice.randrange(14):
        case 0:
            simulation.latency[version] = dice.choice([1.0, 30.0])
        case 1:
            simulation.broken ^= {version}
        case 2:
            simulation.prometheus = not simulation.prometheus
        case 3:
            simulation.request(
                version,
                f"{dice.choice(['abort', 'quarantine', 'withdraw', 'promote', 'hold', 'resume', 'retry', 'retry'])}@{dice.randrange(10**6)}",
            )
        case 4:
            known = {"name": dice.choice(["VideogenReleaseLatencyHigh", "VideogenReleaseErrorsHigh"])}
            alert = dice.choice([known, {"name": "Own", "sender": NAMESPACE}, {"name": "Own"}])
            simulation.alerts.append(an_alert(name_of(version), at=simulation.now, fingerprint=str(dice.randrange(10**6)), **alert))
        case 5:
            simulation.gateway = not simulation.gateway
        case 7:
            simulation.gateway_latency[version] = dice.choice([1.0, 30.0])
        case 8:
            simulation.crashed = {} if simulation.crashed else {version: 139}
        case 6 if dice.random() < 0.2 and len(simulation.releases()) > 1:
            simulation.remove(version)
        case _:
            pass
