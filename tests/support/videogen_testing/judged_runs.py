"""Runs on a cluster, judged by what they made: datasets, bundles, results and releases, not by their own word alone."""

from __future__ import annotations

from collections.abc import Callable

from videogen_api.training_run import TRAINING, Task
from videogen_demo.kubectl import Cluster, Manifest, condition
from videogen_testing.storage_reader import Storage
from videogen_testing.stories import ended

HOUR = 3600.0  # seconds, for what hangs
MAKES_A_BUNDLE = (*TRAINING, Task.OPTIMIZE, Task.BUILD_TEMPLATES)


def judge(cluster: Cluster, storage: Storage, name: str) -> Manifest:
    """Wait for the run's end, and assert of each phase that what it is for is there -> the run."""
    succeeded = ended(cluster, storage.namespace, name, HOUR)
    assert succeeded["status"] == "True", f"{name}: {succeeded}"
    run = cluster.get("trainingrun", name, storage.namespace) or {}
    phases, status = run["spec"]["phases"], {one["name"]: one for one in run["status"]["phases"]}
    assert [status[one["name"]]["outcome"] for one in phases] == ["Completed"] * len(phases)
    makers = [one["name"] for one in phases if one["task"] in MAKES_A_BUNDLE]
    if makers:
        chain = storage.lineage(run["status"]["artifact"]["digest"])
        assert [one["run"] for one in chain[: len(makers)]] == [name] * len(makers)
    for one in phases:
        if one["task"] in JUDGED_BY:
            JUDGED_BY[one["task"]](one, status[one["name"]], storage)
        if one["task"] == Task.RELEASE:
            judge_release(cluster, run)
    return run


def judge_release(cluster: Cluster, run: Manifest) -> Manifest:
    """Assert that the run's release serves the run's bundle -> the release."""
    release = cluster.get("modelrelease", run["status"]["release"], run["metadata"]["namespace"])
    assert release
    assert release["spec"]["artifact"]["digest"] == run["status"]["artifact"]["digest"]
    assert condition(release, "Ready")["status"] == "True", release["status"]["conditions"]
    return release


def judge_dataset(phase: Manifest, status: Manifest, storage: Storage) -> None:
    """Assert that the version names the digest of status, and that all its clips lie there."""
    (version,) = status["datasets"]
    assert (version["dataset"], version["version"]) == (phase["curate"]["dataset"], phase["curate"]["version"])
    assert version["clips"] > 0
    assert storage.version(version["dataset"], version["version"]) == version["digest"]
    manifest, files = storage.dataset(version["dataset"], version["digest"])
    assert {entry["path"] for entry in manifest["files"]} == files - {"manifest.json"}
    assert f"{version['version']}.html" in storage.files(f"datasets/{version['dataset']}/reports")


def judge_results(phase: Manifest, status: Manifest, storage: Storage) -> None:
    """Assert that there are results, each within its interval, and that every gate has passed on one."""
    results = status["results"]
    assert results
    for one in results:
        assert float(one.get("low", one["value"])) <= float(one["value"]) <= float(one.get("high", one["value"])), one
        assert one["samples"] > 0
    passed = {one["metric"] for one in results if one.get("verdict") == "Passed"}
    assert passed == {gate["metric"] for gate in phase.get("gates", [])}


JUDGED_BY: dict[str, Callable[[Manifest, Manifest, Storage], None]] = {
    Task.CURATE: judge_dataset,
    Task.EVALUATE: judge_results,
    Task.OPTIMIZE: judge_results,
    Task.TEST_SCENARIOS: judge_results,
}
