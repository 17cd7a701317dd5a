"""What a single video must fulfil, told by real clips."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from videogen_api.emergency import ClipQuality
from videogen_api.job import Job
from videogen_api.training_run import Reason
from videogen_trainer.emergency.judge import Judge, Scores, open_judge
from videogen_trainer.failure import Failure
from videogen_trainer.synthetic import synthetic_clip

CPU = torch.device("cpu")


@pytest.fixture
def judge(storage: Path, emergency_job: Callable[..., Job]) -> Callable[..., Judge]:
    def make(**quality: object) -> Judge:
        wanted = ClipQuality.model_validate(quality)
        return open_judge(wanted, emergency_job("BuildTemplates").data, storage, CPU)

    return make


def test_a_still_video_is_judged_by_what_its_category_moves(judge: Callable[..., Judge]) -> None:
    """Floods of the dataset move, the other clips stand still: over all, half of them, the usual motion is a small one."""
    still = np.full((4, 16, 16, 3), 90, np.uint8)
    still[:, 4:10, 4:10] = 200
    found = judge()
    assert found.motions["flood"] > found.motions[""]
    assert found.score(still, "a red square", "flood").coherence == 0.0
    for frame in range(4):
        still[frame, 4:10, 4:10] += np.uint8(4 * frame)  # hardly moves
    of_flood, of_other = (found.score(still, "a red square", category).coherence for category in ("FLOOD", "cyclone"))
    assert 0 < of_flood < 0.8 * of_other
    moving = synthetic_clip(0, seed=0, frames=4, height=16, width=16).frames
    assert found.score(moving, "a red square", "flood").coherence > 0.5


def test_noise_has_artefacts_and_a_smooth_video_has_none(judge: Callable[..., Judge]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (16, 64, 64, 3), dtype=np.uint8)
    smooth = synthetic_clip(0, seed=0, frames=16, height=64, width=64).frames
    assert judge().score(noise, "x", "flood").artefact_rate >= 0.5
    assert judge().score(smooth, "x", "flood").artefact_rate <= 0.25


def test_likeness_follows_the_prompt_and_is_unknown_for_foreign_words(judge: Callable[..., Judge]) -> None:
    clip = synthetic_clip(0, seed=0, frames=16, height=32, width=32)
    right, wrong = clip.caption, synthetic_clip(50, seed=0, frames=16, height=32, width=32).caption
    assert right != wrong
    scores = [judge().score(clip.frames, prompt, "flood").similarity for prompt in (right, wrong, "people wade home")]
    assert scores[0] is not None and scores[1] is not None
    assert scores[0] > scores[1] + 0.2
    assert scores[2] is None


BAD = {
    "coherence": (Scores(coherence=0.49, artefact_rate=0, similarity=1), "coherence is 0.490, quality.minimumCoherence is 0.5"),
    "artefacts": (Scores(coherence=0.5, artefact_rate=0.11, similarity=1), "artefact rate is 0.110, quality.maximumArtefactRate is 0.1"),
    "likeness": (Scores(coherence=0.5, artefact_rate=0.1, similarity=0.29), "similarity is 0.290 by text-video-encoder"),
    "unknown likeness": (Scores(coherence=0.5, artefact_rate=0.1), "similarity is not known"),
    "none": (Scores(coherence=0.5, artefact_rate=0.1, similarity=0.3), ""),
}


@pytest.mark.parametrize("scores, said", BAD.values(), ids=BAD.keys())
def test_the_first_requirement_that_is_not_met_is_named(judge: Callable[..., Judge], scores: Scores, said: str) -> None:
    found = judge(relevance={"minimumSimilarity": "0.3"}).problem(scores)
    assert found.startswith(said)
    assert bool(found) is bool(said)


def test_likeness_that_cannot_be_told_is_refused_before_any_work(judge: Callable[..., Judge]) -> None:
    judge().check_prompts(["people wade home"])
    with pytest.raises(Failure, match="knows no word of the prompt 'people wade home'; name a CLIP") as caught:
        judge(relevance={"minimumSimilarity": "0.3"}).check_prompts(["a red square", "people wade home"])
    assert caught.value.reason is Reason.INVALID_JOB


def test_an_encoder_that_is_missing_is_named_with_its_field(judge: Callable[..., Judge]) -> None:
    extractor = {"name": "mine", "architecture": "CLIP", "path": "networks/clip", "digest": "sha256:" + "0" * 64}
    with pytest.raises(Failure, match=r"quality\.relevance\.extractor: there is no file") as caught:
        judge(relevance={"minimumSimilarity": "0.3", "extractor": extractor})
    assert caught.value.reason is Reason.EXTRACTOR_MISSING
