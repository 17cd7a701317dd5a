"""What an attempt has left and reported."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from videogen_api.job import ArtifactReference, Report

WORK = "runs/demo-01234567/train"  # of the job that the trainer's tests begin with


@dataclass(frozen=True)
class Attempted:
    """A storage after an attempt; what several tests look at is made once, and those that write work on copies."""

    storage: Path
    report: Report


def artifact(report: Report) -> ArtifactReference:
    """The bundle of an attempt that must have made one."""
    assert report.artifact, report
    return report.artifact


def curve(storage: Path, work: str = WORK) -> list[dict[str, Any]]:
    """The lines of the training curve, which must be one a step."""
    lines = [json.loads(line) for line in (storage / work / "curve.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, len(lines) + 1))
    return lines


def losses(storage: Path, work: str = WORK) -> list[float]:
    """The loss of each step."""
    return [line["loss"] for line in curve(storage, work)]
