"""The demonstration, judged: trained, released, A/B-tested, promoted, rolled back by an alert, on real video."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import tritonclient.grpc as triton_grpc

from videogen_api.meta import GROUP
from videogen_demo import footage, install, reach
from videogen_demo.__main__ import SYNTHETIC_CLIPS
from videogen_demo.install import Installation
from videogen_demo.kubectl import Cluster, condition
from videogen_demo.story import CLAIM, NAMESPACE, RELEASES, RUNS, Story, tell
from videogen_demo.summary import contact_sheet, frames_of, reel
from videogen_demo.view import View

FRAMES = (8, 32, 32, 3)


@pytest.fixture(scope="module")
def story(installation: Installation, cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    told = Story(cluster)
    folder = tmp_path_factory.mktemp("story")

    def upload() -> None:
        footage.collect(folder, SYNTHETIC_CLIPS)
        footage.upload(cluster, NAMESPACE, CLAIM, folder, installation.images["trainer"])

    with View(told):
        tell(told, upload, lambda: (install.gateway_url(cluster), install.host_name("standard", NAMESPACE)))
    yield told
    cluster("delete", "namespace", NAMESPACE, "--wait=false")


def test_every_run_completed_and_its_release_has_its_name_and_lineage(story: Story) -> None:
    digests = set()
    for run, release in zip(RUNS, RELEASES, strict=True):
        found = story.cluster.get("modelrelease", release, NAMESPACE)
        assert found is not None
        assert found["spec"]["lineage"]["run"] == run
        status = (story.cluster.get("trainingrun", run, NAMESPACE) or {})["status"]
        assert found["spec"]["artifact"]["digest"] == status["artifact"]["digest"]
        digests.add(found["spec"]["artifact"]["digest"])
    assert len(digests) == len(RELEASES), "each run made weights of its own"


def test_real_video_came_through_the_gateway_and_no_request_failed(story: Story) -> None:
    assert story.load
    assert [answer for answer in story.load.answers if not answer.ok] == []
    assert {answer.release for answer in story.load.answers} == set(RELEASES)
    assert all(frames_of(answer.video).shape == FRAMES for answer in story.load.videos)


def test_the_second_release_shared_the_traffic_before_it_took_it_all(story: Story) -> None:
    assert story.load
    canary, stable = dict(story.marks)[f"{RUNS[1]} completed"], dict(story.marks)[f"{RELEASES[1]} Stable"]
    during = [a.release for a in story.load.answers if canary < a.sent - story.began < stable]
    assert 0 < during.count(RELEASES[1]) < len(during)
    status = (story.cluster.get("modelrelease", RELEASES[1], NAMESPACE) or {})["status"]
    assert status["traffic"]["weightPercent"] == 100


def test_the_slow_release_was_rolled_back_by_its_alert_and_is_quarantined(story: Story) -> None:
    slow = story.cluster.get("modelrelease", RELEASES[2], NAMESPACE)
    assert condition(slow, "RolledBack")["status"] == "True"
    status = (slow or {})["status"]
    assert (status["rollback"]["reason"], status["rollback"]["to"]) == ("Alert", RELEASES[1])
    assert status["traffic"]["weightPercent"] == 0
    assert float(status["rollback"]["seconds"]) < 5
    route = story.cluster.get("httproute", "standard", NAMESPACE)
    quarantined = json.loads((route or {})["metadata"]["annotations"][f"{GROUP}/quarantine"])
    digest = (slow or {})["spec"]["artifact"]["digest"]
    assert [(entry["release"], entry["digest"], entry["reason"]) for entry in quarantined] == [(RELEASES[2], digest, "Alert")]


def test_the_pictures_of_the_summary_can_be_made(story: Story, tmp_path: Path) -> None:
    assert story.load
    contact_sheet(list(story.load.videos), tmp_path / "sheet.png")
    reel(list(story.load.videos), tmp_path / "reel.mp4")
    assert (tmp_path / "sheet.png").stat().st_size > 10_000
    assert frames_of((tmp_path / "reel.mp4").read_bytes()).shape[0] == FRAMES[0] * len(story.load.videos)


def test_triton_answers_over_grpc_too(story: Story, installation: Installation) -> None:
    import numpy as np

    service = next(one for one in story.cluster.list("service", NAMESPACE) if "v1-1-0" in one["metadata"]["name"])
    client = triton_grpc.InferenceServerClient(reach.address(story.cluster, service, "grpc"))
    prompt = triton_grpc.InferInput("PROMPT", [1], "BYTES")
    prompt.set_data_from_numpy(np.array([b"a red square moves right"], dtype=object))
    seed = triton_grpc.InferInput("SEED", [1], "INT64")
    seed.set_data_from_numpy(np.array([7], dtype=np.int64))
    answers = [client.infer("video", [prompt, seed]).as_numpy("VIDEO")[0] for _ in range(2)]
    assert answers[0] == answers[1]
    assert frames_of(answers[0]).shape == FRAMES
