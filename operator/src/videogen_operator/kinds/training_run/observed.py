"""What a plan for a TrainingRun may know: one frozen snapshot."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from videogen_api.fine_tune_cycle import LABEL_CYCLE, LABEL_MEASURES
from videogen_api.job import ArtifactReference
from videogen_api.meta import ANNOTATION_REQUEST, LABEL_RUN, release_name
from videogen_api.pinned import RunArtifact
from videogen_api.training_run import PhaseStatus, Task, TrainingRunSpec, TrainingRunStatus
from videogen_operator.kinds.training_run.sources import KIND, OF_RELEASE, Missing, first_problem, found, is_new, outcome_of, value_at
from videogen_operator.kubernetes_objects import conditions
from videogen_operator.names import job_name
from videogen_operator.plan import Index, Inputs, Key, Manifest, Query, World
from videogen_operator.resources import LABEL_JOB_UID, LABEL_QUEUE

CYCLE = "FineTuneCycle"
LABEL_RUN_UID = "videogen.pib.gov.in/run-uid"
STABLE = "Stable"  # reason of Ready of the release that has all traffic of its service
LONGEST_INDEX = 10  # digits of a replica's number, which is an int32
ON_CLAIM = Index(KIND, "claim", lambda run: [value_at(run, "spec", "storage", "claimName")])
FROM_RUN = Index(KIND, "initFrom.run", lambda run: [value_at(run, "spec", "initFrom", "run")])
FROM_RELEASE = Index(KIND, "initFrom.release", lambda run: [value_at(run, "spec", "initFrom", "release")])
STABLE_OF_SERVICE = Index("ModelRelease", "stable", lambda release: [value_at(release, "spec", "service")] if _is_stable(release) else [])
INDEXES = (OF_RELEASE, ON_CLAIM, FROM_RUN, FROM_RELEASE, STABLE_OF_SERVICE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """A run and everything around it. Pods and jobs are this very run's, of all phases and attempts."""

    run: Manifest
    spec: TrainingRunSpec
    status: TrainingRunStatus
    jobs: tuple[Manifest, ...] = ()
    pods: tuple[Manifest, ...] = ()
    policies: tuple[Manifest, ...] = ()  # NetworkPolicies of its attempts
    nodes: tuple[Manifest, ...] = ()
    workloads: tuple[Manifest, ...] = ()  # what Kueue makes of its jobs
    claim: Manifest | None = None
    init_from: ArtifactReference | Missing | None = None  # what spec.initFrom leads to now; status.initFrom has what it led to at first
    release: Manifest | None = None  # the ModelRelease with the name of the run's model
    stable: Manifest | None = None  # the stable ModelRelease of the service that the run releases to
    budget: int | None = None  # GPU hours that the run's cycle gives it

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
    def artifact(self) -> RunArtifact | None:
        """The run's newest bundle; before it has made one, the one that it starts from."""
        init = self.status.init_from
        return self.status.artifact or (RunArtifact(path=init.path, digest=init.digest) if init else None)

    @property
    def request(self) -> str:
        """What a person asks for: `retry@<id>`, or nothing."""
        return str((self.run["metadata"].get("annotations") or {}).get(ANNOTATION_REQUEST, ""))[:128]

    @property
    def cycle(self) -> str:
        """The cycle that the run is of, by its label; "" if it is of none."""
        return cycle_of(self.run)

    @property
    def makes_new_version(self) -> bool:
        """Whether its version is for this run alone: a cycle made it, and not to measure what serves."""
        return bool(self.cycle) and LABEL_MEASURES not in (self.run["metadata"].get("labels") or {})

    def phase_status(self, name: str) -> PhaseStatus:
        """What is known of a phase; a fresh value before it has begun."""
        return next((phase for phase in self.status.phases if phase.name == name), None) or PhaseStatus(name=name)

    def attempt_pods(self, phase: str, attempt: int) -> tuple[Manifest, ...]:
        """Pods of one attempt: those of its job. Their reports decide, so labels alone are not enough."""
        return self.job_pods(job_name(self.name, phase, attempt)) if attempt else ()

    def job_pods(self, name: str) -> tuple[Manifest, ...]:
        """Pods of the PyTorchJob of that name."""
        job = self.job(name)
        return tuple(pod for pod in self.pods if is_pod_of(pod, job)) if job else ()

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
            if (
                is_new(item) or outcome_of(item) != "Unknown"
            ):  # while it works nobody can begin from it, and each event would visit all runs
                yield from map(_key, world.find(FROM_RUN, metadata["name"], namespace))
        case "PyTorchJob" | "Pod" | "NetworkPolicy":
            if run := (metadata.get("labels") or {}).get(LABEL_RUN):
                yield Key(KIND, namespace, run)
        case "Workload":
            job = world.get("PyTorchJob", namespace, str(controller_of(item).get("name")))
            if job and (run := (job["metadata"].get("labels") or {}).get(LABEL_RUN)):
                yield Key(KIND, namespace, run)
        case "PersistentVolumeClaim":
            yield from _at_work(world.find(ON_CLAIM, metadata["name"], namespace))
        case "FineTuneCycle":
            yield from _at_work(world.list(KIND, namespace, {LABEL_CYCLE: metadata["name"]}))
        case "ModelRelease":
            yield from _at_work(world.find(FROM_RELEASE, metadata["name"], namespace))
            yield from _at_work(world.find(OF_RELEASE, metadata["name"], namespace))
        case _:
            pass  # nodes change often and matter only to runs that wait, which look again by themselves


def reporter(pod: Manifest) -> Key | None:
    """The run whose trainer the pod is, or None if it is none."""
    metadata = pod["metadata"]
    run = (metadata.get("labels") or {}).get(LABEL_RUN)
    return Key(KIND, metadata["namespace"], run) if run else None


def observe(world: World, key: Key) -> Seen | None:
    """The snapshot, or None if the run is gone or going: its children have owner references and go with it."""
    run = world.get(KIND, key.namespace, key.name)
    if run is None or run["metadata"].get("deletionTimestamp"):
        return None
    try:
        spec = world.read(TrainingRunSpec, run, "spec")
    except ValidationError as error:
        return Unreadable(run=run, message=f"spec.{first_problem(error)}")
    try:
        status = world.read(TrainingRunStatus, run, "status")
    except ValidationError as error:
        return Unreadable(run=run, message=f"status.{first_problem(error)}")
    uid = run["metadata"]["uid"]
    labels = {LABEL_RUN: key.name, LABEL_RUN_UID: uid}
    jobs = tuple(job for job in world.list("PyTorchJob", key.namespace, labels) if controller_of(job).get("uid") == uid)
    return Observed(
        run=run,
        spec=spec,
        status=status,
        jobs=jobs,
        pods=tuple(pod for pod in world.list("Pod", key.namespace, labels) if _is_of_some_job(pod)),
        policies=tuple(one for one in world.list("NetworkPolicy", key.namespace, labels) if controller_of(one).get("uid") == uid),
        nodes=world.list("Node"),
        workloads=tuple(one for job in jobs for one in _workloads(world, job)),
        claim=world.get("PersistentVolumeClaim", key.namespace, spec.storage.claim_name),
        init_from=found(world, run, spec.init_from, spec.storage.claim_name) if spec.init_from else None,
        release=_release(world, key.namespace, spec),
        stable=_stable(world, key.namespace, spec),
        budget=_budget(world, run, status),
    )


def controller_of(item: Manifest) -> Mapping[str, Any]:
    """The owner reference of the controller (Kubernetes, "Owners and Dependents"), or an empty one."""
    owners: list[Mapping[str, Any]] = item["metadata"].get("ownerReferences") or []
    return next((owner for owner in owners if owner.get("controller")), {})


def _workloads(world: World, job: Manifest) -> list[Manifest]:
    uid = job["metadata"]["uid"]
    found = world.list("Workload", job["metadata"]["namespace"], {LABEL_JOB_UID: uid})
    return [one for one in found if controller_of(one).get("uid") == uid]


def queue_of(job: Manifest) -> str | None:
    """The queue of Kueue's that lets the job begin; None: it stands in none."""
    name = (job["metadata"].get("labels") or {}).get(LABEL_QUEUE)
    return str(name) if name else None


def is_suspended(job: Manifest) -> bool:
    """Whether the job has no pods because somebody wants it to have none."""
    return bool(value_at(job, "spec", "runPolicy", "suspend"))


def is_pod_of(pod: Manifest, job: Manifest) -> bool:
    """Whether training-operator made the pod for this job. Whoever may create pods writes labels and owners as they like, but no
    second pod gets the name of a replica. A job may say that it has two thousand million of them: none is counted up.
    """
    owner = controller_of(pod)
    if (owner.get("kind"), owner.get("uid")) != ("PyTorchJob", job["metadata"]["uid"]):
        return False
    replicas = (job.get("spec") or {}).get("pytorchReplicaSpecs") or {}
    _, _, index = pod["metadata"]["name"].rpartition("-")
    if not (index.isascii() and index.isdigit()) or len(index) > LONGEST_INDEX:
        return False
    names = (pod_name(job["metadata"]["name"], role, int(index)) for role in replicas if int(index) < replicas[role].get("replicas", 1))
    return pod["metadata"]["name"] in names


def pod_name(job: str, role: str, index: int) -> str:
    """The name that training-operator gives to a replica's pod."""
    return f"{job}-{role.lower()}-{index}"


def _is_of_some_job(pod: Manifest) -> bool:
    """Whether the pod is a PyTorchJob's by its owner and its name. The job itself may be gone while its pods still end."""
    owner = controller_of(pod)
    role, _, index = pod["metadata"]["name"].removeprefix(f"{owner.get('name')}-").partition("-")
    return owner.get("kind") == "PyTorchJob" and role in {"master", "worker"} and index.isdecimal()


def queries(_: Seen, __: Inputs) -> tuple[Query, ...]:
    """A run asks Prometheus nothing."""
    return ()


def cycle_of(run: Manifest) -> str:
    """Name of the cycle that a run is of, by its label."""
    return str((run["metadata"].get("labels") or {}).get(LABEL_CYCLE, ""))


def _budget(world: World, run: Manifest, status: TrainingRunStatus) -> int | None:
    """What the run's cycle gives it. A cycle that is gone gives what it gave: a run that is stopped must not go on for its deletion."""
    if not (name := cycle_of(run)):
        return None
    cycle = world.get(CYCLE, run["metadata"]["namespace"], name)
    if cycle is None:
        return status.gpu_budget
    given = value_at(cycle, "spec", "budget", "gpuHours")
    return given if isinstance(given, int) and given > 0 else None


def _release(world: World, namespace: str, spec: TrainingRunSpec) -> Manifest | None:
    if all(phase.task != Task.RELEASE for phase in spec.phases):
        return None
    return world.get("ModelRelease", namespace, release_name(spec.model))


def _stable(world: World, namespace: str, spec: TrainingRunSpec) -> Manifest | None:
    service = next((phase.release.service for phase in spec.phases if phase.release), None)
    if service is None:
        return None
    return next(iter(world.find(STABLE_OF_SERVICE, service, namespace)), None)


def _is_stable(release: Manifest) -> bool:
    return conditions(release).get("Ready", {}).get("reason") == STABLE


def _at_work(runs: Iterable[Manifest]) -> Iterator[Key]:
    """Those that have not ended: nothing but a request makes anything else of one that has."""
    yield from (_key(run) for run in runs if is_new(run) or outcome_of(run) == "Unknown")


def _key(run: Manifest) -> Key:
    return Key(KIND, run["metadata"]["namespace"], run["metadata"]["name"])
