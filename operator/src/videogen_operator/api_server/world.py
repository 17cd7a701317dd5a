"""The watched objects in memory: fed by events, by our own writes' answers, and replaced by complete lists.

An older state never overwrites a newer one (resourceVersions are compared as numbers, which Kubernetes guarantees
since 1.35), and no state from before an object's end comes after it. So the three sources may arrive in any order. A state
from after its end does come: to a watch with a selector an object ends when it loses its label, and it may get it back.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Container, Iterable, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel

from videogen_api.fine_tune_cycle import LABEL_CYCLE, LABEL_MEASURES
from videogen_api.meta import GROUP, LABEL_RELEASE, LABEL_RUN, LABEL_SERVICE
from videogen_operator.plan import Index, Manifest, Resource
from videogen_operator.resources import LABEL_JOB_UID

INDEXED = frozenset({LABEL_RUN, LABEL_SERVICE, LABEL_RELEASE, LABEL_CYCLE, LABEL_MEASURES, LABEL_JOB_UID})
REMEMBERED_DEAD = 20_000
REMEMBERED_READ = 3_000  # objects: those that work, and not thousands of runs that have ended
SHORT = 40  # characters

K = TypeVar("K")
M = TypeVar("M", bound=BaseModel)
Name = tuple[str, str]  # namespace, name
UNWANTED = frozenset({"managedFields", "selfLink", "finalizers", "annotations", "labels"})
MOST_LABELS = 64  # of an object that is no node; ours come first
BARE = ("name", "namespace", "uid", "resourceVersion")
MOST_OWNERS = 64  # releases of a service own its route
OWNER = ("apiVersion", "kind", "name", "uid", "controller", "blockOwnerDeletion")  # what is kept of one: all that we write
LONGEST_NAME = 253  # characters: no name or UID of an object that exists is longer
LONGEST_SPEC = 16 * 1024  # characters of JSON, of what has a selector
OUR_LABELS = (GROUP + "/", "app.kubernetes.io/")


class ObjectWorld:
    """Implements `plan.World`. Not thread-safe: it lives in one event loop."""

    def __init__(self, resources: Iterable[Resource], indexes: Iterable[Index] = ()) -> None:
        self._resources = {resource.kind: resource for resource in resources}
        self._indexes: dict[str, tuple[Index, ...]] = {}
        for index in dict.fromkeys(indexes):
            self._indexes[index.kind] = (*self._indexes.get(index.kind, ()), index)
        self._objects: dict[str, dict[Name, Manifest]] = defaultdict(dict)
        self._names: dict[tuple[str, str], set[Name]] = defaultdict(set)  # (kind, namespace)
        self._labelled: dict[tuple[str, str, str], set[Name]] = defaultdict(set)  # (kind, label, value)
        self._found: dict[tuple[Index, str], set[Name]] = defaultdict(set)
        self._sorted: dict[tuple[str, str | None], tuple[Manifest, ...]] = {}  # whole lists, until one of their objects changes
        self._read: dict[str, dict[type[BaseModel], tuple[object, BaseModel]]] = {}  # by UID, what was read last at the end
        self._dead: dict[str, str] = {}  # UID -> version of the end; "": it can have no later state

    def get(self, kind: str, namespace: str, name: str) -> Manifest | None:
        return self._of(kind).get((namespace, name))

    def list(self, kind: str, namespace: str | None = None, labels: Mapping[str, str] | None = None) -> tuple[Manifest, ...]:
        if not labels:
            return self._whole(kind, namespace)
        objects, wanted = self._of(kind), dict(labels)
        names = self._candidates(kind, namespace, wanted)
        found = (objects[name] for name in sorted(names) if namespace is None or name[0] == namespace)
        return tuple(item for item in found if wanted.items() <= labels_of(item).items())

    def find(self, index: Index, value: str, namespace: str | None = None) -> tuple[Manifest, ...]:
        if index not in self._indexes.get(index.kind, ()):
            return tuple(item for item in self.list(index.kind, namespace) if value in values_of(index, item))
        objects, names = self._of(index.kind), self._found.get((index, value), ())
        return tuple(objects[name] for name in sorted(names) if namespace is None or name[0] == namespace)

    def read(self, model: type[M], item: Manifest, field: str) -> M:
        """Parts of a stored object never change, so the very same part needs no other reading."""
        value, known = item.get(field), self._read.pop(_uid(item), {})
        part, found = known.get(model, (None, None))
        if part is not value or not isinstance(found, model):
            found = read(model, item, field)
            known[model] = value, found
        self._read[_uid(item)] = known
        if len(self._read) > REMEMBERED_READ:
            del self._read[next(iter(self._read))]
        return found

    def knows(self, kind: str) -> bool:
        """Whether objects of that kind are watched."""
        return kind in self._resources

    def count(self, kind: str) -> int:
        """Number of objects of a kind."""
        return len(self._of(kind))

    def store(self, item: Manifest) -> bool:
        """Take over a state of an object; False if it is not newer than what is known, or not different in what plans read."""
        kind, name = item["kind"], name_of(item)
        old = self._of(kind).get(name)
        resource = self._resources.get(kind)
        if self._is_over(item) or (old is not None and not newer(item, old)):
            return False
        if resource and not _is_wanted(item, resource):
            if old is not None:
                self._take_out(old)
            return old is not None
        if old is not None:
            self._unindex(kind, name, old)
        trimmed: Manifest = trim(item, resource)
        new = interned(trimmed) if old is None else _with_parts_of(old, trimmed)
        self._objects[kind][name] = new
        self._index(kind, name, new)
        return old is None or _content(old) != _content(new)

    def remove(self, item: Manifest) -> bool:
        """The object with this UID is gone since this version, or for ever if it has none; False if it was not known."""
        version = item["metadata"].get("resourceVersion", "")
        old = self._of(item["kind"]).get(name_of(item))
        if old is None or _uid(old) != _uid(item):
            resource = self._resources.get(item["kind"])
            if resource is None or _is_wanted(item, resource):  # of others' objects nothing late can come in
                self._bury(_uid(item), version)
            return False
        if _is_after(old, version):
            return False
        self._bury(_uid(item), version)
        self._take_out(old)
        return True

    def prune(self, kind: str, namespace: str | None, listed: Container[Name], version: str) -> tuple[Manifest, ...]:
        """Remove what a complete list, read at `version`, does not have and what is not younger. Returns what is gone."""
        ghosts = [ghost for ghost in self.list(kind, namespace) if name_of(ghost) not in listed]
        gone = [ghost for ghost in ghosts if not newer(ghost, {"metadata": {"resourceVersion": version}})]
        for ghost in gone:
            self._bury(_uid(ghost), version)
            self._take_out(ghost)
        return tuple(gone)

    def forget(self, kind: str, namespace: str | None) -> tuple[Manifest, ...]:
        """Take out all objects of a kind that is not served. Returns them; each may come back as it was."""
        gone = self.list(kind, namespace)
        for item in gone:
            self._take_out(item)
        return gone

    def _of(self, kind: str) -> Mapping[Name, Manifest]:
        return self._objects.get(kind, {})

    def _whole(self, kind: str, namespace: str | None) -> tuple[Manifest, ...]:
        if (known := self._sorted.get((kind, namespace))) is not None:
            return known
        objects = self._of(kind)
        names = objects if namespace is None else self._names.get((kind, namespace), ())
        found = tuple(objects[name] for name in sorted(names))
        if found:  # an empty list is not kept: any name may be asked for
            self._sorted[kind, namespace] = found
        return found

    def _candidates(self, kind: str, namespace: str | None, labels: Mapping[str, str]) -> Iterable[Name]:
        for label in INDEXED:
            if label in labels:
                return self._labelled.get((kind, label, labels[label]), ())
        return self._of(kind) if namespace is None else self._names.get((kind, namespace), ())

    def _index(self, kind: str, name: Name, item: Manifest) -> None:
        self._sorted.pop((kind, None), None)
        self._sorted.pop((kind, name[0]), None)
        self._names[kind, name[0]].add(name)
        for index in self._indexes.get(kind, ()):
            for value in values_of(index, item):
                self._found[index, value].add(name)
        for label in INDEXED & labels_of(item).keys():
            self._labelled[kind, label, labels_of(item)[label]].add(name)

    def _unindex(self, kind: str, name: Name, item: Manifest) -> None:
        self._sorted.pop((kind, None), None)
        self._sorted.pop((kind, name[0]), None)
        _drop(self._names, (kind, name[0]), name)
        for index in self._indexes.get(kind, ()):
            for value in values_of(index, item):
                _drop(self._found, (index, value), name)
        for label in INDEXED & labels_of(item).keys():
            _drop(self._labelled, (kind, label, labels_of(item)[label]), name)

    def _take_out(self, item: Manifest) -> None:
        self._read.pop(_uid(item), None)
        self._unindex(item["kind"], name_of(item), item)
        del self._objects[item["kind"]][name_of(item)]

    def _is_over(self, item: Manifest) -> bool:
        end = self._dead.get(_uid(item))
        return end is not None and not _is_after(item, end)

    def _bury(self, uid: str, version: str) -> None:
        end = self._dead.pop(uid, version)
        earlier = not end or (end.isdigit() and version.isdigit() and int(version) < int(end))  # told late
        self._dead[uid] = end if earlier else version
        if len(self._dead) > REMEMBERED_DEAD:
            del self._dead[next(iter(self._dead))]


def name_of(item: Manifest) -> Name:
    """(namespace, name); the namespace of a cluster-scoped object is ''."""
    return item["metadata"].get("namespace", ""), item["metadata"]["name"]


def labels_of(item: Manifest) -> Mapping[str, str]:
    """The labels, or none."""
    labels: Mapping[str, str] = item["metadata"].get("labels") or {}
    return labels


def values_of(index: Index, item: Manifest) -> set[str]:
    """What the index has the object under; nothing if it is of a version that the index cannot read."""
    try:
        return {value for value in index.values(item) if isinstance(value, str)}
    except (AttributeError, LookupError, TypeError, ValueError):
        return set()


def read(model: type[M], item: Manifest, field: str) -> M:
    """An object's spec, or its status, which may be absent. Raises pydantic.ValidationError."""
    value = item.get(field)
    return model.model_validate(value or {} if field == "status" else value)


def newer(item: Manifest, old: Manifest) -> bool:
    """Whether `item` is a later state than `old`; versions that are no numbers count as later when they differ."""
    new, known = item["metadata"].get("resourceVersion", ""), old["metadata"].get("resourceVersion", "")
    return int(new) > int(known) if new.isdigit() and known.isdigit() else bool(new != known)


def trim(item: Manifest, resource: Resource | None = None) -> Manifest:
    """The object without what no plan reads, so that thousands fit into little memory, whatever their authors write on them."""
    if resource and resource.bare:
        known = {key: item["metadata"][key] for key in BARE if key in item["metadata"]}
        return {"apiVersion": item["apiVersion"], "kind": item["kind"], "metadata": known}
    metadata = {key: value for key, value in item["metadata"].items() if key not in UNWANTED}
    if labels := _labels(item, resource):
        metadata["labels"] = labels
    written = item["metadata"].get("annotations") or {}
    wanted = resource.annotations if resource else ()
    named = ((key, most) for own, most in wanted for key in (written if own.endswith("/") else (own,)) if key in written)
    if annotations := {key: written[key][:most] for key, most in named if any(key == own or key.startswith(own) for own, _ in wanted)}:
        metadata["annotations"] = annotations
    if owners := metadata.get("ownerReferences"):
        metadata["ownerReferences"] = _owners(owners)
    head = {"apiVersion": item["apiVersion"], "kind": item["kind"], "metadata": metadata}
    keep = resource.keep if resource else ()
    rest = _picked(item, keep) if keep else {key: value for key, value in item.items() if key not in head}
    ours, theirs = split_conditions(item, resource) if resource and resource.conditions else ([], [])
    if theirs:
        rest["status"] = item["status"] | {"conditions": ours}
    if resource and resource.selector and len(json.dumps(rest.get("spec"))) > LONGEST_SPEC:
        rest["spec"] = {}  # nothing that the operator makes is so long; anybody may write its label
    return head | rest


def _is_wanted(item: Manifest, resource: Resource) -> bool:
    """Whether an object of one of the kinds controls it, where that is asked for."""
    owners = item["metadata"].get("ownerReferences") or ()
    return not resource.owners or any(owner.get("controller") and owner.get("kind") in resource.owners for owner in owners)


def split_conditions(item: Manifest, resource: Resource) -> tuple[list[Any], list[Any]]:
    """The object's conditions: ours, and those of others, which no plan reads."""
    status = item.get("status")
    listed = status.get("conditions") if isinstance(status, Mapping) else None
    found = listed if isinstance(listed, list) else []  # else it is of another version, which a plan says
    theirs = [one for one in found if isinstance(one, Mapping) and one.get("type") not in resource.conditions]
    return [one for one in found if one not in theirs], theirs


def _owners(written: Iterable[Manifest]) -> list[dict[str, Any]]:
    """Whose the object is, the controller first if they are many. The API server bounds no field of an owner."""
    owners = [{key: owner[key] for key in OWNER if key in owner} for owner in written]
    real = [owner for owner in owners if all(len(str(text)) <= LONGEST_NAME for text in owner.values())]
    return real if len(real) <= MOST_OWNERS else sorted(real, key=lambda owner: not owner.get("controller"))[:MOST_OWNERS]


def _labels(item: Manifest, resource: Resource | None) -> dict[str, str]:
    labels = dict(labels_of(item))
    if len(labels) <= MOST_LABELS or (resource and not resource.namespaced):  # any label of a node may be asked for
        return labels
    ours = sorted(labels, key=lambda key: (not key.startswith(OUR_LABELS), key))
    return {key: labels[key] for key in ours[:MOST_LABELS]}


def interned(value: Any) -> Any:
    """The same value with one copy of each short string: thousands of objects share their keys and most values."""
    if isinstance(value, dict):
        return {sys.intern(key): interned(one) for key, one in value.items()}
    if isinstance(value, list):
        return [interned(one) for one in value]
    return sys.intern(value) if isinstance(value, str) and len(value) < SHORT else value


def _with_parts_of(old: Manifest, new: Manifest) -> dict[str, Any]:
    """The new state with the old one's parts where they are equal: they need no more memory, and were read already."""
    return {key: old[key] if key in old and old[key] == value else interned(value) for key, value in new.items()}


def _is_after(item: Manifest, version: str) -> bool:
    """Whether this state is certainly later than the version."""
    known = item["metadata"].get("resourceVersion", "")
    return known.isdigit() and version.isdigit() and int(known) > int(version)


def _uid(item: Manifest) -> str:
    return str(item["metadata"].get("uid", ""))


def _drop(index: dict[K, set[Name]], key: K, name: Name) -> None:
    names = index.get(key, set())
    names.discard(name)
    if not names:
        index.pop(key, None)


def _content(item: Manifest) -> list[object]:
    """All of it but its version."""
    metadata = {key: value for key, value in item["metadata"].items() if key != "resourceVersion"}
    return [metadata, *(value for key, value in item.items() if key != "metadata")]


def _picked(source: Any, paths: Iterable[str]) -> dict[str, Any]:
    """What stands at the paths; `list[].field` is that field of each of the list's objects."""
    below: dict[str, list[str]] = {}
    for path in paths:
        first, _, rest = path.partition(".")
        below.setdefault(first, []).append(rest)
    picked: dict[str, Any] = {}
    for first, rests in below.items():
        name, found = first.removesuffix("[]"), source.get(first.removesuffix("[]"))
        if found is None:
            continue
        if first.endswith("[]"):
            picked[name] = [_picked(one, rests) for one in found]
        else:
            picked[name] = found if "" in rests else _picked(found, rests)
    return picked
