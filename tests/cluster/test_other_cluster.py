"""What `install-addons` and `install-monitoring` give another cluster, accepted by a real API server. No pod runs: it has no nodes."""

from __future__ import annotations

import http.server
import json
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
import yaml

from localcluster import addons, build, monitoring_pods
from localcluster.addons import AddonImages
from localcluster.kubectl import Kubectl
from localcluster.layout import Layout
from localcluster.monitoring_pods import Alerting, MonitoringImages
from videogen_demo import delivery, reach
from videogen_demo.kubectl import Cluster, CommandError
from videogen_testing.control_plane import ROOT, control_plane

CONNECT = socket.create_connection
LAYOUT = Layout(repo=ROOT, index=0)
ALERTING = Alerting(rules={"videogen": (ROOT / "charts/videogen/files/rules.yaml").read_text()}, webhook="http://operator", token="t")


@pytest.fixture(scope="module")
def kubeconfig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An empty cluster of its own: what is installed here would change what other tests find."""
    addons.ensure_upstream(LAYOUT)
    with control_plane(tmp_path_factory.mktemp("other-cluster")) as plane:
        yield plane.kubeconfig


@pytest.fixture
def kubectl(kubeconfig: Path) -> Kubectl:
    return Kubectl(LAYOUT.bin / "kubectl", kubeconfig)


def test_everything_is_lacking_in_an_empty_cluster(kubectl: Kubectl) -> None:
    assert addons.lacking(kubectl) == list(addons.INSTALL)
    assert not monitoring_pods.installed_by_others(kubectl)


def test_kubectl_is_left_to_read_a_list_of_files(kubeconfig: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    empty = tmp_path / "empty"
    empty.write_text(json.dumps({"apiVersion": "v1", "kind": "Config"}))
    monkeypatch.setenv("KUBECONFIG", f"{empty}:{kubeconfig}")
    assert Kubectl(LAYOUT.bin / "kubectl", None).works("get", "--raw", "/readyz")


def test_prometheus_and_alertmanager_are_accepted_twice_and_known_as_ours(kubectl: Kubectl) -> None:
    manifests = monitoring_pods.manifests(MonitoringImages(), ALERTING)
    for _ in range(2):
        kubectl.apply(manifests)
    assert not monitoring_pods.installed_by_others(kubectl)
    assert len(kubectl.get("deployments", "-n", "monitoring")["items"]) == 2
    account = "--as=system:serviceaccount:monitoring:prometheus"
    assert kubectl.works("auth", "can-i", "list", "pods", "-A", account)
    assert not kubectl.works("auth", "can-i", "list", "secrets", "-A", account)


def test_their_pods_are_let_in_by_pod_security_restricted(kubectl: Kubectl) -> None:
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    kubectl.apply([{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "restricted", "labels": labels}}])
    kubectl.apply([{"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "prometheus", "namespace": "restricted"}}])
    for item in monitoring_pods.manifests(MonitoringImages(), ALERTING):
        if item["kind"] == "Deployment":
            pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": item["metadata"]["name"], "namespace": "restricted"}}
            kubectl("create", "-f", "-", stdin=json.dumps(pod | {"spec": item["spec"]["template"]["spec"]}))


def test_a_prometheus_of_somebody_else_is_told_from_ours(kubectl: Kubectl) -> None:
    kubectl.apply(monitoring_pods.manifests(MonitoringImages(), ALERTING))
    kubectl("label", "service", "prometheus", "-n", "monitoring", "app.kubernetes.io/managed-by=Helm", "--overwrite")
    assert monitoring_pods.installed_by_others(kubectl)
    kubectl.apply(monitoring_pods.manifests(MonitoringImages(), ALERTING))


def test_the_training_operator_is_accepted(kubectl: Kubectl) -> None:
    addons.install_training_operator(LAYOUT, kubectl, AddonImages())
    (deployment,) = kubectl.get("deployments", "-n", addons.TRAINING_NAMESPACE)["items"]
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert container["image"] == AddonImages().training_operator
    assert "training-operator" not in addons.lacking(kubectl)


def test_envoy_gateway_and_our_gateway_are_accepted(kubectl: Kubectl, kubeconfig: Path, tmp_path: Path) -> None:
    """The chart's hook would wait for a pod, so that it is rendered and applied without it."""
    values = tmp_path / "values.json"
    values.write_text(json.dumps(addons.helm_values(AddonImages())))
    chart = LAYOUT.upstream / "gateway-helm"
    command = [build.program(LAYOUT, "helm"), "template", "envoy-gateway", chart, "--namespace", addons.ENVOY_NAMESPACE]
    command += ["--include-crds", "--no-hooks", "--values", values]
    rendered = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    documents = [document for document in yaml.load_all(rendered, Loader=yaml.CSafeLoader) if document]
    assert AddonImages().envoy_gateway in rendered
    definitions = [document for document in documents if document["kind"] == "CustomResourceDefinition"]
    kubectl.apply([{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": addons.ENVOY_NAMESPACE}}, *definitions])
    kubectl.wait(300, "--for=condition=Established", *(f"crd/{one['metadata']['name']}" for one in definitions))
    kubectl.apply([document for document in documents if document not in definitions])
    kubectl.apply([addons.envoy_proxy(AddonImages()), addons.gateway_class()])
    addons.install_gateway(LAYOUT, kubectl, AddonImages())
    assert not {"envoy-gateway", "gateway"} & set(addons.lacking(kubectl))


def test_without_a_way_to_bring_images_it_is_said_what_to_set(kubeconfig: Path) -> None:
    with pytest.raises(CommandError, match=r"set VIDEOGEN_REGISTRY to a registry .*, or VIDEOGEN_LOAD to a command"):
        delivery.to_other_cluster(Cluster(kubeconfig), {})


def test_where_nothing_answers_the_last_word_is_kubectls(kubeconfig: Path) -> None:
    absent = {"metadata": {"name": "absent", "namespace": "default"}, "spec": {"clusterIP": "None", "ports": [{"port": 80}]}}
    with pytest.raises(CommandError, match=r'service default/absent cannot be reached .* services "absent" not found'):
        reach.address(Cluster(kubeconfig), absent)


def test_an_open_port_of_somebody_else_is_not_taken_for_the_clusters(
    kubeconfig: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a network whose proxy opens a port at every address."""
    cluster = Cluster(kubeconfig)
    cluster("create", "configmap", "kube-root-ca.crt", "-n", "default", f"--from-literal=ca.crt={certificate(tmp_path, 'cluster')}")
    assert reach.routed(cluster) is False  # there: an address of a network that nothing here routes
    for name, routed in (("cluster", True), ("stranger", False)):
        certificate(tmp_path, name)
        with api_server(tmp_path / f"{name}.pem") as port:
            monkeypatch.setattr(reach.socket, "create_connection", partial(elsewhere, port))
            assert reach.routed(cluster) is routed
            monkeypatch.undo()


def certificate(folder: Path, name: str) -> str:
    """A certificate of the API server's name with its key in one file, made once; returns the certificate."""
    file, key = folder / f"{name}.crt", folder / f"{name}.key"
    if not file.exists():
        subject = ["-subj", f"/CN={name}", "-addext", "subjectAltName=DNS:kubernetes.default.svc"]
        made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", file, *subject]
        subprocess.run(made, check=True, capture_output=True)
        (folder / f"{name}.pem").write_text(key.read_text() + file.read_text())
    return file.read_text()


@contextmanager
def api_server(pem: Path) -> Iterator[int]:
    """Somebody who shows this certificate; the port."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        server.handle_error = lambda *_: None  # type: ignore[method-assign]  # a client that refuses the certificate hangs up
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


def elsewhere(port: int, _: tuple[str, int], timeout: float) -> socket.socket:
    """A connection to the Service's address, as a network may lead it."""
    return CONNECT(("127.0.0.1", port), timeout)
