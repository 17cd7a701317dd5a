"""Whether a version was made before: bundles stay in the storage when runs, releases and cycles are deleted."""

from __future__ import annotations

from pathlib import Path

from videogen_api.bundle import MANIFEST
from videogen_api.job import Job
from videogen_api.meta import release_name
from videogen_api.training_run import Reason
from videogen_models.bundle_manifest import read_manifest
from videogen_models.sealed import CorruptError
from videogen_trainer.failure import Failure


def check_version(job: Job, storage: Path) -> None:
    """Raises Failure(ArtifactInvalid) if a run of another name has made a bundle of the job's version. What cannot be read counts, too."""
    for manifest in sorted((storage / "bundles" / release_name(job.model)).glob(f"*/{MANIFEST}")):
        try:
            run = read_manifest(manifest.parent, None)[1].run
        except CorruptError:
            run = ""
        if run != job.run:
            by, path = f"run {run}" if run else "another run", manifest.parent.relative_to(storage)
            made = f"version {job.model.version} was made before by {by}: {path}"
            helps = "delete this run, and ask the cycle for one by run-now@<id>, which makes the next version; or delete the bundle"
            raise Failure(Reason.ARTIFACT_INVALID, f"{made}; {helps}")
