"""Task Evaluate: generate clips for the captions of a dataset part, compare them with its clips, report the metrics.

Generated clip i takes the caption of real clip i (modulo their count) and a seed made of the recipe's seed and i, so the
clips are the same whatever the batch size.
"""

from __future__ import annotations

import hashlib
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from videogen_api.evaluation import MetricResult
from videogen_api.job import ArtifactReference, Job, PinnedData, Report
from videogen_api.training_run import Evaluation, Reason, ResolvedDataset
from videogen_models.bundle import load_model
from videogen_models.sampling import sample
from videogen_models.sealed import CorruptError, write_durably
from videogen_models.video import contact_sheet, encode_mp4
from videogen_models.videofusion import VideoFusionModel
from videogen_trainer.dataset import Dataset, open_dataset
from videogen_trainer.evaluate import measure
from videogen_trainer.evaluate.coherence import motion
from videogen_trainer.evaluate.extractors import Extractors, TextVideoEncoder, VideoClassifier, VideoFeatures, load
from videogen_trainer.evaluate.measure import Network
from videogen_trainer.failure import Failure
from videogen_trainer.progress import ProgressReporter
from videogen_trainer.report import require_results

BATCH = 8
SHOWN = 8  # generated clips that are kept as files

Array = NDArray[np.float64]
Clips = NDArray[np.uint8]
Rows = defaultdict[str, list[Array]]  # of batches of clips, by name


@dataclass(frozen=True, slots=True, kw_only=True)
class References:
    """Real clips, as pairs of dataset and number, with their captions."""

    clips: list[tuple[Dataset, int]]
    captions: list[str]
    resolved: list[ResolvedDataset]

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


def run(job: Job, storage: Path, progress: ProgressReporter) -> Report:
    """Measure `job.artifact` on `job.data`; sample clips go into `samples/` of the work path.

    Raises Failure: ArtifactInvalid, DatasetNotFound, DatasetCorrupt, DatasetTooSmall, ExtractorMissing, ResultsTooLarge.
    """
    assert job.artifact is not None, "an Evaluate job without an artifact"
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    evaluation = job.evaluate or Evaluation()
    extractors = load(evaluation.extractors, storage, device)
    references = open_references(job.data, storage)
    model = open_model(job.artifact, storage, device)
    real = embed_references(references, extractors)
    made, shown = generate(model, references, extractors, evaluation, job.recipe.seed, progress)
    write_samples(storage / job.work_path / "samples", shown, references.captions, job.recipe.frame_rate)
    how = f"{evaluation.sampling_steps} steps on {torch.cuda.get_device_name() if device.type == 'cuda' else 'a CPU'}"
    done = Report(
        message=f"{evaluation.samples} generated clips against {len(references.clips)} real ones",
        artifact=job.artifact,
        datasets=references.resolved,
        results=results(real, made, references.captions, extractors, job.recipe.seed, how),
    )
    require_results(done)
    return done


def open_model(artifact: ArtifactReference, storage: Path, device: torch.device) -> VideoFusionModel:
    """The bundle's model, verified. Raises Failure(ArtifactInvalid)."""
    try:
        return load_model(storage / artifact.path, artifact.digest, device)
    except CorruptError as error:
        raise Failure(Reason.ARTIFACT_INVALID, f"{error}; train the model again or restore the bundle") from error


def open_references(data: list[PinnedData], storage: Path) -> References:
    """All clips that the job names, in order. Raises Failure, also if they are fewer than 2."""
    clips: list[tuple[Dataset, int]] = []
    resolved = []
    for entry in data:
        dataset = open_dataset(storage, entry.reference, entry.digest)
        numbers = dataset.part(entry.reference.split)[: entry.reference.samples]
        clips += [(dataset, number) for number in numbers]
        resolved.append(dataset.resolved.model_copy(update={"clips": len(numbers)}))
    if len(clips) < 2:
        names = ", ".join(f"{entry.reference.dataset} {entry.reference.version} {entry.reference.split}" for entry in data)
        raise Failure(
            Reason.DATASET_TOO_SMALL,
            f"data: {names} has {len(clips)} clips, at least 2 are needed to compare with; add videos and curate them",
        )
    captions = [dataset.records[number].caption for dataset, number in clips]
    return References(clips=clips, captions=captions, resolved=resolved)


def embed_references(references: References, extractors: Extractors) -> dict[str, Array]:
    """Features and motions of all real clips."""
    rows: Rows = defaultdict(list)
    for places in references.batches():
        clips = references.frames(places)
        rows["motion"].append(motion(clips))
        for network in extractors.features:
            rows[f"features of {network.name}"].append(network.features(clips))
    return _whole(rows)


def generate(
    model: VideoFusionModel, references: References, extractors: Extractors, evaluation: Evaluation, seed: int, progress: ProgressReporter
) -> tuple[dict[str, Array], list[Clips]]:
    """Arrays over all generated clips, and the first of the clips."""
    rows: Rows = defaultdict(list)
    shown: list[Clips] = []
    captions = [references.captions[number % len(references.captions)] for number in range(evaluation.samples)]
    sample(model, captions[:1], [0], 1)  # the first call also allocates and compiles; it is not timed
    for places in batches(0, evaluation.samples):
        begun = time.perf_counter()
        wanted = [captions[number] for number in places]
        clips = sample(model, wanted, [clip_seed(seed, number) for number in places], evaluation.sampling_steps)
        rows["seconds"].append(np.full(len(wanted), (time.perf_counter() - begun) / len(wanted)))
        _embed_generated(rows, clips, extractors)
        shown += list(clips[: SHOWN - len(shown)])
        progress.report(places.stop, evaluation.samples, {"clips": places.stop}, final=places.stop == evaluation.samples)
    return _whole(rows), shown


def _embed_generated(rows: Rows, clips: Clips, extractors: Extractors) -> None:
    rows["motion"].append(motion(clips))
    for features in extractors.features:
        rows[f"features of {features.name}"].append(features.features(clips))
    for classifier in extractors.classifiers:
        rows[f"classes of {classifier.name}"].append(classifier.log_probabilities(clips))
    for encoder in extractors.encoders:
        rows[f"clips of {encoder.name}"].append(encoder.clip_embeddings(clips))
        rows[f"frames of {encoder.name}"].append(encoder.frame_embeddings(clips))


def _whole(rows: Rows) -> dict[str, Array]:
    return {name: np.concatenate(parts) for name, parts in rows.items()}


def clip_seed(seed: int, number: int) -> int:
    """Seed of generated clip `number`, 0 .. 2**63 - 1; the same for every model of one recipe seed, so that models are compared on it."""
    return int.from_bytes(hashlib.blake2b(f"evaluate:{seed}:{number}".encode(), digest_size=8).digest(), "big") >> 1


def results(
    real: dict[str, Array], made: dict[str, Array], captions: list[str], extractors: Extractors, seed: int, how: str
) -> list[MetricResult]:
    """All metrics, each by the default network and by the user's own."""
    drawn = np.arange(len(made["seconds"])) % len(captions)  # the real clip that each generated one belongs to
    measured = [
        measure.fvd(_network(features), real[rows], made[rows], seed=seed)
        for features in extractors.features
        if (rows := f"features of {features.name}")
    ]
    measured += [
        measure.inception(_network(classifier), made[f"classes of {classifier.name}"], seed=seed) for classifier in extractors.classifiers
    ]
    for encoder in extractors.encoders:
        wanted = encoder.caption_embeddings(captions)[drawn]
        unknown = sum(encoder.unknown(captions[number]) for number in drawn)
        measured += measure.clip_scores(_network(encoder), made[f"clips of {encoder.name}"], wanted, unknown, seed=seed)
        frames = made[f"frames of {encoder.name}"]
        measured.append(measure.temporal_coherence(_network(encoder), frames, made["motion"], real["motion"][drawn], seed=seed))
    measured.append(measure.generation_seconds(made["seconds"], seed=seed, message=f"per clip, in batches of {BATCH}, {how}"))
    return measured


def write_samples(folder: Path, clips: list[Clips], captions: list[str], frame_rate: int) -> None:
    """`sample-<number>.mp4` with its caption in `.txt`, and `contact-sheet.png`."""
    shown = [captions[number % len(captions)] for number in range(len(clips))]
    for number, (clip, caption) in enumerate(zip(clips, shown, strict=True)):
        write_durably(folder / f"sample-{number:02}.mp4", encode_mp4(clip, frame_rate))
        write_durably(folder / f"sample-{number:02}.txt", f"{caption}\n".encode())
    write_durably(folder / "contact-sheet.png", contact_sheet(clips, shown))


def _network(extractor: VideoFeatures | VideoClassifier | TextVideoEncoder) -> Network:
    return Network(name=extractor.name, digest=extractor.digest)
