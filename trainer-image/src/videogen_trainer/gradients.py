"""The gradient's norm over everything that learns, whole or in shards, and clipping it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from videogen_trainer.sharding import is_shard, whole


def clip_gradients(parameters: Sequence[nn.Parameter], most: float) -> float:
    """Scale the gradients so that their global norm is at most `most`, 0 for no limit -> the norm as it was.

    With shards every process must call it, and all get the same norm.
    """
    kinds = [[parameter for parameter in parameters if is_shard(parameter) is sharded] for sharded in (False, True)]
    total = _together([whole(torch.nn.utils.get_total_norm(_gradients(kind))).to(kind[0].device) for kind in kinds if kind])
    if most:
        for kind in filter(None, kinds):
            torch.nn.utils.clip_grads_with_norm_(kind, most, total)
    return float(total)


def _gradients(parameters: Sequence[nn.Parameter]) -> list[Tensor]:
    return [parameter.grad for parameter in parameters if parameter.grad is not None]


def _together(norms: Sequence[Tensor]) -> Tensor:
    return norms[0] if len(norms) == 1 else torch.linalg.vector_norm(torch.stack(list(norms)))
