"""What people and tools that wait for a run or a release wait for: kubectl and Helm, the real ones, against the real API server.

The tests play the operator: they write the status that it would write. What those statuses are in each state is told by the simulations.
"""

import json
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from videogen_testing.control_plane import BINARIES, HANGS, Api, ControlPlane, eventually, process
from videogen_testing.edits import release_of
from videogen_testing.runs import DIGEST, RUNS, a_run

RELEASES = "/apis/videogen.pib.gov.in/v1alpha1/namespaces/{}/modelreleases"
NAME = "pib-videogen-videofusion-v1.0.0-base"
TIME = "2026-11-01T00:00:00Z"
RUN, RELEASE = ("TrainingRun", "run"), ("ModelRelease", NAME)


def status(**conditions: tuple[str, str]) -> dict[str, Any]:
    """A status of the first generation with these conditions, each a status and a reason."""
    listed = [
        {"type": kind, "status": told, "reason": reason, "message": f"{reason} in words", "lastTransitionTime": TIME}
        for kind, (told, reason) in conditions.items()
    ]
    return {"observedGeneration": 1, "conditions": listed}


STARTING = {
    RUN: status(Succeeded=("Unknown", "Pending"), Reconciling=("True", "Pending")),
    RELEASE: status(Ready=("False", "Canary"), Reconciling=("True", "Canary")),
}
CURRENT = {RUN: status(Succeeded=("Unknown", "Training")), RELEASE: status(Ready=("True", "Stable"))}
FAILED = {
    RUN: status(Succeeded=("False", "GateFailed"), Stalled=("True", "GateFailed")),
    RELEASE: status(Ready=("False", "Rejected"), Stalled=("True", "GateFailed")),
}
OBJECTS = {RUN: a_run(), RELEASE: release_of()}


def path_of(namespace: str, kind: str, name: str) -> str:
    return f"{(RUNS if kind == 'TrainingRun' else RELEASES).format(namespace)}/{name}"


def created(api: Api, namespace: str, which: tuple[str, str]) -> str:
    """The object's path."""
    path = path_of(namespace, *which)
    api.create(path.rpartition("/")[0], OBJECTS[which] | {"metadata": {"name": which[1], "namespace": namespace}})
    return path


@contextmanager
def waiting(tmp_path: Path, *command: str) -> Iterator[subprocess.Popen[bytes]]:
    with process(command, tmp_path / "waiter.log") as child:
        yield child


def outcome(child: "subprocess.Popen[bytes]", log: Path) -> tuple[int, str]:
    """Its exit code and what it said."""
    return child.wait(timeout=HANGS), log.read_text(encoding="utf-8")


def kubectl(plane: ControlPlane, *arguments: str) -> list[str]:
    return [str(BINARIES / "kubectl"), f"--kubeconfig={plane.kubeconfig}", f"--cache-dir={plane.folder / 'kubectl'}", *arguments]


@pytest.mark.parametrize(
    "which, condition, before, after",
    [(RUN, "Succeeded", "Unknown", "True"), (RELEASE, "Ready", "False", "True")],
    ids=["a run that is to succeed", "a release that is to serve"],
)
def test_kubectl_waits_for(
    plane: ControlPlane, namespace: str, tmp_path: Path, which: tuple[str, str], condition: str, before: str, after: str
) -> None:
    path = created(plane.api, namespace, which)
    plane.api.merge(f"{path}/status", {"status": status(**{condition: (before, "Working")})})
    flags = ("wait", which[0], which[1], f"--namespace={namespace}", f"--for=condition={condition}", f"--timeout={HANGS:.0f}s")
    with waiting(tmp_path, *kubectl(plane, *flags)) as child:
        with pytest.raises(subprocess.TimeoutExpired):
            child.wait(timeout=2)
        plane.api.merge(f"{path}/status", {"status": status(**{condition: (after, "Done")})})
        assert outcome(child, tmp_path / "waiter.log")[0] == 0


def chart(folder: Path, *which: tuple[str, str]) -> Path:
    """A chart with these objects."""
    (folder / "templates").mkdir(parents=True)
    (folder / "Chart.yaml").write_text("apiVersion: v2\nname: story\nversion: 1.0.0\n")
    for kind, name in which:
        manifest = OBJECTS[kind, name] | {"metadata": {"name": name}}
        (folder / "templates" / f"{kind}.yaml").write_text(json.dumps(manifest))
    return folder


@contextmanager
def installing(plane: ControlPlane, namespace: str, tmp_path: Path, *which: tuple[str, str]) -> Iterator["subprocess.Popen[bytes]"]:
    """`helm install --wait` of a chart with these objects, which are there when the block begins."""
    helm = shutil.which(BINARIES / "helm") or shutil.which("helm")
    assert helm, "build it with: python -m localcluster tools"
    flags = (f"--kubeconfig={plane.kubeconfig}", f"--namespace={namespace}", "--wait", f"--timeout={HANGS:.0f}s")
    with waiting(tmp_path, helm, "install", "story", str(chart(tmp_path / "chart", *which)), *flags) as child:
        for one in which:
            eventually(lambda one=one: plane.api.find(path_of(namespace, *one)))  # type: ignore[misc]
        yield child


def tell(api: Api, namespace: str, statuses: Mapping[tuple[str, str], Any]) -> None:
    for which, told in statuses.items():
        api.merge(f"{path_of(namespace, *which)}/status", {"status": told})


def test_helm_waits_until_the_run_works_and_the_release_serves(plane: ControlPlane, namespace: str, tmp_path: Path) -> None:
    with installing(plane, namespace, tmp_path, RUN, RELEASE) as child:
        for statuses in (STARTING, {RUN: CURRENT[RUN]}):
            with pytest.raises(subprocess.TimeoutExpired):
                child.wait(timeout=2)
            tell(plane.api, namespace, statuses)
        with pytest.raises(subprocess.TimeoutExpired):
            child.wait(timeout=2)
        tell(plane.api, namespace, CURRENT)
        code, said = outcome(child, tmp_path / "waiter.log")
    assert (code, "STATUS: deployed" in said) == (0, True), said


@pytest.mark.parametrize("which", [RUN, RELEASE], ids=["a run that failed", "a release that was rejected"])
def test_helm_fails_at(plane: ControlPlane, namespace: str, tmp_path: Path, which: tuple[str, str]) -> None:
    with installing(plane, namespace, tmp_path, which) as child:
        tell(plane.api, namespace, {which: STARTING[which]})
        tell(plane.api, namespace, {which: FAILED[which]})
        code, said = outcome(child, tmp_path / "waiter.log")
    assert code != 0
    assert which[1] in said and "Failed" in said


def test_what_kubectl_shows_wide_says_where_a_release_comes_from_and_who_changed_its_traffic(plane: ControlPlane, namespace: str) -> None:
    evaluation = {"phase": "validate", "digest": DIGEST, "report": "bundles/x/abc.newsroom-1.validate.html"}
    datasets = [{"dataset": name, "version": version, "digest": DIGEST} for name, version in (("pairs", "2026.10"), ("news", "2026.11"))]
    started_from = {"release": "pib-videogen-videofusion-v0.9.0-base", "digest": DIGEST}
    lineage = {"run": "newsroom", "datasets": datasets, "initFrom": started_from, "evaluation": evaluation}
    plane.api.create(RELEASES.format(namespace), release_of(("metadata.namespace", namespace), ("spec.lineage", lineage)))
    history = [{"time": TIME, "weightPercent": 10, "why": "first", "by": "operator"}]
    history += [{"time": TIME, "weightPercent": 0, "why": "then", "by": "request abort@7"}]
    plane.api.merge(f"{RELEASES.format(namespace)}/{NAME}/status", {"status": {"observedGeneration": 1, "trafficHistory": history}})
    shown = subprocess.run(
        kubectl(plane, "get", "vrel", "-o", "wide", f"--namespace={namespace}"), capture_output=True, text=True, check=True
    )
    head, line = shown.stdout.splitlines()
    assert head.split()[0] == "NAME"
    for column in ("CHANGED", "BY", "RUN", "STARTEDFROM", "REPORT"):
        assert column in head
    for value in ("request abort@7", "newsroom", started_from["release"], evaluation["report"]):
        assert value in line
    plain = subprocess.run(kubectl(plane, "get", "vrel", f"--namespace={namespace}"), capture_output=True, text=True, check=True).stdout
    assert "newsroom" not in plain
