from pathlib import Path
from typing import Any

import pytest

from localcluster import keeper, scraping, targets
from localcluster.objects import PROVISIONER

VOLUMES = Path("/volumes")


def claim(**changes: Any) -> dict[str, Any]:
    meta = {"name": "data", "namespace": "lab", "uid": "u1", "annotations": {keeper.CLAIM_PROVISIONER: PROVISIONER}}
    spec = {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}}
    return {"metadata": meta | changes.get("metadata", {}), "spec": spec | changes.get("spec", {})}


@pytest.mark.parametrize(
    ("sentence", "changes", "wanted"),
    [
        ("a fresh claim of our class", {}, True),
        ("a claim that is bound", {"spec": {"volumeName": "pv"}}, False),
        ("a claim of another provisioner", {"metadata": {"annotations": {keeper.CLAIM_PROVISIONER: "other"}}}, False),
        ("a claim that names no provisioner yet", {"metadata": {"annotations": {}}}, False),
        ("a claim that is being deleted", {"metadata": {"deletionTimestamp": "now"}}, False),
    ],
)
def test_a_volume_is_made_for(sentence: str, changes: dict[str, Any], wanted: bool) -> None:
    assert keeper.wants_volume(claim(**changes)) is wanted, sentence


def test_a_volume_is_bound_to_its_claim_and_lies_in_a_folder_of_its_own() -> None:
    volume = keeper.volume_for(claim(), VOLUMES)
    assert volume["spec"]["claimRef"]["uid"] == "u1"
    assert volume["spec"]["hostPath"] == {"path": "/volumes/lab-data-u1", "type": "Directory"}
    assert volume["spec"]["accessModes"] == ["ReadWriteMany"]


@pytest.mark.parametrize(
    ("phase", "by", "released"), [("Released", PROVISIONER, True), ("Bound", PROVISIONER, False), ("Released", "x", False)]
)
def test_only_our_own_released_volumes_are_removed(phase: str, by: str, released: bool) -> None:
    volume = {"metadata": {"annotations": {keeper.PROVISIONED_BY: by}}, "status": {"phase": phase}}
    assert keeper.is_released(volume) is released


@pytest.mark.parametrize(
    ("status", "lacks"),
    [
        ({"capacity": {keeper.GPU: "8"}, "allocatable": {keeper.GPU: "8"}}, False),
        ({"capacity": {keeper.GPU: "8"}, "allocatable": {keeper.GPU: "0"}}, True),
        ({"capacity": {"cpu": "2"}}, True),
        ({}, True),
    ],
)
def test_a_node_lacks_gpus_until_both_numbers_are_there(status: dict[str, Any], lacks: bool) -> None:
    assert keeper.lacks_gpus({"status": status}, "8") is lacks


class RecordingApi:
    """Answers lists and remembers changes."""

    def __init__(self, lists: dict[str, list[dict[str, Any]]]) -> None:
        self.lists, self.changes = lists, []  # type: ignore[var-annotated]

    def call(self, method: str, path: str, body: Any = None, content_type: str = "") -> Any:
        if method == "GET":
            return {"items": self.lists[path.partition("?")[0].rpartition("/")[2]]}
        self.changes.append((method, path, content_type))
        return {}


def test_a_visit_does_only_what_is_missing(tmp_path: Path) -> None:
    made = keeper.volume_for(claim(metadata={"uid": "u2"}), tmp_path)
    lists = {"persistentvolumes": [made], "persistentvolumeclaims": [claim(), claim(metadata={"uid": "u2"})], "nodes": []}
    api = RecordingApi(lists)
    keeper.visit(api, tmp_path, "8")  # type: ignore[arg-type]
    assert api.changes == [("POST", "/api/v1/persistentvolumes", "")]
    assert (tmp_path / "lab-data-u1").stat().st_mode & 0o777 == 0o777


def test_a_folder_outside_of_the_volumes_is_never_removed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    volume = keeper.volume_for(claim(), tmp_path / "volumes") | {"status": {"phase": "Released"}}
    volume["spec"]["hostPath"]["path"] = str(outside)
    api = RecordingApi({"persistentvolumes": [volume], "persistentvolumeclaims": [], "nodes": []})
    keeper.visit(api, tmp_path / "volumes", "8")  # type: ignore[arg-type]
    assert outside.is_dir()
    assert api.changes == [("DELETE", "/api/v1/persistentvolumes/pvc-u1", "")]


def pod(uid: str = "p1", ip: str = "10.244.1.5", phase: str = "Running", **annotations: str) -> dict[str, Any]:
    return {
        "metadata": {
            "uid": uid,
            "name": "web",
            "namespace": "lab",
            "labels": {
                "app": "web",
                "videogen.pib.gov.in/release": "r1",
                "videogen.pib.gov.in/service": "s",
                "videogen.pib.gov.in/job": "t",
            },
            "annotations": {f"prometheus.io/{key}": value for key, value in annotations.items()},
        },
        "spec": {"nodeName": "node-1", "containers": [{"name": "c", "ports": [{"containerPort": 8002}]}]},
        "status": {"phase": phase, "podIP": ip},
    }


def test_a_releases_pod_is_scraped_under_its_release_and_service() -> None:
    entry = targets.target(pod(scrape="true", port="9000", path="/stats"))
    assert entry == {
        "targets": ["10.244.1.5:9000"],
        "labels": {
            "release": "r1",
            "service": "s",
            "namespace": "lab",
            "pod": "web",
            "node": "node-1",
            "__metrics_path__": "/stats",
            "__scheme__": "http",
        },
    }


@pytest.mark.parametrize("port", [{}, {"port": ""}, {"port": "80/evil"}, {"port": "²"}], ids=str)
def test_a_pod_without_a_sound_port_annotation_is_scraped_at_its_first_port(port: dict[str, str]) -> None:
    entry = targets.target(pod(scrape="true", **port))
    assert entry is not None
    assert entry["targets"] == ["10.244.1.5:8002"]


@pytest.mark.parametrize("other", [pod(), pod(scrape="false"), pod(scrape="true", ip=""), pod(scrape="true", phase="Succeeded")])
def test_other_pods_are_left_alone(other: dict[str, Any]) -> None:
    assert targets.target(other) is None


@pytest.mark.parametrize(
    ("namespace", "labels", "job"),
    [
        ("videogen-system", {"app.kubernetes.io/name": "videogen-operator"}, "videogen-operator"),
        ("videogen-system", {}, "pods"),
        ("lab", {"app.kubernetes.io/name": "videogen-operator"}, "pods"),
        (
            "envoy-gateway-system",
            {"app.kubernetes.io/managed-by": "envoy-gateway", "app.kubernetes.io/component": "proxy"},
            "videogen-gateway",
        ),
        ("lab", {"app.kubernetes.io/managed-by": "envoy-gateway", "app.kubernetes.io/component": "proxy"}, "pods"),
        ("lab", {"videogen.pib.gov.in/release": "r", "videogen.pib.gov.in/service": "s"}, "videogen-releases"),
        ("lab", {"videogen.pib.gov.in/release": "r"}, "pods"),
    ],
)
def test_what_is_believed_of_a_pod_depends_on_where_it_is(namespace: str, labels: dict[str, str], job: str) -> None:
    made = pod(scrape="true")
    made["metadata"] |= {"namespace": namespace, "labels": labels}
    assert scraping.job_of(made) == job


def test_labels_of_other_pods_name_no_metric_labels() -> None:
    made = pod(scrape="true")
    made["metadata"]["labels"] = {f"videogen.pib.gov.in/{name}": "forged" for name in ("release", "namespace", "job", "instance", "0x")}
    entry = targets.target(made)
    assert entry is not None
    assert {name for name in entry["labels"] if not name.startswith("__")} == {"namespace", "pod", "node"}
    assert entry["labels"]["namespace"] == "lab"


def test_the_list_of_targets_follows_the_watch() -> None:
    pods = targets.Pods()
    pods.take({"type": "LIST", "items": [pod("a", scrape="true"), pod("b")]})
    assert len(pods.files()["videogen-releases"]) == 1
    pods.take({"type": "ADDED", "object": pod("c", "10.244.1.6", scrape="true")})
    pods.take({"type": "MODIFIED", "object": pod("a", phase="Failed", scrape="true")})
    assert [entry["targets"] for entry in pods.files()["videogen-releases"]] == [["10.244.1.6:8002"]]
    pods.take({"type": "DELETED", "object": pod("c")})
    pods.take({"type": "BOOKMARK", "object": {}})
    assert not any(pods.files().values())


def test_a_new_list_forgets_what_is_gone() -> None:
    pods = targets.Pods()
    pods.take({"type": "LIST", "items": [pod("a", scrape="true")]})
    pods.take({"type": "LIST", "items": []})
    assert not any(pods.files().values())
