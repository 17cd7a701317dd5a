"""Why a clip, or a whole video, is kept out of a dataset version."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from videogen_api.training_run import Reason


class Cause(StrEnum):
    """The causes, in the order in which they are looked for."""

    TABLE_INVALID = "TableInvalid"  # a row of a source's table cannot be read
    SHARD_INVALID = "ShardInvalid"  # a tar file is damaged, or something in it cannot be used
    VIDEO_MISSING = "VideoMissing"
    CAPTION_MISSING = "CaptionMissing"  # or not UTF-8, or empty
    CAPTION_LENGTH = "CaptionLength"
    CAPTION_LANGUAGE = "CaptionLanguage"
    VIDEO_UNREADABLE = "VideoUnreadable"  # zero-length, truncated, damaged, audio only, no video, larger than 8K
    RESOLUTION = "Resolution"
    LENGTH = "Length"
    TOO_SHORT = "TooShort"  # no clip fits into any of the video's scenes
    VARIABLE_FRAME_RATE = "VariableFrameRate"
    DARKNESS = "Darkness"
    MOTION = "Motion"
    TEXT_OVERLAY = "TextOverlay"
    RELEVANCE = "Relevance"
    DUPLICATE = "Duplicate"


REASONS = {
    Cause.TABLE_INVALID: Reason.TABLE_INVALID,
    Cause.SHARD_INVALID: Reason.VIDEO_UNREADABLE,
    Cause.VIDEO_MISSING: Reason.VIDEO_MISSING,
    Cause.CAPTION_MISSING: Reason.CAPTION_MISSING,
    Cause.VIDEO_UNREADABLE: Reason.VIDEO_UNREADABLE,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejection:
    """One clip, video or row that is kept out. `why` is a whole sentence that names the file; `picture` is a JPEG."""

    cause: Cause
    source: str
    why: str
    caption: str = ""
    picture: bytes | None = None


def plain(text: str) -> str:
    """The text on one line, for messages and reports: what would break it, turn it round or command a terminal is spelled out.

    Joiners stay, for Indic scripts need them. Categories and bidirectional classes: Unicode Standard Annexes 44 and 9.
    """
    return "".join(letter.encode("unicode_escape").decode() if _commands(letter) else letter for letter in text)


def _commands(letter: str) -> bool:
    turns = unicodedata.bidirectional(letter) in {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
    return turns or unicodedata.category(letter) in {"Cc", "Cs", "Zl", "Zp"}


class Rejected(Exception):
    """Ends the work on one video."""

    def __init__(self, cause: Cause, why: str) -> None:
        super().__init__(why)
        self.cause = cause
        self.why = why


Reject = Callable[[Rejection], None]
