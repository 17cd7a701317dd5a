"""From what was released last to this version, back, and forward again, under a live training and live releases.

What the older operator has made stays as it is: no pod is replaced or restarted, no status forgets what it said, no viewer waits in vain,
and the training goes on. The operator, its images and those of new pods are other ones each time.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from videogen_api.meta import ANNOTATION_REQUEST, ModelFamily, ModelIdentity, release_name
from videogen_demo import delivery, install
from videogen_demo.install import Installation
from videogen_demo.kubectl import Cluster, Manifest
from videogen_demo.load import Load
from videogen_testing import released, stories
from videogen_testing.patience import HANGS

ENDLESS = 1_000_000  # steps: no machine comes to the end of them
SERVICE, CYCLE, TRAINING, WAITING = "standard", "weekly", "endless", "waits"
LATER = "2100-01-01T00:00:00Z"
CANARY = "2.0.0"
OPERATOR = "videogen-operator"  # its Lease, and the name that its pods' labels have

OWN = ("TrainingRun", "ModelRelease", "FineTuneCycle")
WORKING = ("PyTorchJob", "Deployment")
SEEN = (
    "pods",
    "pytorchjobs",
    "deployments",
    "services",
    "configmaps",
    "httproutes",
    "persistentvolumeclaims",
    *(f"{kind}s" for kind in OWN),
)
# Of a status: what grows while work goes on, and words.
LIVE = {
    "progress",
    "checkpointStep",
    "timeSpent",
    "goodput",
    "gpuTime",
    "gpuHours",
    "bytesWritten",
    "lastCheckTime",
    "requests",
    "verdicts",
}
WORDS = {"summary", "message"}


@dataclass(frozen=True, slots=True)
class Seen:
    """What stands in the namespace at one time, by kind and name."""

    uids: dict[str, str]
    containers: dict[str, list[tuple[str, str, int]]]  # of each running pod: name, ID, restarts
    made: dict[str, Manifest]  # spec of everything that makes pods
    own: dict[str, Manifest]  # spec and status of our own kinds


def look(cluster: Cluster, namespace: str) -> Seen:
    """At all that may not be lost."""
    items = json.loads(cluster("get", ",".join(SEEN).lower(), "-n", namespace, "-o", "json"))["items"]
    named = {f"{item['kind']} {item['metadata']['name']}": item for item in items}
    pods = {name: item["status"] for name, item in named.items() if item["kind"] == "Pod" and item["status"]["phase"] == "Running"}
    return Seen(
        uids={name: item["metadata"]["uid"] for name, item in named.items() if item["kind"] != "Pod" or name in pods},
        containers={
            name: sorted((one["name"], one["containerID"], one["restartCount"]) for one in status["containerStatuses"])
            for name, status in pods.items()
        },
        made={name: item["spec"] for name, item in named.items() if item["kind"] in WORKING},
        own={name: {part: item[part] for part in ("spec", "status")} for name, item in named.items() if item["kind"] in OWN},
    )


def lost(before: Any, after: Any, path: str = "") -> Iterator[str]:
    """What has gone or changed. What a newer version adds does not count."""
    if isinstance(before, list) and isinstance(after, list):
        before, after = _by_name(before), _by_name(after)
    if not isinstance(before, dict) or not isinstance(after, dict):
        if before != after:
            yield f"{path}: {before!r} is now {after!r}"
        return
    for key in before.keys() - LIVE - WORDS:
        yield from lost(before[key], after.get(key), f"{path}.{key}")


def _by_name(rows: list[Any]) -> dict[str, Any]:
    """Conditions by type, phases by name, all else by place."""
    return {
        str(row.get("type") or row.get("name") or place) if isinstance(row, dict) else str(place): row for place, row in enumerate(rows)
    }


@dataclass(frozen=True, slots=True)
class Scene:
    """What is looked at after each change of the operator, and what it was under the first one."""

    cluster: Cluster
    namespace: str
    viewers: Load
    first: Seen

    def goes_on(self, installation: Installation) -> None:
        """This operator leads, the training and the viewers go on under it, and everything is as it was."""
        self.cluster.wait("the operator to lead", lambda: leads(self.cluster, installation), HANGS)
        step, answers = self._step(), len(self.viewers.answers)
        self.cluster.wait("the operator to hear of a later checkpoint", lambda: self._step() > step, HANGS)
        self.cluster.wait("viewers to be answered", lambda: len(self.viewers.answers) > answers + 2, HANGS)
        now = look(self.cluster, self.namespace)
        assert now.containers == self.first.containers
        assert now.made == self.first.made
        assert list(lost(self.first.uids, now.uids)) == []
        assert list(lost(self.first.own, now.own)) == []
        assert self.viewers.failures() == []

    def _step(self) -> int:
        return int(stories.phase(self.cluster, self.namespace, TRAINING, "train")["checkpointStep"])


def leads(cluster: Cluster, installation: Installation) -> bool:
    """Whether a pod of this installation's image holds the Lease, and no pod of another one is left."""
    lease = cluster.get("lease", OPERATOR, install.SYSTEM) or {}
    pods = cluster.list("pod", install.SYSTEM, f"app.kubernetes.io/name={OPERATOR}")
    images = {pod["metadata"]["name"]: pod["spec"]["containers"][0]["image"] for pod in pods}
    wanted = installation.images["operator"]
    return set(images.values()) == {wanted} and lease["spec"].get("holderIdentity") in images


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of what was released last."""
    return released.sources(tmp_path_factory.mktemp("released"))


@pytest.fixture(scope="module")
def earlier(installation: Installation, sources: Path) -> Installation:
    """Images of what was released last. They have its name, so that they are others also where nothing of them has changed since."""
    cluster, local, tag = installation.cluster, installation.local, released.TAG
    images = delivery.to_local_cluster(sources, tag) if local else delivery.to_other_cluster(cluster, os.environ, sources, tag)
    assert not set(images.values()) & set(installation.images.values())
    return Installation(cluster, images, local)


@pytest.fixture
def viewers(cluster: Cluster, namespace: str) -> Iterator[Load]:
    """One viewer, who begins when there is something to see."""
    load = Load(install.gateway_url(cluster), install.host_name(SERVICE, namespace), viewers=1, pause=0.5)
    yield load
    load.stop()


def cycle_of(namespace: str) -> Manifest:
    """A cycle without times of its own, whose run trains and releases."""
    made = stories.run(namespace, CYCLE, stories.curate(), stories.train(), stories.evaluate(), stories.release(SERVICE))
    template = {name: value for name, value in made["spec"].items() if name != "model"}
    spec = {"cadence": "Weekly", "suspend": True, "model": {"family": "VideoFusion"}, "runTemplate": {"spec": template}}
    return made | {"kind": "FineTuneCycle", "spec": spec}


def canary_of(release: Manifest) -> Manifest:
    """The same bundle under another version, which takes half of the requests and goes no further by itself."""
    stays = {"steps": [{"weightPercent": 50, "minimumRequests": 1_000_000, "minimumSeconds": 86_400}]}
    identity = ModelIdentity(family=ModelFamily.VIDEOFUSION, version=CANARY)
    spec = {key: release["spec"][key] for key in ("service", "artifact", "serving")}
    return {
        "apiVersion": release["apiVersion"],
        "kind": "ModelRelease",
        "metadata": {"name": release_name(identity), "namespace": release["metadata"]["namespace"]},
        "spec": spec | {"model": {"family": "VideoFusion", "version": CANARY}, "rollout": stays},
    }


def begun(cluster: Cluster, namespace: str, viewers: Load) -> Scene:
    """A cycle with a past, a stable release and a held canary, a run at work and one that waits, all made by the operator of now."""
    cluster.apply(cycle_of(namespace))
    cluster("annotate", f"finetunecycle/{CYCLE}", "-n", namespace, f"{ANNOTATION_REQUEST}=run-now@first")
    (past,) = cluster.wait("the cycle's run to end", lambda: _status(cluster, namespace, "finetunecycle", CYCLE).get("history"), 900)
    assert past["outcome"] == "Succeeded", past
    stable = cluster.get("modelrelease", past["release"], namespace)
    assert stable
    canary = canary_of(stable)
    cluster.apply(
        canary,
        stories.run(namespace, TRAINING, stories.train(), version="3.0.0", steps=ENDLESS),
        stories.run(namespace, WAITING, stories.train(window={"notBefore": LATER}), version="4.0.0"),
    )
    cluster.wait("a checkpoint", lambda: stories.phase(cluster, namespace, TRAINING, "train").get("checkpointStep", 0) >= 2, HANGS)
    cluster.wait("a run to wait for its day", lambda: stories.state(cluster, namespace, WAITING).get("reason") == "WaitingForWindow", HANGS)
    name = canary["metadata"]["name"]
    cluster.wait("the canary", lambda: _rollout(cluster, namespace, name) == "Canary", HANGS)
    # A canary that goes on is judged again and again, and says whenever the verdict is another one.
    cluster("annotate", f"modelrelease/{name}", "-n", namespace, f"{ANNOTATION_REQUEST}=hold@first")
    cluster.wait("the canary to be held", lambda: _rollout(cluster, namespace, name) == "Held", HANGS)
    viewers.start()
    both = {past["release"], name}
    cluster.wait("answers of both releases", lambda: {answer.release for answer in viewers.answers if answer.ok} == both, HANGS)
    return Scene(cluster, namespace, viewers, look(cluster, namespace))


def _rollout(cluster: Cluster, namespace: str, release: str) -> str:
    return str(_status(cluster, namespace, "modelrelease", release).get("rollout", {}).get("state", ""))


def _status(cluster: Cluster, namespace: str, kind: str, name: str) -> Manifest:
    found: Manifest = (cluster.get(kind, name, namespace) or {}).get("status") or {}
    return found


def test_live_runs_and_releases_go_on_forward_and_back(
    installation: Installation, earlier: Installation, sources: Path, namespace: str, viewers: Load
) -> None:
    cluster = installation.cluster
    try:
        install.upgrade(earlier, sources)
        cluster.wait("the earlier operator to lead", lambda: leads(cluster, earlier), HANGS)
        scene = begun(cluster, namespace, viewers)
        install.upgrade(installation)
        scene.goes_on(installation)
        install.roll_back(cluster)
        scene.goes_on(earlier)
    finally:
        install.upgrade(installation)  # which later tests expect
    scene.goes_on(installation)
