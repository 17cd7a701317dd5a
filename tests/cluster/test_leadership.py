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
from videogen_testing.patience import HANGS
from videogen_testing.runs import RUNS, a_claim, a_run, first_job

LEASE_SECONDS = 15  # renewed in time on a machine that does other things


@pytest.fixture
def two(plane: ControlPlane, namespace: str, tmp_path: Path) -> "Iterator[tuple[OperatorProcess, OperatorProcess]]":
    """Two operators that are not started yet, each with an identity and a log of its own."""
    with ExitStack() as stack:
        made, login = [], str(operator_kubeconfig(plane, namespace))
        for name in ("one", "another"):
            (tmp_path / name).mkdir()
            own = {"KUBECONFIG": login, "VIDEOGEN_IDENTITY": name, "VIDEOGEN_LEASE_SECONDS": f"{LEASE_SECONDS}"}
            made.append(OperatorProcess(plane, namespace, tmp_path / name, stack, **own))
        yield made[0], made[1]


def holder(api: Api, namespace: str) -> str:
    lease = api.get(f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/videogen-operator")
    return str(lease["spec"].get("holderIdentity", ""))


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
    assert frozen.child.wait(HANGS) == 1
    first_job(api, namespace)
    assert holder(api, namespace) == "another"
    assert "JobCreated" not in frozen.log.read_text()
    eventually(lambda: "JobCreated" in other.log.read_text())  # said after the job was made


def test_a_second_replica_is_alive_and_ready_and_takes_over_when_the_first_ends(
    api: Api, namespace: str, two: "tuple[OperatorProcess, OperatorProcess]"
) -> None:
    first, second = two
    first.start()
    second.start(ready=False)
    eventually(lambda: second.probe("healthz") == 200)
    eventually(lambda: second.probe("readyz") == 200)
    assert second.probe("leaderz") == 503
    assert first.stop(signal.SIGTERM) == 0
    eventually(lambda: second.probe("leaderz") == 200)
    assert holder(api, namespace) == "another"


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
    time.sleep(LEASE_SECONDS + 2)  # longer than the Lease lasts without a renewal
    assert (second.probe("leaderz"), holder(api, namespace)) == (503, leader)


def test_a_container_that_was_killed_takes_its_own_lease_again_at_once(
    api: Api, namespace: str, two: "tuple[OperatorProcess, OperatorProcess]"
) -> None:
    container, _ = two
    container.environment["VIDEOGEN_LEASE_SECONDS"] = f"{2 * HANGS:.0f}"
    container.start()
    container.stop(signal.SIGKILL)
    container.start()  # which waits until it is ready, half as long as the Lease lasts
    assert holder(api, namespace) == "one"


def test_a_standby_lives_on_and_the_service_leads_to_whoever_leads(
    api: Api, namespace: str, two: "tuple[OperatorProcess, OperatorProcess]"
) -> None:
    """The leader's EndpointSlice names it, goes with its pod, and is the next one's when it was killed."""
    path = f"/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices/videogen-operator-leader"
    for operator, address in zip(two, ("10.244.0.7", "10.244.0.8"), strict=True):
        name = operator.environment["VIDEOGEN_IDENTITY"]
        pod = api.create(
            f"/api/v1/namespaces/{namespace}/pods", {"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
        )
        operator.environment |= {
            "VIDEOGEN_INBOX_SERVICE": "videogen-operator",
            "VIDEOGEN_POD_ADDRESS": address,
            "VIDEOGEN_POD_UID": pod["metadata"]["uid"],
        }

    def addresses() -> list[str]:
        return [address for endpoint in (api.find(path) or {"endpoints": []})["endpoints"] for address in endpoint["addresses"]]

    first, second = two
    first.start()
    second.start(ready=False)
    eventually(lambda: addresses() == ["10.244.0.7"])
    time.sleep(35)  # longer than an event loop may stand still
    assert (second.probe("healthz"), second.probe("readyz"), second.probe("leaderz")) == (200, 200, 503)
    assert api.get(path)["metadata"]["labels"]["kubernetes.io/service-name"] == "videogen-operator"
    first.stop(signal.SIGKILL)
    eventually(lambda: second.probe("leaderz") == 200)
    eventually(lambda: addresses() == ["10.244.0.8"])
    api.delete(f"/api/v1/namespaces/{namespace}/pods/one")
    api.delete(f"/api/v1/namespaces/{namespace}/pods/another?gracePeriodSeconds=0")
    eventually(lambda: addresses() == [])
