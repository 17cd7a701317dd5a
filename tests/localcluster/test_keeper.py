from pathlib import Path
from typing import Any

import pytest

from localcluster import keeper, targets
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
            "labels": {"app": "web", "videogen.pib.gov.in/release": "r1", "videogen.pib.gov.in/training-run": "t"},
            "annotations": {f"prometheus.io/{key}": value for key, value in annotations.items()},
        },
        "spec": {"nodeName": "node-1", "containers": [{"name": "c", "ports": [{"containerPort": 8002}]}]},
        "status": {"phase": phase, "podIP": ip},
    }


def test_an_annotated_pod_is_scraped_under_our_own_labels() -> None:
    entry = targets.target(pod(scrape="true", port="9000", path="/stats"))
    assert entry == {
        "targets": ["10.244.1.5:9000"],
        "labels": {
            "release": "r1",
            "training_run": "t",
            "namespace": "lab",
            "pod": "web",
            "node": "node-1",
            "__metrics_path__": "/stats",
            "__scheme__": "http",
        },
    }


def test_a_pod_without_a_port_annotation_is_scraped_at_its_first_port() -> None:
    entry = targets.target(pod(scrape="true"))
    assert entry is not None
    assert entry["targets"] == ["10.244.1.5:8002"]


@pytest.mark.parametrize("other", [pod(), pod(scrape="false"), pod(scrape="true", ip=""), pod(scrape="true", phase="Succeeded")])
def test_other_pods_are_left_alone(other: dict[str, Any]) -> None:
    assert targets.target(other) is None


def test_the_list_of_targets_follows_the_watch() -> None:
    pods = targets.Pods()
    pods.take({"type": "LIST", "items": [pod("a", scrape="true"), pod("b")]})
    assert len(pods.file()) == 1
    pods.take({"type": "ADDED", "object": pod("c", "10.244.1.6", scrape="true")})
    pods.take({"type": "MODIFIED", "object": pod("a", phase="Failed", scrape="true")})
    assert [entry["targets"] for entry in pods.file()] == [["10.244.1.6:8002"]]
    pods.take({"type": "DELETED", "object": pod("c")})
    pods.take({"type": "BOOKMARK", "object": {}})
    assert pods.file() == []


def test_a_new_list_forgets_what_is_gone() -> None:
    pods = targets.Pods()
    pods.take({"type": "LIST", "items": [pod("a", scrape="true")]})
    pods.take({"type": "LIST", "items": []})
    assert pods.file() == []
