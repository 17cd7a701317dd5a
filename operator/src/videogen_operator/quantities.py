"""Kubernetes quantities as numbers (k8s.io/apimachinery/pkg/api/resource)."""

from __future__ import annotations

import re
from decimal import Decimal

GPU = "nvidia.com/gpu"
_DECIMAL = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY = {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40, "Pi": 50, "Ei": 60}
_FACTORS = {suffix: Decimal(10) ** power for suffix, power in _DECIMAL.items()}
_FACTORS |= {suffix: Decimal(2) ** power for suffix, power in _BINARY.items()}
_QUANTITY = re.compile(rf"([0-9]+(?:\.[0-9]+)?(?:[eE][0-9]+)?)({'|'.join(_FACTORS)})")


def quantity(text: str | int) -> Decimal:
    """A Kubernetes quantity as a number: 500m is 0.5, 2Gi is 2147483648. Raises ValueError for anything else."""
    found = _QUANTITY.fullmatch(str(text))
    if found is None:
        raise ValueError(f"{text!r} is no quantity; accepted are numbers with {', '.join(filter(None, _FACTORS))}")
    return Decimal(found[1]) * _FACTORS[found[2]]
