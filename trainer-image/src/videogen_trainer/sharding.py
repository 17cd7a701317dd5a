"""Fully sharded data parallelism (FSDP2, `torch.distributed.fsdp.fully_shard`): each process keeps a part of every tensor.

A layer is put together for its pass and taken apart after it. Outside of passes weights, gradients and optimiser states are
DTensors. In a checkpoint each process has its own; bundles hold whole tensors.
"""

from __future__ import annotations

import torch
from diffusers import AutoencoderKL
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from videogen_models.temporal_layers import TemporalAttention, TemporalConvolution

# What is put together at once. Everything else, which is small, stays together from the first pass of a step to the last.
LAYERS = (ResnetBlock2D, Transformer2DModel, TemporalConvolution, TemporalAttention)


def shard(module: nn.Module, device: torch.device, processes: int) -> nn.Module:
    """The module, whose parameters become shards. Every process must call it, with the same weights.

    Single numbers, such as the temporal layers' alpha, stay whole: their gradients are `GradientAverage`'s affair. So do
    autoencoders that do not learn, which make a batch's latents outside of the module's pass.
    """
    mesh = init_device_mesh(device.type, (processes,))
    frozen = {part for autoencoder in module.modules() if _is_frozen(autoencoder) for part in autoencoder.modules()}
    kept = {parameter for part in frozen for parameter in part.parameters()}
    kept |= {parameter for parameter in module.parameters() if parameter.dim() == 0}
    layers = [layer for layer in module.modules() if isinstance(layer, LAYERS) and layer not in frozen]
    for layer in (*layers, module):
        unit = fully_shard(layer, mesh=mesh, ignored_params=kept)
        unit.set_force_sum_reduction_for_comms(device.type == "cpu")  # gloo has no mean
    return module


def _is_frozen(module: nn.Module) -> bool:
    return isinstance(module, AutoencoderKL) and not any(parameter.requires_grad for parameter in module.parameters())


def is_sharded(module: nn.Module) -> bool:
    """Whether `shard` has been here."""
    return isinstance(module, FSDPModule)


def is_shard(tensor: Tensor) -> bool:
    """Whether a tensor is in parts."""
    return isinstance(tensor, DTensor)


def own(tensor: Tensor) -> Tensor:
    """This process' part of a tensor."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def whole(tensor: Tensor, *, kept: bool = True) -> Tensor:
    """The whole tensor: itself, or put together on the CPU. Every process must call it; one that does not keep it gets nothing."""
    if not isinstance(tensor, DTensor):
        return tensor
    full = tensor.full_tensor().detach()
    return full.cpu() if kept else full.new_empty(0)


def part_of(tensor: Tensor, like: Tensor) -> Tensor:
    """This process' part of a whole tensor, in parts as `like` is; nothing is sent."""
    if not isinstance(like, DTensor):
        return tensor
    return distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements, src_data_rank=None)
