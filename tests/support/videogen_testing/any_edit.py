"""Any edit in any state: people who edit every field of all three kinds, ask for everything, and delete what they like, by chance.

They chain: each operation meets what those before it have left. After every few of them all is left alone until it is at rest, and the
invariants are looked at (`at_rest`). What people do follows from the seed alone as far as the states do, which time has a part in.
"""

import asyncio
import json
import logging
from collections import Counter, deque
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import yaml

from videogen_api.meta import ANNOTATION_REQUEST
from videogen_operator.kinds.fine_tune_cycle.plan import RUN_NOW
from videogen_operator.kinds.model_release import requests
from videogen_operator.kinds.training_run.plan import RETRY
from videogen_testing.any_state_controllers import COLLECTIONS_OF_ALL, AnyStateControllers
from videogen_testing.at_rest import Invariants, Witness
from videogen_testing.chart_rights import operator_kubeconfig
from videogen_testing.control_plane import ROOT, ControlPlane
from videogen_testing.crash_story import TEMPLATE, prepare
from videogen_testing.cycle_simulation import a_cycle
from videogen_testing.edits import in_order, release_of
from videogen_testing.legal_values import ABSENT, Field, LegalValues, Schema, fields
from videogen_testing.other_controllers import Client, Object, Refused
from videogen_testing.runs import a_run
from videogen_testing.supervision import SupervisedOperator

KINDS = {"TrainingRun": "trainingruns", "ModelRelease": "modelreleases", "FineTuneCycle": "finetunecycles"}
VERBS = {"TrainingRun": (RETRY,), "ModelRelease": tuple(sorted(requests.VERBS)), "FineTuneCycle": (RUN_NOW,)}
CHILDREN = tuple(kind for kind in COLLECTIONS_OF_ALL if kind not in KINDS)
MOST = {"TrainingRun": 5, "ModelRelease": 5, "FineTuneCycle": 2}  # that people make of a kind
SOME_PHASES = ("T", "CTER", "UTE", "TEO", "TEB", "TES", "CTFER")  # as in `in_order`
SHARES = {"edit": 50, "suspend": 12, "request": 10, "create": 12, "delete": 5, "delete a child": 9, "scale": 2}  # of all operations
TOLD = 30  # operations that a failure shows
log = logging.getLogger(__name__)


@dataclass
class Done:
    """What people have done."""

    counts: Counter[str] = field(default_factory=Counter)  # by operation; "refused", "settled" and "fields" besides
    last: deque[str] = field(default_factory=lambda: deque(maxlen=TOLD))
    ours: dict[tuple[str, str], str] = field(default_factory=dict)  # kind and name -> UID of what they made and have not deleted

    def __str__(self) -> str:
        kinds = ", ".join(f"{self.counts[name]} {name}" for name in SHARES)
        total = sum(self.counts[name] for name in SHARES)
        return f"{total} operations ({kinds}), {self.counts['refused']} of them refused, {self.counts['settled']} times settled"


class People:
    """One operation after the other in one namespace."""

    def __init__(self, api: Client, view: Witness, seed: int) -> None:
        self.done = Done()
        self._api, self._view = api, view
        self._chance = Random(seed)
        self._values = LegalValues(self._chance)
        self._schemas = {kind: _schema(plural) for kind, plural in KINDS.items()}
        self._valid = _with_values_of_runs(self._schemas["FineTuneCycle"], self._schemas["TrainingRun"])
        self._decks: dict[str, list[Field]] = {kind: [] for kind in KINDS}
        self._number = 0

    async def act(self) -> None:
        """One operation. AssertionError if the API server refuses it in words that do not name what is wrong."""
        self._number += 1
        (what,) = self._chance.choices(list(SHARES), list(SHARES.values()))
        kind = self._chance.choice(list(KINDS))
        items = sorted(self._view.all(kind), key=lambda item: item["metadata"]["name"])
        if not items and what != "delete a child":
            what = "create"
        if what == "create" and len(items) >= MOST[kind]:
            what = "delete"
        self.done.counts[what] += 1
        match what:
            case "create":
                await self._create(kind)
            case "edit":
                await self._edit(self._editable(items), self._next_field(kind))
            case "scale":
                await self._edit(self._chance.choice(items), self._replicas(kind))
            case "suspend":
                await self._suspend()
            case "request":
                await self._request(self._chance.choice(items))
            case "delete":
                await self._delete(self._chance.choice(items))
            case "delete a child":
                await self._delete_child()

    def _editable(self, items: list[Object]) -> Object:
        """Most often one that is suspended: of a run hardly anything can be edited else."""
        suspended = [item for item in items if item["spec"].get("suspend")]
        return self._chance.choice(suspended if suspended and self._chance.random() < 0.7 else items)

    def _next_field(self, kind: str) -> Field:
        """Each field comes once before any comes again."""
        if not self._decks[kind]:
            self._decks[kind] = list(fields(self._schemas[kind]))
            self._chance.shuffle(self._decks[kind])
        return self._decks[kind].pop()

    def _replicas(self, kind: str) -> Field:
        wanted = {"TrainingRun": ("phases", "[]", "workers"), "ModelRelease": ("serving", "replicas")}.get(kind, ("suspend",))
        return next(one for one in fields(self._schemas[kind]) if one.path == wanted)

    async def _create(self, kind: str) -> None:
        """A valid object with one field of any legal value."""
        item, chosen = self._new(kind), self._next_field(kind)
        item["spec"], value = self._changed(kind, item["spec"], chosen)
        if kind == "ModelRelease" and chosen.path[0] == "model":
            item = self._new(kind)  # its name is made of its model
        words = f"create {kind} {item['metadata']['name']} with {chosen} {_short(value)}"
        made = await self._tried(words, chosen, "POST", self._path(kind), item)
        if made is not None:
            self.done.ours[kind, made["metadata"]["name"]] = made["metadata"]["uid"]

    def _changed(self, kind: str, spec: Object, chosen: Field) -> tuple[Object, Any]:
        """Most edits of a template are such that runs may be made from it, and many make it valid again: else cycles would make none."""
        if kind != "FineTuneCycle" or chosen.path[0] != "runTemplate" or self._chance.random() < 0.1:
            return self._values.edited(spec, self._schemas[kind], chosen)
        if self._chance.random() < 0.5:
            return {**spec, "runTemplate": {"spec": TEMPLATE}}, "valid again"
        alike = next((one for one in fields(self._valid) if one.path == chosen.path), chosen)
        return self._values.edited(spec, self._valid, alike)

    def _new(self, kind: str) -> Object:
        number = self._chance.randrange(2 * MOST[kind])
        match kind:
            case "TrainingRun":
                model = {"family": "VideoFusion", "version": f"5.{number}.0"}
                phases, suspend = in_order(self._chance.choice(SOME_PHASES)), self._chance.random() < 0.4
                return a_run(f"run-{number}", self._view.namespace, phases=phases, model=model, suspend=suspend)
            case "ModelRelease":
                version, service = f"4.{number}.0", self._chance.choice(("standard", "express"))
                name = f"pib-videogen-videofusion-v{version}-base"
                changes = ("spec.model.version", version), ("metadata", {"name": name}), ("spec.service", service)
                return release_of(*changes, ("spec.artifact.digest", f"sha256:{number:064x}"), ("spec.rollout.steps", self._steps()))
        cycle = a_cycle(f"cycle-{number}", cadence="Monthly", suspend=self._chance.random() < 0.8, runTemplate={"spec": TEMPLATE})
        return cycle | {"metadata": {"name": cycle["metadata"]["name"]}}

    def _steps(self) -> list[Object]:
        """Of a rollout that ends by itself, or waits for requests that do not come."""
        waits = {"weightPercent": 20, "minimumRequests": 100, "minimumSeconds": 60}
        return self._chance.choice(([], [{"weightPercent": 50, "minimumRequests": 0, "minimumSeconds": 0}], [waits]))

    async def _edit(self, item: Object, chosen: Field) -> None:
        kind, name = item["kind"], item["metadata"]["name"]
        changed, value = self._changed(kind, item["spec"], chosen)
        words = f"edit {kind} {name}: {chosen} {_short(value)}"
        body = {**item, "spec": changed}
        while await self._tried(words, chosen, "PUT", f"{self._path(kind)}/{name}", body) is None and self.done.last[-1].endswith("409"):
            try:  # the operator was faster
                now = await self._api.request("GET", f"{self._path(kind)}/{name}")
            except Refused:
                return
            body = {**now, "spec": changed}

    async def _suspend(self) -> None:
        """And let go on again: a run's fields can be edited only in between."""
        items = [item for kind in ("TrainingRun", "FineTuneCycle") for item in self._view.all(kind)]
        if not items:
            return
        item = self._chance.choice(sorted(items, key=lambda item: item["metadata"]["name"]))
        wanted = not item["spec"].get("suspend", False)
        path = f"{self._path(item['kind'])}/{item['metadata']['name']}"
        await self._tried(
            f"suspend {item['kind']} {item['metadata']['name']}: {wanted}", None, "MERGE", path, {"spec": {"suspend": wanted}}
        )

    async def _request(self, item: Object) -> None:
        """Sometimes with the id of another one, or a verb that there is not."""
        kind, name = item["kind"], item["metadata"]["name"]
        verb = self._chance.choice((*VERBS[kind], "promte")) if self._chance.random() < 0.1 else self._chance.choice(VERBS[kind])
        text = f"{verb}@{self._number if self._chance.random() < 0.8 else self._number // 50}"
        body = {"metadata": {"annotations": {ANNOTATION_REQUEST: text}}}
        await self._tried(f"request {text} of {kind} {name}", None, "MERGE", f"{self._path(kind)}/{name}", body)

    async def _delete(self, item: Object) -> None:
        kind, name = item["kind"], item["metadata"]["name"]
        known = self.done.ours.pop((kind, name), None)
        if await self._tried(f"delete {kind} {name}", None, "DELETE", f"{self._path(kind)}/{name}") is None and known is not None:
            self.done.ours[kind, name] = known

    async def _delete_child(self) -> None:
        children = [item for kind in CHILDREN for item in self._view.all(kind) if item["metadata"].get("ownerReferences")]
        if children:
            item = self._chance.choice(sorted(children, key=lambda item: (item["kind"], item["metadata"]["name"])))
            kind, name = item["kind"], item["metadata"]["name"]
            await self._tried(f"delete {kind} {name}", None, "DELETE", f"{self._path(kind)}/{name}")

    async def _tried(self, words: str, chosen: Field | None, verb: str, path: str, body: Any = None) -> Any:
        """The answer, or None if it is refused."""
        try:
            if verb == "MERGE":
                answer = await self._api.merge(path, body)
            else:
                answer = await self._api.request(verb, f"{path}?fieldValidation=Strict" if body else path, body)
        except Refused as error:
            code, _, told = str(error).partition(f"{path}")[2].partition(": ")[2].partition(": ")
            self.done.last.append(f"{words}: refused with {code}")
            log.info("%s: %s", words, error)
            if code not in {"404", "409"}:
                self.done.counts["refused"] += 1
                _check_refusal(words, chosen, int(code), told)
            return None
        self.done.last.append(words)
        log.info("%s", words)
        return answer

    def _path(self, kind: str) -> str:
        return COLLECTIONS_OF_ALL[kind].format(self._view.namespace)


def _check_refusal(words: str, chosen: Field | None, code: int, told: str) -> None:
    """It is the API server's word to a person: what is wrong, and where."""
    message = str(json.loads(told)["message"]) if told.endswith("}\n") else told
    assert code in {403, 422}, f"{words}: {code}: {message}"
    assert "no such key" not in message and "no such overload" not in message, f"{words}: a rule cannot be evaluated: {message}"
    assert "unknown field" not in message, f"{words}: {message}"
    if chosen is not None:
        assert any(part in message for part in chosen.path if part != "[]"), f"{words}: the refusal does not name the field: {message}"


def _schema(plural: str) -> Schema:
    definition = yaml.safe_load((ROOT / "crds" / f"{plural}.yaml").read_text())
    found: Schema = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    return found


def _with_values_of_runs(cycle: Schema, run: Schema) -> Schema:
    """The schema of a cycle whose template takes what a run takes, and no placeholders."""
    template = cycle["properties"]["runTemplate"]
    names = template["properties"]["spec"]["properties"].keys()
    spec = run | {"properties": {name: one for name, one in run["properties"].items() if name in names}}
    return cycle | {"properties": cycle["properties"] | {"runTemplate": template | {"properties": {"spec": spec}}}}


def _short(value: Any) -> str:
    return "absent" if value is ABSENT else json.dumps(value, ensure_ascii=False)[:80]


async def live(plane: ControlPlane, api: Client, folder: Path, namespace: str, *, seed: int, operations: int, settle_every: int) -> Done:
    """So many operations in a new namespace with an operator of its own. AssertionError with the seed and the last operations."""
    await prepare(api, namespace)
    async with AsyncExitStack() as stack:
        kubeconfig = await asyncio.to_thread(operator_kubeconfig, plane, namespace)
        view = Witness(api, namespace, COLLECTIONS_OF_ALL)
        await stack.enter_async_context(view.watching())
        operator = await stack.enter_async_context(SupervisedOperator(kubeconfig, namespace, folder))
        await operator.ready()
        people, pace = People(api, view, seed), Random(seed)
        others = AnyStateControllers(api, view)
        invariants = Invariants(api, view, operator, others)
        playing = asyncio.create_task(others.play())
        stack.callback(playing.cancel)
        try:
            for number in range(1, operations + 1):
                await people.act()
                await asyncio.sleep(pace.choice((0.0, 0.0, 0.1, 0.5)))  # another state each time
                if number % settle_every == 0 or number == operations:
                    assert not playing.done(), f"the other controllers have ended: {playing}"
                    await invariants.check(people.done.ours)
                    people.done.counts["settled"] += 1
                    log.info("%d: at rest; %s", number, view.said())
        except BaseException as error:
            error.add_note(f"seed {seed}; {people.done}; the last operations:\n" + "\n".join(people.done.last))
            error.add_note(operator.last_words())
            raise
        return people.done
