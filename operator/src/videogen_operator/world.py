"""The watched objects in memory: fed by events, by our own writes' answers, and replaced by complete lists.

An older state never overwrites a newer one (resourceVersions are compared as numbers, which Kubernetes guarantees
since 1.35), and no state from before an object's end comes after it. So the three sources may arrive in any order. A state
from after its end does come: to a watch with a selector an object ends when it loses its label, and it may get it back.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Container, Iterable, Mapping
from typing import Any, TypeVar

from videogen_api.meta import LABEL_RELEASE, LABEL_RUN, LABEL_SERVICE
from videogen_operator.plan import Manifest, Resource

INDEXED = frozenset({LABEL_RUN, LABEL_SERVICE, LABEL_RELEASE})
REMEMBERED_DEAD = 20_000
SHORT = 40  # characters

K = TypeVar("K")
Name = tuple[str, str]  # namespace, name
UNWANTED = frozenset({"managedFields", "selfLink"})
LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"  # a second copy of the whole object


class ObjectWorld:
    """Implements `plan.World`. Not thread-safe: it lives in one event loop."""

    def __init__(self, resources: Iterable[Resource]) -> None:
        self._keep = {resource.kind: resource.keep for resource in resources}
        self._objects: dict[str, dict[Name, Manifest]] = defaultdict(dict)
        self._names: dict[tuple[str, str], set[Name]] = defaultdict(set)  # (kind, namespace)
        self._labelled: dict[tuple[str, str, str], set[Name]] = defaultdict(set)  # (kind, label, value)
        self._dead: dict[str, str] = {}  # UID -> version of the end; "": it can have no later state

    def get(self, kind: str, namespace: str, name: str) -> Manifest | None:
        return self._of(kind).get((namespace, name))

    def list(self, kind: str, namespace: str | None = None, labels: Mapping[str, str] | None = None) -> tuple[Manifest, ...]:
        objects, wanted = self._of(kind), dict(labels or {})
        names = self._candidates(kind, namespace, wanted)
        found = (objects[name] for name in sorted(names) if namespace is None or name[0] == namespace)
        return tuple(found) if not wanted else tuple(item for item in found if wanted.items() <= labels_of(item).items())

    def knows(self, kind: str) -> bool:
        """Whether objects of that kind are watched."""
        return kind in self._keep

    def count(self, kind: str) -> int:
        """Number of objects of a kind."""
        return len(self._of(kind))

    def store(self, item: Manifest) -> bool:
        """Take over a state of an object; False if it is not newer than what is known."""
        kind, name = item["kind"], name_of(item)
        old = self._of(kind).get(name)
        if self._is_over(item) or (old is not None and not newer(item, old)):
            return False
        if old is not None:
            self._unindex(kind, name, old)
        trimmed: Manifest = interned(trim(item, self._keep.get(kind, ())))
        self._objects[kind][name] = trimmed
        self._index(kind, name, trimmed)
        return True

    def remove(self, item: Manifest) -> bool:
        """The object with this UID is gone since this version, or for ever if it has none; False if it was not known."""
        version = item["metadata"].get("resourceVersion", "")
        old = self._of(item["kind"]).get(name_of(item))
        if old is None or _uid(old) != _uid(item):
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

    def _candidates(self, kind: str, namespace: str | None, labels: Mapping[str, str]) -> Iterable[Name]:
        for label in INDEXED:
            if label in labels:
                return self._labelled.get((kind, label, labels[label]), ())
        return self._of(kind) if namespace is None else self._names.get((kind, namespace), ())

    def _index(self, kind: str, name: Name, item: Manifest) -> None:
        self._names[kind, name[0]].add(name)
        for label in INDEXED & labels_of(item).keys():
            self._labelled[kind, label, labels_of(item)[label]].add(name)

    def _unindex(self, kind: str, name: Name, item: Manifest) -> None:
        _drop(self._names, (kind, name[0]), name)
        for label in INDEXED & labels_of(item).keys():
            _drop(self._labelled, (kind, label, labels_of(item)[label]), name)

    def _take_out(self, item: Manifest) -> None:
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


def newer(item: Manifest, old: Manifest) -> bool:
    """Whether `item` is a later state than `old`; versions that are no numbers count as later when they differ."""
    new, known = item["metadata"].get("resourceVersion", ""), old["metadata"].get("resourceVersion", "")
    return int(new) > int(known) if new.isdigit() and known.isdigit() else bool(new != known)


def trim(item: Manifest, keep: tuple[str, ...]) -> Manifest:
    """The object without what no plan reads, so that thousands fit into little memory."""
    metadata = {key: value for key, value in item["metadata"].items() if key not in UNWANTED}
    if LAST_APPLIED in (metadata.get("annotations") or {}):
        metadata["annotations"] = {key: value for key, value in metadata["annotations"].items() if key != LAST_APPLIED}
    head = {"apiVersion": item["apiVersion"], "kind": item["kind"], "metadata": metadata}
    rest = {key: value for key, value in item.items() if key not in head} if not keep else _picked(item, keep)
    return head | rest


def interned(value: Any) -> Any:
    """The same value with one copy of each short string: thousands of objects share their keys and most values."""
    if isinstance(value, dict):
        return {sys.intern(key): interned(one) for key, one in value.items()}
    if isinstance(value, list):
        return [interned(one) for one in value]
    return sys.intern(value) if isinstance(value, str) and len(value) < SHORT else value


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


def _picked(item: Manifest, paths: tuple[str, ...]) -> dict[str, Any]:
    picked: dict[str, Any] = {}
    for path in paths:
        *parents, leaf = path.split(".")
        source: Any = item
        for parent in parents:
            source = source.get(parent) or {}
        if leaf in source:
            target = picked
            for parent in parents:
                target = target.setdefault(parent, {})
            target[leaf] = source[leaf]
    return picked
