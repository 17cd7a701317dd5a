"""The learning curve: one JSON line a step, each step once, however often the run was interrupted."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

from videogen_models.sealed import write_durably
from videogen_trainer.dataset import writing

_FLUSH_SECONDS = 1.0


class Curve:
    """Lines of `curve.jsonl`; those of steps that a resumed run will do again are dropped.

    `reached` is the last step that it ever had, kept beside it: what the attempts before are known to have done.
    """

    def __init__(self, path: Path, step: int, clock: Callable[[], float]) -> None:
        found = {line: _step(line) for line in _lines(path)}
        kept = [line for line, number in found.items() if number <= step]
        known = path.with_suffix(".reached")
        earlier = int(known.read_text()) if known.is_file() else 0
        self.reached = int(max((number for number in found.values() if number < math.inf), default=0))
        self.reached = max(self.reached, earlier)
        with writing(path):
            write_durably(known, str(self.reached).encode())
            write_durably(path, b"".join(line + b"\n" for line in kept))
        self._path = path
        self._waiting: list[str] = []
        self._clock = clock
        self._flushed = clock()

    def add(self, **values: float) -> None:
        """Add a step's values; they reach the file with the next `flush`, and within a second of training."""
        self._waiting.append(json.dumps(values) + "\n")
        if self._clock() - self._flushed > _FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write what was added: called before each checkpoint, so that the file is never behind one.

        Raises Failure(StorageFailed) that names the file; so does `add`.
        """
        with writing(self._path), self._path.open("a") as file:
            file.writelines(self._waiting)
        self._waiting.clear()
        self._flushed = self._clock()


def _lines(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines() if path.is_file() else []


def _step(line: bytes) -> float:
    """The line's step; a line cut short by a crash belongs to no step that is kept."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError):
        return math.inf
