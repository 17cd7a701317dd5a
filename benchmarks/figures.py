"""Measured figures with their aims, as one table."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured value. It meets its aim when it is not greater."""

    name: str
    value: float
    unit: str = ""
    aim: float | None = None
    peer: float | None = None  # the same, of the peer, measured in the same run

    @property
    def verdict(self) -> str:
        """Whether the aim is met; empty without aim."""
        return "" if self.aim is None else "met" if self.value <= self.aim else "MISSED"


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least this share of all values does not exceed (nearest rank). `share` is from (0, 1]."""
    assert values, "a percentile of nothing"
    return sorted(values)[math.ceil(share * len(values)) - 1]


def circumstances() -> str:
    """When and on what it was measured. The load average says whether anybody else was using the machine."""
    load = os.getloadavg()[0]
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    return f"{now}, {os.cpu_count()} cores, load average {load:.1f} at the start"


def table(figures: Iterable[Figure]) -> str:
    """A Markdown table: measured, aim, met or not, and how it compares with the peer where there is one."""
    rows = [("measured", "value", "aim", "", "peer", "ours / peer"), *map(_row, figures)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]])


def _row(figure: Figure) -> tuple[str, ...]:
    ratio = "" if not figure.peer else f"{figure.value / figure.peer:.2f}"
    bound = "" if figure.aim is None else f"≤ {_number(figure.aim)} {figure.unit}".rstrip()
    peer = "" if figure.peer is None else f"{_number(figure.peer)} {figure.unit}".rstrip()
    return figure.name, f"{_number(figure.value)} {figure.unit}".rstrip(), bound, figure.verdict, peer, ratio


def _number(value: float) -> str:
    return f"{value:.0f}" if value == int(value) or value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.3g}"
