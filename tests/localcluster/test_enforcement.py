"""How packets are led to the agent that judges them."""

from pathlib import Path

from localcluster import cluster, enforcement, monitoring, objects
from localcluster.layout import Layout

LAYOUT = Layout(repo=Path("/src/checkout"), index=2)


def test_only_roots_processes_are_exempt_and_monitoring_is_not() -> None:
    lines = enforcement.rules("10.246.0.0/16").splitlines()
    outgoing = [line for line in lines if line.startswith(f"-A {enforcement.OUTGOING}")]
    assert [line.rpartition(" ")[2] for line in outgoing] == [enforcement.QUEUEING, "RETURN", enforcement.QUEUEING]
    assert f"--gid-owner {enforcement.JUDGED_GROUP} " in outgoing[0]
    assert "--uid-owner 0 " in outgoing[1]


def test_a_queue_that_nobody_reads_lets_nothing_through() -> None:
    assert "bypass" not in enforcement.rules(LAYOUT.pod_cidr)


def test_monitoring_runs_in_the_group_that_is_judged() -> None:
    for part in monitoring.parts(LAYOUT):
        assert part.argv[:2] == ("setpriv", f"--regid={enforcement.JUDGED_GROUP}"), part.name
        assert part.in_netns


def test_the_agent_may_read_what_it_needs_and_nothing_else() -> None:
    (role,) = (
        item
        for item in objects.all_objects(LAYOUT)
        if item["kind"] == "ClusterRole" and item["metadata"]["name"].endswith("network-policies")
    )
    rights = {
        (group, resource, verb)
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    wanted = {("", "pods"), ("", "namespaces"), ("networking.k8s.io", "networkpolicies")}
    assert rights == {(*resource, verb) for resource in wanted for verb in ("get", "list", "watch")}


def test_a_queue_counts_when_the_kernel_names_a_listener() -> None:
    assert enforcement.listens("   98  20311     0 2   128     0     0        0  1\n")
    assert not enforcement.listens("  980  20311     0 2   128     0     0        0  1\n")
    assert not enforcement.listens("")


def test_the_agent_outlives_the_kubelets() -> None:
    assert cluster.STOP_ORDER.index(enforcement.NAME) > cluster.STOP_ORDER.index("kubelet")


def test_a_kernel_that_cannot_enforce_is_said_in_up_and_status(tmp_path: Path) -> None:
    layout = Layout(repo=tmp_path, index=0)
    assert enforcement.missing(layout) == ""
    layout.state.mkdir(parents=True)
    (layout.state / enforcement.NAME).write_text(enforcement.MISSING)
    assert enforcement.warning(enforcement.missing(layout)).startswith("WARNING: NetworkPolicies are not enforced")
