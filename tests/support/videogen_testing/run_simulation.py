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

from videogen_api.evaluation import Metric, MetricResult
from videogen_api.job import ExitCode, Job, Report
from videogen_api.meta import LABEL_ATTEMPT, LABEL_PHASE
from videogen_api.training_run import Reason, ResolvedDataset, Task, TrainingRunStatus
from videogen_operator.kinds.training_run import TRAINING_RUN
from videogen_operator.plan import Failure, Inputs, Key, Plan
from videogen_operator.settings import Settings
from videogen_operator.world import ObjectWorld
from videogen_testing.runs import DIGEST, a_claim, a_run, ended, optimized, pods_of, running, trained, tuned

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
        self.files: dict[str, Job] = {}  # job files, by their ConfigMap's name
        self.progress: dict[str, dict[str, Any]] = {}  # what each pod told of its work, by the pod's UID
        self.refuse_next = 0
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
        return self.world.list("PyTorchJob", "models")

    def pods(self) -> tuple[Any, ...]:
        return self.world.list("Pod", "models")

    def spec(self, **changes: Any) -> None:
        run = self.run()
        self.put(run | {"spec": run["spec"] | changes}, generation=run["metadata"]["generation"] + 1)

    def annotate(self, key: str, value: str) -> None:
        self.put(self.run(), annotations={key: value})

    def current_job(self) -> Any:
        """The job whose pods have not ended yet, or None."""
        over = {pod["metadata"]["labels"][LABEL_PHASE] for pod in self.pods() if pod["status"]["phase"] in {"Succeeded", "Failed"}}
        return next((job for job in self.jobs() if job["metadata"]["labels"][LABEL_PHASE] not in over), None)

    def set_pods(self, status: Any) -> None:
        """All pods of the current job get this status; absent ones are created."""
        for pod in self.made[self.current_job()["metadata"]["name"]]:
            self.put({"apiVersion": "v1", "kind": "Pod"} | pod | {"status": status}, "models")

    # -- the shell

    def step(self, seconds: float = 0.0) -> Plan:
        """Let time pass, then do one pass."""
        self.now += timedelta(seconds=seconds)
        observed = TRAINING_RUN.observe(self.world, KEY)
        assert observed is not None
        inputs = Inputs(now=self.now, settings=Settings().for_plans(), progress=self.progress)
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
        for manifest in plan.create:
            self._create(manifest)
        for ref in plan.delete:
            self._delete(ref)
        for write in plan.statuses:
            assert write.object["metadata"]["resourceVersion"] == self.run()["metadata"]["resourceVersion"]
            self.put(self.run() | {"status": json.loads(json.dumps(write.status))})
        self.log += [f"{note.reason}: {note.message}" for note in plan.notes]

    def _create(self, manifest: Any) -> None:
        name = manifest["metadata"]["name"]
        if manifest["kind"] == "ConfigMap":
            self.files[name] = Job.model_validate_json(manifest["data"]["job.json"])
            return
        if self.world.get(manifest["kind"], "models", name) is not None:
            return
        self.put(manifest, "models")
        if manifest["kind"] == "PyTorchJob":
            assert name in self.files, "the job file comes before its job"
            stored = self.world.get("PyTorchJob", "models", name)
            self.made[name] = pods_of(manifest | {"metadata": stored["metadata"]})  # type: ignore[index]

    def _delete(self, ref: Any) -> None:
        job = self.world.get(ref.kind, ref.namespace, ref.name)
        if job is not None:
            self.world.remove(job)
        for pod in self.pods():
            if pod["metadata"]["ownerReferences"][0]["uid"] == ref.uid:
                self.world.remove(pod)


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
        if sim.current_job() is None:
            if sim.run()["spec"].get("suspend") and sim.random.random() < 0.5:
                sim.spec(suspend=False)
            return
        lucky = self.bad_luck <= 0 or sim.random.random() < 0.3
        self.bad_luck -= 1
        if lucky:
            sim.spec(suspend=False)
            sim.set_pods(self._success())
            return
        sim.random.choice((self._run_on, self._run_on, self._preempt, self._crash, self._lose_job, self._refuse, self._suspend))()

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
        for phase in status.phases:
            wanted = next(spec for spec in sim.run()["spec"]["phases"] if spec["name"] == phase.name)
            assert phase.counted_attempts <= wanted.get("attempts", 3)
        return total
