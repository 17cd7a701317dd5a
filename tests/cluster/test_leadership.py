"""One operator writes at a time, whatever happens to its process."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from videogen_testing.chart_rights import operator_kubeconfig
from videogen_testing.control_plane import Api, ControlPlane, eventually
from videogen_testing.operator_process import OperatorProcess
from videogen_testing.runs import JOBS, RUNS, a_claim, a_run


@pytest.fixture
def two(plane: ControlPlane, namespace: str, tmp_path: Path) -> "Iterator[tuple[OperatorProcess, OperatorProcess]]":
    """Two operators that are not started yet, each with an identity and a log of its own."""
    with ExitStack() as stack:
        made, login = [], str(operator_kubeconfig(plane, namespace))
        for name in ("one", "another"):
            (tmp_path / name).mkdir()
            own = {"KUBECONFIG": login, "VIDEOGEN_IDENTITY": name, "VIDEOGEN_LEASE_SECONDS": "4"}
            made.append(OperatorProcess(plane, namespace, tmp_path / name, stack, **own))
        yield made[0], made[1]


def holder(api: Api, namespace: str) -> str:
    lease = api.get(f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/videogen-operator")
    return str(lease["spec"].get("holderIdentity", ""))


@pytest.mark.timeout(120)
def test_a_frozen_leader_wakes_up_writes_nothing_and_ends(api: Api, namespace: str, two: "tuple[OperatorProcess, OperatorProcess]") -> None:
    frozen, other = two
    frozen.start()
    assert holder(api, namespace) == "one"
    assert frozen.child is not None
    os.killpg(frozen.child.pid, signal.SIGSTOP)
    other.start()
    assert holder(api, namespace) == "another"
    os.killpg(frozen.child.pid, signal.SIGCONT)
    api.create(f"/api/v1/namespaces/{namespace}/persistentvolumeclaims", a_claim())
    api.create(RUNS.format(namespace), a_run(namespace=namespace))
    assert frozen.child.wait(30) == 1
    eventually(lambda: api.find(f"{JOBS.format(namespace)}/run-train-1"))
    assert holder(api, namespace) == "another"
    assert "JobCreated" not in frozen.log.read_text()
    eventually(lambda: "JobCreated" in other.log.read_text())  # said after the job was made


@pytest.mark.timeout(120)
def test_a_second_replica_is_alive_but_not_ready_and_takes_over_when_the_first_ends(
    api: Api, namespace: str, two: "tuple[OperatorProcess, OperatorProcess]"
) -> None:
    first, second = two
    first.start()
    second.start(ready=False)
    eventually(lambda: second.probe("healthz") == 200)
    assert second.probe("readyz") == 503
    assert first.stop(signal.SIGTERM) == 0
    eventually(lambda: second.probe("readyz") == 200, 30)
    assert holder(api, namespace) == "another"


@pytest.mark.timeout(120)
def test_two_operators_on_one_host_outside_a_pod_are_not_taken_for_one_another(
    api: Api, namespace: str, two: "tuple[OperatorProcess, OperatorProcess]"
) -> None:
    first, second = two
    for operator in two:
        del operator.environment["VIDEOGEN_IDENTITY"]
        operator.environment["HOSTNAME"] = "one-host"
    first.start()
    leader = holder(api, namespace)
    assert leader.startswith("one-host_")
    second.start(ready=False)
    eventually(lambda: second.probe("healthz") == 200)
    time.sleep(6)  # longer than the Lease lasts without a renewal
    assert (second.probe("readyz"), holder(api, namespace)) == (503, leader)


@pytest.mark.timeout(120)
def test_a_container_that_was_killed_takes_its_own_lease_again_at_once(
    api: Api, namespace: str, two: "tuple[OperatorProcess, OperatorProcess]"
) -> None:
    container, _ = two
    container.environment["VIDEOGEN_LEASE_SECONDS"] = "60"
    container.start()
    container.stop(signal.SIGKILL)
    container.start()  # which waits 30 s until it is ready
    assert holder(api, namespace) == "one"
