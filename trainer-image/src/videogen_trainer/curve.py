"""The learning curve: one JSON line a step, each step once, however often the run was interrupted."""

from __future__ import annotations

import json
from pathlib import Path

from videogen_models.sealed import write_durably


class Curve:
    """Lines of `curve.jsonl`; those of steps that a resumed run will do again are dropped."""

    def __init__(self, path: Path, step: int) -> None:
        kept = [line for line in _lines(path) if _step(line) <= step]
        write_durably(path, b"".join(line + b"\n" for line in kept))
        self._path = path
        self._waiting: list[str] = []

    def add(self, **values: float) -> None:
        """Add a step's values; they reach the file with the next `flush`."""
        self._waiting.append(json.dumps(values) + "\n")

    def flush(self) -> None:
        """Write what was added: called before each checkpoint, so that the file is never behind one."""
        with self._path.open("a") as file:
            file.writelines(self._waiting)
        self._waiting.clear()


def _lines(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines() if path.is_file() else []


def _step(line: bytes) -> float:
    """The line's step; a line cut short by a crash belongs to no step that is kept."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError):
        return float("inf")
