"""A TrainingRun whose jobs stand in a queue, in virtual time: tests play what Kueue 0.17 and training-operator do with them."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

from videogen_api.job import ExitCode, Report
from videogen_api.training_run import PhaseStatus, Reason
from videogen_testing.run_simulation import Simulation
from videogen_testing.runs import TRAIN, ended, running

QUEUE = "research"
GRACE = 60  # seconds that a trainer's pod has to save
NO_QUOTA = "couldn't assign flavors to pod set master: insufficient unused quota for cpu in flavor default, 1 more needed"
Told = tuple[str, str, str, str]  # type, status, reason, message
PENDING: Told = ("QuotaReserved", "False", "Pending", NO_QUOTA)
RESERVED: Told = ("QuotaReserved", "True", "QuotaReserved", "Quota reserved in ClusterQueue research")
ADMITTED: Told = ("Admitted", "True", "Admitted", "The workload is admitted")
WON = "Preempted to accommodate a workload (UID: 1, JobUID: 2) due to prioritization in the ClusterQueue"
EVICTED: Told = ("Evicted", "True", "Preempted", WON)


class QueueSimulation(Simulation):
    """One run in the queue `research`."""

    def __init__(self, seed: int = 0, **run: Any) -> None:
        placement = {"placement": {"queueName": QUEUE} | run.pop("placement", {})}
        super().__init__(seed, phases=run.pop("phases", None) or [TRAIN | placement | run.pop("phase", {})], **run)
        self.settings = replace(self.settings, nodes_on_demand="true")  # a preflight looks for no node with GPUs
        self.settle()

    @property
    def phase(self) -> PhaseStatus:
        """The status of the first phase."""
        return self.status().phases[0]

    @property
    def said(self) -> str:
        """The message of the run's condition."""
        return next(one.message for one in self.status().conditions if one.type == "Succeeded")

    def job(self) -> Any:
        """The only job."""
        (job,) = self.jobs()
        return job

    def suspend(self, wanted: bool) -> None:
        """Kueue, or somebody, writes the job's `suspend`."""
        job = self.job()
        policy = job["spec"].get("runPolicy", {}) | {"suspend": wanted}
        self.put(job | {"spec": job["spec"] | {"runPolicy": policy}})

    def kueue_says(self, *told: Told, active: bool = True, checks: tuple[dict[str, str], ...] = ()) -> None:
        """The job's Workload has these conditions."""
        job = self.job()
        owner = {"apiVersion": "kubeflow.org/v1", "kind": "PyTorchJob", "name": job["metadata"]["name"], "controller": True}
        metadata = {
            "name": f"pytorchjob-{job['metadata']['name']}",
            "labels": {"kueue.x-k8s.io/job-uid": job["metadata"]["uid"]},
            "ownerReferences": [owner | {"uid": job["metadata"]["uid"]}],
        }
        names = ("type", "status", "reason", "message")
        conditions = [dict(zip(names, one, strict=True)) | {"lastTransitionTime": self.now.isoformat()} for one in told]
        status = {"conditions": conditions, "admissionChecks": list(checks)}
        item = {"apiVersion": "kueue.x-k8s.io/v1beta2", "kind": "Workload", "metadata": metadata}
        self.put(item | {"spec": {"active": active, "podSets": []}, "status": status}, "models")

    def forget_workload(self) -> None:
        """Somebody deletes the Workload."""
        (workload,) = self.world.list("Workload", "models")
        self.world.remove(workload)

    def admit(self) -> None:
        """Kueue lets the job go on, and its pods run."""
        self.kueue_says(RESERVED, ADMITTED)
        self.suspend(False)
        self.set_pods(running())
        for pod in self.pods():
            self.put(pod | {"spec": pod["spec"] | {"nodeName": "node"}})
        self.settle()

    def report(self, step: int) -> None:
        """The pods tell how far they are."""
        for pod in self.pods():
            metrics = [{"name": "step", "value": str(step)}, {"name": "checkpointStep", "value": str(step)}]
            self.progress[pod["metadata"]["uid"]] = {"metrics": metrics, "lastUpdatedTime": self.now.isoformat()}

    def pods_go(self) -> None:
        """training-operator deletes the pods, which have their grace."""
        for pod in self.pods():
            until = (self.now + timedelta(seconds=GRACE)).isoformat()
            self.put(pod, deletionTimestamp=until, deletionGracePeriodSeconds=GRACE)

    def pods_end(self, step: int) -> None:
        """They save and end, and are still there for a moment."""
        report = Report(reason=Reason.PREEMPTED, last_step=step)
        for pod in self.pods():
            self.put(pod | {"status": ended(ExitCode.PREEMPTED, report.model_dump_json(by_alias=True, exclude_none=True))})

    def pods_vanish(self) -> None:
        """They are gone."""
        for pod in self.pods():
            self.world.remove(pod)

    def evict(self, step: int, told: Told = EVICTED) -> None:
        """Kueue takes back what it gave, and the pods end at this step."""
        self.kueue_says(RESERVED, told)
        self.suspend(True)
        self.settle()
        self.pods_go()
        self.settle()
        self.pods_end(step)
        self.settle()
        self.pods_vanish()
        self.kueue_says(PENDING)
        self.settle()
