"""What a user can get wrong with files and names: one clear reason on the object, and nothing else is lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from videogen_demo import footage
from videogen_demo.install import Installation
from videogen_demo.kubectl import Cluster, Manifest, condition
from videogen_testing.patience import HANGS
from videogen_testing.stories import CLAIM, claim, curate, ended, evaluate, phase, run, state, train


@pytest.fixture(scope="module")
def broken(cluster: Cluster, installation: Installation, namespace: str, tmp_path_factory: pytest.TempPathFactory, clips: Path) -> str:
    """The same claim with folders of broken footage beside the good ones."""
    folder = tmp_path_factory.mktemp("broken")
    good = sorted((clips / "raw/synthetic").glob("*.mp4"))[:3]
    for name in ("unreadable", "uncaptioned", "few"):
        target = folder / "raw" / name
        target.mkdir(parents=True)
        for video in good:
            (target / video.name).write_bytes(video.read_bytes())
            (target / video.name).with_suffix(".txt").write_text("a red square moves right\n")
    (folder / "raw/unreadable" / good[1].name).write_bytes(good[1].read_bytes()[:200])
    (folder / "raw/uncaptioned" / good[2].name).with_suffix(".txt").unlink()
    footage.upload(cluster, namespace, "models", folder, installation.images["trainer"])
    return namespace


ROWS = {
    "a video that cannot be decoded is named": (curate("raw/unreadable", maximumRejectedPercent=0), "VideoUnreadable", ".mp4"),
    "a video without a caption is named": (curate("raw/uncaptioned", maximumRejectedPercent=0), "CaptionMissing", ".mp4"),
    "too few clips are counted": (curate("raw/few", minimumClips=50), "DatasetTooSmall", "50"),
}


def test_rejected_data_ends_the_run_with_one_reason_that_names_the_file(cluster: Cluster, broken: str) -> None:
    names = {f"data-{index}": row for index, row in enumerate(ROWS.values())}
    cluster.apply(*(run(broken, name, dict(row[0], name="curate")) for name, row in names.items()))
    for name, (_, reason, words) in names.items():
        found = ended(cluster, broken, name)
        assert (found["status"], found["reason"]) == ("False", reason), found
        assert words in found["message"]
        assert "Traceback" not in found["message"]


def test_a_missing_claim_is_said_and_the_run_goes_on_when_it_comes(cluster: Cluster, namespace: str) -> None:
    cluster.apply(run(namespace, "no-claim", curate(), storage={"claimName": "later"}))
    cluster.wait("ClaimNotFound", lambda: state(cluster, namespace, "no-claim").get("reason") == "ClaimNotFound", HANGS)
    assert "later" in state(cluster, namespace, "no-claim")["message"]
    cluster.apply(claim(namespace, "later"))
    found = stalled(cluster, namespace, "no-claim")  # it went on by itself, and looked into the new, empty claim
    assert "spec.phases[0].curate.sources[0]" in found["message"]
    assert "raw/synthetic" in found["message"]


def stalled(cluster: Cluster, namespace: str, name: str) -> Manifest:
    """What the preflight of a run has found."""

    def probe() -> Manifest | None:
        found = condition(cluster.get("trainingrun", name, namespace), "Stalled")
        return found if found.get("reason") == "PreflightFailed" else None

    found: Manifest = cluster.wait(f"the preflight of {name} to find something", probe, HANGS)
    return found


def test_more_gpus_than_any_node_has_are_refused_with_numbers(cluster: Cluster, namespace: str) -> None:
    wanted = {"requests": {"cpu": "100m"}, "limits": {"nvidia.com/gpu": 16, "memory": "1Gi"}}
    cluster.apply(run(namespace, "many-gpus", dict(curate("raw/nowhere"), resources=wanted, workers={"processes": 1})))
    found = stalled(cluster, namespace, "many-gpus")["message"]
    assert "spec.phases[0].resources: one worker asks for 16 GPUs" in found
    assert "spec.phases[0].curate.sources[0]" in found, "all problems are told together"
    cluster("delete", "trainingrun", "many-gpus", "-n", namespace)


@pytest.fixture(scope="module")
def trained(cluster: Cluster, namespace: str) -> str:
    """A run that trains a model."""
    good = dict(curate(), curate=dict(curate()["curate"], dataset="own-data"))
    cluster.apply(run(namespace, "trained", good, train(data=[{"dataset": "own-data", "version": "1", "split": "Train"}])))
    assert ended(cluster, namespace, "trained")["status"] == "True"
    return "trained"


def test_a_dataset_that_was_never_made(cluster: Cluster, namespace: str) -> None:
    cluster.apply(run(namespace, "no-dataset", train(data=[{"dataset": "unheard-of", "version": "1"}], attempts=1)))
    found = stalled(cluster, namespace, "no-dataset")["message"]
    assert "spec.phases[0].data[0]: dataset unheard-of has no version '1'" in found


def test_a_feature_network_that_is_not_there_stops_the_run_before_it_trains(cluster: Cluster, namespace: str, trained: str) -> None:
    extractor = {"name": "i3d", "architecture": "I3D", "path": "extractors/i3d.safetensors", "digest": "sha256:" + "0" * 64}
    measured = {"samples": 4, "samplingSteps": 2, "extractors": [extractor]}
    data = {split: [{"dataset": "own-data", "version": "1", "split": split}] for split in ("Train", "HeldOut")}
    phases = (train(data=data["Train"]), evaluate(evaluate=measured, data=data["HeldOut"], gates=[], attempts=1))
    cluster.apply(run(namespace, "no-extractor", *phases, version="1.0.1"))
    found = stalled(cluster, namespace, "no-extractor")["message"]
    assert trained
    assert "1 problem before the first attempt: spec.phases[1].evaluate.extractors[0]: i3d: there is no file" in found
    assert phase(cluster, namespace, "no-extractor", "train") == {}


def test_a_bundle_with_another_digest_is_never_served(cluster: Cluster, namespace: str, trained: str) -> None:
    """A whole bundle, and a release that names another one's digest."""
    made = (cluster.get("trainingrun", trained, namespace) or {})["status"]["artifact"]
    name = "pib-videogen-videofusion-v9.9.9-base"
    cluster.apply(
        {
            "apiVersion": "videogen.pib.gov.in/v1alpha1",
            "kind": "ModelRelease",
            "metadata": {"name": name, "namespace": namespace},
            "spec": {
                "service": "forged",
                "model": {"family": "VideoFusion", "version": "9.9.9"},
                "artifact": {"claimName": CLAIM, "path": made["path"], "digest": "sha256:" + "0" * 64},
                "serving": {"resources": {"requests": {"cpu": "100m"}, "limits": {"memory": "2Gi"}}},
            },
        }
    )
    cluster.wait(
        "the refusal", lambda: condition(cluster.get("modelrelease", name, namespace), "Ready").get("reason") == "ArtifactInvalid", 180
    )
    found = condition(cluster.get("modelrelease", name, namespace), "Ready")
    assert found["status"] == "False"
    assert f"has the digest {made['digest']}, the release says sha256:000" in found["message"]
