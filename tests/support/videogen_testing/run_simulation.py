"""A closed loop around the plan of a TrainingRun: objects in memory, pods that live and die by chance, virtual time.

It carries out plans as `reconcile.py` does and checks what must hold after every step. No API server takes part, so what
is proven here is the planning alone.
"""

import itertools
import json
import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from videogen_api.approvals import ANNOTATION_APPROVE
from videogen_api.evaluation import Metric, MetricResult
from videogen_api.job import ExitCode, Job, Report
from videogen_api.meta import LABEL_ATTEMPT, LABEL_PHASE, ModelIdentity, release_name
from videogen_api.pinned import ResolvedDataset
from videogen_api.preflight import PreflightResult
from videogen_api.records import inputs_of, key_of
from videogen_api.training_run import Reason, Task, TrainingRunStatus
from videogen_operator.api_server.intent import contains
from videogen_operator.api_server.world import ObjectWorld
from videogen_operator.kinds.training_run import TRAINING_RUN
from videogen_operator.kinds.training_run.attempts import has_begun
from videogen_operator.plan import Failure, Inputs, Key, Plan
from videogen_operator.seals import Seals
from videogen_operator.settings import Settings
from videogen_testing.runs import (
    DIGEST,
    a_claim,
    a_run,
    ended,
    optimized,
    passed,
    pods_of,
    release_status,
    running,
    trained,
    tuned,
    volumes_of,
)

KEY = Key("TrainingRun", "models", "run")
NODE = {
    "apiVersion": "v1",
    "kind": "Node",
    "metadata": {"name": "node", "uid": "node", "resourceVersion": "1"},
    "status": {"allocatable": {"cpu": "8", "memory": "64Gi"}, "conditions": [{"type": "Ready", "status": "True"}]},
}


class Simulation:
    """One run, from its creation to whatever end its environment allows."""

    def __init__(self, seed: int = 0, **run: Any) -> None:
        self.random, self.now, self._versions = random.Random(seed), datetime(2026, 11, 1, tzinfo=UTC), itertools.count(2)
        self.world = ObjectWorld(TRAINING_RUN.resources)
        self.log: list[str] = []
        self.made: dict[str, list[dict[str, Any]]] = {}  # pods of each job, by its name
        self.templates: dict[str, dict[str, Any]] = {}  # spec of the pods of each job, by its name
        self.files: dict[str, Job] = {}  # job files, by their attempt's name
        self.preflight_files: dict[str, Job] = {}
        self.file_names: set[str] = set()
        self.settings = Settings(tracking_hosts=("mlflow",))
        self.progress: dict[str, dict[str, Any]] = {}  # what each pod told of its work, by the pod's UID
        self.release_status: dict[str, Any] = release_status()  # of a release as soon as it is made
        self.refuse_next = 0
        self.preflight: dict[str, Any] | None = ended(0, passed())  # of the pod of a preflight as soon as it is made; None: none is made
        self.seals = Seals({"key-1": b"k" * 32})
        self.records: dict[str, dict[str, Any]] = {}  # of the storage, by their keys
        self.digests = {("clips", "1"): DIGEST}  # of the versions of datasets in the storage
        self.saved_step = 0
        self.put(NODE)
        self.put({"apiVersion": "v1", "kind": "PersistentVolumeClaim"} | a_claim(), "models")
        self.put(a_run(**run), "models", generation=1)

    # -- the environment

    def put(self, item: Any, namespace: str = "", **metadata: Any) -> None:
        old = self.world.get(item["kind"], namespace or item["metadata"].get("namespace", ""), item["metadata"]["name"])
        known = dict(old["metadata"]) if old else {"uid": f"uid-{item['kind']}-{item['metadata']['name']}-{next(self._versions)}"}
        if namespace:
            known["namespace"] = namespace
        if item["kind"] == "Pod":
            known.setdefault("creationTimestamp", self.now.isoformat())
        version = {"resourceVersion": str(next(self._versions))}
        self.world.store(dict(item) | {"metadata": dict(item["metadata"]) | known | metadata | version})

    def run(self) -> Any:
        return self.world.get("TrainingRun", "models", "run")

    def status(self) -> TrainingRunStatus:
        return TrainingRunStatus.model_validate(self.run().get("status") or {})

    def top(self) -> tuple[str, str]:
        return next((one.status.value, one.reason) for one in self.status().conditions if one.type == "Succeeded")

    def jobs(self) -> tuple[Any, ...]:
        """Of attempts, not of preflights."""
        return tuple(job for job in self.world.list("PyTorchJob", "models") if job["metadata"]["labels"][LABEL_ATTEMPT] != "0")

    def pods(self) -> tuple[Any, ...]:
        """Of attempts, not of preflights."""
        return tuple(pod for pod in self.world.list("Pod", "models") if pod["metadata"]["labels"][LABEL_ATTEMPT] != "0")

    def preflights(self) -> tuple[str, ...]:
        """Names of the jobs of preflights."""
        jobs = self.world.list("PyTorchJob", "models")
        return tuple(job["metadata"]["name"] for job in jobs if job["metadata"]["labels"][LABEL_ATTEMPT] == "0")

    def set_preflight(self, status: Any) -> None:
        """The pod of the newest preflight gets this status."""
        self._set(self.status().preflight.job_name, status)  # type: ignore[union-attr]

    def keep(self, report: Report) -> dict[str, Any]:
        """The first pod of the current job says what it has computed, by the inbox, and writes the record into the storage."""
        name = self.made[self.current_job()["metadata"]["name"]][0]["metadata"]["name"]
        pod = self.world.get("Pod", "models", name)
        assert pod
        assert TRAINING_RUN.record
        record = TRAINING_RUN.record(self.world, pod, {"report": report.model_dump(mode="json", by_alias=True)}, self.now)
        self.records[record["key"]] = self.seals.sealed(record, "models")
        return self.records[record["key"]]

    def spec(self, **changes: Any) -> None:
        run = self.run()
        self.put(run | {"spec": run["spec"] | changes}, generation=run["metadata"]["generation"] + 1)

    def release(self, status: dict[str, Any]) -> None:
        """The release of the run has this status."""
        name = release_name(ModelIdentity.model_validate(self.run()["spec"]["model"]))
        release = self.world.get("ModelRelease", "models", name)
        assert release is not None
        self.put(dict(release) | {"status": status})

    def annotate(self, key: str, value: str) -> None:
        self.put(self.run(), annotations={key: value})

    def current_job(self) -> Any:
        """The job whose pods have not ended yet, or None."""
        over = {pod["metadata"]["labels"][LABEL_PHASE] for pod in self.pods() if pod["status"]["phase"] in {"Succeeded", "Failed"}}
        return next((job for job in self.jobs() if job["metadata"]["labels"][LABEL_PHASE] not in over), None)

    def set_pods(self, status: Any) -> None:
        """All pods of the current job get this status; absent ones are created."""
        self._set(self.current_job()["metadata"]["name"], status)

    def _set(self, job: str, status: Any) -> None:
        for pod in self.made[job]:
            self.put({"apiVersion": "v1", "kind": "Pod"} | pod | {"status": status}, "models")

    # -- the shell

    def step(self, seconds: float = 0.0) -> Plan:
        """Let time pass, then do one pass."""
        self.now += timedelta(seconds=seconds)
        observed = TRAINING_RUN.observe(self.world, KEY)
        assert observed is not None
        inputs = Inputs(now=self.now, settings=self.settings.for_plans(), progress=self.progress, seals=self.seals)
        plan = TRAINING_RUN.plan(observed, inputs)
        assert plan == TRAINING_RUN.plan(observed, inputs), "a plan is a function of what it sees"
        if (plan.create or plan.delete) and self.refuse_next:
            self.refuse_next -= 1
            name = plan.create[-1]["metadata"]["name"] if plan.create else plan.delete[0].name
            plan = TRAINING_RUN.plan(observed, replace(inputs, failures=(Failure("PyTorchJob", name, 500, "context deadline exceeded"),)))
            plan = replace(plan, create=(), delete=())
        self._carry_out(plan)
        return plan

    def settle(self, limit: int = 30) -> None:
        """Pass after pass, until one wants nothing now."""
        for _ in range(limit):
            before = self.world.get("TrainingRun", "models", "run")
            plan = self.step()
            if not (plan.create or plan.delete or plan.statuses) and plan.requeue_after != 0 and before is self.run():
                return
        raise AssertionError(f"not settled after {limit} passes: {self.top()}")

    def _carry_out(self, plan: Plan) -> None:
        for manifest in (*plan.apply, *plan.beside):
            self._apply(manifest)
        for manifest in plan.create:
            self._create(manifest)
        for ref in plan.delete:
            self._delete(ref)
        for write in plan.statuses:
            assert write.object["metadata"]["resourceVersion"] == self.run()["metadata"]["resourceVersion"]
            self.put(self.run() | {"status": json.loads(json.dumps(write.status))})
        self.log += [f"{note.reason}: {note.message}" for note in plan.notes]

    def _apply(self, manifest: Any) -> None:
        found = self.world.get(manifest["kind"], "models", manifest["metadata"]["name"])
        if found is None or not contains(found, manifest):
            self.put(manifest, "models")

    def _create(self, manifest: Any) -> None:
        name = manifest["metadata"]["name"]
        begun = {phase.name for phase in self.status().phases if phase.begun}
        phase = manifest["metadata"]["labels"].get(LABEL_PHASE) or self.run()["spec"]["phases"][-1]["name"]  # a release has no label
        preflight = manifest["metadata"]["labels"].get(LABEL_ATTEMPT) == "0"  # begins nothing, nor does the policy of the whole run
        assert preflight or manifest["kind"] == "NetworkPolicy" or phase in begun, (
            "what a phase does is fixed before anything is made for it"
        )
        if manifest["kind"] == "ConfigMap":
            self.file_names.add(name)
            job = Job.model_validate_json(manifest["data"]["job.json"])
            (self.files if job.attempt else self.preflight_files)[name.rpartition("-")[0]] = job
            return
        if self.world.get(manifest["kind"], "models", name) is not None:
            return
        self.put(manifest, "models")
        if manifest["kind"] == "ModelRelease":
            self.release(self.release_status)
        if manifest["kind"] == "PyTorchJob":
            file = next(one["configMap"]["name"] for one in volumes_of(manifest) if "configMap" in one)
            assert file in self.file_names, "the job file comes before its job"
            assert self.policy_of(manifest, to_each_other=False), "the policy comes before its pods"
            if "Worker" in manifest["spec"]["pytorchReplicaSpecs"]:
                assert self.policy_of(manifest, to_each_other=True), "its pods reach each other"
            stored = self.world.get("PyTorchJob", "models", name)
            (replicas,) = manifest["spec"]["pytorchReplicaSpecs"].values()
            self.templates[name] = replicas["template"]["spec"]
            self.made[name] = pods_of(manifest | {"metadata": stored["metadata"]})  # type: ignore[index]
            if manifest["metadata"]["labels"][LABEL_ATTEMPT] == "0":
                self._create_preflight(manifest)

    def policy_of(self, job: Any, *, to_each_other: bool) -> bool:
        """Whether a NetworkPolicy holds for the pods of a job, and allows or denies what they say to each other."""
        labels = job["metadata"]["labels"].items()
        held = [
            one["spec"] for one in self.world.list("NetworkPolicy", "models") if one["spec"]["podSelector"]["matchLabels"].items() <= labels
        ]
        return any(("ingress" in one) == to_each_other for one in held)

    def _create_preflight(self, manifest: Any) -> None:
        name, phase = manifest["metadata"]["name"], manifest["metadata"]["labels"][LABEL_PHASE]
        assert not any(one.attempt for one in self.status().phases if one.name == phase), "it comes before the first attempt"
        file = next(one["configMap"]["name"] for one in volumes_of(manifest) if "configMap" in one)
        found = self._found(self.preflight_files[file.rpartition("-")[0]])
        if self.preflight is not None:
            self._set(name, ended(0, _looked_up(found)) if found else self.preflight)

    def _found(self, job: Job) -> dict[str, Any] | None:
        """The record that the trainer would find for a preflight's job."""
        parts = [part.reference for part in job.data if (part.reference.dataset, part.reference.version) in self.digests]
        used = [ResolvedDataset(dataset=one.dataset, version=one.version, digest=self.digests[one.dataset, one.version]) for one in parts]
        inputs = inputs_of(job, used) if job.look_up else None
        return self.records.get(key_of(inputs)) if inputs else None

    def _delete(self, ref: Any) -> None:
        job = self.world.get(ref.kind, ref.namespace, ref.name)
        if job is not None:
            self.world.remove(job)
        for pod in self.world.list("Pod", "models"):
            if any(owner["uid"] == ref.uid for owner in pod["metadata"].get("ownerReferences", [])):
                self.world.remove(pod)


def _looked_up(record: dict[str, Any]) -> str:
    return Report(preflight=PreflightResult(), record=record).model_dump_json(by_alias=True, exclude_none=True)


class RandomLife:
    """Chance plays training-operator, kubelet, administrator and user, until it lets the run finish."""

    def __init__(self, seed: int, **run: Any) -> None:
        self.sim = Simulation(seed, **run)
        self.bad_luck = 40

    def live(self) -> Simulation:
        """Up to a thousand events; the run must have ended by then."""
        sim, highest = self.sim, 0
        for _ in range(1000):
            sim.step(sim.random.choice((0, 0, 1, 5, 20, 120, 400)))
            self._happen()
            highest = self._check(highest)
            if sim.top()[0] in {"True", "False"}:
                sim.settle()
                return sim
        raise AssertionError(f"no end after a thousand events: {sim.top()}\n" + "\n".join(sim.log[-20:]))

    def _happen(self) -> None:
        sim = self.sim
        self._approve()
        if sim.current_job() is None:
            if sim.run()["spec"].get("suspend"):
                sim.random.choice((self._edit, lambda: sim.spec(suspend=False)))()
            return
        lucky = self.bad_luck <= 0 or sim.random.random() < 0.3
        self.bad_luck -= 1
        if lucky:
            sim.spec(suspend=False)
            sim.set_pods(self._success())
            return
        sim.random.choice((self._run_on, self._run_on, self._preempt, self._crash, self._lose_job, self._refuse, self._suspend))()

    def _approve(self) -> None:
        """The teams that are waited for approve; the API server lets nobody do it in another's name."""
        status, given = self.sim.status(), self.sim.run()["metadata"].get("annotations", {})
        for phase in status.phases:
            if phase.subject:
                teams = {f"{ANNOTATION_APPROVE}lambda.{team}": f"{phase.subject.digest} {team}" for team in ("ml-lead", "content-team")}
                self.sim.put(self.sim.run(), annotations=given | teams)

    def _job(self) -> Job:
        return self.sim.files[self.sim.current_job()["metadata"]["name"]]

    def _success(self) -> Any:
        results = [MetricResult(metric=Metric.FVD, value="100", samples=128)]
        made = {
            Task.CURATE: Report(datasets=[ResolvedDataset(dataset="clips", version="1", digest=DIGEST, clips=9)]),
            Task.TRAIN: trained(),
            Task.EVALUATE: Report(results=results),
            Task.TUNE: tuned(),
            Task.BUILD_TEMPLATES: trained(),
            Task.TEST_SCENARIOS: Report(results=[MetricResult(metric=Metric.SCENARIO_PASS_RATIO, value="1", samples=100)]),
            Task.OPTIMIZE: optimized(),
        }
        return ended(0, made[self._job().task].model_dump_json(by_alias=True, exclude_none=True))

    def _run_on(self) -> None:
        self.sim.set_pods(running())

    def _preempt(self) -> None:
        self.sim.saved_step += 1
        report = Report(reason=Reason.PREEMPTED, last_step=self.sim.saved_step)
        self.sim.set_pods(ended(ExitCode.PREEMPTED, report.model_dump_json(by_alias=True, exclude_none=True)))

    def _crash(self) -> None:
        self.sim.set_pods(ended(self.sim.random.choice((1, ExitCode.DIVERGED, ExitCode.STORAGE_FAILED, 137))))

    def _lose_job(self) -> None:
        job = self.sim.current_job()
        self.sim.world.remove(job)
        for pod in self.sim.pods():
            if pod["metadata"]["ownerReferences"][0]["uid"] == job["metadata"]["uid"]:
                self.sim.world.remove(pod)

    def _refuse(self) -> None:
        self.sim.refuse_next = 1

    def _suspend(self) -> None:
        self.sim.spec(suspend=True)

    def _edit(self) -> None:
        """One more phase of training before one that has not begun, as the API server allows it."""
        sim = self.sim
        begun = {phase.name for phase in sim.status().phases if has_begun(phase)}
        phases = list(sim.run()["spec"]["phases"])
        place = next((place for place, phase in enumerate(phases) if phase["task"] == Task.TRAIN and phase["name"] not in begun), None)
        if place is not None and len(phases) < 8:
            sim.spec(phases=[*phases[:place], phases[place] | {"name": f"train-{len(phases)}"}, *phases[place:]])

    def _check(self, highest: int) -> int:
        """Invariants: attempts rise, one phase works at a time, one attempt's pods live at a time, counts are bounded."""
        sim, status = self.sim, self.sim.status()
        total = sum(phase.attempt for phase in status.phases)
        assert total >= highest, "attempt numbers never fall"
        open_phases = [phase.name for phase in status.phases if phase.outcome is None]
        assert len(open_phases) <= 1, f"two phases work at once: {open_phases}"
        alive = {
            (pod["metadata"]["labels"][LABEL_PHASE], pod["metadata"]["labels"][LABEL_ATTEMPT])
            for pod in sim.pods()
            if (pod.get("status") or {}).get("phase") == "Running"
        }
        assert len(alive) <= 1, f"pods of two attempts run at once: {alive}"
        begun = [phase.name for phase in status.phases if has_begun(phase)]
        assert begun == [phase["name"] for phase in sim.run()["spec"]["phases"]][: len(begun)], "phases begin in their order"
        for phase in status.phases:
            wanted = next(spec for spec in sim.run()["spec"]["phases"] if spec["name"] == phase.name)
            assert phase.counted_attempts <= wanted.get("attempts", 3)
        return total
