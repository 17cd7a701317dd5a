"""NetworkPolicies of a run: no pod of it can be reached, but those of one attempt reach each other, on all ports.

torch's rendezvous and its collectives trust all that connect, on ports that they choose themselves. One policy denies all connections
to the run's pods; it is there before the first of them, and as long as one may run. An attempt of several pods has one more, which
allows its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from videogen_api.meta import LABEL_ATTEMPT, LABEL_PHASE
from videogen_api.training_run import PhaseStatus
from videogen_operator import network_policies
from videogen_operator.kinds.training_run import objects, preflight
from videogen_operator.kinds.training_run.attempts import State, state_of
from videogen_operator.kinds.training_run.leftovers import is_past, live_pods, reference
from videogen_operator.kinds.training_run.observed import LABEL_RUN_UID, Observed
from videogen_operator.kubernetes_objects import is_true
from videogen_operator.names import job_name, run_child_name
from videogen_operator.plan import Manifest, Ref

OF_A_RUN = (LABEL_RUN_UID,)
OF_AN_ATTEMPT = (LABEL_RUN_UID, LABEL_PHASE, LABEL_ATTEMPT)


def current(observed: Observed, phase: PhaseStatus | None, settings: Mapping[str, str]) -> tuple[dict[str, Any], ...]:
    """The policies for the attempt or preflight that is at work, and for pods that still end, where policies are wanted."""
    if not network_policies.wanted(settings):
        return ()
    looks, active = preflight.is_active(observed.status.preflight), phase is not None and state_of(phase) == State.ACTIVE
    if not looks and not active and not live_pods(observed.pods, observed.nodes):
        return ()
    if phase is not None and active and not looks and _has_several_pods(observed, phase):
        return (denial(observed), policy(observed, phase.name, phase.attempt))
    return (denial(observed),)


def _has_several_pods(observed: Observed, phase: PhaseStatus) -> bool:
    """Of the attempt, or of one that began before the spec was changed."""
    asked = next(one.asked_workers.replicas for one in observed.spec.phases if one.name == phase.name)
    name = job_name(observed.name, phase.name, phase.attempt)
    return asked > 1 or any(one["metadata"]["name"] == name for one in observed.policies)


def denial(observed: Observed) -> dict[str, Any]:
    """The policy of all pods of the run. It names a phase and no attempt: an operator of before there were such policies, which somebody
    may go back to, fails at one without a phase, and leaves one without an attempt alone.
    """
    metadata = objects.metadata(observed, observed.spec.phases[0].name, 0)
    metadata["name"] = run_child_name(observed.name)
    del metadata["labels"][LABEL_ATTEMPT]
    return network_policies.policy(metadata, {label: metadata["labels"][label] for label in OF_A_RUN}, ())


def policy(observed: Observed, phase: str, attempt: int) -> dict[str, Any]:
    """The policy of an attempt."""
    metadata = objects.metadata(observed, phase, attempt)
    own = {label: metadata["labels"][label] for label in OF_AN_ATTEMPT}
    return network_policies.policy(metadata, own, network_policies.rule([{"podSelector": {"matchLabels": own}}]))


def unneeded(observed: Observed, settings: Mapping[str, str], *, finished: bool = False) -> tuple[Ref, ...]:
    """Policies of attempts that have ended, and of a finished run, of which no pod runs or can still come; all if none is wanted."""
    kept = network_policies.wanted(settings)
    return tuple(
        reference(found)
        for found in observed.policies
        if not found["metadata"].get("deletionTimestamp") and not (kept and _protects(observed, found, finished))
    )


def _protects(observed: Observed, found: Manifest, finished: bool) -> bool:
    labels = found["metadata"]["labels"]
    whose = OF_AN_ATTEMPT if LABEL_ATTEMPT in labels else OF_A_RUN
    own = {label: labels.get(label) for label in whose}.items()
    pods = tuple(pod for pod in observed.pods if own <= pod["metadata"]["labels"].items())
    jobs = [job for job in observed.jobs if own <= job["metadata"]["labels"].items()]
    over = finished if whose == OF_A_RUN else _is_past(observed, observed.phase_status(labels.get(LABEL_PHASE, "")), found)
    return not over or bool(live_pods(pods, observed.nodes)) or not all(_is_over(job) for job in jobs)


def _is_past(observed: Observed, phase: PhaseStatus, found: Manifest) -> bool:
    if found["metadata"]["labels"].get(LABEL_ATTEMPT) == str(preflight.ATTEMPT):
        return not preflight.is_active(observed.status.preflight)
    return is_past(phase, found)


def _is_over(job: Manifest) -> bool:
    return is_true(job, "Succeeded", "Failed")
