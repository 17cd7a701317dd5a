"""Weights of linear and convolutional layers in fewer bits on disk; in memory they are float32, so every network runs as it is.

Int8Weights: w = q s, q int8 in -127..127, s = max |w| / 127 of each output channel (symmetric, per channel: Krishnamoorthi, 2018,
arXiv 1806.08342, section 2.2), so that |w - q s| <= s / 2. Biases, norms, embeddings and single numbers stay as they are.
In the file a quantized tensor is int8 with its scales beside it, `<name>.scale` float32 [output channels]; the dtypes say
how a file is read, and files of plain weights are read as ever.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from videogen_api.optimization import Quantization
from videogen_models.sealed import CorruptError
from videogen_models.video_model import VideoModel

SCALE = ".scale"
LARGEST = 127  # of int8; -128 is left out, so that the range is symmetric


def quantized(weight: Tensor) -> tuple[Tensor, Tensor]:
    """weight float [out, ...] -> q int8 of its shape and s float32 [out]. Raises ValueError for a weight that is not finite."""
    if not weight.isfinite().all():
        raise ValueError("a weight is not finite; train the model again")
    rows = weight.detach().to(torch.float64).flatten(1)
    scale = (rows.abs().amax(1) / LARGEST).to(torch.float32)
    steps = scale.to(torch.float64).masked_fill(scale == 0, 1.0)  # a channel of zeros
    numbers = (rows / steps[:, None]).round().clamp(-LARGEST, LARGEST)
    return numbers.to(torch.int8).reshape(weight.shape), scale


def dequantized(numbers: Tensor, scale: Tensor) -> Tensor:
    """q int8 [out, ...] and s float32 [out] -> q s, float32."""
    return numbers.to(torch.float32) * scale.reshape(-1, *[1] * (numbers.dim() - 1))


def compressed(network: nn.Module, how: Quantization | None) -> dict[str, Tensor]:
    """The network's state dict as it is stored. Raises ValueError for a weight that is not finite, or too large for 16 bits."""
    stored = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    for name in layer_weights(network) if how else ():
        if how is Quantization.INT8_WEIGHTS:
            stored[name], stored[name + SCALE] = quantized(stored[name])
        else:
            stored[name] = _halved(stored[name])
    return stored


def _halved(weight: Tensor) -> Tensor:
    half = weight.to(torch.float16)
    if not half.isfinite().all():
        raise ValueError(f"a weight is {weight.abs().max():g}, which 16 bits cannot hold; use Int8Weights, or leave quantization out")
    return half


def layer_weights(network: nn.Module) -> Iterator[str]:
    """Names of what is quantized: weights of linear and convolutional layers, their first dimension the output channels."""
    kinds = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
    modules = network.named_modules(remove_duplicate=False)  # a state dict names a shared layer more than once, too
    return (f"{name}.weight" if name else "weight" for name, module in modules if isinstance(module, kinds))


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, those that were stored in fewer bits as float32 again.

    Raises CorruptError if the file cannot be read or scales do not fit; OSError if it is not there.
    """
    try:
        stored = load_file(path)
    except SafetensorError as error:
        raise CorruptError(f"{path}: the weights cannot be loaded: {error}") from error
    return restored(stored, path)


def restored(stored: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """What `compressed` stored -> a state dict in float32. Raises CorruptError naming `path`."""
    scaled = {name for name, tensor in stored.items() if tensor.dtype is torch.int8}
    for name in scaled:
        _check_scale(stored, name, path)
    scales = {name + SCALE for name in scaled}
    return {
        name: dequantized(tensor, stored[name + SCALE]) if name in scaled else _whole(tensor)
        for name, tensor in stored.items()
        if name not in scales
    }


def _check_scale(stored: Mapping[str, Tensor], name: str, path: Path) -> None:
    scale, channels = stored.get(name + SCALE), stored[name].shape[:1]
    if scale is None or scale.shape != channels or not scale.isfinite().all():
        found = "none" if scale is None else f"{list(scale.shape)}, finite or not"
        raise CorruptError(f"{path}: {name} is quantized and needs {list(channels)} finite scales, found are {found}; restore the bundle")


def _whole(tensor: Tensor) -> Tensor:
    return tensor.to(torch.float32) if tensor.dtype is torch.float16 else tensor


def save_quantized(model: VideoModel, folder: Path, how: Quantization | None) -> None:
    """Write all files of a bundle but its manifest, as `VideoModel.save`, the weights in fewer bits. Raises ValueError."""
    model.save(folder)
    if how is None:
        return
    _check_complete(model)
    for plain in [*folder.rglob("*.safetensors"), *folder.rglob("*.safetensors.index.json")]:
        plain.unlink()
    for file, network in model.weight_files().items():
        save_file(compressed(network, how), folder / file, metadata={"format": "pt"})


def _check_complete(model: VideoModel) -> None:
    """What is in no file would be lost without a word."""
    kept = {id(parameter) for network in model.weight_files().values() for parameter in network.parameters()}
    lost = [name for name, parameter in model.named_parameters() if id(parameter) not in kept]
    assert not lost, f"weight_files of {type(model).__name__} has no file for {lost[0]}"
