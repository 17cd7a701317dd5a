"""The score of the language that is followed worst, on similarities whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from videogen_api.evaluation import Metric
from videogen_trainer.evaluate.language_score import language_score, script_of
from videogen_trainer.evaluate.measure import Network

CLIP = Network(name="clip", digest="sha256:" + "0" * 64)
ENGLISH, HINDI, TAMIL = "a flooded street", "पानी से भरी सड़क", "வெள்ளம்"


def scored(*parts: tuple[str, int, float]) -> tuple[list[str], np.ndarray[tuple[int], np.dtype[np.float64]]]:
    """Captions and similarities: so many clips of a caption, all with this cosine."""
    captions = [caption for caption, count, _ in parts for _ in range(count)]
    return captions, np.array([cosine for _, count, cosine in parts for _ in range(count)])


def test_the_language_that_is_followed_worst_decides() -> None:
    """The mean over all clips, 0.77, would hide it."""
    captions, cosines = scored((ENGLISH, 80, 0.32), (HINDI, 15, 0.2), (TAMIL, 10, 0.3))
    found = language_score(CLIP, cosines, captions, seed=0)
    assert found
    assert (found.metric, float(found.value), found.samples) == (Metric.LANGUAGE_SCORE, pytest.approx(0.5), 15)
    assert (found.extractor, found.extractor_digest) == (CLIP.name, CLIP.digest)
    assert found.message == "Devanagari; of all: Devanagari 0.500000 (15 clips), Latin 0.800000 (80 clips), Tamil 0.750000 (10 clips)"


def test_its_interval_is_that_of_its_own_clips() -> None:
    captions, cosines = scored((ENGLISH, 50, 0.32), (HINDI, 25, 0.1), (HINDI, 25, 0.2))
    found = language_score(CLIP, cosines, captions, seed=0)
    assert found and found.low and found.high
    assert 0.25 < float(found.low) < float(found.value) < float(found.high) < 0.5
    assert float(found.value) == pytest.approx(0.375)


@pytest.mark.parametrize(
    "parts",
    [
        pytest.param([(ENGLISH, 40, 0.3)], id="one language"),
        pytest.param([(ENGLISH, 97, 0.3), (HINDI, 3, 0.1)], id="a second one in stray captions alone"),
        pytest.param([(ENGLISH, 3, 0.3), (HINDI, 1, 0.1)], id="a second one in a single clip"),
        pytest.param([(ENGLISH, 40, 0.3), ("2026 !", 40, 0.1)], id="captions without letters"),
    ],
)
def test_without_two_languages_there_is_nothing_to_compare(parts: list[tuple[str, int, float]]) -> None:
    captions, cosines = scored(*parts)
    assert language_score(CLIP, cosines, captions, seed=0) is None


@pytest.mark.parametrize(
    ("caption", "script"),
    [(ENGLISH, "Latin"), (HINDI, "Devanagari"), (TAMIL, "Tamil"), (f"{HINDI} NDRF", "Devanagari"), ("42", "")],
)
def test_a_caption_is_in_the_script_of_most_of_its_letters(caption: str, script: str) -> None:
    assert script_of(caption) == script
