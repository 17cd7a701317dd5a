"""The whole story of examples/gitops on the real cluster: commits train, release and begin a calendar, by a real Argo CD and a local git repository."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path

import pytest

from videogen_demo import footage
from videogen_demo.install import Installation
from videogen_demo.kubectl import Cluster, Manifest, condition
from videogen_demo.removal import remove_releases
from videogen_testing import small_examples
from videogen_testing.argo_cd import acted
from videogen_testing.argo_cd_process import ArgoCd, Repository, argo_cd, health_of
from videogen_testing.small_examples import RESOURCES, documents, small
from videogen_testing.stories import namespace_manifest

FILES = ("gitops/claim.yaml", "gitops/training-run.yaml", "gitops/model-release.yaml", "gitops/fine-tune-cycle.yaml")
HOUR = 3600.0
SYNCS = 10
FIRST, SECOND = "pib-videogen-videofusion-v1.0.0-base", "pib-videogen-videofusion-v1.0.1-base"


@pytest.fixture(scope="module")
def claim_name() -> str:
    return "pib-models"


@pytest.fixture(scope="module")
def namespace(cluster: Cluster, installation: Installation, tmp_path_factory: pytest.TempPathFactory, claim_name: str) -> Iterator[str]:
    """With the claim, which has the videos: a run that finds none fails for good. Argo CD adopts the claim."""
    name, folder = f"e2e-gitops-{uuid.uuid4().hex[:6]}", tmp_path_factory.mktemp("videos")
    small_examples.put_videos(folder)
    (claim,) = documents(FILES[0])
    claim["metadata"]["namespace"] = name
    cluster.apply(namespace_manifest(name), claim)
    footage.upload(cluster, name, claim_name, folder, installation.images["trainer"])
    yield name
    remove_releases(cluster, name)
    cluster("delete", "namespace", name, "--wait=false")


@pytest.fixture(scope="module")
def argo(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ArgoCd]:
    folder = tmp_path_factory.mktemp("argo-cd")
    with argo_cd(cluster, folder) as started:
        yield started
    for log in sorted(folder.glob("*.log")):
        print(log.name, log.read_text(errors="replace")[-3000:], sep="\n")


def release_of(run: Manifest, version: str, **spec: object) -> Manifest:
    """The example's release, of what the run has made."""
    (made,) = documents(FILES[2])
    made["metadata"]["name"] = f"pib-videogen-videofusion-v{version}-base"
    artifact = run["status"]["artifact"]
    made["spec"] |= {"artifact": made["spec"]["artifact"] | {"path": artifact["path"], "digest": artifact["digest"]}, **spec}
    made["spec"]["model"]["version"] = version
    made["spec"]["serving"] |= {"resources": RESOURCES, "samplingSteps": 2}
    made["spec"]["gates"] = []
    return made


def changed_by(cluster: Cluster, namespace: str, name: str, action: str) -> None:
    """What a click on an action of a release does."""
    before = cluster.get("modelrelease", name, namespace)
    assert before
    annotations = acted(before, action)["metadata"]["annotations"]
    patch = json.dumps({"metadata": {"annotations": annotations}})
    cluster("patch", "modelrelease", name, "-n", namespace, "--type=merge", f"--patch={patch}")


def state(cluster: Cluster, namespace: str, name: str) -> str:
    release = cluster.get("modelrelease", name, namespace) or {}
    return str(((release.get("status") or {}).get("rollout") or {}).get("state", ""))


def test_commits_train_release_and_take_back(cluster: Cluster, argo: ArgoCd, namespace: str, tmp_path: Path) -> None:
    repository = Repository(tmp_path / "repository")
    claim, training, _, cycle = (documents(file)[0] for file in FILES)
    run = small(training, namespace, {})
    tree: dict[str, Manifest] = {"claim": claim, "run": run, "cycle": small(cycle, namespace, {})}

    # A commit trains; the cycle waits in its wave until the run has succeeded.
    repository.commit(tree)
    argo.application(namespace, repository, namespace)
    name = run["metadata"]["name"]
    cluster.wait("the run", lambda: cluster.get("trainingrun", name, namespace), 300)
    early = cluster.wait("the end of the run, or a cycle", lambda: _ended(cluster, namespace, name), HOUR)
    assert early["status"] == "True", early
    cluster.wait("the cycle", lambda: cluster.get("finetunecycle", "base-weekly", namespace), 300)
    trained = cluster.get("trainingrun", name, namespace)
    assert trained

    # A commit releases.
    tree["release"] = release_of(trained, "1.0.0")
    repository.commit(tree)
    argo.compared(namespace)
    cluster.wait("the release to serve", lambda: state(cluster, namespace, FIRST) == "Stable", HOUR)

    # It stays Synced, by either diff.
    for _ in range(SYNCS):
        assert argo.synced(namespace)["phase"] == "Succeeded"
        assert {one["status"] for one in argo.compared(namespace)["resources"] if one["kind"] in {"TrainingRun", "ModelRelease"}} == {
            "Synced"
        }
    option = "argocd.argoproj.io/compare-options=ServerSideDiff=true"
    cluster("annotate", "applications.argoproj.io", namespace, "-n", "argocd", option)
    for _ in range(SYNCS):
        assert argo.synced(namespace)["phase"] == "Succeeded"
        assert {one["status"] for one in argo.compared(namespace)["resources"] if one["kind"] in {"TrainingRun", "ModelRelease"}} == {
            "Synced"
        }

    # The next version is a canary that nobody asks anything, so it waits, and an action promotes it; another takes it back.
    slow = {"steps": [{"weightPercent": 10, "minimumRequests": 100, "minimumSeconds": 60}]}
    tree["next"] = release_of(trained, "1.0.1", rollout=slow)
    tree["next"]["metadata"]["annotations"] = {"argocd.argoproj.io/sync-wave": "3"}
    repository.commit(tree)
    argo.compared(namespace)
    cluster.wait("the canary", lambda: state(cluster, namespace, SECOND) == "Canary", 600)
    changed_by(cluster, namespace, SECOND, "promote")
    cluster.wait("the promotion", lambda: state(cluster, namespace, SECOND) == "Stable", 300)
    changed_by(cluster, namespace, SECOND, "abort")
    cluster.wait("the rollback", lambda: state(cluster, namespace, SECOND) == "RolledBack", 300)

    # Nobody fights over what was rolled back.
    for _ in range(SYNCS):
        status = argo.compared(namespace)
        told = next(one for one in status["resources"] if one["name"] == SECOND)
        assert (told["status"], told["health"]["status"]) == ("Synced", "Degraded")
    assert state(cluster, namespace, SECOND) == "RolledBack"

    # What serves is not pruned.
    without = deepcopy({key: item for key, item in tree.items() if key != "release"})
    repository.commit(without)
    argo.compared(namespace)
    refused = cluster.wait("the refusal", lambda: _refusal(argo, namespace), 300)
    assert "is not deleted; roll out another release first" in refused
    assert state(cluster, namespace, FIRST) == "Stable"
    assert health_of(argo.compared(namespace), "TrainingRun")[1] == "Healthy"


def _ended(cluster: Cluster, namespace: str, run: str) -> Manifest | None:
    """The run's condition, once it has ended; the cycle may not be there before."""
    cycle = cluster.get("finetunecycle", "base-weekly", namespace)  # asked for first
    told = condition(cluster.get("trainingrun", run, namespace), "Succeeded")
    ended = told.get("status") in {"True", "False"}
    assert ended or cycle is None, "the wave of the run is not over"
    return told if ended else None


def _refusal(argo: ArgoCd, name: str) -> str:
    said = json.dumps(argo.found(name)["status"].get("operationState", {}))
    return said if "is not deleted" in said else ""
