"""Processes that compute as the tests do: with the same kernels, which decide the last bits of every sum."""

from __future__ import annotations

import os

# What chooses between instruction sets: of PyTorch, oneDNN, MKL, OpenBLAS.
_CHOICES = ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "MKL_CBWR", "MKL_ENABLE_INSTRUCTIONS", "OPENBLAS_CORETYPE")


def environment() -> dict[str, str]:
    """The environment of a process of one thread that computes to the bit what this one does, and knows nothing else of this one's."""
    return {name: os.environ[name] for name in ("PATH", *_CHOICES) if name in os.environ} | {"OMP_NUM_THREADS": "1"}
