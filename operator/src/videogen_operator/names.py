"""Names of everything the operator creates: deterministic, and hashed where a plain name could mean two things."""

from __future__ import annotations

import hashlib

JOB_NAME_LIMIT = 50  # PyTorchJob appends -worker-<i> and a Service name may have 63 characters
DIGEST_LENGTH = 8
MANAGED_BY = ("app.kubernetes.io/managed-by", "videogen-operator")  # on every child and on its pods


def job_name(run: str, phase: str, attempt: int) -> str:
    """PyTorchJob of one attempt, at most 50 characters; its ConfigMap has the same name. No two attempts share one.

    `<run>-<phase>-<attempt>` where that can be read back: the attempt is what follows the last hyphen and the phase what
    follows the one before, if the phase has no hyphen of its own. Otherwise phase `b-c` of run `a` would be phase `c` of
    run `a-b`; such a name, and one that is cut, ends with 8 hex digits of the SHA-256 of the three parts. No plain name
    ends so: attempts have at most 6 digits.
    """
    plain = f"{run}-{phase}-{attempt}"
    if "-" not in phase and len(plain) <= JOB_NAME_LIMIT:
        return plain
    digest = hashlib.sha256(f"{run}/{phase}/{attempt}".encode()).hexdigest()[:DIGEST_LENGTH]  # no part has a slash
    return f"{plain[: JOB_NAME_LIMIT - DIGEST_LENGTH - 1].rstrip('-')}-{digest}"


def release_child_name(release: str) -> str:
    """Deployment, Service and PodDisruptionBudget of a release: a DNS label of at most 61 characters.

    Dots become hyphens, and no two releases share a name all the same: the CRD admits `pib-videogen-<type>-v<a>.<b>.<c>-<word>`
    alone, where the only dots are those between the three numbers after the first `-v` (no type has one inside).
    """
    return release.replace(".", "-")
