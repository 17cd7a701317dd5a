"""What a plan for a TrainingRun may know: one frozen snapshot."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime

from videogen_api.job import ArtifactReference
from videogen_api.meta import ANNOTATION_REQUEST, LABEL_ATTEMPT, LABEL_PHASE, LABEL_RUN, ModelIdentity, release_name
from videogen_api.training_run import InitFrom, PhaseStatus, Task, TrainingRunSpec, TrainingRunStatus
from videogen_operator.plan import Key, Manifest, Query, World

KIND = "TrainingRun"
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


def keys(item: Manifest, world: World) -> Iterator[Key]:
    """Which runs an object concerns."""
    metadata = item["metadata"]
    namespace = metadata.get("namespace", "")
    match item["kind"]:
        case "TrainingRun":
            yield Key(KIND, namespace, metadata["name"])
            if (item.get("status") or {}).get("artifact"):  # before, nobody can begin from it, and each event would visit all runs
                yield from _waiting(world, namespace, run=metadata["name"])
        case "PyTorchJob" | "Pod":
            if run := (metadata.get("labels") or {}).get(LABEL_RUN):
                yield Key(KIND, namespace, run)
        case "PersistentVolumeClaim":
            yield from (_key(run) for run in world.list(KIND, namespace) if run["spec"]["storage"]["claimName"] == metadata["name"])
        case "ModelRelease":
            yield from _waiting(world, namespace, release=metadata["name"])
            yield from (_key(run) for run in world.list(KIND, namespace) if _releases(run, metadata["name"]))
        case _:
            pass  # nodes change often and matter only to runs that wait, which look again by themselves


def observe(world: World, key: Key) -> Observed | None:
    """The snapshot, or None if the run is gone or going: its children have owner references and go with it."""
    run = world.get(KIND, key.namespace, key.name)
    if run is None or run["metadata"].get("deletionTimestamp"):
        return None
    spec, uid = TrainingRunSpec.model_validate(run["spec"]), run["metadata"]["uid"]
    labels = {LABEL_RUN: key.name, LABEL_RUN_UID: uid}
    return Observed(
        run=run,
        spec=spec,
        status=TrainingRunStatus.model_validate(run.get("status") or {}),
        jobs=world.list("PyTorchJob", key.namespace, labels),
        pods=world.list("Pod", key.namespace, labels),
        nodes=world.list("Node"),
        claim=world.get("PersistentVolumeClaim", key.namespace, spec.storage.claim_name),
        init_from=_init_from(world, key.namespace, spec.init_from, spec.storage.claim_name) if spec.init_from else None,
        release=_release(world, key.namespace, spec),
    )


def queries(_: Observed, __: datetime) -> tuple[Query, ...]:
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
    artifact = source["spec"]["artifact"] if kind == "ModelRelease" else (source.get("status") or {}).get("artifact")
    if not artifact:
        return Missing(f"spec.initFrom names {kind} {name}, which has not produced a bundle yet; waiting for its last Train phase")
    lies_on = artifact["claimName"] if kind == "ModelRelease" else source["spec"]["storage"]["claimName"]
    if lies_on != claim:
        where = f"whose bundle lies on claim {lies_on} and not on spec.storage.claimName {claim}"
        return Missing(f"spec.initFrom names {kind} {name}, {where}; copy it there, or use that claim")
    return ArtifactReference(path=artifact["path"], digest=artifact["digest"])


def _waiting(world: World, namespace: str, **source: str) -> Iterable[Key]:
    return [_key(run) for run in world.list(KIND, namespace) if (run["spec"].get("initFrom") or {}).items() & source.items()]


def _releases(run: Manifest, release: str) -> bool:
    return bool(release_name(ModelIdentity.model_validate(run["spec"]["model"])) == release)


def _key(run: Manifest) -> Key:
    return Key(KIND, run["metadata"]["namespace"], run["metadata"]["name"])
