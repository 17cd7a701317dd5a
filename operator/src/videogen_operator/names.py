"""Names of everything the operator creates, deterministic and hashed where a plain name could mean two things; labels that others set."""

from __future__ import annotations

import hashlib

from videogen_api.meta import GROUP, LABEL_STORAGE, STORAGE_ALLOWED
from videogen_operator.plan import Manifest

JOB_NAME_LIMIT = 50  # PyTorchJob appends -worker-<i> and a Service name may have 63 characters
DIGEST_LENGTH = 8
ANNOTATION_APPLIED = f"{GROUP}/applied"  # hash of the intent, so that an unchanged intent costs no request
ANNOTATION_TEMPLATE = f"{GROUP}/template"  # on a Deployment: its pods' template as it was made, and what of the spec it was made of
ANNOTATION_QUARANTINE = f"{GROUP}/quarantine"  # on a service's route: digests that were taken back
MANAGED_BY = ("app.kubernetes.io/managed-by", "videogen-operator")  # on every child and on its pods


def job_name(run: str, phase: str, attempt: int) -> str:
    """PyTorchJob of one attempt, at most 50 characters; its NetworkPolicy, if it has several pods, has the same name. No two attempts
    share one.

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


def run_child_name(run: str) -> str:
    """NetworkPolicy of a run, at most 50 characters; it ends with 8 hex digits as no attempt's plain name does."""
    digest = hashlib.sha256(run.encode()).hexdigest()[:DIGEST_LENGTH]
    return f"{run[: JOB_NAME_LIMIT - DIGEST_LENGTH - 1].rstrip('-.')}-{digest}"


def preflight_name(run: str, phase: str, number: int, generation: int) -> str:
    """PyTorchJob of a run's preflight, at most 50 characters: attempt 0 of its first phase. Later ones, and those of a spec that was
    changed, have names of their own: pods of a lost node keep theirs, and what an old spec needs is not taken for the answer to a new one.
    """
    plain = job_name(run, phase, 0)
    if number == generation == 1:
        return plain
    digest = hashlib.sha256(f"{run}/{phase}/0/{number}/{generation}".encode()).hexdigest()[:DIGEST_LENGTH]
    return f"{plain[: JOB_NAME_LIMIT - DIGEST_LENGTH - 1].rstrip('-')}-{digest}"


def job_file_name(job: str, digest: str) -> str:
    """ConfigMap of the job of that name, at most 59 characters; it ends with 8 hex digits of the job file's SHA-256.

    The file has the run's UID in it, so a namesake of an earlier run has another one.
    """
    return f"{job}-{digest[:DIGEST_LENGTH]}"


def release_child_name(release: str) -> str:
    """Deployment, Service, PodDisruptionBudget and NetworkPolicy of a release: a DNS label of at most 61 characters.

    Dots become hyphens, and no two releases share a name all the same: the CRD admits `pib-videogen-<type>-v<a>.<b>.<c>-<word>`
    alone, where the only dots are those between the three numbers after the first `-v` and a digit (no type has those inside).
    """
    return release.replace(".", "-")


UPGRADING = "it has the shape of another version: write it anew as docs/upgrading.md says, which has before and after for each field"


def allows_storage(claim: Manifest) -> bool:
    """Whether a persistent volume claim is labelled as storage of runs and releases. Without that, they could mount any claim of
    their namespace, such as a database's.
    """
    return (claim["metadata"].get("labels") or {}).get(LABEL_STORAGE) == STORAGE_ALLOWED


def not_allowed(claim: Manifest) -> str:
    """What is wrong with a claim that does not allow it, found, accepted and to do; follows the claim's name."""
    metadata = claim["metadata"]
    found = (metadata.get("labels") or {}).get(LABEL_STORAGE)
    said = "has not" if found is None else f"has with the value {found!r}"
    command = f"kubectl -n {metadata['namespace']} label pvc {metadata['name']} {LABEL_STORAGE}={STORAGE_ALLOWED} --overwrite"
    return f"which {said} the label {LABEL_STORAGE}={STORAGE_ALLOWED}; if models may be kept on it, its owner runs: {command}"
