"""A stranger's pod connects to trainers and servers: what the policies that the operator makes say of it, by the rules of Kubernetes.

That they are enforced, on the local cluster, shows tests/e2e/test_network_policies.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from videogen_operator.kinds.training_run import TRAINING_RUN
from videogen_operator.names import run_child_name
from videogen_operator.plan import Failure, Key
from videogen_testing.releases import NAMESPACE, a_release, name_of
from videogen_testing.run_simulation import Simulation as OneRun
from videogen_testing.runs import TRAIN, ended, running
from videogen_testing.service_simulation import Simulation as Service

Labels = Mapping[str, str]
REQUESTS, METRICS = 8000, 8002


@dataclass(frozen=True)
class Pod:
    """Where a pod is and what it says of itself."""

    namespace: str
    labels: Labels = field(default_factory=dict)


PROXY = Pod("envoy-gateway-system", {"app.kubernetes.io/managed-by": "envoy-gateway", "app.kubernetes.io/component": "proxy"})
PROMETHEUS = Pod("monitoring", {"app.kubernetes.io/name": "prometheus"})
OPERATOR = Pod("videogen-system", {"app.kubernetes.io/name": "videogen-operator"})


def selects(selector: Mapping[str, Any], labels: Labels) -> bool:
    """Whether a LabelSelector with matchLabels and Exists matches."""
    expressions = selector.get("matchExpressions", [])
    assert all(one["operator"] == "Exists" for one in expressions)
    return selector.get("matchLabels", {}).items() <= labels.items() and all(one["key"] in labels for one in expressions)


def matches(peer: Mapping[str, Any], source: Pod, namespace: str) -> bool:
    """Whether a NetworkPolicyPeer without an address block is this pod."""
    names = {"kubernetes.io/metadata.name": source.namespace}
    there = selects(peer["namespaceSelector"], names) if "namespaceSelector" in peer else source.namespace == namespace
    return there and selects(peer.get("podSelector", {}), source.labels)


def admits(policies: list[Any], target: Pod, source: Pod, port: int) -> bool:
    """Whether a connection is allowed: by one rule of one policy that selects the target, or because none does."""
    selecting = [one for one in policies if one["metadata"]["namespace"] == target.namespace]
    selecting = [one for one in selecting if selects(one["spec"]["podSelector"], target.labels)]
    rules = [rule for one in selecting for rule in one["spec"].get("ingress", ())]
    return not selecting or any(
        ("ports" not in rule or port in {each["port"] for each in rule["ports"]})
        and ("from" not in rule or any(matches(peer, source, target.namespace) for peer in rule["from"]))
        for rule in rules
    )


def training() -> tuple[OneRun, Pod]:
    """A run at its first attempt, and a pod of it."""
    sim = OneRun(phases=[TRAIN | {"workers": {"replicas": 2}}])
    sim.settle()
    sim.set_pods(running())
    sim.settle()
    (pod, *_) = sim.pods()
    return sim, Pod("models", pod["metadata"]["labels"])


def changed(pod: Pod, **labels: str) -> Pod:
    return Pod(pod.namespace, dict(pod.labels) | {f"videogen.pib.gov.in/{name.replace('_', '-')}": value for name, value in labels.items()})


def test_only_pods_of_the_same_attempt_reach_a_trainer() -> None:
    sim, trainer = training()
    policies = list(sim.world.list("NetworkPolicy"))
    strangers = [
        Pod("attacker"),
        Pod("attacker", trainer.labels),
        Pod("models"),
        changed(trainer, attempt="2"),
        changed(trainer, attempt="0"),
        changed(trainer, phase="validate"),
        changed(trainer, run_uid="another"),
        PROXY,
        PROMETHEUS,
        OPERATOR,
    ]
    for port in (23456, 29500, 41000):
        assert admits(policies, trainer, trainer, port)
        assert [source for source in strangers if admits(policies, trainer, source, port)] == []


def policies_of(sim: OneRun) -> list[str]:
    return [one["metadata"]["name"] for one in sim.world.list("NetworkPolicy")]


def test_the_policies_of_an_attempt_go_when_no_pod_of_it_is_left_and_not_before() -> None:
    sim, _ = training()
    of_run, first = run_child_name("run"), sim.current_job()["metadata"]["name"]
    sim.spec(suspend=True)
    sim.step()
    assert first in policies_of(sim), "its pods are still ending"
    sim.settle()
    assert policies_of(sim) == [of_run], "a suspended run goes on"
    sim.spec(suspend=False)
    sim.settle()
    second = sim.current_job()["metadata"]["name"]
    assert second != first
    assert sorted(policies_of(sim)) == sorted([of_run, second])
    sim.set_pods(ended(1))
    sim.settle()
    assert second in policies_of(sim), "its job may still make pods"


def test_one_pod_that_talks_to_no_other_is_reached_by_nobody() -> None:
    sim = OneRun(phases=[TRAIN])
    sim.settle()
    sim.set_pods(running())
    sim.settle()
    assert policies_of(sim) == [run_child_name("run")]
    (pod,) = sim.pods()
    trainer = Pod("models", pod["metadata"]["labels"])
    assert not admits(list(sim.world.list("NetworkPolicy")), trainer, trainer, 29500)


def test_the_policy_of_a_run_comes_back_also_while_its_pods_end() -> None:
    sim, _ = training()
    sim.spec(suspend=True)
    sim.step()
    policy = sim.world.get("NetworkPolicy", "models", run_child_name("run"))
    assert policy is not None
    sim.world.remove(policy)
    sim.step()
    assert run_child_name("run") in policies_of(sim), "a pod may still save"


@pytest.mark.parametrize("of", ["run", "attempt"])
def test_a_policy_that_somebody_deletes_comes_back(of: str) -> None:
    sim, _ = training()
    name = run_child_name("run") if of == "run" else sim.current_job()["metadata"]["name"]
    policy = sim.world.get("NetworkPolicy", "models", name)
    assert policy is not None
    sim.world.remove(policy)
    sim.step()
    again = sim.world.get("NetworkPolicy", "models", name)
    assert again is not None
    assert again["spec"] == policy["spec"]


@pytest.fixture(scope="module")
def served() -> tuple[list[Any], Pod]:
    """The policies of a service, and a pod of its release."""
    service = Service(a_release("1.0.0"))
    service.until("1.0.0", "Stable")
    (deployment,) = service.list("Deployment", NAMESPACE)
    return list(service.list("NetworkPolicy")), Pod(NAMESPACE, deployment["spec"]["template"]["metadata"]["labels"])


def test_only_gateway_neighbours_and_operator_send_requests_to_a_server(served: tuple[list[Any], Pod]) -> None:
    policies, server = served
    neighbour = Pod(NAMESPACE, {"videogen.pib.gov.in/release": "another"})
    for source in (PROXY, OPERATOR, neighbour):
        assert admits(policies, server, source, REQUESTS), source
    for source in (Pod("attacker"), Pod("attacker", PROXY.labels), Pod("attacker", server.labels), Pod(NAMESPACE), PROMETHEUS):
        assert not admits(policies, server, source, REQUESTS), source


def test_only_prometheus_and_the_operator_read_a_servers_metrics(served: tuple[list[Any], Pod]) -> None:
    policies, server = served
    for source in (PROMETHEUS, OPERATOR):
        assert admits(policies, server, source, METRICS), source
    for source in (Pod("attacker"), Pod("attacker", PROMETHEUS.labels), Pod(NAMESPACE, server.labels), PROXY):
        assert not admits(policies, server, source, METRICS), source


def test_a_server_is_protected_until_its_last_pod_is_gone() -> None:
    service = Service(a_release("1.0.0"))
    service.until("1.0.0", "Stable")
    service.put(a_release("1.1.0"))
    service.until("1.1.0", "Canary")
    child = name_of("1.1.0").replace(".", "-")
    labels = service.objects["Deployment", NAMESPACE, child]["spec"]["template"]["metadata"]["labels"]
    metadata = {"name": "going", "namespace": NAMESPACE, "uid": "going", "labels": labels}
    service.put({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {}, "status": {}})
    service.request("1.1.0", "abort@1")
    service.until("1.1.0", "RolledBack")
    service.tick(30)
    assert ("Deployment", NAMESPACE, child) not in service.objects
    assert ("NetworkPolicy", NAMESPACE, child) in service.objects
    service.drop("Pod", "going")
    service.tick()
    assert ("NetworkPolicy", NAMESPACE, child) not in service.objects
    assert len(service.list("NetworkPolicy", NAMESPACE)) == 1, "the other release keeps its own"


def test_no_pod_of_a_release_comes_without_its_policy_and_the_release_says_why() -> None:
    service = Service(a_release("1.0.0"))
    service.refused["NetworkPolicy"] = Failure("NetworkPolicy", name_of("1.0.0").replace(".", "-"), 403, "quota exceeded")
    service.tick(4)
    assert not service.list("Deployment", NAMESPACE)
    conditions = service.objects["ModelRelease", NAMESPACE, name_of("1.0.0")]["status"]["conditions"]
    assert any("NetworkPolicy" in one["message"] and "quota exceeded" in one["message"] for one in conditions), conditions
    service.refused.clear()
    service.until("1.0.0", "Stable")


def test_the_key_of_a_policy_is_that_of_its_run() -> None:
    sim, _ = training()
    assert policies_of(sim)
    for policy in sim.world.list("NetworkPolicy"):
        assert list(TRAINING_RUN.keys(policy, sim.world)) == [Key("TrainingRun", "models", "run")]
