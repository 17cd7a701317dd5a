"""Whether a clip shows what its caption says, by the cosine of a text-video encoder (`evaluate/clip_score.py`).

Computed on the CPU, one clip at a time, so that the answer depends neither on the number of processes nor on who comes before.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from videogen_api.curation import Filters
from videogen_api.evaluation import Extractor
from videogen_trainer.curation.rejection import Cause, Rejected
from videogen_trainer.dataset import Clip
from videogen_trainer.failure import Failure

if TYPE_CHECKING:
    from videogen_trainer.evaluate.extractors import TextVideoEncoder


def check_relevance(clip: Clip, filters: Filters, storage: Path) -> None:
    """Raises Rejected, or Failure(ExtractorMissing)."""
    if not (wanted := filters.relevance):
        return
    encoder = encoder_of(wanted.extractor, storage)
    if encoder.unknown(clip.caption):
        said = f"{encoder.name} knows no word of the caption of {clip.source}; name a CLIP in filters.relevance.extractor"
        raise Rejected(Cause.RELEVANCE, said)
    if (found := similarity(clip, encoder)) < float(wanted.minimum_similarity):
        said = f"{clip.source} and its caption have similarity {found:.3f} by {encoder.name}, filters.relevance wants"
        raise Rejected(Cause.RELEVANCE, f"{said} {wanted.minimum_similarity}")


def similarity(clip: Clip, encoder: TextVideoEncoder) -> float:
    """Mean cosine, -1 .. 1, of the caption's embedding with the clip's."""
    from videogen_trainer.evaluate.clip_score import similarities

    return float(similarities(encoder.clip_embeddings(clip.frames[None]), encoder.caption_embeddings([clip.caption]))[0])


@cache
def encoder_of(extractor: Extractor | None, storage: Path) -> TextVideoEncoder:
    """The default encoder, or the CLIP that was named; read once in a process. Raises Failure(ExtractorMissing)."""
    import torch  # only where the filter is on

    from videogen_trainer.evaluate.extractors import default_encoder, load

    torch.set_num_threads(1)
    cpu = torch.device("cpu")
    if extractor is None:
        return default_encoder(cpu)
    try:
        return load([extractor], storage, cpu).encoders[-1]
    except Failure as failure:
        place = f"evaluate.extractors[{extractor.name}]"
        raise Failure(failure.reason, failure.message.replace(place, "filters.relevance.extractor")) from failure
