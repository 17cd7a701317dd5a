"""Task Evaluate: generate clips for the captions of a dataset part, compare them with its clips, report the metrics.

Generated clip i takes the caption of the i-th real clip (modulo their count) in an order that the datasets' digests decide, for
datasets are sorted by the names of files, which often follow what these show; and a seed made of the recipe's seed and i. So the
clips are the same whatever the batch size, which memory decides (`pieces`). Each process generates and embeds its share of
the batches; the batches, and with them all numbers but the times, do not depend on how many processes there are. Clips of some
batches are generated one at a time (`timing`).
"""

from __future__ import annotations

import hashlib
import re
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from videogen_api.evaluation import DEFAULT_EXTRACTORS, Evaluation, MetricResult
from videogen_api.job import ArtifactReference, Job, PinnedData, Report
from videogen_api.pinned import ResolvedDataset
from videogen_api.recipe import Resolution
from videogen_api.training_run import DataReference, Reason
from videogen_models.bundle import load_model
from videogen_models.sealed import CorruptError
from videogen_models.video_model import VideoModel
from videogen_trainer.dataset import Check, Dataset, check_alone, open_dataset
from videogen_trainer.distributed import World
from videogen_trainer.evaluate import measure
from videogen_trainer.evaluate.artefacts import FLOORS, measures
from videogen_trainer.evaluate.clip_score import similarities
from videogen_trainer.evaluate.coherence import motion, steadiness
from videogen_trainer.evaluate.extractors import Extractors, TextVideoEncoder, VideoNetwork, load
from videogen_trainer.evaluate.language_score import language_score
from videogen_trainer.evaluate.measure import Network
from videogen_trainer.evaluate.pieces import Pieces
from videogen_trainer.evaluate.release_report import with_page
from videogen_trainer.evaluate.timing import Timing, generated_how
from videogen_trainer.failure import Failure
from videogen_trainer.progress import ProgressReporter
from videogen_trainer.randomness import hash_order
from videogen_trainer.report import require_results
from videogen_trainer.samples import write_samples
from videogen_trainer.tracking import Tracking
from videogen_trainer.verification import together

BATCH = 8
SHOWN = 8  # generated clips that are kept as files, of the first batch

Array = NDArray[np.float64]
Clips = NDArray[np.uint8]
Rows = defaultdict[str, list[Array]]  # of batches of clips, by name


@dataclass(frozen=True, slots=True, kw_only=True)
class References:
    """Real clips, as pairs of dataset and number, with their captions, both as they lie in the datasets."""

    clips: list[tuple[Dataset, int]]
    captions: list[str]
    resolved: list[ResolvedDataset]
    order: list[int]  # a permutation of the clips, the same for every model: in it their captions are asked for

    def drawn(self, samples: int) -> NDArray[np.intp]:
        """For each of so many generated clips the place of the real clip whose caption it has."""
        return np.resize(np.array(self.order, dtype=np.intp), samples)

    def asked(self, samples: int) -> list[str]:
        """The captions of so many generated clips."""
        return [self.captions[place] for place in self.drawn(samples)]

    def batches(self) -> list[range]:
        """Places of the clips in batches; none mixes datasets, whose clips may differ in size."""
        starts = [place for place in range(len(self.clips)) if place == 0 or self.clips[place][0] is not self.clips[place - 1][0]]
        ends = [*starts[1:], len(self.clips)]
        return [batch for start, end in zip(starts, ends, strict=True) for batch in batches(start, end)]

    def frames(self, places: range) -> Clips:
        """Clips uint8 [n, F, H, W, 3]."""
        return np.stack([dataset.frames(number) for dataset, number in self.clips[places.start : places.stop]])


def batches(start: int, end: int) -> list[range]:
    """The places from start up to end in batches of at most BATCH."""
    return [range(first, min(first + BATCH, end)) for first in range(start, end, BATCH)]


def run(job: Job, storage: Path, world: World, progress: ProgressReporter, stop: Callable[[], bool], *, has_page: bool = True) -> Report:
    """Measure `job.artifact` on `job.data`; sample clips go into `samples/` of the work path, a page about all of it beside the bundle,
    unless that bundle does not stay. The same Report in all processes.

    Raises Failure: ArtifactInvalid, DatasetNotFound, DatasetCorrupt, DatasetTooSmall, ExtractorMissing, InvalidJob for clips of another
    length or size than the model's, OutOfMemory, ResultsTooLarge, StorageFailed, Preempted.
    """
    artifact, evaluation = job.artifact, job.evaluate or Evaluation()
    assert artifact is not None, "an Evaluate job without an artifact"
    extractors, model, references = together(world, lambda check: _opened(job, artifact, evaluation, storage, world, check))
    real = world.concatenate(embed_references(references, extractors, world))
    rows, at_once = generate(job, storage, model, references, extractors, world, progress, stop)
    made = world.concatenate(rows)
    told = None
    if world.leads:
        how = generated_how(made["pace"], at_once, evaluation.sampling_steps, device_name(world))
        report = Report(
            message=f"{evaluation.samples} generated clips against {len(references.clips)} real ones, all of {clip_size(model.config)}",
            artifact=job.artifact,
            datasets=references.resolved,
            results=results(real, made, references, extractors, job.recipe.seed, how),
            frames=model.config.frames,
            resolution=model.config.resolution,
        )
        report = tracked(job, storage, world, report)
        told = (with_page(job, storage, report, storage / job.work_path / "samples") if has_page else report).wire()
    done = Report.model_validate(world.from_leader(told))
    require_results(done)
    return done


def tracked(job: Job, storage: Path, world: World, report: Report) -> Report:
    """Tell the results -> the report, with what could not be told."""
    with Tracking(job, storage, world) as tracking:
        tracking.begin(-1)
        tracking.results(report.results)
        tracking.picture(0, storage / job.work_path / "samples")
    return tracking.noted(report)


def device_name(world: World) -> str:
    """What clips are generated on: the GPU's or the processor's name, and how many processes generate at once."""
    if world.device.type == "cuda":
        name = torch.cuda.get_device_name(world.device)
    else:
        models = re.findall(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
        threads = torch.get_num_threads()
        name = f"{models[0] if models else 'a CPU'} ({threads} thread{'s' if threads > 1 else ''})"
    return name if world.size == 1 else f"{name}, {world.size} processes at once"


def _opened(
    job: Job, artifact: ArtifactReference, evaluation: Evaluation, storage: Path, world: World, check: Check
) -> tuple[Extractors, VideoModel, References]:
    extractors = load(evaluation.extractors, storage, world.device)
    model = open_model(artifact, storage, world.device)
    return extractors, model, open_references(job.data, storage, like=model.config, check=check)


def open_model(artifact: ArtifactReference, storage: Path, device: torch.device) -> VideoModel:
    """The bundle's model, verified. Raises Failure(ArtifactInvalid)."""
    try:
        return load_model(storage / artifact.path, artifact.digest, device)
    except CorruptError as error:
        raise Failure(Reason.ARTIFACT_INVALID, f"{error}; train the model again or restore the bundle") from error


class ClipSize(Protocol):
    """Length and size of clips: of a model's configuration, of a recipe or of a dataset's manifest."""

    @property
    def frames(self) -> int: ...

    @property
    def resolution(self) -> Resolution: ...


def clip_size(clips: ClipSize) -> str:
    """Their length and size in words."""
    return f"{clips.frames} frames of {clips.resolution.height} x {clips.resolution.width}"


def open_references(data: list[PinnedData], storage: Path, *, like: ClipSize | None = None, check: Check = check_alone) -> References:
    """The clips that the job names; where only `samples` are wanted, some of all of that part. `check`: as `open_dataset`.

    Raises Failure, also if they are fewer than 2 (DatasetTooSmall), or of another length or size than `like` (InvalidJob): a Fréchet
    distance between clips of 4 frames and clips of 13, or of other pixels, is one of lengths and sizes, not of models.
    """
    clips: list[tuple[Dataset, int]] = []
    resolved = []
    for entry in data:
        dataset = open_dataset(storage, entry.reference, entry.digest, check=check)
        _check_size(dataset, like)
        numbers = _chosen(dataset.part(entry.reference.split), entry.reference, dataset.resolved.digest)
        clips += [(dataset, number) for number in numbers]
        resolved.append(dataset.resolved.model_copy(update={"clips": len(numbers)}))
    if len(clips) < 2:
        names = ", ".join(f"{entry.reference.dataset} {entry.reference.version} {entry.reference.split}" for entry in data)
        raise Failure(
            Reason.DATASET_TOO_SMALL,
            f"data: {names} has {len(clips)} clips, at least 2 are needed to compare with; add videos and curate them",
        )
    captions = [dataset.records[number].caption for dataset, number in clips]
    order = hash_order(len(clips), "captions", *(part.digest for part in resolved))
    return References(clips=clips, captions=captions, resolved=resolved, order=order)


def _chosen(available: list[int], reference: DataReference, digest: str) -> list[int]:
    """At most `samples` of the clips, from all over the part and the same ones for every model, in the dataset's order."""
    if reference.samples is None or reference.samples >= len(available):
        return available
    order = hash_order(len(available), "references", digest, reference.split)
    return sorted(available[place] for place in order[: reference.samples])


def _check_size(dataset: Dataset, like: ClipSize | None) -> None:
    found = dataset.manifest
    if like is None or (found.frames, found.resolution) == (like.frames, like.resolution):
        return
    name = f"{dataset.resolved.dataset} {dataset.resolved.version}"
    raise Failure(
        Reason.INVALID_JOB,
        f"data: dataset {name} has {clip_size(found)}, the model generates {clip_size(like)}, and metrics compare clips of one length"
        f" and size; curate a version by a run with recipe.frames: {like.frames} and this recipe.resolution",
    )


def embed_references(references: References, extractors: Extractors, world: World) -> dict[str, Array]:
    """Features and motions of the real clips of this process' share, and the artefact measures [frames, 3] of their frames."""
    rows: Rows = defaultdict(list)
    pieces = Pieces(BATCH)
    for places in world.share(references.batches()):
        for part in pieces.run(places, lambda piece: _embedded(references.frames(piece), extractors)):
            _add(rows, part)
    return joined(rows)


def _embedded(clips: Clips, extractors: Extractors) -> Rows:
    """Rows of real clips [n, F, H, W, 3]."""
    rows: Rows = defaultdict(list)
    rows["motion"].append(motion(clips))
    rows["artefacts"].append(measures(clips).reshape(-1, len(FLOORS)))  # datasets differ in frames a clip
    for network in extractors.features:
        rows[f"features of {network.name}"].append(network.features(clips))
    return rows


def _add(rows: Rows, more: Mapping[str, list[Array]]) -> None:
    for name, parts in more.items():
        rows[name] += parts


def generate(
    job: Job,
    storage: Path,
    model: VideoModel,
    references: References,
    extractors: Extractors,
    world: World,
    progress: ProgressReporter,
    stop: Callable[[], bool],
) -> tuple[dict[str, Array], int]:
    """Arrays over the generated clips of this process' share, and how many were generated at once.

    Clips of the first batch are written at once: a volume that takes no more is told before hours are spent on the others.
    Raises Failure: Preempted, OutOfMemory, StorageFailed.
    """
    evaluation, seed = job.evaluate or Evaluation(), job.recipe.seed
    rows: Rows = defaultdict(list)
    whole = batches(0, evaluation.samples)
    timing, captions = Timing(len(whole)), references.asked(evaluation.samples)

    def asked(_done: int, _steps: int) -> None:
        if stop():
            raise Failure(Reason.PREEMPTED, "asked to stop; the next attempt begins this phase again")

    def generated(places: range, number: int = 0, steps: int = evaluation.sampling_steps) -> tuple[Rows, Clips]:
        """The clips of these places of a batch and what is measured of them."""
        part: Rows = defaultdict(list)
        begun, wanted = time.perf_counter(), captions[places.start : places.stop]
        clips = model.generate(wanted, [clip_seed(seed, number) for number in places], steps, asked)
        _add(part, {name: [row] for name, row in timing.rows(number, time.perf_counter() - begun, len(wanted)).items()})
        embed_generated(part, clips, wanted, extractors)
        return part, clips

    def tried(places: range) -> None:
        """The first calls with so many clips and with one also allocate and compile; they are not timed."""
        generated(places, steps=1)
        generated(places[:1], steps=1)

    pieces = Pieces(min(BATCH, evaluation.samples))
    pieces.agree(world, tried)
    for number, places in world.share(list(enumerate(whole))):
        shown: list[NDArray[np.uint8]] = []
        for some in timing.pieces(number, places):
            for part, clips in pieces.run(some, lambda piece, number=number: generated(piece, number)):  # type: ignore[misc]
                _add(rows, part)
                shown += list(clips) if number == 0 else []
        if number == 0:  # of rank 0
            write_samples(storage / job.work_path / "samples", shown[:SHOWN], captions, model.config.frame_rate)
        if world.leads:
            done = min(places.stop * world.size, evaluation.samples)  # the others' shares are no larger
            progress.report(done, evaluation.samples, {"clips": done}, final=done == evaluation.samples)
    return joined(rows), pieces.clips


def embed_generated(rows: Rows, clips: Clips, captions: list[str], extractors: Extractors) -> None:
    """Add what the metrics need of clips [n, F, H, W, 3] with their captions; these too are embedded only so many at once."""
    rows["motion"].append(motion(clips))
    rows["artefacts"].append(measures(clips))
    for network in extractors.video_networks:
        features, classes = network.outputs(clips)
        if network in extractors.features:
            rows[f"features of {network.name}"].append(features)
        if network in extractors.classifiers:
            rows[f"classes of {network.name}"].append(classes)
    for encoder in extractors.encoders:
        whole, frames = encoder.embeddings(clips)
        rows[f"similarity by {encoder.name}"].append(similarities(whole, encoder.caption_embeddings(captions)))
        rows[f"steadiness by {encoder.name}"].append(steadiness(frames))


def joined(rows: Rows) -> dict[str, Array]:
    """All batches' rows in one array each."""
    return {name: np.concatenate(parts) for name, parts in rows.items()}


def clip_seed(seed: int, number: int) -> int:
    """Seed of generated clip `number`, 0 .. 2**63 - 1; the same for every model of one recipe seed, so that models are compared on it."""
    return int.from_bytes(hashlib.blake2b(f"evaluate:{seed}:{number}".encode(), digest_size=8).digest(), "big") >> 1


def results(
    real: dict[str, Array], made: dict[str, Array], references: References, extractors: Extractors, seed: int, how: str
) -> list[MetricResult]:
    """All metrics, each by the default network and by the user's own."""
    drawn, asked = references.drawn(len(made["motion"])), references.asked(len(made["motion"]))
    measured = [
        measure.fvd(_network(features), real[rows], made[rows], seed=seed)
        for features in extractors.features
        if (rows := f"features of {features.name}")
    ]
    measured += [
        measure.inception(_network(classifier), made[f"classes of {classifier.name}"], seed=seed) for classifier in extractors.classifiers
    ]
    for encoder in extractors.encoders:
        unknown = sum(map(encoder.unknown, asked))
        measured += measure.clip_scores(_network(encoder), made[f"similarity by {encoder.name}"], unknown, seed=seed)
        if encoder.name not in DEFAULT_EXTRACTORS:  # which knows English words alone
            found = language_score(_network(encoder), made[f"similarity by {encoder.name}"], asked, seed=seed)
            measured += [found] if found else []
        steady = made[f"steadiness by {encoder.name}"]
        measured.append(measure.temporal_coherence(_network(encoder), steady, made["motion"], real["motion"][drawn], seed=seed))
    measured.append(measure.artefact_rate(real["artefacts"], made["artefacts"], seed=seed))
    measured.append(measure.generation_seconds(made["seconds"], seed=seed, message=how))
    return measured


def _network(extractor: VideoNetwork | TextVideoEncoder) -> Network:
    return Network(name=extractor.name, digest=extractor.digest)
