"""How well clips follow captions of the language that is followed worst.

Languages are told by script (`curation.language`). The mean over all captions hides one that few captions are written in. The
score is the CLIP score (ClipScore25) of that language's captions alone, so it says as much as the encoder knows of the language.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from videogen_api.evaluation import Metric, MetricResult, Normalization
from videogen_trainer.curation.language import scripts_of
from videogen_trainer.evaluate.bootstrap import interval
from videogen_trainer.evaluate.clip_score import normalized
from videogen_trainer.evaluate.measure import Network, decimal, result

LEAST_PERCENT = 5  # of the clips: a script of fewer is a stray word in a caption of another language


def script_of(caption: str) -> str:
    """The script of most of a caption's letters, as Unicode names it; "" for a caption without letters."""
    return next((script.capitalize() for script, _ in scripts_of(caption).most_common(1)), "")


def language_score(network: Network, cosines: NDArray[np.float64], captions: Sequence[str], *, seed: int) -> MetricResult | None:
    """The score of clips by their similarities [N] with their N captions; None unless two scripts have 5 % of the clips each."""
    scripts = [script_of(caption) for caption in captions]
    counts = Counter(script for script in scripts if script)
    used = sorted(script for script, count in counts.items() if count > 1 and 100 * count >= LEAST_PERCENT * len(scripts))
    if len(used) < 2:
        return None
    scores = normalized(cosines, Normalization.CLIP_SCORE_25)
    of = {script: scores[np.array([one == script for one in scripts])] for script in used}
    means = {script: float(of[script].mean()) for script in used}
    worst = min(used, key=means.__getitem__)
    bounds = interval(lambda drawn: float(of[worst][drawn].mean()), len(of[worst]), seed=seed)
    said = ", ".join(f"{script} {decimal(means[script])} ({len(of[script])} clips)" for script in used)
    return result(Metric.LANGUAGE_SCORE, means[worst], bounds, samples=len(of[worst]), network=network, message=f"{worst}; of all: {said}")
