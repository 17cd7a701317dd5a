"""The snapshot of all cycles of one model: they take their versions from one line, so one pass decides about all of them.

Runs and releases are read as data: what everybody may read of them, and no code of their kinds.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from pydantic import TypeAdapter, ValidationError

from videogen_api.fine_tune_cycle import LABEL_CYCLE, FineTuneCycleSpec, FineTuneCycleStatus
from videogen_api.meta import ANNOTATION_REQUEST, ModelIdentity, ModelLine, VersionNumber
from videogen_operator.plan import Index, Inputs, Key, Manifest, Query, World

KIND = "FineTuneCycle"
RUN, RELEASE = "TrainingRun", "ModelRelease"
VERSION: TypeAdapter[str] = TypeAdapter(VersionNumber)
NO_LINE = "?"  # begins the name of a key of one cycle whose model cannot be read; no type has a question mark


@dataclass(frozen=True, slots=True, kw_only=True)
class Cycle:
    """One cycle and its runs: those of its model with its label. A cycle of another model may have had its name before."""

    manifest: Manifest
    spec: FineTuneCycleSpec
    status: FineTuneCycleStatus
    runs: tuple[Manifest, ...]

    @property
    def name(self) -> str:
        """metadata.name."""
        return str(self.manifest["metadata"]["name"])

    @property
    def measures(self) -> bool:
        """Whether it measures what serves, and makes no version."""
        return self.spec.target is not None

    @property
    def verb(self) -> str:
        """What its runs do to a version."""
        return "measures" if self.measures else "makes"

    @property
    def generation(self) -> int:
        """metadata.generation."""
        return int(self.manifest["metadata"].get("generation", 0))

    @property
    def request(self) -> str:
        """What a person asks for: `run-now@<id>`, or nothing."""
        return str((self.manifest["metadata"].get("annotations") or {}).get(ANNOTATION_REQUEST, ""))[:128]

    def run(self, name: str) -> Manifest | None:
        """The cycle's run of that name."""
        return next((run for run in self.runs if run["metadata"]["name"] == name), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Unreadable:
    """A cycle whose spec or status this version of the operator does not understand."""

    manifest: Manifest
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """All cycles of a line, those of higher precedence first."""

    namespace: str
    cycles: tuple[Cycle, ...]
    unreadable: tuple[Unreadable, ...] = ()
    versions: frozenset[str] = frozenset()  # of the line's runs and releases, and those that its cycles know of
    stable: Mapping[str, Manifest] | None = None  # stable release by service


def keys(item: Manifest, world: World) -> Iterator[Key]:
    """Which lines an object concerns."""
    namespace = item["metadata"].get("namespace", "")
    match item["kind"]:
        case "FineTuneCycle":
            yield _key(item)
        case "TrainingRun":
            cycle = world.get(KIND, namespace, (item["metadata"].get("labels") or {}).get(LABEL_CYCLE, ""))
            if cycle is not None:
                yield _key(cycle)
        case "ModelRelease":
            yield from map(_key, world.find(OF_SERVICE, str(value_at(item, "spec", "service")), namespace))
        case _:
            pass


def observe(world: World, key: Key) -> Observed | None:
    """The snapshot, or None if the line has no cycle any more. Deleting a cycle keeps its runs and releases."""
    manifests = [m for m in world.find(OF_KEY, key.name, key.namespace) if not m["metadata"].get("deletionTimestamp")]
    if not manifests:
        return None
    read = [_read(world, manifest) for manifest in manifests]
    cycles = [cycle for cycle in read if isinstance(cycle, Cycle)]
    line = _line(manifests[0])
    return Observed(
        namespace=key.namespace,
        cycles=tuple(sorted(cycles, key=lambda one: (-one.spec.precedence, one.name))),
        unreadable=tuple(cycle for cycle in read if isinstance(cycle, Unreadable)),
        versions=frozenset((*_versions(world, key.namespace, line), *_used(manifests))) if line else frozenset(),
        stable={
            service: release
            for service in {service for manifest in manifests for service in _services(manifest) if isinstance(service, str)}
            for release in world.find(STABLE, service, key.namespace)
        },
    )


def queries(_: Observed, __: Inputs) -> tuple[Query, ...]:
    """A cycle asks Prometheus nothing."""
    return ()


def _read(world: World, manifest: Manifest) -> Cycle | Unreadable:
    metadata, line, field = manifest["metadata"], _line(manifest), "spec"
    try:
        spec = world.read(FineTuneCycleSpec, manifest, "spec")
        field = "status"
        status = world.read(FineTuneCycleStatus, manifest, "status")
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in (field, *first["loc"]))
        return Unreadable(manifest=manifest, message=f"{where}: {first['msg']}")
    return Cycle(
        manifest=manifest,
        spec=spec,
        status=status,
        runs=tuple(run for run in world.list(RUN, metadata["namespace"], {LABEL_CYCLE: metadata["name"]}) if _version(run, line)),
    )


def _versions(world: World, namespace: str, line: tuple[str, str]) -> Iterator[str]:
    for index in (RUNS_OF_LINE, RELEASES_OF_LINE):
        yield from (_version(item, line) for item in world.find(index, "/".join(line), namespace))


def _used(cycles: Iterable[Manifest]) -> Iterator[str]:
    """Also of cycles that cannot be read otherwise, and of runs that are deleted and stand in a history."""
    for cycle in cycles:
        history = value_at(cycle, "status", "history")
        past = [value_at(one, "version") for one in history] if isinstance(history, list) else []
        known = (value_at(cycle, "status", "lastVersion"), value_at(cycle, "status", "lastSuccess", "version"), *past)
        yield from (version for version in known if isinstance(version, str) and _is_version(version))


@lru_cache(maxsize=8192)
def _is_version(text: str) -> bool:
    with contextlib.suppress(ValidationError):
        return bool(VERSION.validate_python(text))
    return False


def _version(item: Manifest, line: tuple[str, str] | None) -> str:
    """Which version of the line's model a run or a release is of; "" if it is of none."""
    found, version = _model(item)
    return version if found is not None and found == line else ""


def _model(item: Manifest) -> tuple[tuple[str, str] | None, str]:
    model = value_at(item, "spec", "model")
    if not isinstance(model, Mapping) or not all(isinstance(part, str) for part in model.values()):
        return None, ""
    return _identity(tuple(model.items()))


@lru_cache(maxsize=8192)
def _identity(parts: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str] | None, str]:
    """Line and version of a model. Remembered: a pass looks at all runs and releases, and no model of one changes."""
    try:
        model = ModelIdentity.model_validate(dict(parts))
    except ValidationError:
        return None, ""
    return (model.type, model.specialization), model.version


def read_of_release(release: Manifest) -> object:
    """All that cycles read of a release. A service is looked at often, and writes into its releases what it saw each time."""
    return value_at(release, "spec", "model"), value_at(release, "spec", "service"), _stable(release)


def _key(cycle: Manifest) -> Key:
    line = _line(cycle)
    return Key(KIND, cycle["metadata"]["namespace"], "/".join(line) if line else f"{NO_LINE}{cycle['metadata']['name']}")


def _line(cycle: Manifest) -> tuple[str, str] | None:
    try:
        model = ModelLine.model_validate(value_at(cycle, "spec", "model"))
    except ValidationError:
        return None
    return model.type, model.specialization


def _services(cycle: Manifest) -> list[object]:
    """What a cycle starts from or measures."""
    return [value_at(cycle, "spec", field, "service") for field in ("startFrom", "target")]


def _lines(item: Manifest) -> list[object]:
    line, _ = _model(item)
    return ["/".join(line)] if line else []


def _stable(release: Manifest) -> list[object]:
    return [value_at(release, "spec", "service")] if value_at(release, "status", "rollout", "state") == "Stable" else []


OF_KEY = Index(KIND, "key", lambda cycle: [_key(cycle).name])
OF_SERVICE = Index(KIND, "service", _services)
STABLE = Index(RELEASE, "state Stable", _stable)
RUNS_OF_LINE, RELEASES_OF_LINE = Index(RUN, "line", _lines), Index(RELEASE, "line", _lines)
INDEXES = (OF_KEY, OF_SERVICE, STABLE, RUNS_OF_LINE, RELEASES_OF_LINE)


def value_at(item: object, *path: str) -> Any:
    """What stands at a path of an object, or None where the path leads nowhere: a neighbour may be of another version."""
    for name in path:
        item = item.get(name) if isinstance(item, dict) else None
    return item
