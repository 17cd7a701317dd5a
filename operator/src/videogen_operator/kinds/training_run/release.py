"""The ModelRelease that a Release phase creates. The run does not own it: a release outlives its run."""

from __future__ import annotations

from typing import Any

from videogen_api.evaluation import Gate
from videogen_api.meta import API_VERSION, release_name
from videogen_api.model_release import Artifact, Lineage, ModelReleaseSpec, ReleaseTemplate
from videogen_api.training_run import RunArtifact, Task, TrainingRunSpec
from videogen_operator.kinds.training_run.observed import Observed, value_at
from videogen_operator.names import MANAGED_BY
from videogen_operator.plan import Manifest


def manifest(observed: Observed, template: ReleaseTemplate, artifact: RunArtifact) -> dict[str, Any]:
    """The release of the run's bundle: named after the model, judged by the gates of the run's last phase that measures."""
    spec = ModelReleaseSpec(
        service=template.service,
        model=observed.spec.model,
        artifact=Artifact(claim_name=observed.spec.storage.claim_name, path=artifact.path, digest=artifact.digest),
        lineage=Lineage(run=observed.name),
        serving=template.serving,
        gates=last_gates(observed.spec),
        rollout=template.rollout,
        rollback=template.rollback,
    )
    key, value = MANAGED_BY
    return {
        "apiVersion": API_VERSION,
        "kind": "ModelRelease",
        "metadata": {"name": release_name(observed.spec.model), "namespace": observed.namespace, "labels": {key: value}},
        "spec": spec.wire(),
    }


def last_gates(spec: TrainingRunSpec) -> list[Gate]:
    """Gates of the last phase that measures: an Evaluate phase, or an Optimize phase with gates of its own after it."""
    return next((phase.gates for phase in reversed(spec.phases) if phase.task in {Task.EVALUATE, Task.OPTIMIZE}), [])


def digest_of(release: Manifest) -> str | None:
    """Digest of the bundle that an existing release serves; None if this operator cannot read it."""
    digest = value_at(release, "spec", "artifact", "digest")
    return digest if isinstance(digest, str) else None
