"""A service in a closed loop: the real plan, driven against small pure stand-ins for everybody else in the cluster.

The stand-ins play kubelet and Deployment controller (pods become ready after some ticks), the gateway's controller (takes
over the route), users (requests, split by the route's weights over ready pods) and Prometheus (answers the very PromQL
that the operator asks, from the requests that were answered). Invariants are checked after every pass. `transcript` tells
what happened, to be compared with a golden file.
"""

from __future__ import annotations

import builtins  # in a class whose method is called list
import json
import random
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from videogen_api.meta import ANNOTATION_REQUEST
from videogen_api.model_release import ModelReleaseStatus
from videogen_operator.api_server.world import read
from videogen_operator.kinds.model_release import MODEL_RELEASE
from videogen_operator.kinds.model_release.judging.quarantine import ANNOTATION
from videogen_operator.kinds.model_release.observed import route_weights, slots
from videogen_operator.plan import Failure, Index, Inputs, Key, M, Manifest, Plan, Query, Unavailable
from videogen_testing.kstatus import kstatus
from videogen_testing.releases import (
    NAMESPACE,
    SERVICE,
    SETTINGS,
    START,
    a_claim,
    a_crashed_pod,
    a_gateway,
    a_node,
    a_replica_set,
    a_waiting_pod,
    looked_up,
    name_of,
)

TICK = timedelta(seconds=5)
KEY = Key("ModelRelease", NAMESPACE, SERVICE)
CANDIDATES = {"Starting", "Canary", "Held"}
KEPT_WARM = {"Canary", "Held", "Stable", "Standby"}
OVER = {state: {"Failed"} for state in ("Rejected", "RolledBack", "Withdrawn", "Failed")}
ENDS = OVER | {"Superseded": {"Current"}} | {state: {"Current", "InProgress"} for state in ("Stable", "Standby")}  # by kstatus


class Crashed(Exception):
    """The operator died after one of its writes."""


@dataclass(frozen=True, slots=True)
class Served:
    """Requests that were answered in a tick, each pair as P95 seconds and error ratio."""

    time: datetime
    version: str
    requests: int
    at_servers: tuple[float, float]
    at_gateway: tuple[float, float]


class Simulation:
    """One service. All behaviour of the surroundings is in public attributes, which a test may change at any time."""

    def __init__(self, *releases: Manifest, seed: int | None = None) -> None:
        self.now = START
        self.objects: dict[tuple[str, str, str], dict[str, Any]] = {}
        self.ready_after = 2  # ticks until a new Deployment's pods are ready
        self.broken: set[str] = set()  # versions whose pods are not ready, whatever happens
        self.unplaced: set[str] = set()  # versions for whose pods the scheduler finds no node
        self.crashed: dict[str, int] = {}  # versions whose server ends by itself -> its exit code
        self.ready_limit: dict[str, int] = {}  # pods of a version that become ready at most
        self.latency: dict[str, float] = defaultdict(lambda: 2.0)  # P95 seconds by version
        self.errors: dict[str, float] = defaultdict(float)  # error ratio by version
        self.gateway_latency: dict[str, float] = {}  # what the gateway measured, where it differs
        self.gateway_errors: dict[str, float] = {}
        self.gateway_delay = timedelta(0)  # how long after a request the gateway's figures show it
        self.requests_per_tick = 100
        self.prometheus = True
        self.gateway = True
        self.alerts: list[Manifest] = []
        self.answers: dict[str, str] = {}
        self.transcript: list[str] = []
        self.writes_until_crash: int | None = None
        self.writes = 0
        self.refused: dict[str, Failure] = {}  # by kind: what the API server refuses
        self.served: list[Served] = []
        self.waited: dict[str, list[str]] = defaultdict(list)  # what kstatus made of each version, whenever that changed
        self._barred: set[str] = set()  # digests that were quarantined when it was last looked
        self._random = random.Random(seed) if seed is not None else None
        self._version = 10
        self._age: dict[str, int] = defaultdict(int)
        for item in (a_claim(), a_gateway(), a_node(), *releases):
            self.put(item)

    # plan.World -------------------------------------------------------------------------------------------------

    def get(self, kind: str, namespace: str, name: str) -> Manifest | None:
        return self.objects.get((kind, namespace, name))

    def list(self, kind: str, namespace: str | None = None, labels: Mapping[str, str] | None = None) -> tuple[Manifest, ...]:
        found = (item for (of, where, _), item in sorted(self.objects.items()) if of == kind and namespace in {None, where})
        wanted = dict(labels or {})
        return tuple(item for item in found if wanted.items() <= (item["metadata"].get("labels") or {}).items())

    def find(self, index: Index, value: str, namespace: str | None = None) -> tuple[Manifest, ...]:
        return looked_up(self, index, value, namespace)

    def read(self, model: type[M], item: Manifest, field: str) -> M:
        return read(model, item, field)

    # What a person does -----------------------------------------------------------------------------------------

    def put(self, item: Manifest) -> None:
        metadata = item["metadata"]
        self.objects[item["kind"], metadata.get("namespace", ""), metadata["name"]] = self._stamped(deepcopy(dict(item)))

    def drop(self, kind: str, name: str, namespace: str = NAMESPACE) -> None:
        """Delete something that has no children."""
        del self.objects[kind, namespace, name]

    def remove(self, version: str) -> None:
        """Delete a release; its children go with it."""
        uid = self.objects["ModelRelease", NAMESPACE, name_of(version)]["metadata"]["uid"]
        for key, item in list(self.objects.items()):
            owners = item["metadata"].get("ownerReferences") or []
            if item["metadata"].get("uid") == uid or [owner["uid"] for owner in owners] == [uid]:
                del self.objects[key]

    def request(self, version: str, token: str) -> None:
        release = self.objects["ModelRelease", NAMESPACE, name_of(version)]
        release["metadata"].setdefault("annotations", {})[ANNOTATION_REQUEST] = token
        self._stamped(release)
        self.say(f"a person asks {version} for {token}")

    # The loop ---------------------------------------------------------------------------------------------------

    def tick(self, count: int = 1) -> None:
        """Time goes on; everybody acts once, in default or in random order, and the operator until it is quiet."""
        for _ in range(count):
            self.now += TICK
            actors = [self._run_deployments, self._run_gateway, self.run_users, self.settle]
            if self._random:
                self._random.shuffle(actors)
            for act in actors:
                act()

    def until(self, version: str, state: str, limit: int = 400) -> None:
        """Tick until a release is in a state."""
        for _ in range(limit):
            if self.state(version) == state:
                return
            self.tick()
        raise AssertionError(f"{version} is {self.state(version)} after {limit} ticks, not {state}\n" + "\n".join(self.transcript[-20:]))

    def settle(self) -> None:
        """Passes until one changes nothing."""
        for _ in range(30):
            if not self.pass_once():
                return
        raise AssertionError("the operator does not come to rest\n" + "\n".join(self.transcript[-30:]))

    def pass_once(self) -> bool:
        """One pass of the shell; True if it has written something."""
        observed = MODEL_RELEASE.observe(self, KEY)
        if observed is None:
            return False
        inputs = Inputs(
            now=self.now,
            alerts=tuple(alert for alert in self.alerts if self.answers.get(alert["fingerprint"], "Unverified") == "Unverified"),
            settings=SETTINGS,
        )
        inputs = replace(inputs, measurements={query.name: self._answer(query) for query in MODEL_RELEASE.queries(observed, inputs)})
        steps = {version: self.step(version) for version in self.releases()}
        plan = MODEL_RELEASE.plan(observed, inputs)
        changed, failures = self._write(plan)
        if failures:
            plan = MODEL_RELEASE.plan(observed, replace(inputs, failures=failures))
            assert not any(failure.kind == "HTTPRoute" for failure in failures) or not plan.answers
        for write in plan.statuses:
            changed |= self._write_status(write.object, write.status)
        for note in plan.notes:
            self.say(f"{version_of(note.object['metadata']['name'])}: {note.reason}: {note.message}")
        self.answers.update(plan.answers)
        self.check()
        raised = [version for version, step in steps.items() if self.step(version) > step]
        assert self.prometheus or not raised, f"{raised} were raised without data"
        return changed

    def _write(self, plan: Plan) -> tuple[bool, tuple[Failure, ...]]:
        changed, failures = False, []
        for manifest in (*plan.apply, *plan.beside):
            if failure := self.refused.get(manifest["kind"]):
                failures.append(failure)
                if manifest in plan.apply:
                    return changed, (failure,)
            else:
                changed |= self._apply(manifest)
        for ref in plan.delete:
            item = self.objects.get((ref.kind, ref.namespace, ref.name))
            if item and item["metadata"]["uid"] == ref.uid:
                self._count_write()
                del self.objects[ref.kind, ref.namespace, ref.name]
                changed = True
        return changed, tuple(failures)

    def _apply(self, manifest: Manifest) -> bool:
        metadata = manifest["metadata"]
        key = (manifest["kind"], metadata["namespace"], metadata["name"])
        old = self.objects.get(key)
        if old and old["spec"] == manifest["spec"] and metadata.items() <= old["metadata"].items():
            return False
        if key[0] == "Deployment":
            assert ("NetworkPolicy", *key[1:]) in self.objects, f"{key[2]} would have pods that anybody reaches"
        before = self.weights()
        self._count_write()
        if key[0] == "HTTPRoute":
            self._check_positions(slots(old), slots(manifest), route_weights(old), route_weights(manifest))
        own: dict[str, Any] = {"uid": f"uid-{self._version}", "generation": 0} if old is None else old["metadata"]
        generation = own["generation"] + (old is None or old["spec"] != manifest["spec"])
        item = {**deepcopy(dict(manifest)), "metadata": {**own, **deepcopy(dict(metadata)), "generation": generation}}
        self.objects[key] = self._stamped(item | ({"status": old["status"]} if old and "status" in old else {}))
        if self.weights() != before:
            self.say("weights: " + (", ".join(f"{version} {weight} %" for version, weight in self.weights().items()) or "none"))
        return True

    def _write_status(self, item: Manifest, status: Manifest) -> bool:
        current = self.objects["ModelRelease", NAMESPACE, item["metadata"]["name"]]
        ModelReleaseStatus.model_validate(status)
        if current.get("status") == status:
            return False
        self._count_write()
        current["status"] = deepcopy(dict(status))
        self._stamped(current)
        return True

    def _count_write(self) -> None:
        if self.writes_until_crash is not None:
            if self.writes_until_crash == 0:
                raise Crashed
            self.writes_until_crash -= 1
        self.writes += 1

    def _stamped(self, item: dict[str, Any]) -> dict[str, Any]:
        self._version += 1
        item["metadata"]["resourceVersion"] = str(self._version)
        return item

    # Everybody else ---------------------------------------------------------------------------------------------

    def _run_deployments(self) -> None:
        for (kind, _, _), item in list(self.objects.items()):
            if kind == "Deployment":
                version = version_of(item["spec"]["template"]["spec"]["containers"][0]["env"][0]["value"])
                uid = item["metadata"]["uid"]
                self._age[uid] += 1
                broken = version in self.broken or version in self.crashed or version in self.unplaced
                self._schedule(version, uid)
                ready = item["spec"]["replicas"] if self._age[uid] > self.ready_after and not broken else 0
                if version in self.crashed:
                    self.put(a_replica_set(name_of(version), uid))
                    self.put(a_crashed_pod(name_of(version), exit_code=self.crashed[version], at=self.now))
                ready = min(ready, self.ready_limit.get(version, ready))
                available = min(ready, (item.get("status") or {}).get("readyReplicas", 0))  # those that were ready a tick ago
                status = {"readyReplicas": ready, "availableReplicas": available, "replicas": item["spec"]["replicas"]}
                if item.get("status") != status:
                    item["status"] = status
                    self._stamped(item)

    def _schedule(self, version: str, uid: str) -> None:
        """What the scheduler says of a version's pods, once it has been asked about them."""
        key = ("Pod", NAMESPACE, a_waiting_pod(name_of(version), at=self.now, placed=False)["metadata"]["name"])
        if version in self.unplaced:
            self.put(a_replica_set(name_of(version), uid))
            self.put(a_waiting_pod(name_of(version), at=self.now, placed=False))
        elif key in self.objects and self.objects[key]["status"]["phase"] == "Pending":
            self._age[uid] = 0  # it begins to load only now
            self.put(a_waiting_pod(name_of(version), at=self.now, placed=True))

    def _run_gateway(self) -> None:
        route = self.objects.get(("HTTPRoute", NAMESPACE, SERVICE))
        if route and self.gateway:
            generation = route["metadata"]["generation"]
            said = [{"type": kind, "status": "True", "observedGeneration": generation} for kind in ("Accepted", "ResolvedRefs")]
            status = {
                "parents": [
                    {"parentRef": route["spec"]["parentRefs"][0], "controllerName": SETTINGS["gateway_controller"], "conditions": said}
                ]
            }
            if route.get("status") != status:
                route["status"] = status
                self._stamped(route)

    def run_users(self) -> None:
        for version, weight in self.weights().items():
            if weight and self.ready(version):
                latency, errors = self.latency[version], self.errors[version]
                at_gateway = (self.gateway_latency.get(version, latency), self.gateway_errors.get(version, errors))
                self.served.append(Served(self.now, version, self.requests_per_tick * weight // 100, (latency, errors), at_gateway))

    def _answer(self, query: Query) -> float | Unavailable:
        if not self.prometheus:
            return Unavailable("Prometheus cannot be reached")
        by_gateway, promql = "envoy_cluster_" in query.promql, query.promql
        version, window, ago = self._gateways(promql) if by_gateway else self._servers(promql)
        until = min(self.now - timedelta(seconds=ago), self.now - self.gateway_delay if by_gateway else self.now)
        begin = self.now - timedelta(seconds=ago + window)
        seen = [one for one in self.served if one.version == version and begin < one.time <= until]
        measured = [(one.requests, *(one.at_gateway if by_gateway else one.at_servers)) for one in seen]
        count = float(sum(requests for requests, _, _ in measured))
        errors = sum(requests * ratio for requests, _, ratio in measured)
        if promql.startswith(
            (
                "sum(increase(videogen_requests_total",
                "sum(increase(videogen_request_duration_seconds_count",
                "clamp_min((sum(((envoy_cluster_upstream_rq_xx",
            )
        ):
            return count - errors if 'outcome="ok"' in promql else count
        if not count:
            return Unavailable("Prometheus has no data")
        slower = [(sum(more for more, other, _ in measured if other > latency), latency) for _, latency, _ in measured]
        return min(latency for more, latency in slower if more <= 0.05 * count) if "histogram_quantile(0.95" in promql else errors / count

    def _servers(self, promql: str) -> tuple[str, int, int]:
        """Version, window and how long ago it ended, of a question about the servers' metrics."""
        release, window = re.search(r'release="([^"]+)"', promql), re.search(r"\[(\d+)s\](?: offset (\d+)s)?", promql)
        assert release and window and f'namespace="{NAMESPACE}"' in promql, promql
        return version_of(release[1]), int(window[1]), int(window[2] or 0)

    def _gateways(self, promql: str) -> tuple[str, int, int]:
        """The same of a question about the gateway's, which names a release by its position in the route."""
        cluster = re.search(
            r'namespace="envoy-gateway-system",envoy_cluster_name=~"httproute/films/standard/rule/\([0-9|]+\)/backend/(\d+)"', promql
        )
        moments = re.search(r"\}(?: offset (\d+)s)? - \([^}]+\} offset (\d+)s or ", promql)
        assert cluster and moments, promql
        places, ago = slots(self.objects["HTTPRoute", NAMESPACE, SERVICE]), int(moments[1] or 0)
        return version_of(places[int(cluster[1])]), int(moments[2]) - ago, ago

    # What can be seen -------------------------------------------------------------------------------------------

    def releases(self) -> dict[str, dict[str, Any]]:
        return {version_of(name): item for (kind, _, name), item in sorted(self.objects.items()) if kind == "ModelRelease"}

    def state(self, version: str) -> str:
        rollout = (self.releases()[version].get("status") or {}).get("rollout") or {}
        return str(rollout.get("state", "Pending"))

    def step(self, version: str) -> int:
        rollout = (self.releases()[version].get("status") or {}).get("rollout") or {}
        return int(rollout.get("step", 0))

    def status(self, version: str) -> dict[str, Any]:
        status: dict[str, Any] = self.releases()[version]["status"]
        return status

    def condition(self, version: str, kind: str = "Ready") -> dict[str, Any]:
        return next((c for c in self.status(version).get("conditions", []) if c["type"] == kind), {})

    def weights(self) -> dict[str, int]:
        return {version_of(name): weight for name, weight in route_weights(self.objects.get(("HTTPRoute", NAMESPACE, SERVICE))).items()}

    def kstatuses(self) -> dict[str, str]:
        """What kstatus makes of each release."""
        return {version: kstatus(item) for version, item in self.releases().items()}

    def refuses(self) -> bool:
        """Whether the gateway itself answers every request, with the refusal that is there for it."""
        route, refusal = (self.objects.get((kind, NAMESPACE, SERVICE)) for kind in ("HTTPRoute", "HTTPRouteFilter"))
        (rule,) = route["spec"]["rules"] if route else ({},)
        named = [one["extensionRef"]["name"] for one in rule.get("filters", [])]
        return refusal is not None and refusal["spec"]["directResponse"]["statusCode"] == 503 and named == [SERVICE]

    def ready(self, version: str) -> int:
        child = name_of(version).replace(".", "-")
        return int(((self.objects.get(("Deployment", NAMESPACE, child)) or {}).get("status") or {}).get("readyReplicas", 0))

    def available(self, version: str) -> int:
        child = name_of(version).replace(".", "-")
        return int(((self.objects.get(("Deployment", NAMESPACE, child)) or {}).get("status") or {}).get("availableReplicas", 0))

    def say(self, words: str) -> None:
        self.transcript.append(f"{(self.now - START).total_seconds():5.0f} s  {words}")

    def table(self) -> Iterable[str]:
        """One line a release, as `kubectl get` would say it."""
        for version in self.releases():
            ready, stalled = self.condition(version), self.condition(version, "Stalled").get("status") == "True"
            mark = " stalled" if stalled else ""
            traffic = f"{self.weights().get(version, 0):>3} %  {self.ready(version)} pods"
            told = ready.get("message") or self.status(version)["summary"]["message"]
            said = f"ready={ready.get('status', '-')}{mark} {self.status(version)['summary']['status']}: {told}"
            yield f"{version}  {self.state(version):<10} {traffic}  {said}"

    # What must always hold --------------------------------------------------------------------------------------

    def check(self) -> None:
        """The invariants, after every pass."""
        weights, states = self.weights(), {version: self.state(version) for version in self.releases()}
        total = sum(weights.values())
        assert total in {0, 100}, f"weights are {weights}"
        if any(self.served) and any(self.ready(version) for version, state in states.items() if state in KEPT_WARM):
            assert total == 100, f"nobody serves any more: {weights}, {states}"
        if any(self.served) and not total and any(self.ready(version) for version in states):
            assert self.refuses(), "requests are lost, and nobody says why"
        for state in ("Stable", "Standby"):
            assert sum(found == state for found in states.values()) <= 1, states
        assert sum(found in CANDIDATES for found in states.values()) <= 1, states
        self._check_weights(weights, states)
        self._check_quarantine(states)
        for version, state in states.items():
            self._check_conditions(version, state)

    def _check_conditions(self, version: str, state: str) -> None:
        """What Flux, Helm, Argo CD and `kubectl wait` may believe, and nobody else's business in STATUS."""
        release = self.releases()[version]
        if not (release.get("status") or {}).get("conditions"):
            return  # not visited yet
        seen = kstatus(release)
        if not self.waited[version] or self.waited[version][-1] != seen:
            self.waited[version].append(seen)
        conditions = {kind: self.condition(version, kind).get("status") for kind in ("Ready", "Reconciling", "Stalled")}
        if self.condition(version).get("reason") == "Unreadable":
            assert seen == "Failed"
            return
        assert seen in ENDS.get(state, {"InProgress"}), (version, state, conditions)
        assert conditions["Ready"] != "True" or state in {"Stable", "Standby"}, (version, state, conditions)
        if state in {"Canary", "Held"}:
            assert (conditions["Ready"], conditions["Reconciling"]) == ("False", "True"), (version, conditions)
        shown = release["status"]["summary"]["status"]
        assert shown not in {"CheckFailed", "Alert", "Requested"}, (
            f"{version} shows what took its traffic back, not that it is gone: {shown}"
        )

    def quarantined(self) -> dict[str, builtins.list[str]]:
        """The signals by which each digest is quarantined."""
        route = self.objects.get(("HTTPRoute", NAMESPACE, SERVICE)) or {"metadata": {}}
        entries = json.loads((route["metadata"].get("annotations") or {}).get(ANNOTATION, "[]"))
        return {entry["digest"]: entry["signals"] for entry in entries if entry["quarantined"]}

    def _check_quarantine(self, states: Mapping[str, str]) -> None:
        """A person, or two signals that do not rest on one another; and never what alone can serve."""
        barred = self.quarantined()
        for digest, signals in barred.items():
            assert "Request" in signals or ("Servers" in signals and {"Gateway", "Crash"} & set(signals)), (
                f"{digest} is quarantined by {signals}"
            )
        releases = self.releases()
        for digest in barred.keys() - self._barred:
            of = {version for version in releases if releases[version]["spec"]["artifact"]["digest"] == digest}
            if "Request" not in barred[digest] and any(self.ready(version) for version in of):
                others = [version for version, state in states.items() if state == "Stable" and version not in of and self.ready(version)]
                assert others, f"{of} was quarantined, and nobody else can serve: {states}"
        self._barred = set(barred)

    def _check_positions(self, old: tuple[str, ...], new: tuple[str, ...], before: Mapping[str, int], after: Mapping[str, int]) -> None:
        """The gateway's clusters are named after the positions and change before the weights do: no request may be lost
        or answered by another release in between.
        """
        exist = {name for (kind, _, name) in self.objects if kind == "ModelRelease"}  # a deleted one takes its requests along
        for position, name in enumerate(old):
            if name in exist and before[name] and self.ready(version_of(name)) and any(after.values()):
                assert new[position : position + 1] == (name,), f"{name} with {before[name]} % was moved or removed at once: {old} -> {new}"
        requests = {name: (self.objects["ModelRelease", NAMESPACE, name]["metadata"].get("annotations") or {}) for name in exist}
        gone = any(requests.get(name, {}).get(ANNOTATION_REQUEST, "").startswith("withdraw@") for name in before)
        if not gone and any(self.ready(version_of(name)) for name, percent in before.items() if percent):
            for name, percent in after.items():
                assert not percent or name in old, f"{name} takes {percent} % and was not in the route before: {old} -> {new}"

    def _check_weights(self, weights: Mapping[str, int], states: Mapping[str, str]) -> None:
        warm = {version for version, state in states.items() if state in KEPT_WARM and self.ready(version)}
        kept = {version for version in warm if states[version] in {"Stable", "Standby"} and version in weights and self.available(version)}
        quarantined = self.quarantined().keys() & self._barred  # what this pass has barred, the next one takes the traffic from
        for version, weight in weights.items():
            if not weight:
                continue
            assert self.ready(version) or not warm, f"{version} takes {weight} % without a ready pod, and {warm} could"
            assert states[version] in KEPT_WARM, (version, states)
            release = self.releases()[version]
            # Stable cures its digest, and nobody's traffic is taken who has nobody to give it to.
            if not release["status"]["rollout"]["retried"] and states[version] != "Stable" and kept - {version}:
                assert release["spec"]["artifact"]["digest"] not in quarantined, f"{version} takes traffic in spite of the quarantine"


def version_of(name: str) -> str:
    """1.2.3 of pib-videogen-videofusion-v1.2.3-base."""
    return name.removeprefix("pib-videogen-videofusion-v").removesuffix("-base")
