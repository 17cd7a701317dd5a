"""What another cluster (KUBECONFIG) is given: Prometheus and Alertmanager as pods, and upstream's images."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from localcluster import addons, build, cli, monitoring_pods, scraping, targets
from localcluster.kubectl import Kubectl
from localcluster.layout import Layout, checkout
from localcluster.monitoring_pods import Alerting, MonitoringImages
from localcluster.versions import UPSTREAM_IMAGES

RULES = {"videogen": (checkout() / "charts/videogen/files/rules.yaml").read_text()}
ALERTING = Alerting(rules=RULES, webhook="http://videogen-operator.videogen-system:8080/v1/alerts", token="a secret")
OBJECTS = monitoring_pods.manifests(MonitoringImages(), ALERTING)

POD = {
    "metadata": {
        "namespace": "newsroom",
        "name": "server",
        "labels": {"app": "x", "videogen.pib.gov.in/release": "v1", "videogen.pib.gov.in/service": "standard"},
        "annotations": {"prometheus.io/scrape": "true", "prometheus.io/port": "8002", "prometheus.io/path": "/metrics"},
    },
    "spec": {"nodeName": "node-1", "containers": [{"ports": [{"containerPort": 8000}, {"containerPort": 8002}]}]},
    "status": {"podIP": "10.244.1.7", "phase": "Running"},
}
CHANGES: dict[str, dict[str, Any]] = {
    "as the chart makes it": {},
    "of nobody in particular": {"labels": {"app": "x", "videogen.pib.gov.in/job": "x", "videogen.pib.gov.in/service": "standard"}},
    "as the operator": {"namespace": "videogen-system", "labels": {"app.kubernetes.io/name": "videogen-operator"}},
    "as the operator elsewhere": {"labels": {"app.kubernetes.io/name": "videogen-operator"}},
    "as the gateway": {
        "namespace": "envoy-gateway-system",
        "labels": {"app.kubernetes.io/managed-by": "envoy-gateway", "app.kubernetes.io/component": "proxy"},
    },
    "with another scheme": {"annotations": POD["metadata"]["annotations"] | {"prometheus.io/scheme": "https"}},  # type: ignore[dict-item,operator]
    "without annotations": {"annotations": {}},
    "that says no": {"annotations": {"prometheus.io/scrape": "false", "prometheus.io/port": "8002"}},
}


def one(kind: str, name: str) -> dict[str, Any]:
    (found,) = (item for item in OBJECTS if (item["kind"], item["metadata"]["name"]) == (kind, name))
    return found


def discovered(pod: dict[str, Any], port: int) -> dict[str, str]:
    """The labels that Prometheus's Kubernetes discovery gives to one port of a pod, as its documentation lists them."""

    def plain(name: str) -> str:
        return re.sub(r"[^a-zA-Z0-9_]", "_", name)

    meta, prefix = pod["metadata"], "__meta_kubernetes_pod_"
    return (
        {f"{prefix}annotation_{plain(name)}": value for name, value in meta["annotations"].items()}
        | {f"{prefix}label_{plain(name)}": value for name, value in meta["labels"].items()}
        | {f"{prefix}name": meta["name"], f"{prefix}node_name": pod["spec"]["nodeName"], f"{prefix}ip": pod["status"]["podIP"]}
        | {f"{prefix}phase": pod["status"]["phase"], "__meta_kubernetes_namespace": meta["namespace"]}
        | {"__address__": f"{pod['status']['podIP']}:{port}", "__metrics_path__": "/metrics", "__scheme__": "http"}
    )


def relabeled(labels: dict[str, str], rules: list[dict[str, Any]]) -> dict[str, str] | None:
    """What Prometheus makes of labels by the actions replace, keep and drop."""
    for rule in rules:
        value = rule.get("separator", ";").join(labels.get(name, "") for name in rule.get("source_labels", []))
        if rule.get("action") in {"keep", "drop"}:
            if bool(re.fullmatch(rule["regex"], value)) != (rule["action"] == "keep"):
                return None
        elif match := re.fullmatch(rule.get("regex", "(.*)"), value):
            labels = labels | {rule["target_label"]: match[1]}
    return {name: value for name, value in labels.items() if not name.startswith("__meta_")}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_prometheus_finds_the_pods_that_the_keeper_lists_with_the_same_labels(change: dict[str, Any]) -> None:
    pod = POD | {"metadata": POD["metadata"] | change}  # type: ignore[operator]
    listed = targets.target(pod)
    wanted = None if listed is None else listed["labels"] | {"__address__": listed["targets"][0]}
    for job in scraping.JOBS:
        rules = monitoring_pods.discovery(job)["relabel_configs"]
        found = [relabeled(discovered(pod, port), rules) for port in (8000, 8002)]
        expected = wanted if job == scraping.job_of(pod) else None
        assert found == [expected, expected], job  # equal targets are one


def test_a_pod_that_does_not_run_is_not_scraped() -> None:
    ended = POD | {"status": POD["status"] | {"phase": "Succeeded"}}  # type: ignore[operator]
    for job in scraping.JOBS:
        assert relabeled(discovered(ended, 8002), monitoring_pods.discovery(job)["relabel_configs"]) is None


def test_prometheus_takes_configuration_and_rules(tmp_path: Path) -> None:
    """Debian's promtool knows no Kubernetes discovery: in its place stands a list in a file."""
    data = one("ConfigMap", "prometheus")["data"]
    config = yaml.safe_load(data["prometheus.yaml"])
    assert [job["job_name"] for job in config["scrape_configs"]] == ["prometheus", *scraping.JOBS]
    for job in config["scrape_configs"][1:]:
        assert job.pop("kubernetes_sd_configs") == [{"role": "pod"}]
        job["file_sd_configs"] = [{"files": [str(tmp_path / "pods.json")]}]
    assert config["rule_files"] == ["/etc/prometheus/rules-*.yaml"]
    config["rule_files"] = [str(tmp_path / "rules-*.yaml")]
    for name, text in (data | {"prometheus.yaml": json.dumps(config), "pods.json": "[]"}).items():
        (tmp_path / name).write_text(text)
    checked = subprocess.run(["promtool", "check", "config", tmp_path / "prometheus.yaml"], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    alerts = [rule for group in yaml.safe_load(RULES["videogen"])["groups"] for rule in group["rules"]]
    assert f"{len(alerts)} rules found" in checked.stdout


def test_alertmanager_takes_its_configuration(tmp_path: Path) -> None:
    file = tmp_path / "alertmanager.yaml"
    file.write_text(one("ConfigMap", "alertmanager")["data"]["alertmanager.yaml"])
    checked = subprocess.run(["amtool", "check-config", file], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_alertmanager_reads_the_token_where_it_is_mounted() -> None:
    (receiver,) = json.loads(one("ConfigMap", "alertmanager")["data"]["alertmanager.yaml"])["receivers"]
    file = Path(receiver["webhook_configs"][0]["http_config"]["authorization"]["credentials_file"])
    (container,) = (pod := one("Deployment", "alertmanager")["spec"]["template"]["spec"])["containers"]
    (mount,) = (each for each in container["volumeMounts"] if Path(each["mountPath"]) == file.parent)
    (volume,) = (each for each in pod["volumes"] if each["name"] == mount["name"])
    assert one("Secret", volume["secret"]["secretName"])["stringData"] == {file.name: "a secret"}


def test_alertmanager_verifies_the_webhook_by_the_authority_that_is_mounted(tmp_path: Path) -> None:
    made = monitoring_pods.alertmanager("alertmanager", replace(ALERTING, webhook="https://operator:8080/v1/alerts", authority="PEM"))
    (data,) = (item["data"] for item in made if item["kind"] == "ConfigMap")
    (receiver,) = json.loads(data["alertmanager.yaml"])["receivers"]
    file = Path(receiver["webhook_configs"][0]["http_config"]["tls_config"]["ca_file"])
    assert data[file.name] == "PEM"
    (pod,) = (item["spec"]["template"]["spec"] for item in made if item["kind"] == "Deployment")
    assert {"name": "config", "mountPath": str(file.parent)} in pod["containers"][0]["volumeMounts"]
    (tmp_path / "alertmanager.yaml").write_text(data["alertmanager.yaml"])
    checked = subprocess.run(["amtool", "check-config", tmp_path / "alertmanager.yaml"], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.parametrize("changed", [{"token": "another"}, {"webhook": "http://elsewhere"}, {"rules": {}}], ids=str)
def test_another_configuration_starts_the_pod_that_has_it_again(changed: dict[str, Any]) -> None:
    values = {"rules": ALERTING.rules, "webhook": ALERTING.webhook, "token": ALERTING.token} | changed
    after = monitoring_pods.manifests(MonitoringImages(), Alerting(**values))
    templates = [[item["spec"]["template"] for item in objects if item["kind"] == "Deployment"] for objects in (OBJECTS, after)]
    different = [old["metadata"]["labels"]["app.kubernetes.io/name"] for old, new in zip(*templates, strict=True) if old != new]
    assert different == ["prometheus" if "rules" in changed else "alertmanager"]


def test_upstreams_images_are_pinned_and_name_no_registry() -> None:
    for image in UPSTREAM_IMAGES.values():
        assert re.fullmatch(r"([a-z-]+/)?[a-z-]+:[\w.-]*\d[\w.-]*", image), image
    applied = json.dumps(addons._everything(addons.AddonImages())) + json.dumps(OBJECTS)
    assert set(re.findall(r'"image": "([^"]+)"', applied)) | {UPSTREAM_IMAGES["training-operator"]} == set(UPSTREAM_IMAGES.values())


@pytest.mark.parametrize(
    ("image", "mirror", "name"),
    [
        ("prom/prometheus:v3", "", "prom/prometheus:v3"),
        ("prom/prometheus:v3", "registry.example.org:5000/hub/", "registry.example.org:5000/hub/prom/prometheus:v3"),
        ("python:3.11", "registry.example.org", "registry.example.org/library/python:3.11"),
    ],
)
def test_a_mirror_has_images_under_their_full_names(image: str, mirror: str, name: str) -> None:
    assert addons.mirrored(image, mirror) == name


def test_the_mirror_of_the_environment_is_the_default_of_every_image(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCALCLUSTER_IMAGE_MIRROR", "mirror.example.org")
    told = cli.parser().parse_args(["install-addons", "--envoy-image", "mine:1"])
    assert (told.training_operator, told.envoy) == ("mirror.example.org/kubeflow/training-operator:v1-04f9f13", "mine:1")


def test_programs_of_the_user_are_taken_where_none_were_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", {"kubectl": "/usr/bin/kubectl"}.get)
    layout = Layout(repo=tmp_path, index=0)
    assert (build.program(layout, "kubectl"), build.program(layout, "helm")) == ("/usr/bin/kubectl", "")
    layout.bin.mkdir(parents=True)
    (layout.bin / "kubectl").touch()
    assert build.program(layout, "kubectl") == str(layout.bin / "kubectl")


def test_what_the_user_means_by_kubeconfig_is_left_to_kubectl() -> None:
    assert Kubectl("kubectl", None).flags == []
