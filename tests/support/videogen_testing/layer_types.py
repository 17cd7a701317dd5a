"""In which types layers compute, seen from outside: a loss tells it only by how it is rounded."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn.modules.module import register_module_forward_hook


@contextmanager
def computed_in() -> Iterator[set[torch.dtype]]:
    """Types of what layers of this process return while the block lasts."""
    seen: set[torch.dtype] = set()

    def look(_module: torch.nn.Module, _given: Any, made: Any) -> None:
        if isinstance(made, torch.Tensor):
            seen.add(made.dtype)

    hook = register_module_forward_hook(look)
    try:
        yield seen
    finally:
        hook.remove()
