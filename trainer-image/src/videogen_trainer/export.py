"""The end of training: the averaged weights become a bundle in the storage."""

from __future__ import annotations

from pathlib import Path

from videogen_api.bundle import Manifest
from videogen_api.job import ArtifactReference, Job
from videogen_api.pinned import ResolvedDataset
from videogen_models.bundle import seal_bundle
from videogen_trainer.dataset import writing
from videogen_trainer.distributed import World
from videogen_trainer.families import Learner
from videogen_trainer.state import TrainState


def export(
    job: Job, storage: Path, learner: Learner, state: TrainState, datasets: list[ResolvedDataset], world: World
) -> ArtifactReference:
    """Write the bundle, once, by rank 0 -> where it is, in every process, because the pod of any may be asked for it.

    Nothing in the bundle depends on time, attempt or place: repeating the run gives the same digest.
    Raises Failure(StorageFailed) that names the folder of bundles.
    """
    written = None
    if world.leads:
        manifest = Manifest(
            model=job.model,
            recipe=job.recipe,
            step=state.step,
            run=job.run,
            init_from=job.init_from.digest if job.init_from else None,
            datasets=datasets,
            files=[],
        )
        learner.take(state.averaged_weights())
        with writing(storage / "bundles"):
            path, digest = seal_bundle(storage, manifest, learner.model.save)
        written = {"path": path, "digest": digest}
    return ArtifactReference.model_validate(world.from_leader(written))
