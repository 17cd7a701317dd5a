"""What the process does with memory that it has freed."""

from __future__ import annotations

import ctypes

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
_LARGE = 32 << 20  # bytes; larger blocks go back to the system one by one. glibc's own threshold grows up to this one
_ALL = 2**31 - 1


def keep_freed_memory() -> None:
    """Keep freed memory for the next step instead of giving it back to the system (mallopt(3)); nothing without glibc.

    Steps are alike: what one frees the next one needs, and each page of it that was given back costs a page fault.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt:
        mallopt(_M_MMAP_THRESHOLD, _LARGE)
        mallopt(_M_TRIM_THRESHOLD, _ALL)
