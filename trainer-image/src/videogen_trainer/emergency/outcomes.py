"""What became of each scenario: one line of JSON a scenario, written as soon as it is known.

Each process writes a file of its own, `outcomes-<rank>.jsonl`; at the end they are put together, in order, as `outcomes.jsonl`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from videogen_api.bundle import canonical_json
from videogen_api.meta import Observation
from videogen_models.sealed import sha256_of, write_durably
from videogen_trainer.dataset import writing
from videogen_trainer.emergency.scenarios import Scenario


class ScenarioOutcome(Observation):
    """One line."""

    key: str  # changes with all that decides the outcome
    id: str
    category: str
    urgency: str
    prompt: str
    seed: int
    outcome: str  # the server's word: ok, invalid, timeout, error
    seconds: float
    passed: bool
    reason: str = ""  # why not
    coherence: float | None = None
    artefact_rate: float | None = None
    similarity: float | None = None
    video: str = ""  # file beside this one
    video_sha256: str = ""

    def is_of(self, scenario: Scenario, key: str) -> bool:
        """Whether it is the outcome of this scenario in this job."""
        own = (self.key, self.id, self.prompt, self.category, self.urgency)
        return own == (key, scenario.id, scenario.prompt, scenario.category, scenario.urgency)


class OutcomeLog:
    """The outcomes of a phase, in its folder."""

    def __init__(self, folder: Path, key: str, rank: int) -> None:
        self._folder, self._key, self._rank = folder, key, rank

    def known(self, scenarios: Sequence[Scenario]) -> dict[str, ScenarioOutcome]:
        """By id, what any process of any attempt has found out; a torn last line and a video that is gone or damaged do not count."""
        wanted = {scenario.id: scenario for scenario in scenarios}
        lines = [line for path in sorted(self._folder.glob("outcomes-*.jsonl")) for line in path.read_bytes().splitlines()]
        found = (outcome for line in lines if (outcome := _read(line)))
        return {one.id: one for one in found if one.id in wanted and one.is_of(wanted[one.id], self._key) and self._has_video(one)}

    def _has_video(self, outcome: ScenarioOutcome) -> bool:
        path = self._folder / outcome.video
        return not outcome.video or (path.is_file() and sha256_of(path) == outcome.video_sha256)

    def add(self, outcome: ScenarioOutcome, video: bytes) -> ScenarioOutcome:
        """Write the video, then the line. Raises Failure(StorageFailed)."""
        path = self._folder / f"outcomes-{self._rank}.jsonl"
        with writing(path):
            if outcome.video:
                write_durably(self._folder / outcome.video, video)
            self._folder.mkdir(parents=True, exist_ok=True)
            with path.open("ab") as file:
                file.write(_after_torn(path) + canonical_json(outcome.wire()))
                file.flush()
                os.fsync(file.fileno())
        return outcome

    def finish(self, outcomes: Sequence[ScenarioOutcome]) -> None:
        """Put all together, in order, for people. Raises Failure(StorageFailed)."""
        with writing(path := self._folder / "outcomes.jsonl"):
            write_durably(path, b"".join(canonical_json(outcome.wire()) for outcome in outcomes))


def _read(line: bytes) -> ScenarioOutcome | None:
    try:
        return ScenarioOutcome.model_validate_json(line)
    except ValidationError:
        return None


def _after_torn(path: Path) -> bytes:
    """A line feed if the last line of a killed process has none."""
    data = path.read_bytes() if path.is_file() else b""
    return b"\n" if data and not data.endswith(b"\n") else b""
