"""Whether one video is good enough: its coherence, its artefacts, and its likeness to the prompt.

The metrics are those of Evaluate (`evaluate/`), on a single clip. What a real video is like is told by the clips of the
phase's `data`: limits of artefacts by all of them, motion by those of the video's category, or by all if there are none.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from videogen_api.emergency import ClipQuality
from videogen_api.evaluation import ExtractorArchitecture
from videogen_api.job import PinnedData
from videogen_api.pinned import ResolvedDataset
from videogen_api.training_run import Reason
from videogen_trainer.dataset import Check, check_alone
from videogen_trainer.evaluate import artefacts
from videogen_trainer.evaluate.clip_score import similarities
from videogen_trainer.evaluate.coherence import coherence, motion, steadiness
from videogen_trainer.evaluate.extractors import TextVideoEncoder, load
from videogen_trainer.evaluate.task import References, open_references
from videogen_trainer.failure import Failure

Clip = NDArray[np.uint8]  # [frames, height, width, 3]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """What was measured on one video."""

    coherence: float
    artefact_rate: float
    similarity: float | None = None  # None: the encoder knows no word of the prompt


@dataclass(frozen=True, slots=True, kw_only=True)
class Judge:
    """Measures videos and says what is wrong with them."""

    quality: ClipQuality
    encoder: TextVideoEncoder
    limits: NDArray[np.float64]
    motions: dict[str, float]  # median of real clips by category; "" of all
    datasets: list[ResolvedDataset]

    def score(self, clip: Clip, prompt: str, category: str) -> Scores:
        """All scores of a video uint8 [frames, height, width, 3]."""
        clips = clip[None]
        usual = np.array([self.motions.get(category.casefold(), self.motions[""])])
        whole, frames = self.encoder.embeddings(clips)
        like = None
        if not self.encoder.unknown(prompt):
            like = float(similarities(whole, self.encoder.caption_embeddings([prompt]))[0])
        return Scores(
            coherence=float(coherence(steadiness(frames), motion(clips), usual)[0]),
            artefact_rate=float(artefacts.rates(artefacts.measures(clips), self.limits)[0]),
            similarity=like,
        )

    def problem(self, scores: Scores) -> str:
        """The first requirement that is not met, in words; "" if all are."""
        wanted = self.quality
        if scores.coherence < float(wanted.minimum_coherence):
            return f"coherence is {scores.coherence:.3f}, quality.minimumCoherence is {wanted.minimum_coherence}"
        if scores.artefact_rate > float(wanted.maximum_artefact_rate):
            return f"artefact rate is {scores.artefact_rate:.3f}, quality.maximumArtefactRate is {wanted.maximum_artefact_rate}"
        if wanted.relevance and (scores.similarity is None or scores.similarity < float(wanted.relevance.minimum_similarity)):
            found = "not known" if scores.similarity is None else f"{scores.similarity:.3f}"
            least = f"quality.relevance.minimumSimilarity is {wanted.relevance.minimum_similarity}"
            return f"similarity is {found} by {self.encoder.name}, {least}"
        return ""

    def check_prompts(self, prompts: Iterable[str]) -> None:
        """Raises Failure(InvalidJob) if likeness is demanded and the encoder cannot tell that of a prompt."""
        if self.quality.relevance and (strange := next((prompt for prompt in prompts if self.encoder.unknown(prompt)), None)) is not None:
            said = f"quality.relevance: {self.encoder.name} knows no word of the prompt {strange!r}"
            raise Failure(Reason.INVALID_JOB, f"{said}; name a CLIP of yours in relevance.extractor, or leave relevance out")


def open_judge(quality: ClipQuality, data: list[PinnedData], storage: Path, device: torch.device, *, check: Check = check_alone) -> Judge:
    """The judge by the clips of `data`; `check`: as `open_dataset`.

    Raises Failure: DatasetNotFound, DatasetCorrupt, DatasetTooSmall, ExtractorMissing.
    """
    encoder = _encoder(quality, storage, device)
    references = open_references(data, storage, check=check)
    batches = (references.frames(places) for places in references.batches())
    measured = [(artefacts.measures(clips).reshape(-1, len(artefacts.FLOORS)), motion(clips)) for clips in batches]
    return Judge(
        quality=quality,
        encoder=encoder,
        limits=artefacts.limits(np.concatenate([frames for frames, _ in measured])),
        motions=_by_category(references, np.concatenate([moved for _, moved in measured])),
        datasets=references.resolved,
    )


def _by_category(references: References, found: NDArray[np.float64]) -> dict[str, float]:
    labels = np.array([(dataset.records[number].category or "").casefold() for dataset, number in references.clips])
    return {label: float(np.median(found[labels == label])) for label in set(labels.tolist())} | {"": float(np.median(found))}


def _encoder(quality: ClipQuality, storage: Path, device: torch.device) -> TextVideoEncoder:
    wanted = quality.relevance.extractor if quality.relevance else None
    if wanted is not None and wanted.architecture is not ExtractorArchitecture.CLIP:
        raise Failure(Reason.INVALID_JOB, f"quality.relevance.extractor.architecture is {wanted.architecture}; accepted is CLIP")
    try:
        return load([wanted] if wanted else [], storage, device).encoders[-1]
    except Failure as failure:
        place = f"evaluate.extractors[{wanted.name}]" if wanted else ""
        raise Failure(
            failure.reason, failure.message.replace(place, "quality.relevance.extractor") if place else failure.message
        ) from failure
