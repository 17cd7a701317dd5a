"""How much stands in the cluster, and the objects, in the states in which the operator's own plans leave them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Any

from benchmarks.cycles import a_cycle
from videogen_api.evaluation import Metric, MetricResult
from videogen_api.fine_tune_cycle import LABEL_CYCLE
from videogen_api.job import Report
from videogen_api.meta import API_VERSION
from videogen_operator.kinds.model_release.states import State
from videogen_testing.release_states import in_each_state
from videogen_testing.run_simulation import Simulation
from videogen_testing.runs import EVALUATE, TRAIN, a_run, ended, running, trained

Manifest = dict[str, Any]
NAMESPACES = 10
OF_A_SERVICE = 10  # releases: one stable, one canary, the others superseded
PODS_OF_A_RELEASE = 10
UNCHECKED = {"checkIntervalSeconds": 3600}  # without Prometheus each round of checks would be written as an error
GATED = {"steps": [{"weightPercent": 50, "minimumRequests": 0, "minimumSeconds": 86400}], **UNCHECKED}
SIMULATED, RUN_UID, JOB_UID = "simulated", "uid-of-the-run", "uid-of-the-job"


@dataclass(frozen=True, slots=True)
class Size:
    """Numbers of objects."""

    runs: int = 5000
    live: int = 1000
    services: int = 50
    cycles: int = 500
    nodes: int = 200

    @classmethod
    def scaled(cls, scale: float) -> Size:
        """So much of everything, and at least one of each for every namespace."""
        whole = cls()
        return cls(*(max(NAMESPACES, round(getattr(whole, name) * scale)) for name in cls.__dataclass_fields__))

    def __str__(self) -> str:
        releases, pods = self.services * OF_A_SERVICE, self.live + 2 * self.services * PODS_OF_A_RELEASE
        words = f"{self.runs:,} TrainingRuns, {self.live:,} of them live, {releases:,} ModelReleases in {self.services:,} services"
        return f"{words}, {self.cycles:,} FineTuneCycles, {self.nodes:,} nodes, {pods:,} pods, {NAMESPACES} namespaces"


@dataclass(frozen=True, slots=True)
class Run:
    """A run to be made: its place, name and version, and the cycle that it is of, or ""."""

    number: int
    live: bool
    cycle: str

    @property
    def namespace(self) -> str:
        """All kinds of runs are in each namespace."""
        return namespace_of(self.number)

    @property
    def name(self) -> str:
        """Its metadata.name."""
        return f"run-{self.number:05}"


def runs(size: Size) -> Iterator[Run]:
    """The live ones first; each cycle has one of them, as long as there are enough."""
    for number in range(size.runs):
        live = number < size.live
        yield Run(number, live, cycle_name(number) if live and number < size.cycles else "")


def namespace_of(number: int) -> str:
    """Neighbours are in different namespaces."""
    return f"team-{number % NAMESPACES}"


def cycle_name(number: int) -> str:
    """Also the specialization of its model."""
    return f"cycle-{number:04}"


def cycle(number: int) -> Manifest:
    """One that is not due."""
    return a_cycle(cycle_name(number), namespace_of(number), f"0 0 1 {(datetime.now(UTC).month + 5) % 12 + 1} *")


def run_objects(run: Run) -> tuple[Manifest, Mapping[str, Any], Manifest, Manifest]:
    """The run, its status, and the job and the pod of its attempt, in which RUN_UID and JOB_UID stand for UIDs."""
    version = f"1.{run.number}.0"
    text = _simulated(run.live).replace('"1.0.0"', f'"{version}"').replace("v1.0.0", f"v{version}")
    text = text.replace(SIMULATED, run.name).replace("models/", f"{run.namespace}/")
    if run.cycle:
        text = text.replace("-base", f"-{run.cycle}")
    manifest, status, job, pod = json.loads(text)
    manifest["metadata"] |= {"namespace": run.namespace} | ({"labels": {LABEL_CYCLE: run.cycle}} if run.cycle else {})
    manifest["spec"]["model"] |= {"specialization": run.cycle} if run.cycle else {}
    return manifest, status, job, pod


@cache
def _simulated(live: bool) -> str:
    """A run in its first phase, or one that has ended, by the operator's plan; JSON of what `run_objects` gives."""
    made = Simulation(phases=[TRAIN, EVALUATE])
    made.now = datetime.now(UTC)
    made.settle()
    made.set_pods(running())
    made.settle()
    job, pod = made.jobs()[-1], made.pods()[-1]
    if not live:
        for report in (trained(), Report(results=[MetricResult(metric=Metric.FVD, value="100", samples=128)])):
            made.set_pods(ended(0, report.model_dump_json(by_alias=True, exclude_none=True)))
            made.settle()
        assert made.top()[0] == "True", made.top()
    run = made.run()
    parts = [a_run("run", phases=[TRAIN, EVALUATE]), run["status"], *map(_created, (job, pod))]
    text = json.dumps(parts).replace(run["metadata"]["uid"], RUN_UID).replace(job["metadata"]["uid"], JOB_UID)
    return (
        text.replace('"run"', f'"{SIMULATED}"')
        .replace('"run-', f'"{SIMULATED}-')
        .replace(" run-", f" {SIMULATED}-")
        .replace(f'/{SIMULATED}"', '/run"')
    )


def _created(item: Mapping[str, Any]) -> Manifest:
    """As it is handed to the API server; of a job all that no plan reads was forgotten, so its pods are described anew."""
    kept = {key: item["metadata"][key] for key in ("name", "labels", "ownerReferences")}
    made = {**item, "metadata": kept}
    if item["kind"] == "PyTorchJob":
        template = {"spec": {"containers": [{"name": "pytorch", "image": "trainer"}]}}
        replicas = {role: {**one, "template": template} for role, one in item["spec"]["pytorchReplicaSpecs"].items()}
        made["spec"] = {**item["spec"], "pytorchReplicaSpecs": replicas}
    return made


def node_name(number: int) -> str:
    """Of so many nodes, from 0."""
    return f"node-{number:03}"


def node(number: int) -> Manifest:
    """A node with eight GPUs and room for hundreds of pods."""
    room = {"cpu": "128", "memory": "1024Gi", "nvidia.com/gpu": "8", "pods": "250"}
    said = [{"type": "Ready", "status": "True", "reason": "KubeletReady", "message": ""}]
    metadata = {"name": node_name(number), "labels": {"kubernetes.io/hostname": node_name(number)}}
    return {"metadata": metadata, "status": {"allocatable": room, "capacity": room, "conditions": said}}


def service_name(number: int) -> str:
    """Of so many services; it is in `namespace_of` that number."""
    return f"service-{number:03}"


def release_name(service: int, place: int) -> str:
    """Its releases count up from 0; the last but one becomes stable, the last a canary for ever."""
    return f"pib-videogen-videofusion-v{place + 1}.{service}.0-base"


def release(service: int, place: int) -> tuple[Manifest, Mapping[str, Any] | None]:
    """A release and its status; None: the operator makes it."""
    spec = {
        "service": service_name(service),
        "model": {"family": "VideoFusion", "version": f"{place + 1}.{service}.0"},
        "serving": {"timeoutSeconds": 5},
        "artifact": {"claimName": "models", "path": "bundles/x", "digest": f"sha256:{place:032x}{service:032x}"},
        "rollout": GATED,
    }
    head = {"apiVersion": API_VERSION, "kind": "ModelRelease"}
    manifest = {**head, "metadata": {"name": release_name(service, place)}, "spec": spec}
    return manifest, _superseded() if place < OF_A_SERVICE - 2 else None


@cache
def _superseded() -> Mapping[str, Any]:
    status: Mapping[str, Any] = in_each_state()[State.SUPERSEDED][-1]["status"]
    return status
