"""How the networks are run in training, whatever they learn: compiled, and with activations that are computed again.

Neither changes names, weights or what a checkpoint holds, and a phase may go on with other choices.
"""

from __future__ import annotations

import shutil
from functools import partial

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers import CLIPTextModel

from videogen_api.recipe import Recipe
from videogen_api.training_run import Reason
from videogen_models.align_your_latents import VideoUNet
from videogen_models.temporal_decoder import TemporalDecoder
from videogen_trainer.failure import Failure

_COMPILED = (VideoUNet, UNet2DConditionModel, CLIPTextModel)
_RECOMPUTED = partial(checkpoint, use_reentrant=False)  # as diffusers' own, which asks for torch's version where it is compiled
_C_COMPILERS = ("cc", "gcc", "clang")  # Triton's, which makes kernels for GPUs


def prepare(objective: nn.Module, recipe: Recipe, device: torch.device) -> None:
    """Make the networks of an objective run as the recipe says. Raises Failure(InvalidJob) if they cannot be compiled here."""
    if recipe.gradient_checkpointing is not None:
        recompute_activations(objective, on=recipe.gradient_checkpointing)
    if recipe.compile:
        check_compiler(device)
        compile_networks(objective)


def recompute_activations(objective: nn.Module, *, on: bool) -> None:
    """Switch gradient checkpointing (Chen et al., 2016) on or off, in U-Nets, autoencoders and temporal layers."""
    for module in objective.modules():
        if isinstance(module, UNet2DConditionModel | AutoencoderKL):
            module.enable_gradient_checkpointing(_RECOMPUTED) if on else module.disable_gradient_checkpointing()
        elif isinstance(module, VideoUNet | TemporalDecoder):
            module.checkpointing = on


def compile_networks(objective: nn.Module) -> None:
    """Have the networks of an objective compiled when they are called for the first time."""
    for network in outermost(objective):
        network.compile()  # in place: a wrapper would prefix the names of all weights


def outermost(module: nn.Module) -> list[nn.Module]:
    """The networks in a module that are compiled, each as a whole and once, however many parts of the module hold it."""
    if isinstance(module, _COMPILED):
        return [module]
    return list(dict.fromkeys(network for child in module.children() for network in outermost(child)))


def check_compiler(device: torch.device) -> None:
    """Raises Failure(InvalidJob) unless there is the compiler that torch.compile calls for this device."""
    from torch._inductor.cpp_builder import get_cpp_compiler  # takes a second to import
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except InvalidCxxCompiler as error:
        found: str | None = str(error)
    else:
        found = None if device.type == "cpu" or any(map(shutil.which, _C_COMPILERS)) else f"found none of {', '.join(_C_COMPILERS)}"
    if found:
        raise Failure(
            Reason.INVALID_JOB,
            f"recipe.compile is true, and this image has no C++ compiler ({found}); leave it out, or build the images on a base image"
            " that has g++ (images/README.md)",
        )
