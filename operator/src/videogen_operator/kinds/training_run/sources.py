"""What spec.initFrom names, as it stands now: the bundle that a run would start from, or why there is none.

A run that has not succeeded may still fail its gates or train again, so its bundle of the moment is nobody's beginning. Not here: that
what was found is kept (`initial_weights.py`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from pydantic import ValidationError

from videogen_api.job import ArtifactReference
from videogen_api.meta import ModelIdentity, release_name
from videogen_api.pinned import InitFrom
from videogen_api.training_run import ConditionType, Reason, Task
from videogen_operator.plan import Index, Manifest, World

KIND = "TrainingRun"
SAME_VERSION = "are operator and CRDs of the same version?"


@dataclass(frozen=True, slots=True)
class Missing:
    """Something that the run needs and that is not there, in words."""

    message: str
    reason: Reason = Reason.INIT_FROM_NOT_FOUND


def found(world: World, run: Manifest, init: InitFrom, claim: str) -> ArtifactReference | Missing:
    """The bundle that `init` of the run leads to, or why it leads to none."""
    namespace, kind, name = run["metadata"]["namespace"], *_named(init)
    source = world.get(kind, namespace, name)
    if problem := _unfinished(world, run, init, source):
        return problem
    assert source is not None
    artifact = value_at(source, *(("spec", "artifact") if kind == "ModelRelease" else ("status", "artifact")))
    if not artifact:
        return Missing(f"spec.initFrom names {kind} {name}, which has made no bundle; name a run with a training phase, or a release")
    try:
        bundle = ArtifactReference(path=value_at(artifact, "path"), digest=value_at(artifact, "digest"))
    except ValidationError as error:
        said = f"spec.initFrom names {kind} {name}, whose artifact this operator cannot read: {first_problem(error)}; {SAME_VERSION}"
        return Missing(said)
    lies_on = value_at(artifact, "claimName") if kind == "ModelRelease" else value_at(source, "spec", "storage", "claimName")
    if lies_on != claim:
        where = f"whose bundle lies on claim {lies_on} and not on spec.storage.claimName {claim}"
        return Missing(f"spec.initFrom names {kind} {name}, {where}; copy it there, or use that claim")
    return (_unproven(source) if kind == "ModelRelease" else None) or bundle


def _unfinished(world: World, run: Manifest, init: InitFrom, source: Manifest | None) -> Missing | None:
    """Why the source, a release or a run, is not there or not done."""
    namespace, kind, name = run["metadata"]["namespace"], *_named(init)
    if source is not None and (kind == "ModelRelease" or outcome_of(source) == "True"):
        return None
    if loop := _loop(world, run):
        steps = ", ".join(f"{one} starts from {other}" for one, other in zip(loop, [*loop[1:], loop[0]], strict=True))
        said = f"spec.initFrom leads in a circle ({steps}), so none of them can begin; delete one, and create it with another initFrom"
        return Missing(said, Reason.INIT_FROM_LOOP)
    if source is None:
        said = f"spec.initFrom names {kind} {name}, which does not exist in namespace {namespace}"
        return Missing(f"{said}; create it, or suspend this run and name another")
    if outcome_of(source) == "False":
        said = f"spec.initFrom names {kind} {name}, which has failed; retry it, or suspend this run and name another"
        return Missing(said, Reason.INIT_FROM_NOT_READY)
    return Missing(f"spec.initFrom names {kind} {name}, which has not succeeded yet; waits for its end", Reason.INIT_FROM_NOT_READY)


def _unproven(release: Manifest) -> Missing | None:
    """Why a release is no beginning: it has not taken over its service, so its gates may have failed, or it was taken back."""
    if value_at(release, "status", "rollout", "promotedTime"):
        return None
    state, name = value_at(release, "status", "summary", "status") or "new", release["metadata"]["name"]
    said = f"spec.initFrom names ModelRelease {name}, which does not serve its service and was not replaced there ({state})"
    return Missing(f"{said}; waits until it does, or suspend this run and name another", Reason.INIT_FROM_NOT_READY)


def outcome_of(run: Manifest) -> str:
    """Status of the run's condition Succeeded: True, False, or Unknown while it works or when it says nothing that can be read."""
    conditions = value_at(run, "status", "conditions")
    listed = conditions if isinstance(conditions, list) else []
    return next((str(value_at(one, "status")) for one in listed if value_at(one, "type") == ConditionType.SUCCEEDED), "Unknown")


def is_new(run: Manifest) -> bool:
    """Whether no operator has looked at the run yet."""
    return value_at(run, "status", "conditions") is None


def _released(run: Manifest) -> Iterator[object]:
    """The name of the release that a run would make."""
    model = value_at(run, "spec", "model")
    if isinstance(model, dict) and all(isinstance(part, str) for part in model.values()):
        yield _name_of(tuple(model.items()))


@lru_cache(maxsize=8192)
def _name_of(model: tuple[tuple[str, str], ...]) -> str | None:
    """Remembered: a run's model never changes, and each of its states is looked at."""
    try:
        return release_name(ModelIdentity.model_validate(dict(model)))
    except ValidationError:
        return None


OF_RELEASE = Index(KIND, "release", _released)


def _loop(world: World, run: Manifest) -> list[str]:
    """Names of the runs that wait for each other in a circle that this run's initFrom leads into; empty if there is none."""
    path: list[str] = []
    for name in _ancestors(world, run):
        if name in path:
            return path[path.index(name) :]
        path.append(name)
    return []


def _ancestors(world: World, run: Manifest | None) -> Iterator[str]:
    """The run, the one that it waits for, the one that that one waits for, ...: without end if they wait in a circle."""
    while run is not None and outcome_of(run) != "True":
        namespace, name = run["metadata"]["namespace"], run["metadata"]["name"]
        yield name
        before, release = value_at(run, "spec", "initFrom", "run"), value_at(run, "spec", "initFrom", "release")
        if value_at(run, "status", "initFrom"):
            return  # it has its weights
        if isinstance(before, str):
            run = world.get(KIND, namespace, before)
        elif isinstance(release, str) and world.get("ModelRelease", namespace, release) is None:
            run = next((one for one in world.find(OF_RELEASE, release, namespace) if _has_release_phase(one)), None)
        else:
            return


def _has_release_phase(run: Manifest) -> bool:
    phases = value_at(run, "spec", "phases")
    return isinstance(phases, list) and any(value_at(phase, "task") == Task.RELEASE for phase in phases)


def _named(init: InitFrom) -> tuple[str, str]:
    return ("ModelRelease", init.release) if init.release else (KIND, str(init.run))


def value_at(item: object, *path: str) -> Any:
    """What stands at a path of an object, or None where the path leads nowhere: a neighbour may be of another version."""
    for name in path:
        item = item.get(name) if isinstance(item, dict) else None
    return item


def first_problem(error: ValidationError) -> str:
    """`path.to.field: what is wrong with it`."""
    first = error.errors(include_url=False, include_input=False)[0]
    return f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}".removeprefix(": ")
