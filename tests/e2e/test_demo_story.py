"""The demonstration, judged: trained, released, A/B-tested, promoted, rolled back by an alert, on real video."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from videogen_api.meta import GROUP
from videogen_demo import footage, install
from videogen_demo.__main__ import SYNTHETIC_CLIPS
from videogen_demo.install import Installation
from videogen_demo.kubectl import Cluster, Manifest, condition
from videogen_demo.story import CLAIM, NAMESPACE, RELEASES, RUNS, Story, tell
from videogen_demo.summary import contact_sheet, frames_of, reel
from videogen_demo.view import View
from videogen_serving.client import generate, request_body
from videogen_testing.patience import HANGS

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
    for index, release in enumerate(RELEASES):
        run = story.run(index)
        found = story.cluster.get("modelrelease", release, NAMESPACE)
        assert found is not None
        assert found["spec"]["lineage"]["run"] == run
        status = (story.cluster.get("trainingrun", run, NAMESPACE) or {})["status"]
        assert found["spec"]["artifact"]["digest"] == status["artifact"]["digest"]
        digests.add(found["spec"]["artifact"]["digest"])
    assert len(digests) == len(RELEASES), "each run made weights of its own"


def test_the_second_version_is_of_a_cycle_that_fired_by_its_schedule_and_started_from_what_served(story: Story) -> None:
    cycle = story.cluster.get("finetunecycle", RUNS[1], NAMESPACE)
    assert cycle is not None
    assert [(past["run"], past["version"], past["outcome"]) for past in cycle["status"]["history"]] == [
        (story.run(1), "1.1.0", "Succeeded")
    ]
    assert cycle["status"]["history"][0]["scheduledTime"] == cycle["status"]["lastScheduleTime"]
    lineage = (story.cluster.get("modelrelease", RELEASES[1], NAMESPACE) or {})["spec"]["lineage"]
    assert lineage["initFrom"]["release"] == RELEASES[0]


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
    rollback = status["rollback"]
    assert (rollback["quarantined"], rollback["signals"]) == (True, ["Servers", "Gateway"]), rollback["judgement"]
    assert (status["rollback"]["reason"], status["rollback"]["to"]) == ("Alert", RELEASES[1])
    assert status["traffic"]["weightPercent"] == 0
    assert float(status["rollback"]["seconds"]) < 5
    route = story.cluster.get("httproute", "standard", NAMESPACE)
    quarantined = json.loads((route or {})["metadata"]["annotations"][f"{GROUP}/quarantine"])
    digest = (slow or {})["spec"]["artifact"]["digest"]
    entries = [(entry["release"], entry["digest"], entry["reason"], entry["quarantined"]) for entry in quarantined]
    assert entries == [(RELEASES[2], digest, "Alert", True)]


def test_a_server_that_is_ended_while_it_loads_ends_at_once(story: Story) -> None:
    """Not after its whole grace period, in which it would hold its GPU: that of 1.2.0 is ten minutes."""
    selector = f"videogen.pib.gov.in/release={RELEASES[2]}"

    def loading() -> Manifest | None:
        pods = story.cluster.list("pods", NAMESPACE, selector)
        states = [(pod, one) for pod in pods for one in pod.get("status", {}).get("containerStatuses", [])]
        return next((pod for pod, one in states if "running" in one["state"] and not one["ready"] and not _is_ending(pod)), None)

    story.cluster("delete", "pods", "-n", NAMESPACE, "-l", selector, "--grace-period=1", "--wait=true")
    pod = story.cluster.wait("the next server to load", loading, HANGS)
    assert pod["spec"]["terminationGracePeriodSeconds"] >= 600
    story.cluster("delete", "pod", pod["metadata"]["name"], "-n", NAMESPACE, "--wait=true", "--timeout=300s")


def _is_ending(pod: Manifest) -> bool:
    return "deletionTimestamp" in pod["metadata"]


def test_the_pictures_of_the_summary_can_be_made(story: Story, tmp_path: Path) -> None:
    assert story.load
    contact_sheet(list(story.load.videos), tmp_path / "sheet.png")
    reel(list(story.load.videos), tmp_path / "reel.mp4")
    assert (tmp_path / "sheet.png").stat().st_size > 10_000
    assert frames_of((tmp_path / "reel.mp4").read_bytes()).shape[0] == FRAMES[0] * len(story.load.videos)


# What a viewer may do, at the gateway of the cluster; tests/cluster/test_h1_hostile_bodies.py has more of it.


def ask(story: Story, method: str, path: str, body: bytes | None = None) -> int:
    """The gateway's answer to a request for the service that the story leaves behind."""
    assert story.load
    request = urllib.request.Request(story.load.url + path, data=body, headers={"Host": story.load.host}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=HANGS) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def test_nothing_but_a_request_for_a_video_and_the_readiness_is_routed(story: Story) -> None:
    assert ask(story, "GET", "/v2/models/video/ready") == 200
    for path in ("/v2", "/metrics", "/v2/models/video/config", "/v2/models/video/stats", "/v2/models/video/infer"):
        assert ask(story, "GET", path) == 404, path
    for path in ("/v2/models/video/generate", "/v2/repository/index", "/inference.GRPCInferenceService/ModelInfer"):
        assert ask(story, "POST", path, b"{}") == 404, path


def test_a_body_above_the_limit_is_refused_by_the_gateway(story: Story) -> None:
    steps = request_body("a red square moves right", 1, 11)  # one more than it allows: 400, by the server
    assert ask(story, "POST", "/v2/models/video/infer", steps.ljust(60 << 10)) == 400
    assert ask(story, "POST", "/v2/models/video/infer", steps.ljust(66 << 10)) == 413


def test_a_viewer_may_not_ask_for_more_steps_than_the_release_allows(story: Story) -> None:
    assert story.load
    with pytest.raises(RuntimeError, match="HTTP 400: STEPS is 11; accepted is a whole number from 1 to 10"):
        generate(story.load.url, request_body("a red square moves right", 1, 11), {"Host": story.load.host}, HANGS)
