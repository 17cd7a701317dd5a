"""The random numbers of a training: all of them are a function of (seed, sample). And orders that rest on no generator at all."""

from __future__ import annotations

import hashlib

import torch


def sample_generator(seed: int, position: int) -> torch.Generator:
    """A generator for the sample at `position`, a number that never repeats in a run: what is drawn of it depends neither on
    the batch nor on the number of processes.
    """
    digest = hashlib.blake2b(f"{seed}/{position}".encode(), digest_size=7).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "big"))


def hash_order(count: int, *key: object) -> list[int]:
    """The numbers 0 .. count - 1 in the order of their hashes under `key`.

    The same on every machine and with every version of a library, which generators of random numbers do not promise.
    """
    salt = "/".join(map(str, key))
    return sorted(range(count), key=lambda number: hashlib.blake2b(f"{salt}/{number}".encode(), digest_size=16).digest())
