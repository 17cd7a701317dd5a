"""A press office in virtual time: what trains, serves, breaks and asks, around the real plans of cycles, runs and releases.

Chance decides how long attempts work, which of them end badly, which evaluations fail a gate, how many videos come in, and which releases
are slow in production. It is seeded, so a year can be seen again.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from videogen_api.fine_tune_cycle import LABEL_CYCLE
from videogen_api.meta import ANNOTATION_REQUEST, LABEL_ATTEMPT, LABEL_RELEASE, LABEL_STORAGE, STORAGE_ALLOWED
from videogen_api.training_run import TRAINING
from videogen_operator.kinds.model_release.observed import route_weights
from videogen_operator.plan import Key, Manifest, Query, Unavailable
from videogen_testing.runs import ended, passed, pods_of, running
from videogen_testing.virtual_cluster import VirtualCluster, name_of

GPU = "nvidia.com/gpu"
NAMESPACE = "pib-models"
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
HOURS = {"Curate": 30, "Evaluate": 20, "Optimize": 16, "Tune": 60, "BuildTemplates": 24, "TestScenarios": 20}  # of an attempt, at most
TRAINING_HOURS = 72  # the same, of a phase without a deadline
USUAL, SLOW = (6.0, 0.002), (75.0, 0.3)  # P95 seconds and share of errors
REQUESTS_A_SECOND = 5
CANDIDATES = {"Pending", "Gating", "Queued", "Starting", "Canary", "Held"}
OVER, KEPT = {"Superseded", "RolledBack", "Failed", "Rejected"}, timedelta(days=14)
CLIPS_A_DAY, CLIPS_AT_FIRST = 60, 60_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Mishaps:
    """How probable each is; the periods in days."""

    diverged: float = 0.03  # of an attempt that trains
    storage: float = 0.02  # of any attempt
    gate: float = 0.07  # of an evaluation
    few_clips: float = 0.2  # of a month
    slow_in_canary: float = 0.06  # of a release
    slow_later: float = 0.05
    broken: float = 0.03  # of a release: no pod gets ready
    drain: float = 20  # of a node
    crash: float = 6  # of the operator
    outage: float = 100
    quota: float = 150


@dataclass(frozen=True, slots=True)
class Turn:
    """Whose turn it was, as status.current.waitingFor said."""

    cycle: str
    run: str
    stage: str
    team: str
    begin: datetime
    end: datetime
    due: datetime


@dataclass(frozen=True, slots=True)
class Stay:
    """How long a release was in a state."""

    release: str
    service: str
    version: str
    state: str
    begin: datetime
    end: datetime


@dataclass(slots=True)
class Account:
    """What became of the year."""

    runs: dict[str, Manifest] = field(default_factory=dict)  # each as it was last seen
    releases: dict[str, Manifest] = field(default_factory=dict)  # the same
    times: dict[tuple[str, str, str], Manifest] = field(default_factory=dict)  # history of each cycle, by scheduled time and run
    turns: list[Turn] = field(default_factory=list)
    stays: list[Stay] = field(default_factory=list)
    gpus: list[tuple[datetime, str, int]] = field(default_factory=list)  # from then on so many more, by use
    happened: list[tuple[datetime, str, str]] = field(default_factory=list)  # when, what, to whom


@dataclass(slots=True)
class Attempt:
    """The pods of a job that wait or work."""

    job: Manifest
    pods: list[dict[str, Any]]
    file: Mapping[str, Any]
    node: str = ""
    ends: datetime | None = None


class Year(VirtualCluster):
    """The surroundings. `manifests` are applied at the beginning."""

    def __init__(self, manifests: Iterable[Manifest], start: datetime, seed: int, mishaps: Mishaps | None = None) -> None:
        super().__init__(start, seed)
        self.start, self.account, self.mishaps = start, Account(), mishaps or Mishaps()
        self._files: dict[str, dict[str, Any]] = {}
        self._attempts: dict[str, Attempt] = {}  # by the job's UID
        self._left: dict[tuple[str, str], timedelta] = {}  # work that is left, by run and phase
        self._curated: dict[str, datetime] = {}  # when a dataset's version was made
        self._rates: dict[tuple[int, int], float] = {}
        self._slow: dict[str, datetime] = {}  # since when a release is slow
        self._broken: set[str] = set()
        self._weights: dict[str, list[tuple[datetime, int]]] = defaultdict(list)
        self._servers: dict[str, list[str]] = defaultdict(list)  # nodes of the pods of a Deployment, by its UID
        self._turns: dict[str, tuple[Manifest, str, str, datetime]] = {}
        self._states: dict[str, tuple[str, datetime]] = {}
        self._refuses = False
        for part in (*nodes(), a_claim(), a_gateway()):
            self.put(part)
        for item in manifests:
            if item["kind"] in {"TrainingRun", "FineTuneCycle"}:
                own = {**item, "metadata": {**item["metadata"], "namespace": NAMESPACE}}
                self.after(timedelta(), partial(self.put, own))
        self._plan_mishaps()

    def live(self, days: float) -> Account:
        """So many days from the start on -> what became of them."""
        self.run_until(self.start + timedelta(days=days))
        for cycle in list(self._turns):
            self._end_turn(cycle)
        for release in list(self._states):
            self._enter(release, "")
        return self.account

    def patience(self, key: Key, wait: timedelta) -> timedelta:
        """What a run waits for wakes it; a canary is looked at every twenty minutes, and a service at rest once a day."""
        if key.kind == "TrainingRun":
            return wait if wait < timedelta(minutes=5) else max(wait, timedelta(hours=6))
        if key.kind == "FineTuneCycle":
            return wait if wait <= timedelta(seconds=5) else self._until_a_cycle_acts()
        states = {_state(one) for one in self.world.list("ModelRelease", NAMESPACE) if one["spec"]["service"] == key.name}
        least = timedelta(minutes=20) if states & CANDIDATES else DAY
        return wait if wait <= timedelta(seconds=5) else max(wait, least)

    def _until_a_cycle_acts(self) -> timedelta:
        """A plan looks every hour, and more often where it cannot start its run; here at scheduled times, at ends of windows, and daily."""
        known = [one.get("status") or {} for one in self.world.list("FineTuneCycle", NAMESPACE)]
        times = [one.get("nextScheduleTime") for one in known]
        times += [((one.get("current") or {}).get("waitingFor") or {}).get("due") for one in known]
        later = [moment - self.now for time in times if time and (moment := datetime.fromisoformat(time)) > self.now]
        return min([*later, DAY])

    def delay(self, key: Key, item: Manifest) -> timedelta:
        """A pass of a cycle checks the templates of all cycles of its model, so it waits for more news of runs."""
        return 3 * HOUR if key.kind == "FineTuneCycle" and item["kind"] == "TrainingRun" else timedelta(0)

    def _say(self, what: str, whom: str) -> None:
        self.account.happened.append((self.now, what, whom))

    # Training ----------------------------------------------------------------------------------------------------

    def created(self, item: Manifest) -> None:
        name = item["metadata"]["name"]
        match item["kind"]:
            case "ConfigMap":
                self._files[name.rpartition("-")[0]] = json.loads(item["data"]["job.json"])
            case "PyTorchJob" if item["metadata"]["labels"][LABEL_ATTEMPT] == "0":
                pods = [self._pod(pod) for pod in pods_of(item)]
                self.after(timedelta(minutes=2), partial(self._set_pods, pods, ended(0, passed())))
            case "PyTorchJob":
                attempt = Attempt(item, [self._pod(pod) for pod in pods_of(item)], self._files[name])
                self._attempts[item["metadata"]["uid"]] = attempt
                self._place()
            case "ModelRelease":
                self._decide_fate(item)
            case _:
                pass

    def _pod(self, pod: Manifest, **spec: str) -> dict[str, Any]:
        whole = {"apiVersion": "v1", "kind": "Pod", **pod, "status": {"phase": "Pending"}}
        return self.put({**whole, "metadata": {**pod["metadata"], "namespace": NAMESPACE}, "spec": {**pod["spec"], **spec}})

    def _set_pods(self, pods: list[dict[str, Any]], status: Mapping[str, Any], **spec: str) -> None:
        for pod in pods:
            whole = self.objects.get(name_of(pod))
            if whole is not None and whole["metadata"]["uid"] == pod["metadata"]["uid"]:
                self.put({**whole, "spec": {**whole["spec"], **spec}, "status": status})

    def _place(self) -> None:
        """What waits for GPUs gets them in the order in which it came: pods of releases, then attempts."""
        for deployment in [one for (kind, _, _), one in self.objects.items() if kind == "Deployment"]:
            self._serve(deployment)
        for attempt in list(self._attempts.values()):
            if attempt.ends is None:
                self._try_to_place(attempt)

    def _try_to_place(self, attempt: Attempt) -> None:
        needs = gpus_of(attempt.pods[0]) * len(attempt.pods)
        node = self._room(attempt.pods[0]["spec"], needs)
        if node is None:
            said = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": f"Insufficient {GPU}"}
            self._set_pods(attempt.pods, {"phase": "Pending", "conditions": [said]})
            return
        attempt.node, key = node, self._work_of(attempt)
        left = self._left.get(key) or self._length(attempt.file)
        failure, part = self._failure(attempt.file)
        lasts = left * part
        attempt.ends = self.now + lasts
        self._left[key] = max(HOUR, left - lasts)
        self._book(attempt, 1)
        self._set_pods(attempt.pods, running(), nodeName=node)
        self.after(lasts, partial(self._end, attempt, attempt.ends, failure))

    def _work_of(self, attempt: Attempt) -> tuple[str, str]:
        return str(attempt.file["run"]), str(attempt.file["phase"])

    def _book(self, attempt: Attempt, sign: int) -> None:
        gpus = gpus_of(attempt.pods[0]) * len(attempt.pods)
        self.account.gpus.append((self.now, "training", sign * gpus))

    def _length(self, file: Mapping[str, Any]) -> timedelta:
        """How long a phase takes without mishaps: within its deadline, by far or narrowly."""
        run = self.get("TrainingRun", NAMESPACE, file["run"]) or {"spec": {"phases": []}}
        phase: Manifest = next((one for one in run["spec"]["phases"] if one["name"] == file["phase"]), {})
        if deadline := phase.get("deadlineSeconds"):
            return timedelta(seconds=deadline) * self.random.uniform(0.45, 0.85)
        return HOUR * HOURS.get(file["task"], TRAINING_HOURS) * self.random.uniform(0.3, 1.0)

    def _failure(self, file: Mapping[str, Any]) -> tuple[str, float]:
        """How an attempt will end, and after which part of its work."""
        chance, mishaps = self.random.random(), self.mishaps
        diverged = mishaps.diverged if file["task"] in set(TRAINING) else 0.0
        if chance < diverged:
            return "Diverged", self.random.uniform(0.1, 0.9)
        if chance < diverged + mishaps.storage:
            return "StorageFailed", self.random.uniform(0.1, 0.9)
        return "", 1.0

    def _end(self, attempt: Attempt, moment: datetime, failure: str) -> None:
        if self._attempts.get(attempt.job["metadata"]["uid"]) is not attempt or attempt.ends != moment:
            return
        self._forget(attempt)
        if failure:
            self._say(failure, str(attempt.file["run"]))
            status = ended({"Diverged": 70, "StorageFailed": 74, "Preempted": 75}[failure], _json({"contract": "v1", "reason": failure}))
        else:
            self._left.pop(self._work_of(attempt), None)
            code, report = self._report(attempt.file)
            status = ended(code, _json({"contract": "v1", **report}))
        self._set_pods(attempt.pods, status)
        self._place()

    def _forget(self, attempt: Attempt) -> None:
        del self._attempts[attempt.job["metadata"]["uid"]]
        if attempt.ends is not None:
            self._book(attempt, -1)

    def gone(self, item: Manifest) -> None:
        uid = item["metadata"]["uid"]
        if item["kind"] == "PyTorchJob" and uid in self._attempts:
            self._forget(self._attempts[uid])
            self._place()
        if item["kind"] == "Deployment":
            self._scale(item, 0)
        if item["kind"] == "ModelRelease":
            self._enter(item["metadata"]["name"], "")
        if item["kind"] == "FineTuneCycle":
            self._end_turn(item["metadata"]["name"])

    # What attempts report ----------------------------------------------------------------------------------------

    def _report(self, file: Mapping[str, Any]) -> tuple[int, dict[str, Any]]:
        if file["task"] == "Curate":
            return self._curate(file)
        phase = self._phase(file)
        report: dict[str, Any] = {"reason": "Completed", "lastStep": 1}
        if file["task"] in {*TRAINING, "Optimize", "BuildTemplates"}:
            digest = digest_of(file["run"], file["phase"], file["attempt"])
            report["artifact"] = {"path": f"bundles/{file['run']}/{digest[7:]}", "digest": digest}
        if file["task"] == "Tune":
            values, middle = phase["tune"]["values"], phase["tune"]["values"][len(phase["tune"]["values"]) // 2]
            objective = phase["tune"]["objective"]
            report["trials"] = [{"value": one, "metric": objective, "result": "150", "chosen": one == middle} for one in values]
        if file["task"] == "Optimize":
            losses = [
                {"metric": one["metric"], "unoptimized": "1", "loss": "0", "low": "0", "high": "0"}
                for one in phase["optimize"].get("maximumLoss", [])
            ]
            report["optimization"] = {"unoptimizedBytes": 1000, "optimizedBytes": 300, "losses": losses}
        gates = phase.get("gates") or []
        fails = self.random.randrange(len(gates)) if gates and self._evaluation_fails(file) else -1
        report["results"] = [_result(gate, passes=place != fails) for place, gate in enumerate(gates)]
        if file["task"] in {"Evaluate", "Optimize"} and not gates:
            report["results"] = [{"metric": "FVD", "value": "150", "samples": 1000}]
        return 0, report

    def _evaluation_fails(self, file: Mapping[str, Any]) -> bool:
        failing = file["task"] == "Evaluate" and self.random.random() < self.mishaps.gate
        if failing:
            self._say("GateFailed", str(file["run"]))
        return failing

    def _phase(self, file: Mapping[str, Any]) -> Manifest:
        run = self.get("TrainingRun", NAMESPACE, file["run"])
        assert run is not None
        found: Manifest = next(one for one in run["spec"]["phases"] if one["name"] == file["phase"])
        return found

    def _curate(self, file: Mapping[str, Any]) -> tuple[int, dict[str, Any]]:
        made, wanted = file["curate"], file["curate"].get("newClips")
        clips = CLIPS_AT_FIRST + self._collected(self.start)
        report: dict[str, Any] = {"reason": "Completed"}
        if wanted:
            previous, least = wanted.get("previous"), wanted.get("minimum", 0)
            since = self._curated.get(f"{made['dataset']}/{previous}") if previous else None
            found = self._collected(since) if since else clips
            report["newClips"] = {"found": found, "minimum": least} | ({"previous": previous} if previous else {})
            if found < least:
                self._left[file["run"], file["phase"]] = HOUR
                return 66, report | {"reason": "TooFewNewClips", "message": f"{found} new clips"}
        self._curated[f"{made['dataset']}/{made['version']}"] = self.now
        digest = digest_of(made["dataset"], made["version"], "")
        return 0, report | {"datasets": [{"dataset": made["dataset"], "version": made["version"], "digest": digest, "clips": clips}]}

    def _collected(self, since: datetime) -> int:
        """Clips that came in since then: each month has a rate of its own."""
        count, day = 0.0, since
        while day < self.now:
            count += CLIPS_A_DAY * self._rate(day) * min(1.0, (self.now - day) / DAY)
            day += DAY
        return int(count)

    def _rate(self, day: datetime) -> float:
        month = (day.year, day.month)
        if month not in self._rates:
            few = self.random.random() < self.mishaps.few_clips
            self._rates[month] = self.random.uniform(0.3, 0.5) if few else self.random.uniform(0.85, 1.3)
        return self._rates[month]

    # Serving -----------------------------------------------------------------------------------------------------

    def changed(self, item: Manifest) -> None:
        if item["kind"] == "Deployment":
            self._serve(item)
        if item["kind"] == "HTTPRoute":
            for release, weight in {**dict.fromkeys(self._weights, 0), **route_weights(item)}.items():
                if not self._weights[release] or self._weights[release][-1][1] != weight:
                    self._weights[release].append((self.now, weight))
            accepted = [
                {"type": kind, "status": "True", "observedGeneration": item["metadata"]["generation"]}
                for kind in ("Accepted", "ResolvedRefs")
            ]
            self.set_status(
                item, {"parents": [{"parentRef": item["spec"]["parentRefs"][0], "controllerName": "x", "conditions": accepted}]}
            )

    def _serve(self, deployment: Manifest) -> None:
        """Pods of a release find nodes, and are ready ten minutes later."""
        whole = self.objects.get(name_of(deployment))
        if whole is None:
            return
        placed = self._servers[whole["metadata"]["uid"]]
        if len(placed) != whole["spec"]["replicas"]:
            self._scale(whole, whole["spec"]["replicas"])
            self.after(timedelta(minutes=5), partial(self._ready, name_of(whole)))

    def _scale(self, deployment: Manifest, replicas: int) -> None:
        placed, template = self._servers[deployment["metadata"]["uid"]], deployment["spec"]["template"]
        name, labels = deployment["metadata"]["name"], template["metadata"]["labels"]
        use = "emergency" if "emergency" in str(template["spec"].get("nodeSelector")) else "serving"
        each = gpus_of({"spec": template["spec"]})
        while len(placed) > replicas:
            placed.pop()
            self.remove(self.objects["Pod", NAMESPACE, f"{name}-{len(placed)}"])
            self.account.gpus.append((self.now, use, -each))
        while len(placed) < replicas and (node := self._room(template["spec"], each)) is not None:
            metadata = {"name": f"{name}-{len(placed)}", "labels": labels}
            pod = self._pod({"metadata": metadata, "spec": template["spec"]}, nodeName=node)
            self._set_pods([pod], {"phase": "Running"})
            placed.append(node)
            self.account.gpus.append((self.now, use, each))

    def _ready(self, key: tuple[str, str, str]) -> None:
        deployment = self.objects.get(key)
        if deployment is not None:
            release = deployment["spec"]["template"]["metadata"]["labels"][LABEL_RELEASE]
            pods = 0 if release in self._broken else len(self._servers[deployment["metadata"]["uid"]])
            status = {"readyReplicas": pods, "availableReplicas": pods, "replicas": deployment["spec"]["replicas"]}
            self.set_status(deployment, status)

    def _decide_fate(self, release: Manifest) -> None:
        name, mishaps, chance = release["metadata"]["name"], self.mishaps, self.random.random()
        others = [one for one in self.world.list("ModelRelease", NAMESPACE) if one["spec"]["service"] == release["spec"]["service"]]
        if not any(_state(one) == "Stable" for one in others):
            return
        later = mishaps.slow_in_canary + mishaps.slow_later
        if chance < mishaps.slow_in_canary:
            self._slow[name] = self.now
        elif chance < later:
            delay = DAY * self.random.uniform(1, 5)
            self._slow[name] = self.now + delay
            self.after(delay + timedelta(minutes=5), partial(self._notice, name))
        elif chance < later + mishaps.broken:
            self._broken.add(name)
            self._say("NeverReady", name)

    def _notice(self, name: str) -> None:
        """The next round of live checks comes: the plan is due within seconds, and `patience` has put it off."""
        if release := self.get("ModelRelease", NAMESPACE, name):
            self._wake(release)

    def measure(self, query: Query) -> float | Unavailable:
        release, window = re.search(r'release="([^"]+)"', query.promql), re.search(r"\[(\d+)s\](?: offset (\d+)s)?", query.promql)
        assert release and window, query.promql
        end = self.now - timedelta(seconds=int(window[2] or 0))
        requests = self._requests(release[1], end - timedelta(seconds=int(window[1])), end)
        slow = self._slow.get(release[1])
        latency, errors = SLOW if slow and slow <= end else USUAL
        if "histogram_quantile" in query.promql:
            return latency if requests else Unavailable("Prometheus has no data")
        if query.promql.startswith(("sum(increase(videogen_requests_total", "sum(increase(videogen_request_duration_seconds_count")):
            return requests * (1 - errors) if 'outcome="ok"' in query.promql else requests
        return errors if requests else Unavailable("Prometheus has no data")

    def _requests(self, release: str, begin: datetime, end: datetime) -> float:
        shares = self._weights.get(release, [])
        ends = [moment for moment, _ in shares[1:]] + [end]
        spans = ((min(until, end) - max(since, begin), weight) for (since, weight), until in zip(shares, ends, strict=True))
        return sum(max(0.0, span.total_seconds()) * REQUESTS_A_SECOND * weight / 100 for span, weight in spans)

    # Nodes -------------------------------------------------------------------------------------------------------

    def _room(self, spec: Manifest, gpus: int) -> str | None:
        """The node with the fewest free GPUs that are enough."""
        used: dict[str, int] = defaultdict(int)
        for pod in self.world.list("Pod", NAMESPACE):
            if pod["status"]["phase"] in {"Pending", "Running"} and pod["spec"].get("nodeName"):
                used[pod["spec"]["nodeName"]] += gpus_of(pod)
        free = {
            node["metadata"]["name"]: int(node["status"]["allocatable"][GPU]) - used[node["metadata"]["name"]]
            for node in self.world.list("Node")
            if not node["spec"].get("unschedulable") and _may_run_on(spec, node)
        }
        return min((name for name, count in free.items() if count >= gpus), key=lambda name: (free[name], name), default=None)

    # What goes wrong, and what people do ---------------------------------------------------------------------------

    def refusal(self, item: Manifest) -> str:
        return "exceeded quota: videogen" if self._refuses and item["kind"] == "TrainingRun" else ""

    def _plan_mishaps(self) -> None:
        mishaps = self.mishaps
        what: list[tuple[float, Callable[[], None]]] = [
            (mishaps.drain, self._drain),
            (mishaps.crash, self._crash),
            (mishaps.outage, self._outage),
            (mishaps.quota, self._quota),
        ]
        for days, act in what:
            if days:
                self._again(days, act)

    def _again(self, days: float, act: Callable[[], None]) -> None:
        def once() -> None:
            act()
            self._again(days, act)

        self.after(DAY * self.random.uniform(0.4, 1.6) * days, once)

    def _crash(self) -> None:
        self.writes_until_crash = self.random.randrange(8)

    def _outage(self) -> None:
        if not self.away:
            length = DAY * self.random.uniform(0.5, 3)
            self._say("OperatorDown", f"{length / HOUR:.0f} h")
            self.leave(length)

    def _quota(self) -> None:
        self._say("QuotaExceeded", NAMESPACE)
        self._refuses = True
        self.after(2 * DAY, self._allow)

    def _allow(self) -> None:
        self._refuses = False
        for cycle in self.world.list("FineTuneCycle", NAMESPACE):
            self._wake(cycle)

    def _drain(self) -> None:
        """A node is emptied for half a day; its attempts save, end as preempted and go on elsewhere."""
        node = self.random.choice([one for one in self.world.list("Node") if not one["spec"].get("taints")])
        self.edit(node, unschedulable=True)
        self.after(12 * HOUR, partial(self._uncordon, node))
        for attempt in [one for one in self._attempts.values() if one.node == node["metadata"]["name"] and one.ends]:
            assert attempt.ends is not None
            self._left[self._work_of(attempt)] = max(HOUR, attempt.ends - self.now)
            self._end(attempt, attempt.ends, "Preempted")

    def _uncordon(self, node: Manifest) -> None:
        self.edit(node, unschedulable=False)
        self._place()

    def _retry(self, run: str) -> None:
        """ML engineers let a schedule that has failed try again. A cycle's run is followed by the next one."""
        item = self.get("TrainingRun", NAMESPACE, run)
        if item is not None and _succeeded(item) == "False":
            self._say("Retried", run)
            self.annotate(item, **{ANNOTATION_REQUEST: f"retry@{self.now:%m%d%H%M}"})

    def _clear(self, name: str) -> None:
        """Releases that serve nobody any more are deleted by people."""
        release = self.get("ModelRelease", NAMESPACE, name)
        if release is not None and _state(release) in OVER:
            self.remove(release)

    def _hotfix(self, release: Manifest) -> None:
        """DevOps asks the weekly cycle of a model whose release was taken back for a patch at once."""
        model = release["spec"]["model"]
        for cycle in self.world.list("FineTuneCycle", NAMESPACE):
            spec = cycle["spec"]
            same = all(model.get(part) == spec["model"].get(part, model.get(part)) for part in ("family", "type", "specialization"))
            if same and spec["cadence"] == "Weekly":
                self._say("HotfixAsked", cycle["metadata"]["name"])
                self.annotate(cycle, **{ANNOTATION_REQUEST: f"run-now@hotfix-{self.now:%m%d%H%M}"})

    # What is kept --------------------------------------------------------------------------------------------------

    def told(self, item: Manifest) -> None:
        name = item["metadata"]["name"]
        match item["kind"]:
            case "TrainingRun":
                self.account.runs[name] = item
                if _succeeded(item) == "False" and LABEL_CYCLE not in (item["metadata"].get("labels") or {}):
                    self.after(DAY, partial(self._retry, name))
            case "ModelRelease":
                self.account.releases[name] = item
                entered = self._enter(name, _state(item))
                if entered and _state(item) in OVER:
                    self.after(KEPT, partial(self._clear, name))
                if entered and _state(item) == "RolledBack":
                    self._say("RolledBack", name)
                    self.after(HOUR, partial(self._hotfix, item))
            case "FineTuneCycle":
                for past in item["status"].get("history") or ():
                    self.account.times[name, past["scheduledTime"], past.get("run", "")] = past
                self._follow_turn(name, item["status"].get("current") or {})

    def _follow_turn(self, cycle: str, current: Mapping[str, Any]) -> None:
        waiting, known = current.get("waitingFor"), self._turns.get(cycle)
        now = (current.get("run"), current.get("stage"), (waiting or {}).get("team"))
        if known is not None and (known[1], known[2], known[0]["team"]) != now:
            self._end_turn(cycle)
        if waiting:
            begin = self._turns[cycle][3] if cycle in self._turns else self.now
            self._turns[cycle] = (waiting, current["run"], current["stage"], begin)

    def _end_turn(self, cycle: str) -> None:
        if cycle in self._turns:
            waiting, run, stage, begin = self._turns.pop(cycle)
            self.account.turns.append(Turn(cycle, run, stage, waiting["team"], begin, self.now, datetime.fromisoformat(waiting["due"])))

    def _enter(self, release: str, state: str) -> bool:
        """A release is in this state from now on -> whether it was not before."""
        known = self._states.get(release)
        if known is not None and known[0] == state:
            return False
        if known is not None:
            spec = self.account.releases[release]["spec"]
            self.account.stays.append(Stay(release, spec["service"], spec["model"]["version"], known[0], known[1], self.now))
        if state:
            self._states[release] = (state, self.now)
        else:
            self._states.pop(release, None)
        return True


def nodes() -> list[dict[str, Any]]:
    """Three nodes of 8 GPUs for everybody, and two of 2 that are kept for emergencies."""
    pool = "videogen.pib.gov.in/pool"
    kept = {"taints": [{"key": pool, "value": "emergency", "effect": "NoSchedule"}]}
    return [
        *(a_node(f"gpu-{number}", 8, {}, {}) for number in (1, 2, 3)),
        *(a_node(f"emergency-{number}", 2, {pool: "emergency"}, kept) for number in (1, 2)),
    ]


def a_node(name: str, gpus: int, labels: Mapping[str, str], spec: Mapping[str, Any]) -> dict[str, Any]:
    """A node with room for everything but GPUs."""
    amounts = {"cpu": "512", "memory": "8Ti", "ephemeral-storage": "50Ti", GPU: str(gpus)}
    status = {"allocatable": amounts, "conditions": [{"type": "Ready", "status": "True"}]}
    metadata = {"name": name, "labels": {"kubernetes.io/hostname": name, **labels}}
    return {"apiVersion": "v1", "kind": "Node", "metadata": metadata, "spec": dict(spec), "status": status}


def a_claim() -> dict[str, Any]:
    """The claim that the examples name."""
    metadata = {"name": "pib-models", "namespace": NAMESPACE, "labels": {LABEL_STORAGE: STORAGE_ALLOWED}}
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "status": {"phase": "Bound"}}


def a_gateway() -> dict[str, Any]:
    """The Gateway of the operator's settings."""
    metadata = {"name": "videogen", "namespace": "videogen-system"}
    return {"apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway", "metadata": metadata}


def gpus_of(pod: Manifest) -> int:
    """GPUs that a pod asks for."""
    limits = [(one.get("resources") or {}).get("limits") or {} for one in pod["spec"].get("containers") or ()]
    return sum(int(one.get(GPU, 0)) for one in limits)


def digest_of(*words: object) -> str:
    """A digest that nothing else has."""
    return "sha256:" + hashlib.sha256("\n".join(map(str, words)).encode()).hexdigest()


def _may_run_on(spec: Manifest, node: Manifest) -> bool:
    labels = node["metadata"].get("labels") or {}
    tolerated = {(one.get("key"), one.get("value")) for one in spec.get("tolerations") or ()}
    taints = node["spec"].get("taints") or ()
    return (spec.get("nodeSelector") or {}).items() <= labels.items() and all((one["key"], one["value"]) in tolerated for one in taints)


def _result(gate: Manifest, *, passes: bool) -> dict[str, Any]:
    threshold, below = float(gate["threshold"]), gate["operator"] == "LessThan"
    factor = (0.8 if passes else 1.15) if below else (1.05 if passes else 0.95)
    result = {"metric": gate["metric"], "value": f"{threshold * factor:.4g}", "samples": gate.get("minimumSamples", 64)}
    if gate["metric"] == "InceptionScore":
        result["samples"] = max(1000, result["samples"])
    named = {name: gate[name] for name in ("extractor", "normalization") if name in gate}
    return result | named


def _state(release: Manifest) -> str:
    return str(((release.get("status") or {}).get("rollout") or {}).get("state", "Pending"))


def _succeeded(run: Manifest) -> str:
    conditions = (run.get("status") or {}).get("conditions") or ()
    return next((str(one["status"]) for one in conditions if one["type"] == "Succeeded"), "Unknown")


def _json(report: Mapping[str, Any]) -> str:
    return json.dumps(report)
