"""CLIP score: how well generated clips show what their captions say.

The similarity of a clip is the mean, over its embeddings, of their cosine with the caption's embedding: over the frames for
CLIP (CLIPSIM, Wu et al., 2021), over the one embedding of the whole clip for the default text-video encoder.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from videogen_api.evaluation import Normalization

CLIP_SCORE_SCALE = 2.5  # w of Hessel et al., 2021, eq. 1


def similarities(clips: NDArray[np.float64], captions: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean cosine [N] of each clip's embeddings [N, M, E] with its caption's [N, E]; in [-1, 1].

    Raises ValueError if an embedding has no direction.
    """
    if clips.shape[::2] != captions.shape:
        raise ValueError(f"clip embeddings {clips.shape} do not match caption embeddings {captions.shape}")
    cosines = np.einsum("nme,ne->nm", unit(clips), unit(captions))
    return np.clip(cosines.mean(axis=1), -1.0, 1.0)


def normalized(similarity: NDArray[np.float64], normalization: Normalization) -> NDArray[np.float64]:
    """Raw cosine, or 2.5 · max(cosine, 0) of the clip's mean cosine (Hessel et al., 2021, eq. 1); the metric is the mean over clips."""
    if normalization is Normalization.RAW:
        return similarity
    return CLIP_SCORE_SCALE * similarity.clip(min=0.0)


def unit(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Vectors [..., E] of length 1. Raises ValueError if one is zero or not finite."""
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    if not np.isfinite(lengths).all() or (lengths == 0).any():
        raise ValueError("an embedding is zero or not finite; the text-video encoder was fed a broken clip or has broken weights")
    return np.asarray(vectors / lengths, dtype=np.float64)
