"""Decimals of the API as numbers. Kubernetes quantities: `videogen_api.resources.number`."""

from __future__ import annotations


def number(text: str) -> float | None:
    """A decimal of the API as a number; None if it is none."""
    try:
        return float(text)
    except ValueError:
        return None
