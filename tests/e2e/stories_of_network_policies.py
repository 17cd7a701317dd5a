"""NetworkPolicies on the real network: a stranger's pod reaches nobody, and everybody who must reach somebody does."""

from __future__ import annotations

import json
import urllib.parse
import urllib.request
import uuid
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from videogen_demo import install, load
from videogen_demo.install import Installation
from videogen_demo.kubectl import Cluster
from videogen_testing.patience import HANGS
from videogen_testing.stories import SMALL, curate, ended, evaluate, namespace_manifest, phase, release, run, train

ENDLESS = 1_000_000  # steps: nobody waits for the end of them
OUTSIDER = "outsider"
CONNECT = """
import socket, sys
for address in sys.argv[1:]:
    host, port = address.rsplit(":", 1)
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
        print(address, "open")
    except TimeoutError:
        print(address, "timeout")
    except ConnectionRefusedError:
        print(address, "refused")
"""
LISTENING = """
lines = [line.split() for name in ("tcp", "tcp6") for line in open(f"/proc/net/{name}").readlines()[1:]]
ports = {int(line[1].rpartition(":")[2], 16) for line in lines if line[3] == "0A" and not line[1].startswith("0100007F")}
print(*sorted(ports))
"""
SERVE = "import http.server; http.server.HTTPServer(('', 8000), http.server.SimpleHTTPRequestHandler).serve_forever()"


def pod(namespace: str, name: str, image: str) -> dict[str, Any]:
    """A pod of nobody's, which listens on port 8000."""
    own = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}, "readOnlyRootFilesystem": True}
    container = {"name": "main", "image": image, "imagePullPolicy": "IfNotPresent", "command": ["python3", "-c", SERVE]}
    spec = {
        "automountServiceAccountToken": False,
        "securityContext": {"runAsNonRoot": True, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [container | {"securityContext": own, "workingDir": "/tmp"}],
        "terminationGracePeriodSeconds": 0,
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": namespace}, "spec": spec}


@pytest.fixture(scope="module")
def stranger(cluster: Cluster, installation: Installation) -> Iterator[str]:
    """A namespace with two pods that have nothing to do with the product."""
    name = f"e2e-stranger-{uuid.uuid4().hex[:6]}"
    image = installation.images["trainer"]
    cluster.apply(namespace_manifest(name), pod(name, OUTSIDER, image), pod(name, "neighbour", image))
    cluster("wait", "--for=condition=Ready", "pod", "--all", "-n", name, "--timeout=120s")
    yield name
    cluster("delete", "namespace", name, "--wait=false")


@pytest.fixture(scope="module")
def training(cluster: Cluster, namespace: str) -> Iterator[str]:
    """A run of two workers that reports progress, and a release of a small model that serves."""
    cluster.apply(run(namespace, "first", curate(), train(), evaluate(), release()))
    assert ended(cluster, namespace, "first")["status"] == "True"
    cluster.apply(run(namespace, "long", train(resources=SMALL, workers={"replicas": 2}), version="2.0.0", steps=ENDLESS))
    cluster.wait("two workers to report progress", lambda: phase(cluster, namespace, "long", "train").get("progress"), 600)
    yield "long"
    cluster("delete", "trainingrun", "long", "-n", namespace, "--wait=false")


def python(cluster: Cluster, namespace: str, name: str, code: str, *arguments: str) -> str:
    return cluster("exec", name, "-n", namespace, "--", "python3", "-c", code, *arguments)


def reached(cluster: Cluster, namespace: str, name: str, *addresses: str) -> dict[str, str]:
    """What a pod finds at each address: open, timeout or refused."""
    return dict(line.split() for line in python(cluster, namespace, name, CONNECT, *addresses).splitlines())


def ip(item: dict[str, Any]) -> str:
    return str(item["status"]["podIP"])


def workers(cluster: Cluster, namespace: str, name: str) -> list[dict[str, Any]]:
    """Those of the training; the preflight's pod, attempt 0, is over."""
    return cluster.list("pod", namespace, f"videogen.pib.gov.in/run={name},videogen.pib.gov.in/phase=train,videogen.pib.gov.in/attempt!=0")


def server(cluster: Cluster, namespace: str) -> dict[str, Any]:
    """The one ready pod of the namespace's release."""
    (found,) = cluster.list("pod", namespace, "videogen.pib.gov.in/service=standard")
    cluster("wait", "--for=condition=Ready", "pod", found["metadata"]["name"], "-n", namespace, "--timeout=600s")
    return found


def operators(cluster: Cluster) -> list[dict[str, Any]]:
    return cluster.list("pod", install.SYSTEM, "app.kubernetes.io/name=videogen-operator")


def test_a_stranger_reaches_its_neighbour(cluster: Cluster, stranger: str) -> None:
    """Or the tests below would show nothing."""
    neighbour = cluster.get("pod", "neighbour", stranger) or {}
    address = f"{ip(neighbour)}:8000"
    assert reached(cluster, stranger, OUTSIDER, address) == {address: "open"}


def test_a_stranger_reaches_no_port_of_a_trainer(cluster: Cluster, namespace: str, training: str, stranger: str) -> None:
    first, second = workers(cluster, namespace, training)
    listening = python(cluster, namespace, first["metadata"]["name"], LISTENING).split()
    assert listening, "a trainer of two workers has a rendezvous"
    addresses = [f"{ip(first)}:{port}" for port in listening]
    # Its own worker finds at least one open; ports of finished handshakes may close in between.
    assert "open" in reached(cluster, namespace, second["metadata"]["name"], *addresses).values()
    assert set(reached(cluster, stranger, OUTSIDER, *addresses).values()) == {"timeout"}


def test_a_stranger_reaches_no_port_of_a_server(cluster: Cluster, namespace: str, training: str, stranger: str) -> None:
    address = ip(server(cluster, namespace))
    addresses = [f"{address}:{port}" for port in (8000, 8001, 8002)]
    assert set(reached(cluster, stranger, OUTSIDER, *addresses).values()) == {"timeout"}


def test_a_stranger_and_a_trainer_do_not_read_the_operators_metrics(cluster: Cluster, namespace: str, training: str, stranger: str) -> None:
    trainer = workers(cluster, namespace, training)[0]["metadata"]["name"]
    for pod_ in operators(cluster):
        ports = {port["name"]: port["containerPort"] for port in pod_["spec"]["containers"][0]["ports"]}
        metrics, letters = f"{ip(pod_)}:{ports['metrics']}", f"{ip(pod_)}:{ports['inbox']}"
        every = [f"{ip(pod_)}:{port}" for port in ports.values()]
        assert set(reached(cluster, stranger, OUTSIDER, *every).values()) == {"timeout"}
        assert reached(cluster, namespace, trainer, metrics)[metrics] == "timeout"
        assert reached(cluster, namespace, trainer, letters)[letters] in {"open", "refused"}  # a standby may have no inbox


def test_a_viewer_gets_a_video_through_the_gateway(cluster: Cluster, namespace: str, training: str) -> None:
    server(cluster, namespace)
    url = f"{install.gateway_url(cluster)}/v2/models/video/infer"
    headers = {"Host": install.host_name("standard", namespace), "Content-Type": "application/json"}
    body = json.dumps(load.body("a red square moves right", 1)).encode()

    def answered() -> bool:
        request = urllib.request.Request(url, body, headers, method="POST")
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False  # the route may be younger than the gateway's last look

    assert cluster.wait("a video", answered, 300)


def test_prometheus_reads_operator_servers_and_gateway(cluster: Cluster, namespace: str, training: str) -> None:
    service = cluster.get("service", "prometheus", "monitoring") or {}
    url = f"http://{service['spec']['clusterIP']}:{service['spec']['ports'][0]['port']}/api/v1/query?"

    def found(promql: str) -> bool:
        with urllib.request.urlopen(url + urllib.parse.urlencode({"query": promql}), timeout=30) as answer:
            return bool(json.load(answer)["data"]["result"])

    name = server(cluster, namespace)["metadata"]["name"]
    for promql in (
        f'up{{job="videogen-releases",namespace="{namespace}",pod="{name}"}} == 1',
        f'videogen_requests_total{{namespace="{namespace}",service="standard"}}',
        'up{job="videogen-operator"} == 1',
        "videogen_leader == 1",
        f'envoy_cluster_upstream_rq_xx{{envoy_cluster_name=~"httproute/{namespace}/.*"}}',
    ):
        cluster.wait(promql, partial(found, promql), HANGS)


def test_policies_go_with_their_run(cluster: Cluster, namespace: str, training: str) -> None:
    of_first = "videogen.pib.gov.in/run=first"
    cluster.wait("policies of the ended run to go", lambda: not cluster.list("networkpolicy", namespace, of_first), HANGS)
    assert cluster.list("networkpolicy", namespace, f"videogen.pib.gov.in/run={training}")
