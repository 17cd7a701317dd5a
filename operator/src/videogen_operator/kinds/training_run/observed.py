"""What a plan for a TrainingRun may know: one frozen snapshot."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pydantic import ValidationError

from videogen_api.job import ArtifactReference
from videogen_api.meta import ANNOTATION_REQUEST, LABEL_ATTEMPT, LABEL_PHASE, LABEL_RUN, ModelIdentity, release_name
from videogen_api.training_run import InitFrom, PhaseStatus, Task, TrainingRunSpec, TrainingRunStatus
from videogen_operator.plan import Key, Manifest, Query, World

KIND = "TrainingRun"
SAME_VERSION = "are operator and CRDs of the same version?"
LABEL_RUN_UID = "videogen.pib.gov.in/run-uid"


@dataclass(frozen=True, slots=True)
class Missing:
    """Something that the run needs and that is not there, in words."""

    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """A run and everything around it. Pods and jobs are this very run's, of all phases and attempts."""

    run: Manifest
    spec: TrainingRunSpec
    status: TrainingRunStatus
    jobs: tuple[Manifest, ...] = ()
    pods: tuple[Manifest, ...] = ()
    nodes: tuple[Manifest, ...] = ()
    claim: Manifest | None = None
    init_from: ArtifactReference | Missing | None = None
    release: Manifest | None = None  # the ModelRelease with the name of the run's model

    @property
    def name(self) -> str:
        """The run's name."""
        return str(self.run["metadata"]["name"])

    @property
    def namespace(self) -> str:
        """The run's namespace."""
        return str(self.run["metadata"]["namespace"])

    @property
    def uid(self) -> str:
        """The run's UID."""
        return str(self.run["metadata"]["uid"])

    @property
    def generation(self) -> int:
        """Generation of the spec."""
        return int(self.run["metadata"].get("generation", 0))

    @property
    def request(self) -> str:
        """What a person asks for: `retry@<id>`, or nothing."""
        return str((self.run["metadata"].get("annotations") or {}).get(ANNOTATION_REQUEST, ""))[:128]

    def phase_status(self, name: str) -> PhaseStatus:
        """What is known of a phase; a fresh value before it has begun."""
        return next((phase for phase in self.status.phases if phase.name == name), PhaseStatus(name=name))

    def attempt_pods(self, phase: str, attempt: int) -> tuple[Manifest, ...]:
        """Pods of one attempt."""
        wanted = {LABEL_PHASE: phase, LABEL_ATTEMPT: str(attempt)}
        return tuple(pod for pod in self.pods if wanted.items() <= pod["metadata"]["labels"].items())

    def job(self, name: str) -> Manifest | None:
        """PyTorchJob of that name."""
        return next((job for job in self.jobs if job["metadata"]["name"] == name), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Unreadable:
    """A run whose spec or status this version of the operator does not understand."""

    run: Manifest
    message: str


Seen = Observed | Unreadable


def keys(item: Manifest, world: World) -> Iterator[Key]:
    """Which runs an object concerns."""
    metadata = item["metadata"]
    namespace = metadata.get("namespace", "")
    match item["kind"]:
        case "TrainingRun":
            yield Key(KIND, namespace, metadata["name"])
            if value_at(item, "status", "artifact"):  # before, nobody can begin from it, and each event would visit all runs
                yield from _naming(world, namespace, metadata["name"], "spec", "initFrom", "run")
        case "PyTorchJob" | "Pod":
            if run := (metadata.get("labels") or {}).get(LABEL_RUN):
                yield Key(KIND, namespace, run)
        case "PersistentVolumeClaim":
            yield from (
                _key(run) for run in world.list(KIND, namespace) if value_at(run, "spec", "storage", "claimName") == metadata["name"]
            )
        case "ModelRelease":
            yield from _naming(world, namespace, metadata["name"], "spec", "initFrom", "release")
            yield from (_key(run) for run in world.list(KIND, namespace) if _releases(run, metadata["name"]))
        case _:
            pass  # nodes change often and matter only to runs that wait, which look again by themselves


def observe(world: World, key: Key) -> Seen | None:
    """The snapshot, or None if the run is gone or going: its children have owner references and go with it."""
    run = world.get(KIND, key.namespace, key.name)
    if run is None or run["metadata"].get("deletionTimestamp"):
        return None
    try:
        spec = TrainingRunSpec.model_validate(run.get("spec"))
    except ValidationError as error:
        return Unreadable(run=run, message=f"spec.{first_problem(error)}")
    try:
        status = TrainingRunStatus.model_validate(run.get("status") or {})
    except ValidationError as error:
        return Unreadable(run=run, message=f"status.{first_problem(error)}")
    uid = run["metadata"]["uid"]
    labels = {LABEL_RUN: key.name, LABEL_RUN_UID: uid}
    return Observed(
        run=run,
        spec=spec,
        status=status,
        jobs=world.list("PyTorchJob", key.namespace, labels),
        pods=world.list("Pod", key.namespace, labels),
        nodes=world.list("Node"),
        claim=world.get("PersistentVolumeClaim", key.namespace, spec.storage.claim_name),
        init_from=_init_from(world, key.namespace, spec.init_from, spec.storage.claim_name) if spec.init_from else None,
        release=_release(world, key.namespace, spec),
    )


def queries(_: Seen, __: datetime) -> tuple[Query, ...]:
    """A run asks Prometheus nothing."""
    return ()


def _release(world: World, namespace: str, spec: TrainingRunSpec) -> Manifest | None:
    if all(phase.task != Task.RELEASE for phase in spec.phases):
        return None
    return world.get("ModelRelease", namespace, release_name(spec.model))


def _init_from(world: World, namespace: str, init: InitFrom, claim: str) -> ArtifactReference | Missing:
    kind, name = ("ModelRelease", init.release) if init.release else (KIND, str(init.run))
    source = world.get(kind, namespace, str(name))
    if source is None:
        return Missing(f"spec.initFrom names {kind} {name}, which does not exist in namespace {namespace}; create it, or start without it")
    artifact = value_at(source, *(("spec", "artifact") if kind == "ModelRelease" else ("status", "artifact")))
    if not artifact:
        return Missing(f"spec.initFrom names {kind} {name}, which has not produced a bundle yet; waiting for its last training phase")
    try:
        found = ArtifactReference(path=value_at(artifact, "path"), digest=value_at(artifact, "digest"))
    except ValidationError as error:
        return Missing(
            f"spec.initFrom names {kind} {name}, whose artifact this operator cannot read: {first_problem(error)}; {SAME_VERSION}"
        )
    lies_on = value_at(artifact, "claimName") if kind == "ModelRelease" else value_at(source, "spec", "storage", "claimName")
    if lies_on != claim:
        where = f"whose bundle lies on claim {lies_on} and not on spec.storage.claimName {claim}"
        return Missing(f"spec.initFrom names {kind} {name}, {where}; copy it there, or use that claim")
    return found


def _naming(world: World, namespace: str, name: str, *path: str) -> Iterable[Key]:
    return [_key(run) for run in world.list(KIND, namespace) if value_at(run, *path) == name]


def _releases(run: Manifest, release: str) -> bool:
    try:
        return release_name(ModelIdentity.model_validate(value_at(run, "spec", "model"))) == release
    except ValidationError:
        return False


def value_at(item: object, *path: str) -> Any:
    """What stands at a path of an object, or None where the path leads nowhere: a neighbour may be of another version."""
    for name in path:
        item = item.get(name) if isinstance(item, Mapping) else None
    return item


def first_problem(error: ValidationError) -> str:
    """`path.to.field: what is wrong with it`."""
    first = error.errors(include_url=False, include_input=False)[0]
    return f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}".removeprefix(": ")


def _key(run: Manifest) -> Key:
    return Key(KIND, run["metadata"]["namespace"], run["metadata"]["name"])
