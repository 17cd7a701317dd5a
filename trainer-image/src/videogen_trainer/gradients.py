"""The gradient's norm over everything that learns, whole or in shards, and clipping it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn

from videogen_trainer.sharding import is_shard, own


def clip_gradients(parameters: Sequence[nn.Parameter], most: float) -> float:
    """Scale the gradients so that their global norm is at most `most`, 0 for no limit -> the norm as it was.

    With shards every process must call it, and all get the same norm.
    """
    kinds = [[parameter for parameter in parameters if is_shard(parameter) is sharded] for sharded in (False, True)]
    plain, shards = kinds[0], [own(gradient) for gradient in _gradients(kinds[1])]
    norms = ([torch.nn.utils.get_total_norm(_gradients(plain))] if plain else []) + ([_norm_of_shards(shards)] if shards else [])
    total = _together(norms)
    if most:
        if plain:
            torch.nn.utils.clip_grads_with_norm_(plain, most, total)
        factor = torch.clamp(most / (total + 1e-6), max=1.0)  # as above
        for shard in shards:
            shard.mul_(factor)
    return float(total)


def _gradients(parameters: Sequence[nn.Parameter]) -> list[Tensor]:
    return [parameter.grad for parameter in parameters if parameter.grad is not None]


def _norm_of_shards(shards: Sequence[Tensor]) -> Tensor:
    """Of all processes' shards. DTensors find it too, once they have found out how, which takes them seconds."""
    squares = torch.nn.utils.get_total_norm(shards).square()
    dist.all_reduce(squares)
    return squares.sqrt()


def _together(norms: Sequence[Tensor]) -> Tensor:
    return norms[0] if len(norms) == 1 else torch.linalg.vector_norm(torch.stack([norm.to(norms[0].device) for norm in norms]))
