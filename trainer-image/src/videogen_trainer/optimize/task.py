"""Task Optimize: the run's bundle once more, its weights in fewer bits and its networks as ONNX, measured against itself.

    1. quantize the weights, read them back, export and check each network: a new bundle, sealed by its digest
    2. the server's own code loads it and answers a request
    3. both bundles generate the same clips, in turn in this process; the metrics of both, and the losses with intervals

Whether the loss is acceptable is the operator's to say. An interrupted attempt's exports and batches of clips lie in
`optimizing/` of the work path, under a name made of all that they depend on; the next attempt goes on after them.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from videogen_api.bundle import Manifest
from videogen_api.job import ArtifactReference, Job, Report
from videogen_api.optimization import ExportFormat, NetworkExport, Optimization, Optimize
from videogen_api.training_run import Reason
from videogen_models.bundle import own_copy, read_family, read_model, seal_bundle
from videogen_models.quantization import save_quantized
from videogen_models.sealed import CorruptError
from videogen_models.video_model import VideoModel
from videogen_trainer.dataset import writing
from videogen_trainer.distributed import World
from videogen_trainer.evaluate.extractors import load
from videogen_trainer.evaluate.release_report import with_page
from videogen_trainer.evaluate.task import BATCH, References, batches, device_name, embed_references, open_model, open_references, results
from videogen_trainer.evaluate.timing import ALONE, generated_how
from videogen_trainer.failure import Failure
from videogen_trainer.optimize import tensorrt_plans
from videogen_trainer.optimize.losses import losses
from videogen_trainer.optimize.networks import networks_of
from videogen_trainer.optimize.onnx_files import export_network, onnx_names
from videogen_trainer.optimize.pairs import AFTER, BEFORE, Pair, identity
from videogen_trainer.optimize.served import prove_served
from videogen_trainer.progress import ProgressReporter

KEPT = "optimizing"


@dataclass(slots=True)
class Parts:
    """Networks to export and batches of clips to generate, as one row of parts of the work."""

    progress: ProgressReporter
    stop: Callable[[], bool]
    total: int
    done: int = 0

    def advance(self) -> None:
        """One more is done. Raises Failure(Preempted) if the attempt shall end."""
        self.done += 1
        self.progress.report(self.done, self.total, {"parts": self.done}, final=self.done == self.total)
        if self.stop() and self.done < self.total:
            raise Failure(Reason.PREEMPTED, "asked to stop; the next attempt goes on after the last part that is done")


@dataclass(frozen=True, slots=True, kw_only=True)
class Optimizer:
    """One attempt."""

    job: Job
    wanted: Optimize
    source: ArtifactReference
    storage: Path
    parts: Parts
    exports: list[NetworkExport] = field(default_factory=list)

    @property
    def folder(self) -> Path:
        """The phase's folder in the storage."""
        return self.storage / self.job.work_path

    def seal(self, model: VideoModel, manifest: Manifest) -> ArtifactReference:
        """Write the new bundle of `model`. Raises Failure: ArtifactInvalid, ExportFailed, Preempted, StorageFailed."""
        made = manifest.model_copy(
            update={
                "model": self.job.model,
                "run": self.job.run,
                "optimized_from": self.source.digest,
                "quantization": self.wanted.quantization,
            }
        )
        with writing(self.storage / "bundles"):
            path, digest = seal_bundle(self.storage, made, lambda staged: self._save(model, staged))
        return ArtifactReference(path=path, digest=digest)

    def _save(self, model: VideoModel, staged: Path) -> None:
        try:
            save_quantized(model, staged, self.wanted.quantization)
        except ValueError as error:
            raise Failure(Reason.ARTIFACT_INVALID, f"{self.source.path}: {error}") from error
        if ExportFormat.ONNX in self.wanted.formats:
            self._export(read_model(staged).eval().requires_grad_(False), staged)

    def _export(self, model: VideoModel, staged: Path) -> None:
        """The networks with the weights as they come back from the bundle."""
        kept = self.folder / KEPT / identity(self.source.digest, self.wanted.quantization) / "onnx"
        (staged / "onnx").mkdir()
        for network in networks_of(model):
            self.exports.append(export_network(network, kept, float(self.wanted.onnx_tolerance)))
            for file in onnx_names(kept / f"{network.name}.onnx"):
                shutil.copyfile(file, staged / "onnx" / file.name)
            if ExportFormat.TENSORRT in self.wanted.formats:
                self._plan(staged, network.name)
            self.parts.advance()

    def _plan(self, staged: Path, name: str) -> None:
        (staged / "tensorrt").mkdir(exist_ok=True)
        tensorrt_plans.build_plan(staged / "onnx" / f"{name}.onnx", staged / "tensorrt" / f"{name}.plan")
        self.exports.append(NetworkExport(network=name, format=ExportFormat.TENSORRT))

    def compare(self, before: VideoModel, made: ArtifactReference, references: References, world: World) -> Report:
        """Measure both bundles on the same clips. Raises Failure: ArtifactInvalid, OutOfMemory, Preempted."""
        extractors, seed = load([], self.storage, world.device), self.job.recipe.seed
        models = {BEFORE: before.to(world.device), AFTER: open_model(made, self.storage, world.device)}
        asked = references.asked(self.wanted.samples)
        pair = Pair(models=models, captions=asked, extractors=extractors, job=self.job, folder=self.folder, stop=self.parts.stop)
        data = [part.wire() for part in references.resolved]
        what = identity(self.source.digest, made.digest, asked, self.wanted.sampling_steps, seed, data, BATCH, ALONE)
        real = embed_references(references, extractors, world)
        rows_before, rows_after = pair.measure(self.folder / KEPT / what, self.parts.advance)
        how = generated_how(rows_after["pace"], pair.pieces.clips, self.wanted.sampling_steps, device_name(world))
        drawn = references.drawn(self.wanted.samples)
        optimization = Optimization(
            unoptimized_bytes=weights_bytes(self.storage, self.source),
            optimized_bytes=weights_bytes(self.storage, made),
            losses=losses(real, rows_before, rows_after, drawn, seed=seed),
            exports=self.exports,
        )
        return Report(
            message=self._message(made, optimization, float(rows_after["pixels"].mean())),
            artifact=made,
            datasets=references.resolved,
            results=results(real, rows_after, references, extractors, seed, how),
            optimization=optimization,
            frames=before.config.frames,
            resolution=before.config.resolution,
        )

    def _message(self, made: ArtifactReference, optimization: Optimization, pixels: float) -> str:
        share = 100 * optimization.optimized_bytes / optimization.unoptimized_bytes
        kind = self.wanted.quantization or "without quantization it"
        said = f"bundle {made.digest}: {kind} has {share:.0f} % of the bytes; pixels differ by {pixels:.2f} of 255"
        count = len({export.network for export in self.exports})
        return said + (f"; {count} networks as {' and '.join(self.wanted.formats)}" if count else "")


def run(job: Job, storage: Path, world: World, progress: ProgressReporter, stop: Callable[[], bool]) -> Report:
    """Make a smaller bundle of `job.artifact` and measure both on `job.data`; clips of both go into `samples/` of the work path.

    Raises Failure: ArtifactInvalid, DatasetNotFound, DatasetCorrupt, DatasetTooSmall, ExportFailed, InvalidJob, OutOfMemory,
    Preempted, TensorRTUnavailable.
    """
    assert job.optimize is not None and job.artifact is not None, "an Optimize job without a block or an artifact"
    if ExportFormat.TENSORRT in job.optimize.formats:
        tensorrt_plans.require()
    model, manifest = open_source(job, job.artifact, storage)
    references = open_references(job.data, storage, like=model.config)
    networks = len(networks_of(model)) if ExportFormat.ONNX in job.optimize.formats else 0
    parts = Parts(progress, stop, total=networks + len(batches(0, job.optimize.samples)))
    optimizer = Optimizer(job=job, wanted=job.optimize, source=job.artifact, storage=storage, parts=parts)
    made = optimizer.seal(model, manifest)
    prove_served(made, job, references.captions[0], job.optimize.sampling_steps, storage, stop)
    report = optimizer.compare(model, made, references, world)
    report = with_page(job, storage, report, optimizer.folder / "samples" / AFTER)
    shutil.rmtree(optimizer.folder / KEPT, ignore_errors=True)
    return report


def open_source(job: Job, source: ArtifactReference, storage: Path) -> tuple[VideoModel, Manifest]:
    """The bundle to optimise, verified, on the CPU. Raises Failure: ArtifactInvalid, InvalidJob for another family than the run's."""
    try:
        with own_copy(storage / source.path, source.digest) as (copy, manifest):
            family, model = read_family(copy), read_model(copy).eval().requires_grad_(False)
    except CorruptError as error:
        raise Failure(Reason.ARTIFACT_INVALID, f"{error}; train the model again or restore the bundle") from error
    if family is not job.model.family:
        raise Failure(
            Reason.INVALID_JOB, f"spec.model.family is {job.model.family}, and {source.path} is a model of family {family}; correct it"
        )
    return model, manifest


def weights_bytes(storage: Path, bundle: ArtifactReference) -> int:
    """Size of a bundle's weights on disk, without ONNX files and plans."""
    return sum(path.stat().st_size for path in (storage / bundle.path).rglob("*.safetensors"))
