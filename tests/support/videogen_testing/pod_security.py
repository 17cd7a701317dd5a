"""Kubernetes' Pod Security Standard `restricted`, as a table over a pod's spec.

Source: https://kubernetes.io/docs/concepts/security/pod-security-standards/, profiles Baseline and Restricted, as of Kubernetes 1.36. Rules
about Windows are left out: no pod of ours runs there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

Spec = Mapping[str, Any]
VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}
SELINUX_TYPES = {None, "", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"}
SYSCTLS = {
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_wmem",
}


def containers(pod: Spec) -> list[Spec]:
    return [one for kind in ("initContainers", "containers", "ephemeralContainers") for one in pod.get(kind) or []]


def context(one: Spec) -> Spec:
    found: Spec = one.get("securityContext") or {}
    return found


def everywhere(pod: Spec, field: str) -> list[Any]:
    """The field's values in the pod's security context and in those of its containers."""
    return [context(one).get(field) for one in (pod, *containers(pod))]


def effective(pod: Spec, field: str) -> list[Any]:
    """The field's value for each container: its own, else the pod's."""
    return [context(one).get(field, context(pod).get(field)) for one in containers(pod)]


def handlers(one: Spec) -> Iterator[Spec]:
    """Probes and lifecycle hooks of a container."""
    yield from (one[probe] for probe in ("livenessProbe", "readinessProbe", "startupProbe") if one.get(probe))
    yield from (hook for hook in (one.get("lifecycle") or {}).values() if isinstance(hook, Mapping))


def of_type(values: list[Any]) -> list[Any]:
    return [(value or {}).get("type") for value in values]


# What must hold, and whether it does.
RULES: dict[str, Callable[[Spec], bool]] = {
    "no namespaces of the host": lambda pod: not any(pod.get(name) for name in ("hostNetwork", "hostPID", "hostIPC")),
    "no privileged container": lambda pod: not any(context(one).get("privileged") for one in containers(pod)),
    "capabilities: drop ALL": lambda pod: all(
        "ALL" in ((context(one).get("capabilities") or {}).get("drop") or []) for one in containers(pod)
    ),
    "capabilities: add none but NET_BIND_SERVICE": lambda pod: all(
        set((context(one).get("capabilities") or {}).get("add") or []) <= {"NET_BIND_SERVICE"} for one in containers(pod)
    ),
    "only volumes of these types": lambda pod: all(set(volume) - {"name"} <= VOLUMES for volume in pod.get("volumes") or []),
    "no ports of the host": lambda pod: not any(port.get("hostPort") for one in containers(pod) for port in one.get("ports") or []),
    "no host in probes and hooks": lambda pod: (
        not any(
            (handler.get(kind) or {}).get("host")
            for one in containers(pod)
            for handler in handlers(one)
            for kind in ("httpGet", "tcpSocket")
        )
    ),
    "AppArmor as the runtime has it": lambda pod: set(of_type(everywhere(pod, "appArmorProfile"))) <= {None, "RuntimeDefault", "Localhost"},
    "SELinux types of containers": lambda pod: all(
        (options or {}).get("type") in SELINUX_TYPES and not {"user", "role"} & {key for key, value in (options or {}).items() if value}
        for options in everywhere(pod, "seLinuxOptions")
    ),
    "the default /proc": lambda pod: all(context(one).get("procMount") in {None, "Default"} for one in containers(pod)),
    "safe sysctls": lambda pod: all(one["name"] in SYSCTLS for one in context(pod).get("sysctls") or []),
    "no privilege escalation": lambda pod: all(context(one).get("allowPrivilegeEscalation") is False for one in containers(pod)),
    "runs as non-root": lambda pod: all(value is True for value in effective(pod, "runAsNonRoot")),
    "no user 0": lambda pod: 0 not in everywhere(pod, "runAsUser"),
    "a seccomp profile": lambda pod: (
        set(of_type(effective(pod, "seccompProfile"))) <= {"RuntimeDefault", "Localhost"}
        and set(of_type(everywhere(pod, "seccompProfile"))) <= {None, "RuntimeDefault", "Localhost"}
    ),
}


def violations(pod: Spec) -> list[str]:
    """The rules that a pod's spec breaks."""
    return [rule for rule, holds in RULES.items() if not holds(pod)]


def pods_in(value: Any) -> Iterator[Spec]:
    """Every pod's spec in an object, in whatever kind of template it is."""
    if isinstance(value, Mapping):
        if isinstance(value.get("containers"), list):
            yield value
        for part in value.values():
            yield from pods_in(part)
    elif isinstance(value, list):
        for part in value:
            yield from pods_in(part)
