"""Names of everything the operator creates: deterministic, and hashed where a limit would cut them."""

from __future__ import annotations

import hashlib

JOB_NAME_LIMIT = 50  # PyTorchJob appends -worker-<i> and a Service name may have 63 characters
LABEL_LIMIT = 63
MANAGED_BY = ("app.kubernetes.io/managed-by", "videogen-operator")  # on every child and on its pods


def child_name(parts: list[str], limit: int = LABEL_LIMIT) -> str:
    """The parts joined by hyphens, dots replaced, as a DNS label of at most `limit` characters.

    A longer name is cut and ends with 8 hex digits of the SHA-256 of the whole, so that different parents never
    share a child.
    """
    whole = "-".join(parts).replace(".", "-")
    if len(whole) <= limit:
        return whole
    digest = hashlib.sha256(whole.encode()).hexdigest()[:8]
    return f"{whole[: limit - 9].rstrip('-')}-{digest}"


def job_name(run: str, phase: str, attempt: int) -> str:
    """PyTorchJob of one attempt; its ConfigMap has the same name."""
    return child_name([run, phase, str(attempt)], JOB_NAME_LIMIT)


def release_child_name(release: str) -> str:
    """Deployment, Service and PodDisruptionBudget of a release."""
    return child_name([release])
