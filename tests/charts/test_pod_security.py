"""Every pod of the product, the chart's and those that the operator makes, against Pod Security `restricted`."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from videogen_operator.kinds.model_release import objects as of_releases
from videogen_operator.kinds.model_release.observed import observe as observe_service
from videogen_operator.kinds.training_run import objects as of_runs
from videogen_operator.kinds.training_run.observed import Observed, observe
from videogen_operator.plan import Key
from videogen_operator.settings import Settings
from videogen_testing.pod_security import RULES, pods_in, violations
from videogen_testing.releases import NAMESPACE, SERVICE, SETTINGS, Objects, a_claim, a_gateway, a_release
from videogen_testing.run_simulation import Simulation
from videogen_testing.runs import TRAIN

Pod = dict[str, Any]

VALUES: dict[str, dict[str, Any]] = {
    "by default": {},
    "with alerts, monitors and policies": {
        "alertWebhook": {"existingSecret": "tokens"},
        "alerts": {"configMap": True},
        "networkPolicy": {"enabled": True},
        "podMonitor": {"enabled": True},
        "podDisruptionBudget": {"enabled": True},
    },
    "in one namespace, by another user": {"watchNamespaces": ["system"], "podUser": 1000},
}


@pytest.mark.parametrize("values", VALUES.values(), ids=VALUES.keys())
def test_pods_of_the_chart(render: Callable[[dict[str, Any]], list[dict[str, Any]]], values: dict[str, Any]) -> None:
    pods = list(pods_in(render(values)))
    assert pods
    assert [violations(pod) for pod in pods] == [[] for _ in pods]


RUNS: dict[str, dict[str, Any]] = {
    "one pod": {},
    "several pods": {"workers": {"replicas": 3, "processes": 2}},
    "with GPUs": {"workers": {"replicas": 2}, "resources": {"limits": {"nvidia.com/gpu": 8}}},
}


@pytest.mark.parametrize("fields", RUNS.values(), ids=RUNS.keys())
def test_pods_of_training_runs(fields: dict[str, Any]) -> None:
    observed = observe(Simulation(phases=[TRAIN | fields]).world, Key("TrainingRun", "models", "run"))
    assert isinstance(observed, Observed)
    phase = observed.spec.phases[0]
    job = of_runs.job_of(observed, phase, observed.phase_status("train"), 1)
    (pod,) = pods_in(of_runs.pytorch_job(observed, phase, job, Settings(progress_url="http://operator:8080").for_plans()))
    assert violations(pod) == []


RELEASES: dict[str, dict[str, Any]] = {
    "one replica": {},
    "replicas with GPUs": {"replicas": 2, "resources": {"limits": {"nvidia.com/gpu": 1}}},
    "placed": {"placement": {"nodeSelector": {"pool": "gpu"}, "priorityClassName": "video"}},
}


@pytest.mark.parametrize("serving", RELEASES.values(), ids=RELEASES.keys())
def test_pods_of_releases(serving: dict[str, Any]) -> None:
    observed = observe_service(Objects(a_claim(), a_gateway(), a_release(serving=serving)), Key("ModelRelease", NAMESPACE, SERVICE))
    assert observed
    (release,) = observed.releases
    pods = [pod for child in of_releases.children(release, SETTINGS) for pod in pods_in(child)]
    assert [violations(pod) for pod in pods] == [[]]


# --- the table itself -----------------------------------------------------------------------------------------------

SAFE: Pod = {
    "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
    "containers": [{"name": "one", "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}}],
}


def of_container(**fields: Any) -> Callable[[Pod], object]:
    return lambda pod: pod["containers"][0]["securityContext"].update(fields)


def of_pod(**fields: Any) -> Callable[[Pod], object]:
    return lambda pod: pod["securityContext"].update(fields)


BROKEN: dict[str, tuple[str, Callable[[Pod], object]]] = {
    "the host's network": ("no namespaces of the host", lambda pod: pod.update(hostNetwork=True)),
    "the host's processes": ("no namespaces of the host", lambda pod: pod.update(hostPID=True)),
    "privileged": ("no privileged container", of_container(privileged=True)),
    "capabilities are kept": ("capabilities: drop ALL", of_container(capabilities={})),
    "some capabilities are kept": ("capabilities: drop ALL", of_container(capabilities={"drop": ["NET_RAW"]})),
    "a capability more": ("capabilities: add none but NET_BIND_SERVICE", of_container(capabilities={"drop": ["ALL"], "add": ["SYS_TIME"]})),
    "a folder of the host": ("only volumes of these types", lambda pod: pod.update(volumes=[{"name": "v", "hostPath": {"path": "/"}}])),
    "a port of the host": ("no ports of the host", lambda pod: pod["containers"][0].update(ports=[{"hostPort": 80}])),
    "a probe of another host": (
        "no host in probes and hooks",
        lambda pod: pod["containers"][0].update(livenessProbe={"httpGet": {"host": "169.254.169.254"}}),
    ),
    "a hook to another host": (
        "no host in probes and hooks",
        lambda pod: pod["containers"][0].update(lifecycle={"preStop": {"httpGet": {"host": "169.254.169.254"}}}),
    ),
    "no AppArmor": ("AppArmor as the runtime has it", of_pod(appArmorProfile={"type": "Unconfined"})),
    "another SELinux type": ("SELinux types of containers", of_pod(seLinuxOptions={"type": "spc_t"})),
    "an SELinux user": ("SELinux types of containers", of_container(seLinuxOptions={"user": "system_u"})),
    "all of /proc": ("the default /proc", of_container(procMount="Unmasked")),
    "a sysctl of the node": ("safe sysctls", of_pod(sysctls=[{"name": "kernel.msgmax", "value": "1"}])),
    "escalation by default": (
        "no privilege escalation",
        lambda pod: pod["containers"][0]["securityContext"].pop("allowPrivilegeEscalation"),
    ),
    "any user": ("runs as non-root", lambda pod: pod["securityContext"].pop("runAsNonRoot")),
    "a container as root": ("runs as non-root", of_container(runAsNonRoot=False)),
    "user 0": ("no user 0", of_pod(runAsUser=0)),
    "no seccomp": ("a seccomp profile", lambda pod: pod["securityContext"].pop("seccompProfile")),
    "a container without seccomp": ("a seccomp profile", of_container(seccompProfile={"type": "Unconfined"})),
    "an unsafe container that initialises": (
        "no privilege escalation",
        lambda pod: pod.update(initContainers=[SAFE["containers"][0] | {"securityContext": {"capabilities": {"drop": ["ALL"]}}}]),
    ),
}


def test_a_safe_pod_breaks_no_rule() -> None:
    assert violations(SAFE) == []


@pytest.mark.parametrize("rule, change", BROKEN.values(), ids=BROKEN.keys())
def test_an_unsafe_pod_breaks_its_rule(rule: str, change: Callable[[Pod], object]) -> None:
    pod = copy.deepcopy(SAFE)
    change(pod)
    assert violations(pod) == [rule]


def test_every_rule_is_tried() -> None:
    assert {rule for rule, _ in BROKEN.values()} == set(RULES)
