"""All three kinds together in virtual time: their real plans, carried out on objects in memory.

The time jumps from one thing that happens to the next: an event of the surroundings, or a moment at which a plan wants to look again.
What changes wakes a loop at once, as in the operator. The surroundings are a subclass: it is told of writes, asked what Prometheus is
asked, and may put off looks at what does not change (`patience`), because a year has 31 million seconds.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from videogen_operator.api_server.intent import contains
from videogen_operator.api_server.world import ObjectWorld
from videogen_operator.conditions import timestamp
from videogen_operator.kinds.fine_tune_cycle import FINE_TUNE_CYCLE
from videogen_operator.kinds.model_release import MODEL_RELEASE
from videogen_operator.kinds.training_run import TRAINING_RUN
from videogen_operator.plan import Failure, Inputs, Key, Kind, Manifest, Plan, Query, Ref, Unavailable
from videogen_operator.settings import Settings
from videogen_operator.waking import Concerns

Name = tuple[str, str, str]  # kind, namespace, name
KINDS: tuple[Kind[Any], ...] = (FINE_TUNE_CYCLE, TRAINING_RUN, MODEL_RELEASE)
READ_BY = {kind.name: frozenset(resource.kind for resource in kind.resources) for kind in KINDS}
PASSES = 60  # of a key at one moment; more is a loop without an end
RESTART = timedelta(seconds=15)


class Crashed(Exception):
    """The operator died after one of its writes."""


class VirtualCluster:
    """API server, operator and clock. `seed` decides in which order loops run that are due together."""

    def __init__(self, now: datetime, seed: int = 0) -> None:
        self.now = now
        self.random = random.Random(seed)
        resources = {resource.kind: resource for kind in KINDS for resource in kind.resources}
        self.world = ObjectWorld(resources.values(), (index for kind in KINDS for index in kind.indexes))
        self._concerns = Concerns(self.world)
        self.objects: dict[Name, dict[str, Any]] = {}
        self.settings = Settings(gateway_metrics_namespace="", gateway_section="http").for_plans()
        self.away = False  # True: the operator is down
        self.writes_until_crash: int | None = None
        self.passes = 0
        self._kinds = {kind.name: kind for kind in KINDS}
        self._owned: dict[str, set[Name]] = defaultdict(set)  # by the UID of the owner
        self._numbers = itertools.count(1)
        self._events: list[tuple[datetime, int, Callable[[], object]]] = []
        self._woken: set[Key] = set()
        self._looks: dict[Key, datetime] = {}
        self._due: list[tuple[datetime, Key]] = []

    # What the surroundings are told and asked --------------------------------------------------------------------

    def created(self, item: Manifest) -> None:
        """The operator has made an object."""

    def changed(self, item: Manifest) -> None:
        """The operator has written an object, which may be new."""

    def told(self, item: Manifest) -> None:
        """The operator has written the status of an object."""

    def gone(self, item: Manifest) -> None:
        """An object was deleted."""

    def refusal(self, item: Manifest) -> str:
        """Why the API server does not take a new object; "" if it does."""
        return ""

    def patience(self, key: Key, wait: timedelta) -> timedelta:
        """After how long a key is looked at whose plan wants it after this wait, unless something wakes it before."""
        return wait

    def delay(self, key: Key, item: Manifest) -> timedelta:
        """How long after a change a loop passes that it wakes; several changes are then seen in one pass."""
        return timedelta(0)

    def measure(self, query: Query) -> float | Unavailable:
        """What Prometheus answers."""
        return Unavailable("there is no Prometheus")

    # The API server ----------------------------------------------------------------------------------------------

    def get(self, kind: str, namespace: str, name: str) -> dict[str, Any] | None:
        """The whole object, or None."""
        return self.objects.get((kind, namespace, name))

    def put(self, item: Manifest, by: Key | None = None) -> dict[str, Any]:
        """Create or replace an object; the loops that it concerns pass, but for the one that has written it."""
        key = name_of(item)
        old = self.objects.get(key)
        born = {"uid": f"{next(self._numbers):08x}-0000-4000-8000-000000000000", "creationTimestamp": timestamp(self.now), "generation": 1}
        metadata = {**(old["metadata"] if old else born), **item["metadata"]}
        if old and old.get("spec") != item.get("spec"):
            metadata["generation"] = old["metadata"]["generation"] + 1
        whole = {**item, "metadata": metadata | {"resourceVersion": str(next(self._numbers))}}
        self.objects[key] = whole
        for owner in metadata.get("ownerReferences") or ():
            self._owned[owner["uid"]].add(key)
        if self.world.knows(whole["kind"]):
            self.world.store(whole)
            self._wake(whole, by)
        return whole

    def edit(self, item: Manifest, **spec: Any) -> None:
        """Change fields of a spec."""
        self.put({**self.objects[name_of(item)], "spec": {**item["spec"], **spec}})

    def set_status(self, item: Manifest, status: Manifest) -> None:
        """Write a status, if it differs."""
        whole = self.objects.get(name_of(item))
        if whole is not None and whole.get("status") != status:
            self.put({**whole, "status": status})

    def annotate(self, item: Manifest, **annotations: str) -> None:
        """Write annotations."""
        whole = self.objects[name_of(item)]
        self.put(
            {**whole, "metadata": {**whole["metadata"], "annotations": {**(whole["metadata"].get("annotations") or {}), **annotations}}}
        )

    def remove(self, item: Manifest) -> None:
        """Delete an object and what it owns."""
        whole = self.objects.pop(name_of(item), None)
        if whole is None:
            return
        if self.world.knows(whole["kind"]):
            self.world.remove(whole)
            self._wake(whole)
        for child in sorted(self._owned.pop(whole["metadata"]["uid"], ())):
            if child in self.objects:
                self.remove(self.objects[child])
        self.gone(whole)

    def _wake(self, item: Manifest, but: Key | None = None) -> None:
        """Let the loops pass that an object concerns."""
        for kind in KINDS:
            for key in self._concerns.of(kind, item) if item["kind"] in READ_BY[kind.name] else ():
                if key != but and (wait := self.delay(key, item)):
                    self._look(key, min(self.now + wait, self._looks.get(key, self.now + wait)))
                elif key != but:
                    self._woken.add(key)

    def _look(self, key: Key, moment: datetime) -> None:
        if self._looks.get(key) != moment:
            self._looks[key] = moment
            heapq.heappush(self._due, (moment, key))

    # The clock ---------------------------------------------------------------------------------------------------

    def after(self, delay: timedelta, what: Callable[[], object]) -> None:
        """Something happens later."""
        heapq.heappush(self._events, (self.now + delay, next(self._numbers), what))

    def run_until(self, end: datetime) -> None:
        """Everything that happens until then."""
        while True:
            self._settle()
            moment = min((one[0] for one in (self._events[:1] + self._next_look())), default=end)
            if moment > end:
                self.now = end
                return
            self.now = max(self.now, moment)
            while self._events and self._events[0][0] <= self.now:
                heapq.heappop(self._events)[2]()
            while self._due and self._due[0][0] <= self.now:
                moment, key = heapq.heappop(self._due)
                if self._looks.get(key) == moment:
                    self._woken.add(key)

    def _next_look(self) -> list[Any]:
        while self._due and self._looks.get(self._due[0][1]) != self._due[0][0]:
            heapq.heappop(self._due)
        return [] if self.away else self._due[:1]

    # The operator ------------------------------------------------------------------------------------------------

    def leave(self, time: timedelta) -> None:
        """The operator is down for so long; then it looks at everything."""
        self.away = True
        self.after(time, self._come_back)

    def _come_back(self) -> None:
        self.away, self._concerns = False, Concerns(self.world)
        for item in list(self.objects.values()):
            self._wake(item)

    def _settle(self) -> None:
        """Passes until nobody wants another one at this moment."""
        passes: dict[Key, int] = defaultdict(int)
        while self._woken and not self.away:
            key = self.random.choice(sorted(self._woken))
            self._woken.discard(key)
            passes[key] += 1
            assert passes[key] < PASSES, f"{key} does not come to rest at {self.now}"
            try:
                self._pass(key)
            except Crashed:
                self.leave(RESTART)

    def _pass(self, key: Key) -> None:
        kind = self._kinds[key.kind]
        self.passes += 1
        self._looks.pop(key, None)
        observed = kind.observe(self.world, key)
        if observed is None:
            return
        inputs = Inputs(now=self.now, settings=self.settings)
        inputs = replace(inputs, measurements={query.name: self.measure(query) for query in kind.queries(observed, inputs)})
        plan = kind.plan(observed, inputs)
        changed, failures = self._carry_out(plan)
        if failures:
            plan = kind.plan(observed, replace(inputs, failures=failures))
        plan = kind.finish(plan, inputs, self.now)
        for write in plan.statuses:
            self._write_status(key, write.object, write.status)
        if changed and not failures:
            self._woken.add(key)
        elif plan.requeue_after is not None:
            self._look(key, self.now + self.patience(key, timedelta(seconds=plan.requeue_after)))

    def _carry_out(self, plan: Plan) -> tuple[bool, tuple[Failure, ...]]:
        changed = False
        for item in (*plan.apply, *plan.create, *plan.beside):
            found = self.objects.get(name_of(item))
            once = any(item is one for one in plan.create)
            if found is not None and (once or contains(found, item)):
                continue
            if found is None and (why := self.refusal(item)):
                return changed, (Failure(item["kind"], item["metadata"]["name"], 403, why),)
            self._count()
            kept = {"status": found["status"]} if found and "status" in found else {}
            whole = self.put({**item, **kept})
            changed = True
            if found is None:
                self.created(whole)
            self.changed(whole)
        return self._delete(plan.delete) or changed, ()

    def _delete(self, refs: tuple[Ref, ...]) -> bool:
        changed = False
        for ref in refs:
            found = self.objects.get((ref.kind, ref.namespace, ref.name))
            if found is not None and found["metadata"]["uid"] == ref.uid:
                self._count()
                self.remove(found)
                changed = True
        return changed

    def _write_status(self, key: Key, item: Manifest, status: Mapping[str, Any]) -> None:
        whole = self.objects.get(name_of(item))
        if whole is not None and whole.get("status") != status:
            self._count()
            self.put({**whole, "status": status}, key)
            self.told(self.objects[name_of(item)])

    def _count(self) -> None:
        if self.writes_until_crash is not None:
            if self.writes_until_crash == 0:
                self.writes_until_crash = None
                raise Crashed
            self.writes_until_crash -= 1


def name_of(item: Manifest) -> Name:
    """Kind, namespace and name; the namespace of a cluster-scoped object is ''."""
    return item["kind"], item["metadata"].get("namespace", ""), item["metadata"]["name"]
