"""The random numbers of a training: all of them are a function of (seed, sample)."""

from __future__ import annotations

import hashlib

import torch


def sample_generator(seed: int, position: int) -> torch.Generator:
    """A generator for the sample at `position`, a number that never repeats in a run: what is drawn of it depends neither on
    the batch nor on the number of processes.
    """
    digest = hashlib.blake2b(f"{seed}/{position}".encode(), digest_size=7).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "big"))
