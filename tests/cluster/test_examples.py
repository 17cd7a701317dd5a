"""Every example is accepted by the real API server, and means what it says: nothing of it is dropped or changed."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from videogen_testing import cycle_simulation, task_stories
from videogen_testing.control_plane import ROOT, Api
from videogen_testing.small_examples import BACKBONE, CLIP, DATASETS, curation, small
from videogen_testing.upstream_crds import install, kueue_definitions

EXAMPLES = ROOT / "examples"
COLLECTIONS = {
    "Namespace": "/api/v1/namespaces",
    "PersistentVolumeClaim": "/api/v1/namespaces/{}/persistentvolumeclaims",
    "TrainingRun": "/apis/videogen.pib.gov.in/v1alpha1/namespaces/{}/trainingruns",
    "FineTuneCycle": "/apis/videogen.pib.gov.in/v1alpha1/namespaces/{}/finetunecycles",
    "ModelRelease": "/apis/videogen.pib.gov.in/v1alpha1/namespaces/{}/modelreleases",
    "Deployment": "/apis/apps/v1/namespaces/{}/deployments",
    "Service": "/api/v1/namespaces/{}/services",
    "ResourceQuota": "/api/v1/namespaces/{}/resourcequotas",
    "RoleBinding": "/apis/rbac.authorization.k8s.io/v1/namespaces/{}/rolebindings",
    "PriorityClass": "/apis/scheduling.k8s.io/v1/priorityclasses",
    "ResourceFlavor": "/apis/kueue.x-k8s.io/v1beta2/resourceflavors",
    "ClusterQueue": "/apis/kueue.x-k8s.io/v1beta2/clusterqueues",
    "LocalQueue": "/apis/kueue.x-k8s.io/v1beta2/namespaces/{}/localqueues",
}


def documents() -> Iterator[tuple[Path, dict[str, Any]]]:
    for file in sorted(EXAMPLES.rglob("*.yaml")):
        for document in yaml.safe_load_all(file.read_text()):
            yield file.relative_to(EXAMPLES), document


DOCUMENTS = {f"{file}: {document['kind']} {document['metadata']['name']}": document for file, document in documents()}


@pytest.mark.parametrize("example", DOCUMENTS)
def test_is_accepted_and_comes_back_as_it_was_sent(api: Api, namespace: str, example: str) -> None:
    manifest = DOCUMENTS[example] | {"metadata": {**DOCUMENTS[example]["metadata"]}}
    if manifest["metadata"].pop("namespace", None):
        manifest["metadata"]["namespace"] = namespace
    if "kueue" in manifest["apiVersion"]:
        install(api, kueue_definitions())
    answer = api.create(COLLECTIONS[manifest["kind"]].format(namespace) + "?dryRun=All&fieldValidation=Strict", manifest)
    assert lost(manifest, answer) == []


SMALL = {
    f"{one['metadata']['name']} in small": small(one, "models", {BACKBONE: "sha256:" + "1" * 64, CLIP: "sha256:" + "2" * 64})
    for one in [*DOCUMENTS.values(), curation(DATASETS)]
    if one["kind"] == "TrainingRun"
} | {f"the story {one['metadata']['name']}": one for one in task_stories.runs("models")}


@pytest.mark.parametrize("story", SMALL)
def test_what_the_stories_apply_is_accepted(api: Api, namespace: str, story: str) -> None:
    manifest = SMALL[story] | {"metadata": SMALL[story]["metadata"] | {"namespace": namespace}}
    answer = api.create(COLLECTIONS["TrainingRun"].format(namespace) + "?dryRun=All&fieldValidation=Strict", manifest)
    assert lost(manifest, answer) == []


@pytest.mark.parametrize("cycle", [name for name, one in DOCUMENTS.items() if one["kind"] == "FineTuneCycle"])
def test_what_a_cycle_makes_is_accepted(api: Api, namespace: str, cycle: str) -> None:
    name = DOCUMENTS[cycle]["metadata"]["name"]
    written = DOCUMENTS[cycle] | {"metadata": {"name": name, "namespace": cycle_simulation.NAMESPACE}}
    begins = written["spec"].get("startFrom") or written["spec"]["target"]
    sim = cycle_simulation.Simulation(written, cycle_simulation.a_release("1.0.0", begins["service"], **written["spec"]["model"]))
    sim.request("run-now@1", name)
    sim.settle()
    (run,) = sim.list("TrainingRun")
    manifest = {**run, "metadata": {"name": run["metadata"]["name"], "namespace": namespace}}  # its labels are the operator's
    answer = api.create(COLLECTIONS["TrainingRun"].format(namespace) + "?dryRun=All&fieldValidation=Strict", manifest)
    assert lost(manifest, answer) == []


def test_there_are_examples_of_a_first_and_of_a_later_version() -> None:
    runs = [document["spec"] for document in DOCUMENTS.values() if document["kind"] == "TrainingRun"]
    assert any("initFrom" in spec for spec in runs)
    assert any("initFrom" not in spec for spec in runs)


def lost(sent: Any, returned: Any, path: str = "") -> list[str]:
    """Paths of what was sent and did not come back."""
    if isinstance(sent, dict) and isinstance(returned, dict):
        return [line for key, value in sent.items() for line in lost(value, returned.get(key), f"{path}.{key}")]
    if isinstance(sent, list) and isinstance(returned, list) and len(sent) == len(returned):
        return [line for i, (one, other) in enumerate(zip(sent, returned, strict=True)) for line in lost(one, other, f"{path}[{i}]")]
    return [] if sent == returned else [f"{path}: {sent!r} came back as {returned!r}"]
