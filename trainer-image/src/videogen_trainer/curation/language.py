"""Which scripts a caption is written in. A script tells languages apart only where they do not share it.

`en` accepts whatever is in Latin letters, French and romanised Hindi too; Hindi and Marathi share Devanagari, Bengali and
Assamese share Bengali, and Manipuri is written in Meetei Mayek or Bengali. Scripts: The Unicode Standard, chapters 7, 9, 12, 13.
"""

from __future__ import annotations

import unicodedata
from collections import Counter

from videogen_api.curation import Language, LanguageFilter
from videogen_trainer.curation.rejection import Cause, Rejected
from videogen_trainer.curation.video import Video

# The first words of the letters' names in the Unicode Character Database.
SCRIPTS: dict[Language, tuple[str, ...]] = {
    Language.ENGLISH: ("LATIN",),
    Language.HINDI: ("DEVANAGARI",),
    Language.ASSAMESE: ("BENGALI",),
    Language.BENGALI: ("BENGALI",),
    Language.GUJARATI: ("GUJARATI",),
    Language.KANNADA: ("KANNADA",),
    Language.MALAYALAM: ("MALAYALAM",),
    Language.MANIPURI: ("MEETEI", "BENGALI"),
    Language.MARATHI: ("DEVANAGARI",),
    Language.ODIA: ("ORIYA",),
    Language.PUNJABI: ("GURMUKHI",),
    Language.TAMIL: ("TAMIL",),
    Language.TELUGU: ("TELUGU",),
    Language.URDU: ("ARABIC",),
}


def scripts_of(text: str) -> Counter[str]:
    """How many letters, and vowel signs of Indic scripts, the text has of each script; digits and signs are of none."""
    letters = (letter for letter in unicodedata.normalize("NFC", text) if unicodedata.category(letter)[0] in "LM")
    names = (unicodedata.name(letter, "?").split(" ")[0].split("-")[0] for letter in letters)
    return Counter(name for name in names if name not in {"COMBINING", "ZERO", "VARIATION"})


def check_language(video: Video, wanted: LanguageFilter) -> None:
    """Raises Rejected if too few of the caption's letters are in the script of an accepted language."""
    found = scripts_of(video.caption)
    scripts = {script for language in wanted.accepted for script in SCRIPTS[language]}
    accepted = sum(found[script] for script in scripts)
    if not found or accepted * 100 < wanted.minimum_percent * found.total():
        what = ", ".join(f"{script.capitalize()} {count}" for script, count in found.most_common(3)) or "none"
        said = f"the letters in the caption of {video.name} are {what}; filters.language wants {wanted.minimum_percent} % of"
        raise Rejected(Cause.CAPTION_LANGUAGE, f"{said} {', '.join(script.capitalize() for script in sorted(scripts))}")
