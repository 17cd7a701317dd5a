"""What curation has kept and rejected so far: counts, a few examples of each cause, and the spread of lengths and motion."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from dataclasses import dataclass, field

from videogen_api.training_run import Reason, Split
from videogen_trainer.curation.rejection import REASONS, Cause, Rejection, plain
from videogen_trainer.curation.thumbnail import thumbnail
from videogen_trainer.dataset import Clip
from videogen_trainer.report import shorten

EXAMPLES = 6  # of each cause
SECONDS = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0)  # borders of the classes of the distributions
MOTION = (0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
LINE = 160  # characters of one reason in a message


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One clip or video that a person may look at; `picture` is a JPEG."""

    source: str
    caption: str
    why: str
    picture: bytes | None


@dataclass(slots=True)
class Spread:
    """Counts of values in classes [border, next border)."""

    borders: tuple[float, ...]
    counts: list[int] = field(default_factory=list)

    def add(self, value: float) -> None:
        """Count one value."""
        if not self.counts:
            self.counts = [0] * (len(self.borders) + 1)
        self.counts[bisect_right(self.borders, value)] += 1


@dataclass(slots=True)
class Tally:
    """Everything that is said of one curation."""

    videos: int = 0
    train: int = 0
    held_out: int = 0
    rejected: Counter[Cause] = field(default_factory=Counter)
    accepted_examples: list[Example] = field(default_factory=list)  # of one clip of each video
    further_examples: list[Example] = field(default_factory=list)
    rejected_examples: dict[Cause, list[Example]] = field(default_factory=dict)
    seconds: Spread = field(default_factory=lambda: Spread(SECONDS))
    motion: Spread = field(default_factory=lambda: Spread(MOTION))

    @property
    def clips(self) -> int:
        """Clips that were kept."""
        return self.train + self.held_out

    @property
    def examined(self) -> int:
        """Clips that were kept, and clips and videos that were rejected."""
        return self.clips + self.rejected.total()

    def accept(self, clip: Clip) -> None:
        """Count a clip that is kept."""
        self.train += clip.split is Split.TRAIN
        self.held_out += clip.split is Split.HELD_OUT
        if clip.motion is not None:
            self.motion.add(clip.motion)
        shown = {_video_of(example.source) for example in self.accepted_examples}
        chosen = self.further_examples if _video_of(plain(clip.source)) in shown else self.accepted_examples
        if len(chosen) < EXAMPLES:
            middle = clip.frames[len(clip.frames) // 2]
            chosen.append(Example(source=plain(clip.source), caption=plain(clip.caption), why="", picture=thumbnail(middle)))

    @property
    def kept_examples(self) -> list[Example]:
        """Clips of as many videos as can be shown."""
        return (self.accepted_examples + self.further_examples)[:EXAMPLES]

    def reject(self, rejection: Rejection) -> None:
        """Count a clip, video or row that is kept out."""
        self.rejected[rejection.cause] += 1
        examples = self.rejected_examples.setdefault(rejection.cause, [])
        if len(examples) < EXAMPLES:
            source, caption, why = map(plain, (rejection.source, rejection.caption, rejection.why))
            examples.append(Example(source=source, caption=caption, why=why, picture=rejection.picture))

    def too_many_rejected(self, percent: int) -> bool:
        """Whether more than this share of what was examined was rejected."""
        return self.rejected.total() * 100 > percent * self.examined

    @property
    def only_reason(self) -> Reason | None:
        """The reason of all rejections if they have one in common."""
        reasons = {REASONS.get(cause) for cause in self.rejected}
        return reasons.pop() if len(reasons) == 1 else None

    def in_words(self) -> str:
        """Causes with their counts and one example each, most frequent first."""
        return "; ".join(self._cause_in_words(cause, count) for cause, count in self.by_frequency())

    def by_frequency(self) -> list[tuple[Cause, int]]:
        """Causes and counts, most frequent first, equal ones in the order of `Cause`."""
        order = list(Cause)
        return sorted(self.rejected.items(), key=lambda item: (-item[1], order.index(item[0])))

    def _cause_in_words(self, cause: Cause, count: int) -> str:
        more = f" and {count - 1:,} more" if count > 1 else ""
        return f"{count:,} {cause} ({shorten(self.rejected_examples[cause][0].why, LINE)}{more})"


def _video_of(source: str) -> str:
    return source.rpartition(":")[0]
