"""Examples on the real cluster, in the size of a laptop: what of them becomes smaller stands in `small_examples`.

examples/newsroom is not here: `make demo` and test_demo_story.py tell it.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from videogen_demo import footage, install
from videogen_demo.install import Installation
from videogen_demo.kubectl import Cluster, Manifest
from videogen_demo.load import Load
from videogen_demo.removal import remove_releases
from videogen_testing import small_examples
from videogen_testing.judged_runs import judge
from videogen_testing.patience import HANGS
from videogen_testing.small_examples import DATASETS, documents, small
from videogen_testing.storage_reader import Storage
from videogen_testing.stories import namespace_manifest, video

POOL = "videogen.pib.gov.in/pool"
Tell = Callable[[str], list[Manifest]]


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the examples want to find in the claim."""
    folder = tmp_path_factory.mktemp("material")
    small_examples.put_videos(folder)
    return folder


@pytest.fixture(scope="module")
def digests(material: Path) -> dict[str, str]:
    """Of the networks in it, by path."""
    return small_examples.put_networks(material)


@pytest.fixture(scope="module")
def claim_name() -> str:
    return "pib-models"


@pytest.fixture(scope="module")
def namespace(cluster: Cluster, installation: Installation, material: Path, digests: dict[str, str], claim_name: str) -> Iterator[str]:
    """With the claim of first-release and the quota."""
    name = f"e2e-examples-{uuid.uuid4().hex[:6]}"
    (claim,), (quota,) = documents("first-release/claim.yaml"), documents("quota/resource-quota.yaml")
    for one in (claim, quota):
        one["metadata"]["namespace"] = name
    cluster.apply(namespace_manifest(name), claim)
    footage.upload(cluster, name, claim_name, material, installation.images["trainer"], ("raw", "networks"))
    cluster.apply(quota)
    yield name
    cluster("delete", "trainingruns", "--all", "-n", name, "--cascade=foreground", "--timeout=400s")
    remove_releases(cluster, name)
    cluster("delete", "namespace", name, "--wait=false")


@pytest.fixture(scope="module")
def tell(cluster: Cluster, storage: Storage, digests: dict[str, str]) -> Tell:
    """`tell(file)`: apply an example's runs, one after the other, and judge what each has made."""

    def apply(example: Manifest) -> Manifest:
        run = small(example, storage.namespace, digests)
        cluster.apply(run)
        return judge(cluster, storage, run["metadata"]["name"])

    return lambda file: [apply(example) for example in documents(file)]


@pytest.fixture(scope="module")
def first_release(tell: Tell) -> Manifest:
    """The run, which has made the dataset that the other examples of its size read."""
    (run,) = tell("first-release/training-run.yaml")
    return run


@pytest.fixture(scope="module")
def image_model(tell: Tell, first_release: Manifest) -> Manifest:
    (run,) = tell("image-based/text2video-zero.yaml")
    return run


@pytest.fixture(scope="module")
def latents(tell: Tell, image_model: Manifest) -> Manifest:
    (run,) = tell("image-based/align-your-latents.yaml")
    return run


@pytest.fixture
def viewers(cluster: Cluster, namespace: str) -> Iterator[Load]:
    """Of the service standard, without whom no canary goes on."""
    load = Load(install.gateway_url(cluster), install.host_name("standard", namespace), viewers=2).start()
    yield load
    load.stop()


def test_a_first_release_serves_videos(cluster: Cluster, namespace: str, first_release: Manifest) -> None:
    url, host = install.gateway_url(cluster), install.host_name("standard", namespace)
    answer = cluster.wait("a video", lambda: video(url, host), 300)
    assert answer.release == first_release["status"]["release"]


def test_its_optimized_version_takes_its_place(tell: Tell, first_release: Manifest, viewers: Load) -> None:
    (run,) = tell("optimized/training-run.yaml")
    assert run["status"]["initFrom"]["digest"] == first_release["status"]["artifact"]["digest"]
    assert viewers.failures() == []


def test_a_cycle_fires_by_its_schedule_and_trains_on_from_what_it_released(
    cluster: Cluster, storage: Storage, namespace: str, digests: dict[str, str], first_release: Manifest, viewers: Load
) -> None:
    (weekly,) = (one for one in documents("cycles/videofusion.yaml") if one["spec"]["cadence"] == "Weekly")
    weekly["spec"]["schedule"] = "* * * * *"
    cluster.apply(small(weekly, namespace, digests))

    def succeeded() -> list[Manifest]:
        cycle = cluster.get("finetunecycle", "base-weekly", namespace)
        history = (cycle or {}).get("status", {}).get("history", [])
        assert not [past for past in history if past["outcome"] == "Failed"], history
        return [past for past in history if past["outcome"] == "Succeeded"]

    first, second, *_ = cluster.wait("two runs of the cycle", lambda: len(found := succeeded()) >= 2 and found, 1200)
    cluster("delete", "finetunecycle", "base-weekly", "-n", namespace)
    run = cluster.get("trainingrun", second["run"], namespace)
    assert run, "deleting a cycle keeps its runs"
    assert run["spec"]["initFrom"]["release"] == first["release"]
    assert int(second["version"].rpartition(".")[2]) == int(first["version"].rpartition(".")[2]) + 1, "each raises the patch"
    assert storage.lineage(run["status"]["artifact"]["digest"])
    assert viewers.failures() == []


def run_at_once(cluster: Cluster, namespace: str, cycle: str) -> Manifest:
    """Ask a cycle for a run -> its line in the history, which must be a success."""
    cluster("annotate", f"finetunecycle/{cycle}", "videogen.pib.gov.in/request=run-now@story", "--overwrite", "-n", namespace)

    def ended() -> list[Manifest]:
        made = cluster.get("finetunecycle", cycle, namespace) or {}
        return [past for past in made.get("status", {}).get("history", []) if past.get("run", "").startswith(f"{cycle}-now-")]

    (past,) = cluster.wait(f"the run of cycle {cycle}", ended, 900)
    assert past["outcome"] == "Succeeded", past
    return dict(past)


def test_a_hotfix_comes_when_it_is_asked_for(
    cluster: Cluster, namespace: str, digests: dict[str, str], first_release: Manifest, viewers: Load
) -> None:
    (hotfix,) = documents("cycles/hotfix.yaml")
    cluster.apply(small(hotfix, namespace, digests))
    past = run_at_once(cluster, namespace, "base-hotfix")
    release = cluster.get("modelrelease", past["release"], namespace)
    assert release
    assert release["status"]["rollout"]["state"] == "Stable"
    assert viewers.failures() == []


def test_what_serves_is_measured_and_the_release_keeps_it(
    cluster: Cluster, namespace: str, digests: dict[str, str], first_release: Manifest
) -> None:
    for cycle in documents("cycles/production.yaml"):
        name = cycle["metadata"]["name"]
        cluster.apply(small(cycle, namespace, digests))
        past = run_at_once(cluster, namespace, name)

        def kept(past: Manifest = past) -> list[Manifest]:
            release = cluster.get("modelrelease", past["release"], namespace) or {}
            return [one for one in release.get("status", {}).get("measurements", []) if one["run"] == past["run"]]

        (measurement,) = cluster.wait(f"what {name} has measured", kept, HANGS)
        assert "FVD" in {result["metric"] for result in measurement["results"]}


def test_the_calendar_of_the_schedule_waits_for_its_times(cluster: Cluster, namespace: str, digests: dict[str, str]) -> None:
    calendar = ("schedule/quarterly.yaml", "schedule/monthly.yaml", "schedule/weekly.yaml", "schedule/annual.yaml")
    cycles = [small(one, namespace, digests) for file in calendar for one in documents(file)]
    (_, claim), rights = documents("schedule/claim.yaml"), documents("schedule/governance.yaml")
    for one in (claim, *rights):
        one["metadata"]["namespace"] = namespace
    claim["metadata"]["name"] = "pib-models-of-all"  # a dry run, for nobody has 7 TB here
    cluster("apply", "--dry-run=server", "-f", "-", stdin=json.dumps(claim))
    cluster.apply(*rights, *cycles)
    for cycle in cycles:
        name = cycle["metadata"]["name"]
        cluster.wait(f"the next time of {name}", partial(_next_time, cluster, namespace, name), HANGS)
        cluster("delete", "finetunecycle", name, "-n", namespace)


def _next_time(cluster: Cluster, namespace: str, name: str) -> str:
    return str((cluster.get("finetunecycle", name, namespace) or {}).get("status", {}).get("nextScheduleTime", ""))


def test_a_run_for_trackers_is_seen_in_tensorboard(
    cluster: Cluster, installation: Installation, tell: Tell, namespace: str, first_release: Manifest
) -> None:
    (run,) = tell("tracking/training-run.yaml")
    deployment, service = documents("tracking/tensorboard.yaml")
    deployment["spec"]["template"]["spec"]["containers"][0]["image"] = installation.images["trainer"]
    for one in (deployment, service):
        one["metadata"]["namespace"] = namespace
    cluster.apply(deployment, service)
    cluster("rollout", "status", "deployment/tensorboard", "-n", namespace, "--timeout=600s")
    path = f"/api/v1/namespaces/{namespace}/services/tensorboard:6006/proxy/data/runs"
    name = f"{run['metadata']['name']}-{run['metadata']['uid'][:8]}/train/tensorboard"
    cluster.wait("TensorBoard to have read the run", lambda: name in json.loads(cluster("get", "--raw", path)), 300)


def test_a_share_is_tuned_and_trained_with(tell: Tell, storage: Storage, first_release: Manifest) -> None:
    (run,) = tell("tuning/videofusion.yaml")
    (tuned,) = run["status"]["tuned"]
    bundle = storage.lineage(run["status"]["artifact"]["digest"])[0]
    assert bundle["recipe"]["videoFusion"]["baseNoiseShare"] == tuned["value"]


def test_temporal_layers_begin_with_the_image_model(image_model: Manifest, latents: Manifest) -> None:
    assert latents["status"]["initFrom"]["digest"] == image_model["status"]["artifact"]["digest"]


def test_clips_are_interpolated_and_decoded_in_time(tell: Tell, storage: Storage, latents: Manifest) -> None:
    run = tell("image-based/smooth-align-your-latents.yaml")[-1]
    newest = storage.lineage(run["status"]["artifact"]["digest"])[0]
    assert {"interpolation.safetensors", "decoder.safetensors"} <= {entry["path"] for entry in newest["files"]}
    (measured,) = (one for one in run["status"]["phases"] if one["name"] == "validate")
    assert {one["frames"] for one in measured["results"]} == {29}


def test_two_workers_share_the_state_of_a_large_model(tell: Tell, first_release: Manifest) -> None:
    (run,) = tell("large-models/align-your-latents.yaml")
    assert run["spec"]["recipe"]["sharding"] == "Full"
    assert run["spec"]["phases"][0]["workers"]["replicas"] == 2


@pytest.fixture(scope="module")
def emergency_pool(cluster: Cluster) -> Iterator[None]:
    """The priority class and the nodes that examples/README.md asks for."""
    (priority,) = documents("emergency/priority-class.yaml")
    cluster.apply(priority)
    cluster("label", "node", "--all", f"{POOL}=emergency", "--overwrite")
    yield
    cluster("label", "node", "--all", f"{POOL}-")
    cluster("delete", "priorityclass", priority["metadata"]["name"])


@pytest.fixture(scope="module")
def datasets(cluster: Cluster, storage: Storage, first_release: Manifest, digests: dict[str, str]) -> None:
    """Those that the schedules find curated, beside pib and emergency."""
    cluster.apply(small(small_examples.curation(DATASETS), storage.namespace, digests))
    judge(cluster, storage, "datasets")


@pytest.fixture
def no_release(cluster: Cluster, namespace: str) -> None:
    """Each schedule is the first of its service, as it would be; several of them make the same version."""
    remove_releases(cluster, namespace)


@pytest.fixture(scope="module")
def emergency(tell: Tell, emergency_pool: None) -> Manifest:
    """The run, which has made the dataset of emergencies."""
    (run,) = tell("emergency/training-run.yaml")
    return run


def test_emergencies_have_templates_and_scenarios(storage: Storage, emergency: Manifest) -> None:
    path = emergency["status"]["artifact"]["path"]
    index = json.loads(storage.text(f"{path}/templates/templates.json"))
    assert len({one["category"] for one in index["templates"]}) == 10


@pytest.mark.usefixtures("datasets", "emergency", "no_release")
@pytest.mark.parametrize("schedule", ["schedule/text2video-zero.yaml", "schedule/align-your-latents.yaml", "schedule/videofusion.yaml"])
def test_a_whole_schedule_ends_with_a_release(tell: Tell, schedule: str) -> None:
    (run,) = tell(schedule)
    assert run["status"]["release"]
