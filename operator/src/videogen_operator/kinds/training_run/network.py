"""The NetworkPolicy of one attempt: its pods reach each other, on all ports, and nobody else reaches them.

torch's rendezvous and its collectives trust whoever connects, on ports that they choose themselves. The policy is there before the
attempt's pods, and as long as one of them may run.
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
from videogen_operator.plan import Manifest, Ref

OF_AN_ATTEMPT = (LABEL_RUN_UID, LABEL_PHASE, LABEL_ATTEMPT)


def current(observed: Observed, phase: PhaseStatus, settings: Mapping[str, str]) -> tuple[dict[str, Any], ...]:
    """The policy of the attempt or preflight that is at work, if there is one and policies are wanted."""
    if not network_policies.wanted(settings):
        return ()
    if preflight.is_active(observed.status.preflight):
        return (policy(observed, phase.name, preflight.ATTEMPT),)
    return (policy(observed, phase.name, phase.attempt),) if state_of(phase) == State.ACTIVE else ()


def policy(observed: Observed, phase: str, attempt: int) -> dict[str, Any]:
    """The policy of an attempt."""
    metadata = objects.metadata(observed, phase, attempt)
    own = {label: metadata["labels"][label] for label in OF_AN_ATTEMPT}
    return network_policies.policy(metadata, own, network_policies.rule([{"podSelector": {"matchLabels": own}}]))


def unneeded(observed: Observed, settings: Mapping[str, str]) -> tuple[Ref, ...]:
    """Policies of attempts that have ended and of which no pod runs or can still come; all of them if none is wanted."""
    kept = network_policies.wanted(settings)
    return tuple(
        reference(found)
        for found in observed.policies
        if not found["metadata"].get("deletionTimestamp") and not (kept and _protects(observed, found))
    )


def _protects(observed: Observed, found: Manifest) -> bool:
    attempt = {label: found["metadata"]["labels"].get(label) for label in OF_AN_ATTEMPT}.items()
    phase = observed.phase_status(found["metadata"]["labels"].get(LABEL_PHASE, ""))
    pods = tuple(pod for pod in observed.pods if attempt <= pod["metadata"]["labels"].items())
    jobs = [job for job in observed.jobs if attempt <= job["metadata"]["labels"].items()]
    return not _is_past(observed, phase, found) or bool(live_pods(pods, observed.nodes)) or not all(_is_over(job) for job in jobs)


def _is_past(observed: Observed, phase: PhaseStatus, found: Manifest) -> bool:
    if found["metadata"]["labels"].get(LABEL_ATTEMPT) == str(preflight.ATTEMPT):
        return not preflight.is_active(observed.status.preflight)
    return is_past(phase, found)


def _is_over(job: Manifest) -> bool:
    return is_true(job, "Succeeded", "Failed")
