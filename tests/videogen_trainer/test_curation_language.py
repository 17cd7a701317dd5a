"""Captions in the scripts of accepted languages."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from videogen_api.curation import Filters, Language, LanguageFilter
from videogen_testing.curation import curated, job, write_video
from videogen_trainer.curation.language import SCRIPTS, check_language, scripts_of
from videogen_trainer.curation.rejection import Cause, Rejected
from videogen_trainer.curation.video import Video

# "Water", or a like short word, in each language; Manipuri in both of its scripts.
WORDS = {
    Language.ENGLISH: ["water", "naïve café"],
    Language.HINDI: ["पानी की बाढ़"],
    Language.ASSAMESE: ["পানীৰ"],
    Language.BENGALI: ["জলের বন্যা"],
    Language.GUJARATI: ["પાણી"],
    Language.KANNADA: ["ನೀರು"],
    Language.MALAYALAM: ["വെള്ളം"],
    Language.MANIPURI: ["ꯏꯁꯤꯡ", "ঈশিং"],
    Language.MARATHI: ["पाण्याचा पूर"],
    Language.ODIA: ["ପାଣି"],
    Language.PUNJABI: ["ਪਾਣੀ"],
    Language.TAMIL: ["தண்ணீர்"],
    Language.TELUGU: ["నీళ్ళు"],
    Language.URDU: ["پانی"],
}


def accepted(caption: str, *languages: Language, percent: int = 80) -> bool:
    video = Video(path=Path("a.mp4"), name="raw/a.mp4", caption=caption)
    try:
        check_language(video, LanguageFilter(accepted=list(languages), minimum_percent=percent))
    except Rejected as rejected:
        return rejected.cause is not Cause.CAPTION_LANGUAGE
    return True


@pytest.mark.parametrize("language", list(Language))
def test_a_language_accepts_its_own_words_and_those_of_its_script_alone(language: Language) -> None:
    for other, words in WORDS.items():
        for word in words:
            (script,) = scripts_of(word)
            assert accepted(f"{word}, 112!", language) == (script in SCRIPTS[language]), (language, other, word)


@pytest.mark.parametrize(
    ("caption", "percent", "kept"),
    [
        ("a red square moves left", 100, True),
        ("a red square मै", 80, True),
        ("a red square मै", 100, False),
        ("लाल square", 80, False),
        ("7 / 8 !", 1, False),
        ("красный", 1, False),
        ("赤い四角", 1, False),
    ],
)
def test_the_share_of_letters_counts_and_a_caption_without_letters_is_of_no_language(caption: str, percent: int, kept: bool) -> None:
    assert accepted(caption, Language.ENGLISH, percent=percent) == kept


def test_accents_and_joiners_belong_to_no_script_of_their_own() -> None:
    assert scripts_of("cafe\u0301 क\u200dष") == Counter({"LATIN": 4, "DEVANAGARI": 2})


def test_a_caption_in_another_script_is_counted_and_said(tmp_path: Path) -> None:
    for number, caption in enumerate(("a red square", "लाल वर्ग", "красный квадрат", "red", "blue", "green")):
        write_video(tmp_path / f"raw/{number}.mp4", 8, seed=number, caption=caption)
    wanted = Filters(language=LanguageFilter(accepted=[Language.ENGLISH, Language.HINDI]))
    assert [record.caption for record in curated(tmp_path, job(filters=wanted)).records] == [
        "a red square",
        "लाल वर्ग",
        "red",
        "blue",
        "green",
    ]
    page = (tmp_path / "datasets/shapes/reports/v1.html").read_text()
    assert "the letters in the caption of raw/2.mp4 are Cyrillic 14; filters.language wants 80 % of Devanagari, Latin" in page
