"""AdamW (Loshchilov and Hutter, 2019) with moments of 32 bits or of 8, and how they go into a checkpoint and back.

AdamW8bit is bitsandbytes': uint8 numbers of a code of 256 values, times the largest magnitude of their block of 256 (Dettmers et
al., 2022, arXiv 2110.02861). Tensors of fewer than 4,096 weights keep 32 bits. In a checkpoint a tensor is named
`<weight>:<key>`; the two codes, which all weights have in common, are `:qmap1` and `:qmap2`.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from videogen_api.recipe import Optimizer, OptimizerName
from videogen_trainer.sharding import is_shard, part_of

_MOMENTS = ("step", "exp_avg", "exp_avg_sq")
_MOMENTS_OF_BLOCKS = ("step", "state1", "state2")
_SCALES = ("absmax1", "absmax2")
_CODES = ("qmap1", "qmap2")
SLOW = "slow"  # whether a group of parameters learns at the small rate


def new_optimizer(slow: Sequence[nn.Parameter], others: Sequence[nn.Parameter], wanted: Optimizer) -> torch.optim.Optimizer:
    """The optimiser before the first step, with rates of 0; groups of parameters that learn slowly come first.

    Shards and whole tensors are in groups of their own: an update takes lists of one kind.
    """
    groups = [
        {"params": kind, SLOW: parameters is slow}
        for parameters in (slow, others)
        for kind in ([one for one in parameters if is_shard(one) is sharded] for sharded in (False, True))
        if kind
    ]
    decay = float(wanted.weight_decay)
    if wanted.name is OptimizerName.ADAMW_8BIT:
        if sys.modules.get("bitsandbytes", True) is None:
            del sys.modules["bitsandbytes"]  # see videogen_trainer/__init__.py
        logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)  # it misses a package for 4-bit layers; there are none
        from bitsandbytes.optim.adamw import AdamW8bit  # only where it is wanted: it loads a library of its own

        optimizer: torch.optim.Optimizer = AdamW8bit(groups, lr=0.0, weight_decay=decay)
        return optimizer
    return torch.optim.AdamW(groups, lr=0.0, weight_decay=decay, fused=True)


def moments(optimizer: torch.optim.Optimizer, names: Mapping[nn.Parameter, str]) -> dict[str, Tensor]:
    """The optimiser's states by name, without a copy; empty before the first step."""
    return {
        f"{'' if key in _CODES else name}:{key}": torch.as_tensor(value)
        for parameter, name in names.items()
        for key, value in optimizer.state.get(parameter, {}).items()
    }


def restore_moments(optimizer: torch.optim.Optimizer, names: Mapping[nn.Parameter, str], saved: Mapping[str, Tensor]) -> None:
    """Take the states that a checkpoint holds, whole tensors on the CPU, of the same optimiser and the same weights."""
    if not saved:
        return  # saved before the first step
    if isinstance(optimizer, torch.optim.AdamW):
        content = optimizer.state_dict()
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        states = {index: _of(names[parameter], parameter, saved, _MOMENTS) for index, parameter in enumerate(parameters)}
        optimizer.load_state_dict({"state": states, "param_groups": content["param_groups"]})
        return
    device = next(iter(names)).device
    codes = {key: saved[f":{key}"].to(device) for key in _CODES if f":{key}" in saved}
    for parameter, name in names.items():
        optimizer.state[parameter] = _of_blocks(name, parameter, saved, codes)


def _of(name: str, parameter: nn.Parameter, saved: Mapping[str, Tensor], keys: Iterable[str]) -> dict[str, Tensor]:
    found = {key: saved[f"{name}:{key}"] for key in keys}
    return {key: part_of(tensor, parameter) if tensor.shape == parameter.shape else tensor for key, tensor in found.items()}


def _of_blocks(name: str, parameter: nn.Parameter, saved: Mapping[str, Tensor], codes: dict[str, Tensor]) -> dict[str, Any]:
    state: dict[str, Any] = _of(name, parameter, saved, _MOMENTS_OF_BLOCKS)
    if f"{name}:{_SCALES[0]}" in saved:
        state |= _of(name, parameter, saved, _SCALES) | codes
    placed = {key: tensor.to(parameter.device) for key, tensor in state.items()}
    return placed | {"step": int(state["step"])}
