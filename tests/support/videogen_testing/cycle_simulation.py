"""Cycles in a closed loop: the real plan, driven in virtual time. Tests end the runs that it makes; the invariants hold after every write."""

from __future__ import annotations

import builtins  # in a class whose method is called list
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from videogen_api.fine_tune_cycle import FineTuneCycleStatus
from videogen_api.meta import ANNOTATION_REQUEST, API_VERSION
from videogen_operator.api_server.world import read
from videogen_operator.conditions import timestamp
from videogen_operator.kinds.fine_tune_cycle import FINE_TUNE_CYCLE
from videogen_operator.plan import Failure, Index, Inputs, Key, M, Manifest, Plan
from videogen_testing.releases import looked_up

NAMESPACE = "models"
START = datetime(2026, 1, 1, tzinfo=UTC)
TEMPLATE: dict[str, Any] = {
    "storage": {"claimName": "models"},
    "recipe": {"architecture": "Tiny", "resolution": {"height": 16, "width": 16}, "globalBatchSize": 4, "steps": 100},
    "phases": [{"name": "train", "task": "Train", "data": [{"dataset": "clips", "version": "1"}]}],
}


class Crashed(Exception):
    """The operator died after one of its writes."""


def a_cycle(name: str = "weekly", **spec: Any) -> dict[str, Any]:
    """A valid FineTuneCycle: weekly, on Mondays at 3:00 UTC, from scratch."""
    return {
        "apiVersion": API_VERSION,
        "kind": "FineTuneCycle",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {"cadence": "Weekly", "model": {"family": "VideoFusion"}, "runTemplate": {"spec": TEMPLATE}} | spec,
    }


def a_release(version: str, service: str = "standard", state: str = "Stable", **model: Any) -> dict[str, Any]:
    """A ModelRelease, as far as cycles look at it."""
    identity = {"family": "VideoFusion", "version": version} | model
    name = f"pib-videogen-videofusion-v{version}-base"
    return {
        "apiVersion": API_VERSION,
        "kind": "ModelRelease",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {"service": service, "model": identity},
        "status": {"rollout": {"state": state}},
    }


class Simulation:
    """A namespace with cycles."""

    def __init__(self, *items: Manifest, now: datetime = START) -> None:
        self.now = now
        self.objects: dict[tuple[str, str], dict[str, Any]] = {}
        self.notes: list[str] = []
        self.created: list[tuple[datetime, str, str]] = []  # when, run, version
        self.refused: dict[str, Failure] = {}  # by name of a run
        self.writes_until_crash: int | None = None
        self._made: set[tuple[str, str, str]] = set()
        self._uids = 0
        for item in items:
            self.put(item)

    # plan.World -------------------------------------------------------------------------------------------------

    def get(self, kind: str, namespace: str, name: str) -> Manifest | None:
        return self.objects.get((kind, name)) if namespace == NAMESPACE else None

    def list(self, kind: str, namespace: str | None = None, labels: Mapping[str, str] | None = None) -> tuple[Manifest, ...]:
        wanted = dict(labels or {}).items()
        found = (item for (of, _), item in sorted(self.objects.items()) if of == kind)
        return tuple(item for item in found if wanted <= (item["metadata"].get("labels") or {}).items())

    def find(self, index: Index, value: str, namespace: str | None = None) -> tuple[Manifest, ...]:
        return looked_up(self, index, value, namespace)

    def read(self, model: type[M], item: Manifest, field: str) -> M:
        return read(model, item, field)

    # What people and other controllers do -----------------------------------------------------------------------

    def put(self, item: Manifest) -> None:
        """Create or replace an object."""
        metadata = item["metadata"]
        old = self.objects.get((item["kind"], metadata["name"]))
        self._uids += old is None
        own = {"uid": f"uid-{self._uids}", "creationTimestamp": timestamp(self.now), "generation": 1, **(old["metadata"] if old else {})}
        self.objects[item["kind"], metadata["name"]] = {**deepcopy(dict(item)), "metadata": {**own, **deepcopy(dict(metadata))}}

    def edit(self, cycle: str = "weekly", **spec: Any) -> None:
        """Change fields of a cycle's spec."""
        item = self.objects["FineTuneCycle", cycle]
        item["spec"] |= spec
        item["metadata"]["generation"] += 1

    def request(self, text: str, cycle: str = "weekly") -> None:
        """Write the request annotation."""
        self.objects["FineTuneCycle", cycle]["metadata"].setdefault("annotations", {})[ANNOTATION_REQUEST] = text

    def end(self, run: str, *, succeeded: bool = True, reason: str = "Completed", message: str = "", **status: Any) -> None:
        """A run ends."""
        condition = {"type": "Succeeded", "status": "True" if succeeded else "False", "reason": reason, "message": message}
        self.objects["TrainingRun", run]["status"] = {"conditions": [condition]} | status

    # The loop ---------------------------------------------------------------------------------------------------

    def until(self, moment: datetime, *, end: str = "succeed") -> None:
        """Time goes on, from one time at which the operator wants to look to the next. `end`: what becomes of runs, an hour after their start."""
        while True:
            wake = self.settle()
            if self.now >= moment:
                return
            self.now = min(moment, self.now + timedelta(seconds=max(1.0, wake)))
            self._end_runs(end)

    def _end_runs(self, end: str) -> None:
        for run in self.list("TrainingRun"):
            begun = datetime.fromisoformat(run["metadata"]["creationTimestamp"])
            if "status" not in run and end != "keep" and self.now - begun >= timedelta(hours=1):
                self.end(run["metadata"]["name"], succeeded=end == "succeed", reason="Completed" if end == "succeed" else "GateFailed")

    def settle(self) -> float:
        """Passes until one makes and deletes nothing, nor wants another at once -> seconds until the operator looks again."""
        for _ in range(60):
            lines = {key for cycle in self.list("FineTuneCycle") for key in FINE_TUNE_CYCLE.keys(cycle, self)}
            results = [self._pass(key) for key in sorted(lines)]
            if not any(changed or wake <= 0 for changed, wake in results):
                return min((wake for _, wake in results), default=3600.0)
        raise AssertionError("the operator does not come to rest\n" + "\n".join(self.notes[-30:]))

    def _pass(self, key: Key) -> tuple[bool, float]:
        observed = FINE_TUNE_CYCLE.observe(self, key)
        if observed is None:
            return False, 3600.0
        inputs = Inputs(now=self.now)
        plan = FINE_TUNE_CYCLE.plan(observed, inputs)
        changed, failures = self._write(plan)
        if failures:
            plan = FINE_TUNE_CYCLE.plan(observed, replace(inputs, failures=failures))
        for write in plan.statuses:  # which wakes nobody: a pass knows what it has itself written
            self._write_status(write.object, write.status)
        self.notes += [f"{note.object['metadata']['name']}: {note.reason}: {note.message}" for note in plan.notes]
        assert plan.requeue_after is not None, "a calendar is never at rest for good"
        return changed, plan.requeue_after

    def _write(self, plan: Plan) -> tuple[bool, tuple[Failure, ...]]:
        changed = False
        for run in plan.create:
            name = run["metadata"]["name"]
            if failure := self.refused.get(name) or self.refused.get("*"):
                return changed, (replace(failure, name=name),)
            if ("TrainingRun", name) not in self.objects:
                self._count()
                self.put(run)
                self._check(run)
                changed = True
        for ref in plan.delete:
            item = self.objects.get((ref.kind, ref.name))
            if item is not None and item["metadata"]["uid"] == ref.uid:
                self._count()
                del self.objects[ref.kind, ref.name]
                changed = True
        return changed, ()

    def _write_status(self, item: Manifest, status: Manifest) -> None:
        key = (item["kind"], item["metadata"]["name"])
        if key in self.objects and self.objects[key].get("status") != status:
            self._count()
            FineTuneCycleStatus.model_validate(status)
            self.objects[key]["status"] = deepcopy(dict(status))

    def _count(self) -> None:
        if self.writes_until_crash is not None:
            if self.writes_until_crash == 0:
                self.writes_until_crash = None
                raise Crashed
            self.writes_until_crash -= 1

    def _check(self, run: Manifest) -> None:
        """What must hold whenever a run is made."""
        name, model = run["metadata"]["name"], run["spec"]["model"]
        assert name not in {one for _, one, _ in self.created}, f"{name} was made twice"
        identity = (model["type"], model["specialization"], model["version"])
        assert identity not in self._made, f"{identity} was made twice"
        self._made.add(identity)
        self.created.append((self.now, name, model["version"]))

    # What tests look at -----------------------------------------------------------------------------------------

    def status(self, cycle: str = "weekly") -> FineTuneCycleStatus:
        return FineTuneCycleStatus.model_validate(self.objects["FineTuneCycle", cycle].get("status") or {})

    def says(self, kind: str = "Ready", cycle: str = "weekly") -> tuple[str, str, str]:
        """Status, reason and message of a condition; empty if it is absent."""
        found = next((one for one in self.status(cycle).conditions if one.type == kind), None)
        return (found.status, found.reason, found.message) if found else ("", "", "")

    def versions(self) -> builtins.list[str]:
        return [version for _, _, version in self.created]

    def outcomes(self, cycle: str = "weekly") -> builtins.list[str]:
        return [past.outcome for past in self.status(cycle).history]
