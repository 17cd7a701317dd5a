"""Why a run does not go on: ordered rules, the first one that holds speaks.

BEFORE rules keep an attempt from being created. DURING rules explain an attempt whose pods do not run; the attempt
stays, because only a pending pod makes an autoscaler add a node.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from fnmatch import fnmatchcase

from videogen_api.training_run import Phase, PhaseStatus, Reason, Task
from videogen_operator.kinds.training_run.failure_policy import CONTAINER
from videogen_operator.kinds.training_run.gpu_hours import Used, is_spent
from videogen_operator.kinds.training_run.moments import seconds_since
from videogen_operator.kinds.training_run.observed import Observed, is_suspended
from videogen_operator.kinds.training_run.refusals import cause_of
from videogen_operator.kinds.training_run.room import shortage
from videogen_operator.kinds.training_run.sources import Missing
from videogen_operator.kubernetes_objects import NOTHING, conditions, containers, pull_error, without_place
from videogen_operator.names import allows_storage, not_allowed
from videogen_operator.plan import Failure, Manifest
from videogen_operator.rules import Finding
from videogen_operator.seals import Seals

UNANSWERED_SECONDS = 30  # a PyTorchJob without pods and conditions for so long has nobody who looks at it


Wait = Finding[Reason]  # what is waited for


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """What a rule may look at."""

    observed: Observed
    phase: Phase
    status: PhaseStatus
    pods: tuple[Manifest, ...]  # of the current attempt
    failures: tuple[Failure, ...]
    now: datetime
    settings: Mapping[str, str] = field(default_factory=dict)  # of the operator, see settings.py
    seals: Seals = field(default_factory=Seals)  # by which records are known
    used: Used = field(default_factory=Used)  # GPU hours


Rule = Callable[[Situation], Wait | None]


def before_attempt(situation: Situation) -> Wait | None:
    """Why no attempt can be created now."""
    return next((wait for rule in BEFORE if (wait := rule(situation))), None)


def during_attempt(situation: Situation) -> Wait | None:
    """Why the current attempt's pods do not run."""
    return next((wait for rule in DURING if (wait := rule(situation))), None)


def stopped(situation: Situation) -> Wait | None:
    """Why nothing of the run may work now: a person wants it, or its cycle's budget is used up. A Release phase uses none of that."""
    observed = situation.observed
    if observed.spec.suspend:
        return Wait(Reason.SUSPENDED, "suspended; set spec.suspend to false to go on")
    if situation.phase.task == Task.RELEASE or not is_spent(observed, situation.used):
        return None
    said = f"the run has used {situation.used.hours} of {observed.budget} GPU hours"
    return Wait(Reason.BUDGET_EXCEEDED, f"{said}; raise budget.gpuHours of FineTuneCycle {observed.cycle}, or delete the run")


def name_is_taken(situation: Situation) -> Wait | None:
    """An object that is not ours has the name of the attempt's job or ConfigMap."""
    for failure in situation.failures:
        if failure.code == 409:
            return Wait(Reason.NAME_CONFLICT, f"{failure.kind} {failure.name} cannot be created: {failure.message}")
    return None


def refused(situation: Situation) -> Wait | None:
    """The API server, or an admission webhook behind it, refused an object of the attempt."""
    for failure in situation.failures:
        cause = cause_of(failure)
        said = f"{failure.kind} {failure.name} was refused and will be tried again: {failure.message[:500]}"
        return Wait(cause.reason, f"{said}; {cause.advice}")
    return None


def claim_is_missing(situation: Situation) -> Wait | None:
    """The storage does not exist."""
    if situation.observed.claim is not None:
        return None
    name, namespace = situation.observed.spec.storage.claim_name, situation.observed.namespace
    said = f"spec.storage.claimName names persistent volume claim {name}, which does not exist in namespace {namespace}; create it"
    return Wait(Reason.CLAIM_NOT_FOUND, said)


def claim_is_not_allowed(situation: Situation) -> Wait | None:
    """The storage was not made for runs: mounting it would let the run's author read it, and fsGroup would change its owner."""
    claim, name = situation.observed.claim, situation.observed.spec.storage.claim_name
    if claim is None or allows_storage(claim):
        return None
    return Wait(Reason.CLAIM_NOT_ALLOWED, f"spec.storage.claimName names persistent volume claim {name}, {not_allowed(claim)}")


def weights_are_missing(situation: Situation) -> Wait | None:
    """spec.initFrom leads nowhere yet."""
    init = situation.observed.init_from
    return Wait(init.reason, init.message) if situation.observed.status.init_from is None and isinstance(init, Missing) else None


def nobody_answers(situation: Situation) -> Wait | None:
    """The job exists, and training-operator has not looked at it."""
    if (left := unanswered_in(situation)) is None or left > 0:
        return None
    said = f"PyTorchJob {situation.status.job_name} has had no pods for {UNANSWERED_SECONDS} s; is the Kubeflow training-operator running?"
    helps = "If it is, the job's events tell why it makes none; the chart's admissionPolicy.trainingOperators must name its account"
    return Wait(Reason.TRAINING_OPERATOR_UNAVAILABLE, f"{said} {helps}")


def is_held(situation: Situation) -> Wait | None:
    """Somebody has suspended the job: Kueue, where it manages jobs without the name of a queue, or a person."""
    job = situation.observed.job(situation.status.job_name)
    if job is None or situation.pods or not is_suspended(job):
        return None
    return Wait(
        Reason.QUEUED,
        f"PyTorchJob {situation.status.job_name} is suspended, by a Kueue that manages jobs without the name of a queue, or by somebody",
    )


def unanswered_in(situation: Situation) -> float | None:
    """Seconds until a job without a sign of training-operator counts as unanswered; None if there is one, or if it is to have no pods."""
    started, job = situation.status.attempt_start_time, situation.observed.job(situation.status.job_name)
    if situation.pods or job is None or started is None or is_suspended(job):
        return None
    return None if _is_answered(job) else UNANSWERED_SECONDS - seconds_since(started, situation.now)


def _is_answered(job: Manifest) -> bool:
    """Whether training-operator has looked at the job as it is now. Its word that the job is suspended stays when Kueue lets the job go
    on: it writes the next one only after it has made the pods.
    """
    said = conditions(job)
    return bool(said) and said.get("Suspended", NOTHING).get("status") != "True"


def image_is_missing(situation: Situation) -> Wait | None:
    """The kubelet cannot pull the trainer image."""
    for pod in situation.pods:
        for container in containers(pod):
            if container["name"] == CONTAINER and (waiting := pull_error(container)):
                said = f"image {container.get('image', '')} of pod {pod['metadata']['name']}: {waiting.get('message') or waiting['reason']}"
                return Wait(Reason.IMAGE_NOT_FOUND, f"{said}; push the image, or correct trainer.image in the chart's values")
    return None


def too_large_for_any_node(situation: Situation) -> Wait | None:
    """No node is as large as one worker and meant for it, even if it were empty."""
    if not unscheduled(situation.pods):
        return None
    said = shortage(situation.phase, situation.observed.nodes, situation.settings)
    return Wait(Reason.INSUFFICIENT_CAPACITY, f"phase {situation.phase.name}: {said}") if said else None


def nodes_are_full(situation: Situation) -> Wait | None:
    """The scheduler finds no place now."""
    if pod := next(iter(unscheduled(situation.pods)), None):
        condition = without_place(pod) or NOTHING
        return Wait(Reason.UNSCHEDULABLE, f"pod {pod['metadata']['name']}: {condition.get('message', 'no place')}")
    return None


def tracking_is_not_allowed(situation: Situation) -> Wait | None:
    """Curves and credentials go only where the administrator lets them: the server is named by the run's author."""
    tracking = situation.observed.spec.tracking
    allowed = situation.settings.get("tracking_hosts", "").split()
    if tracking is None or any(fnmatchcase(tracking.mlflow.host, pattern.lower()) for pattern in allowed):
        return None
    said = f"spec.tracking.mlflow.uri names host {tracking.mlflow.host}; allowed are {', '.join(allowed) or 'none'}"
    helps = "ask for it in the chart's tracking.allowedHosts, or suspend the run and leave spec.tracking out"
    return Wait(Reason.TRACKING_NOT_ALLOWED, f"{said}; {helps}")


BEFORE: tuple[Rule, ...] = (
    name_is_taken,  # somebody else's object must go first
    refused,  # the API server said no in this very pass
    claim_is_missing,  # pods would wait for ever without a word
    claim_is_not_allowed,  # its owner must have said that runs may mount it
    weights_are_missing,  # the job would have nothing to start from
    tracking_is_not_allowed,  # what the run does would be sent to a stranger
)
DURING: tuple[Rule, ...] = (
    is_held,  # training-operator leaves it alone
    nobody_answers,  # training-operator is absent
    image_is_missing,  # the kubelet says so
    too_large_for_any_node,  # waiting alone cannot help
    nodes_are_full,  # waiting may help
)


def unscheduled(pods: tuple[Manifest, ...]) -> tuple[Manifest, ...]:
    """Pods that the scheduler could not place."""
    return tuple(pod for pod in pods if without_place(pod))
