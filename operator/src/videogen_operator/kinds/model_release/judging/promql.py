"""Pieces of PromQL (https://prometheus.io/docs/prometheus/latest/querying/basics/)."""

from __future__ import annotations

import json


def quoted(text: str) -> str:
    """A string literal: quotes, backslashes and line breaks in a value end neither the value nor the selector."""
    return json.dumps(text, ensure_ascii=False)


def after(ago: int) -> str:
    """The modifier for a moment so many seconds before now; Prometheus knows no offset of 0."""
    return f" offset {ago}s" if ago > 0 else ""
