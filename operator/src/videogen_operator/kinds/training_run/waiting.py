"""Why a run does not go on: ordered rules, the first one that holds speaks.

BEFORE rules keep an attempt from being created. DURING rules explain an attempt whose pods do not run; the attempt
stays, because only a pending pod makes an autoscaler add a node.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from videogen_api.training_run import Phase, PhaseStatus, Reason
from videogen_operator.kinds.training_run.failure_policy import CONTAINER
from videogen_operator.kinds.training_run.observed import Missing, Observed
from videogen_operator.plan import Failure, Manifest
from videogen_operator.quantities import GPU, quantity

UNANSWERED_SECONDS = 30  # a PyTorchJob without pods and conditions for so long has nobody who looks at it
PULL_ERRORS = frozenset({"ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName", "ImageInspectError"})


@dataclass(frozen=True, slots=True)
class Wait:
    """What is waited for."""

    reason: Reason
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """What a rule may look at."""

    observed: Observed
    phase: Phase
    status: PhaseStatus
    pods: tuple[Manifest, ...]  # of the current attempt
    failures: tuple[Failure, ...]
    now: datetime


Rule = Callable[[Situation], Wait | None]


def before_attempt(situation: Situation) -> Wait | None:
    """Why no attempt can be created now."""
    return next((wait for rule in BEFORE if (wait := rule(situation))), None)


def during_attempt(situation: Situation) -> Wait | None:
    """Why the current attempt's pods do not run."""
    return next((wait for rule in DURING if (wait := rule(situation))), None)


def name_is_taken(situation: Situation) -> Wait | None:
    """An object that is not ours has the name of the attempt's job or ConfigMap."""
    for failure in situation.failures:
        if failure.code == 409:
            return Wait(Reason.NAME_CONFLICT, f"{failure.kind} {failure.name} cannot be created: {failure.message}")
    return None


def refused(situation: Situation) -> Wait | None:
    """The API server, or training-operator's webhook behind it, refused the job."""
    for failure in situation.failures:
        if failure.kind == "PyTorchJob" and failure.code == 404:
            said = "the cluster knows no PyTorchJobs (kubeflow.org/v1); install the Kubeflow training-operator"
            return Wait(Reason.TRAINING_OPERATOR_UNAVAILABLE, said)
        said = f"{failure.kind} {failure.name} was refused and will be tried again: {failure.message[:500]}"
        return Wait(Reason.TRAINING_OPERATOR_UNAVAILABLE if failure.kind == "PyTorchJob" else Reason.PENDING, said)
    return None


def claim_is_missing(situation: Situation) -> Wait | None:
    """The storage does not exist."""
    if situation.observed.claim is not None:
        return None
    name, namespace = situation.observed.spec.storage.claim_name, situation.observed.namespace
    said = f"spec.storage.claimName names persistent volume claim {name}, which does not exist in namespace {namespace}; create it"
    return Wait(Reason.CLAIM_NOT_FOUND, said)


def weights_are_missing(situation: Situation) -> Wait | None:
    """spec.initFrom leads nowhere."""
    init = situation.observed.init_from
    return Wait(Reason.INIT_FROM_NOT_FOUND, init.message) if isinstance(init, Missing) else None


def nobody_answers(situation: Situation) -> Wait | None:
    """The job exists, and training-operator has not looked at it."""
    if (left := unanswered_in(situation)) is None or left > 0:
        return None
    said = f"PyTorchJob {situation.status.job_name} has had no pods for {UNANSWERED_SECONDS} s; is the Kubeflow training-operator running?"
    return Wait(Reason.TRAINING_OPERATOR_UNAVAILABLE, said)


def unanswered_in(situation: Situation) -> float | None:
    """Seconds until a job that nobody has looked at counts as unanswered; None if somebody has."""
    started, job = situation.status.attempt_start_time, situation.observed.job(situation.status.job_name)
    if situation.pods or job is None or started is None or (job.get("status") or {}).get("conditions"):
        return None
    return UNANSWERED_SECONDS - (situation.now - datetime.fromisoformat(started)).total_seconds()


def image_is_missing(situation: Situation) -> Wait | None:
    """The kubelet cannot pull the trainer image."""
    for pod in situation.pods:
        for container in (pod.get("status") or {}).get("containerStatuses") or []:
            waiting = container.get("state", {}).get("waiting", {})
            if container["name"] == CONTAINER and waiting.get("reason") in PULL_ERRORS:
                said = f"image {container.get('image', '')} of pod {pod['metadata']['name']}: {waiting.get('message') or waiting['reason']}"
                return Wait(Reason.IMAGE_NOT_FOUND, f"{said}; push the image, or correct trainer.image in the chart's values")
    return None


def too_large_for_any_node(situation: Situation) -> Wait | None:
    """No node is as large as one worker, even if it were empty."""
    if not unscheduled(situation.pods):
        return None
    needs = {"cpu": situation.phase.resources.cpu_per_worker, "memory": situation.phase.resources.memory_per_worker}
    if situation.phase.resources.gpus_per_worker:
        needs[GPU] = str(situation.phase.resources.gpus_per_worker)
    for resource, need in needs.items():
        largest = max((allocatable(node, resource) for node in situation.observed.nodes), default=Decimal(0))
        if quantity(need) > largest:
            name = {GPU: "GPUs", "cpu": "CPUs", "memory": "bytes of memory"}[resource]
            said = f"phase {situation.phase.name}: one worker asks for {need} {name} and the largest node has {largest:f}"
            return Wait(Reason.INSUFFICIENT_CAPACITY, f"{said}; add a larger node, or ask for less in resources")
    return None


def nodes_are_full(situation: Situation) -> Wait | None:
    """The scheduler finds no place now."""
    if pod := next(iter(unscheduled(situation.pods)), None):
        condition = next(c for c in pod["status"]["conditions"] if c["type"] == "PodScheduled")
        return Wait(Reason.UNSCHEDULABLE, f"pod {pod['metadata']['name']}: {condition.get('message', 'no place')}")
    return None


BEFORE: tuple[Rule, ...] = (
    name_is_taken,  # somebody else's object must go first
    refused,  # the API server said no in this very pass
    claim_is_missing,  # pods would wait for ever without a word
    weights_are_missing,  # the job would have nothing to start from
)
DURING: tuple[Rule, ...] = (
    nobody_answers,  # training-operator is absent
    image_is_missing,  # the kubelet says so
    too_large_for_any_node,  # waiting alone cannot help
    nodes_are_full,  # waiting may help
)


def unscheduled(pods: tuple[Manifest, ...]) -> tuple[Manifest, ...]:
    """Pods that the scheduler could not place."""
    return tuple(pod for pod in pods if any(_no_place(c) for c in (pod.get("status") or {}).get("conditions") or []))


def _no_place(condition: Mapping[str, str]) -> bool:
    return condition["type"] == "PodScheduled" and condition["status"] == "False" and condition.get("reason") == "Unschedulable"


def allocatable(node: Manifest, resource: str) -> Decimal:
    """How much of a resource a node has for pods."""
    return quantity(((node.get("status") or {}).get("allocatable") or {}).get(resource, "0"))
