"""An image model as a folder in diffusers' layout: unet/, vae/, text_encoder/, tokenizer/, scheduler/; safetensors only.

Checksums are the caller's affair (`sealed.verify`, `backbone_digest`); here every tensor must be there, be expected, have its shape,
and be finite.
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer
from transformers.utils import logging as transformers_logging

from videogen_api.bundle import canonical_json
from videogen_models.backbone_config import read_object, read_schedule, size_of
from videogen_models.image_backbone import HASHED, HashedWords, ImageBackbone, Tokens
from videogen_models.quantization import read_weights
from videogen_models.sealed import CorruptError
from videogen_models.text import TextSize

transformers_logging.disable_progress_bar()  # it is of no use in a pod's log
QUANTIZED = "quantized.safetensors"  # a network's weights in fewer bits, under its own names, in place of diffusers' files
_UNREADABLE = (OSError, RuntimeError, ValueError, TypeError, AttributeError, LookupError, ImportError)  # what the libraries raise
_ORIGIN = {"_name_or_path", "name_or_path"}


@dataclass(frozen=True, slots=True)
class ClipWords:
    """CLIP's own tokenizer, whose vocabulary lies in the folder."""

    tokenizer: Any

    def __call__(self, captions: Sequence[str]) -> Tensor:
        tokens: Tensor = self.tokenizer(list(captions), padding="max_length", truncation=True, return_tensors="pt").input_ids
        return tokens

    def save_pretrained(self, folder: Path) -> Any:
        return self.tokenizer.save_pretrained(folder)


def save_backbone(backbone: ImageBackbone, folder: Path) -> None:
    """Write all parts below `folder`, so that `load_backbone` and diffusers read them."""
    backbone.unet.save_pretrained(folder / "unet", safe_serialization=True)
    backbone.vae.save_pretrained(folder / "vae", safe_serialization=True)
    backbone.text.save_pretrained(folder / "text_encoder", safe_serialization=True)
    backbone.tokens.save_pretrained(folder / "tokenizer")
    DDIMScheduler.from_config(backbone.schedule).save_pretrained(folder / "scheduler")
    for path in folder.glob("*/*config.json"):
        _forget_origin(path)


def backbone_files(backbone: ImageBackbone) -> dict[str, nn.Module]:
    """The three networks, by the files that have their weights when these are quantized."""
    networks = {"unet": backbone.unet, "vae": backbone.vae, "text_encoder": backbone.text}
    return {f"{part}/{QUANTIZED}": network for part, network in networks.items()}


def _forget_origin(path: Path) -> None:
    """Take out where the part was loaded from, and the order of what is left: the same model is the same bytes."""
    content = json.loads(path.read_bytes())
    path.write_bytes(canonical_json({key: value for key, value in content.items() if key not in _ORIGIN}))


def load_backbone(folder: Path) -> ImageBackbone:
    """Read a model, float32, in evaluation mode and without gradients.

    Raises CorruptError, naming the file, if a part is missing, is a pickle, has a weight that is not finite, or does not fit its
    config or the other parts.
    """
    parts = {name: _part(kind, folder / name) for name, kind in _KINDS.items()}
    text = parts["text_encoder"]
    schedule = read_schedule(folder / "scheduler" / "scheduler_config.json")
    backbone = ImageBackbone(parts["unet"], parts["vae"], text, _tokens(folder / "tokenizer", text), schedule)
    _check(backbone, folder)
    return backbone.float().eval().requires_grad_(False)


def read_autoencoder(folder: Path) -> Any:
    """diffusers' AutoencoderKL of a folder `vae`. Raises CorruptError as `load_backbone` does."""
    return _part(AutoencoderKL, folder)


_KINDS = {"unet": UNet2DConditionModel, "vae": AutoencoderKL, "text_encoder": CLIPTextModel}


def _part(kind: Any, folder: Path) -> Any:
    part = _loaded_part(kind, folder)
    _check_finite(part, folder)
    copy_to_memory(part)
    return part


def copy_to_memory(network: nn.Module) -> None:
    """Give each tensor memory of its own, aligned as PyTorch aligns it.

    The libraries hand out views of the mapped file, at whatever address a tensor has in it, and kernels add in another order where memory
    is not aligned: a network that was loaded would compute other last bits than the one that was saved. A file that changes later would
    also change the network.
    """
    for tensor in (*network.parameters(), *network.buffers()):
        tensor.data = tensor.data.clone()


def _loaded_part(kind: Any, folder: Path) -> Any:
    config = read_object(folder / "config.json")
    size = size_of(kind, config, folder / "config.json")
    if (folder / QUANTIZED).is_file():
        return _quantized_part(kind, config, folder / QUANTIZED)
    _check_files(folder, size)
    try:
        part, report = kind.from_pretrained(
            folder,
            variant=_variant(folder),
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are reported, by name, and refused below
        )
    except (*_UNREADABLE, SafetensorError) as error:
        raise CorruptError(f"{folder}: the weights cannot be loaded: {error}") from error
    if wrong := [f"{what}: {min(map(str, names))}" for what, names in report.items() if names]:
        raise CorruptError(f"{folder}: the weights do not fit config.json ({'; '.join(wrong)}); mount the folder that belongs to it")
    return part


def _quantized_part(kind: Any, config: dict[str, Any], path: Path) -> Any:
    try:
        with init_empty_weights(include_buffers=False):
            part = kind(CLIPTextConfig.from_dict(config)) if kind is CLIPTextModel else kind.from_config(config)
        part.load_state_dict(read_weights(path), assign=True)
    except (RuntimeError, TypeError) as error:
        raise CorruptError(f"{path}: the weights do not fit config.json: {error}") from error
    return part


def _check_finite(part: nn.Module, folder: Path) -> None:
    """A sum with a value that is not finite is not finite either; one that overflows only makes us look closer."""
    weights = part.state_dict()
    if bool(torch.stack([tensor.sum(dtype=torch.float32) for tensor in weights.values()]).isfinite().all()):
        return
    if (loaded := _not_finite(weights.items())) is None:
        return
    stored = ((path, _not_finite(_tensors_in(path))) for path in sorted(folder.glob("*.safetensors")))
    path, name = next(((path, name) for path, name in stored if name), (folder, loaded))  # in the file it may have another name
    raise CorruptError(f"{path}: {name} has values that are not finite; mount another copy of the model")


def _not_finite(tensors: Iterable[tuple[str, Tensor]]) -> str | None:
    return next((name for name, tensor in tensors if not bool(tensor.to(torch.float32).isfinite().all())), None)


def _tensors_in(path: Path) -> Iterator[tuple[str, Tensor]]:
    with safe_open(str(path), framework="pt") as file:
        for name in file.keys():  # noqa: SIM118
            yield name, file.get_tensor(name)


def _check_files(folder: Path, size: int) -> None:
    """Before anything is loaded: what index files name lies here, and no memory is taken for weights that no file has."""
    for index in folder.glob("*.safetensors*.json"):
        _check_index(index)
    try:
        there = sum(_numbers_in(path) for path in folder.glob("*.safetensors"))
    except (OSError, SafetensorError) as error:
        raise CorruptError(f"{folder}: the weights cannot be loaded: {error}") from error
    if there and size > 2 * there:  # a tensor that is missing, or has another shape, is named when they are loaded
        raise CorruptError(
            f"{folder / 'config.json'} describes a network of {size} weights, the files have {there}; they do not belong together"
        )


def _check_index(path: Path) -> None:
    files = read_object(path).get("weight_map")
    if not isinstance(files, dict) or not files or not all(isinstance(name, str) for name in files.values()):
        raise CorruptError(f"{path} has no weight_map of tensors and their files; restore it, it belongs to weights in several files")
    for name in sorted(set(files.values())):
        if Path(name).name != name or not name.endswith(".safetensors") or not (path.parent / name).is_file():
            raise CorruptError(f"{path} names the file {name!r}; accepted are safetensors files beside it, and there is no such one")


def _numbers_in(path: Path) -> int:
    with safe_open(str(path), framework="pt") as file:
        return sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118


def _variant(folder: Path) -> str | None:
    """Half-precision folders name their files so; whole files go first."""
    found = [path.name for path in folder.glob("*.safetensors")]
    if not found:
        raise CorruptError(f"{folder} has no safetensors file; pickled weights (.bin, .ckpt) are not accepted: convert them")
    return "fp16" if all(".fp16" in name for name in found) else None


def _tokens(folder: Path, text: Any) -> Tokens:
    if read_object(folder / "tokenizer_config.json").get("tokenizer_class") == HASHED:
        return HashedWords(_text_size(text))
    if not any((folder / name).is_file() for name in ("tokenizer.json", "vocab.json")):  # without them it would know no word
        raise CorruptError(f"{folder} has no vocabulary; expected are vocab.json and merges.txt, or tokenizer.json")
    tokens = ClipWords(_tokenizer(folder))
    _check_tokens(tokens, text.config, folder)
    return tokens


def _tokenizer(folder: Path) -> Any:
    try:
        return CLIPTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # whatever others' code raises: nothing but these files is in its hands
        raise CorruptError(f"{folder}: the tokenizer cannot be loaded: {type(error).__name__}: {error}") from error


def _check_tokens(tokens: ClipWords, text: Any, folder: Path) -> None:
    most, length = text.max_position_embeddings, tokens.tokenizer.model_max_length
    if not isinstance(length, int) or not 3 <= length <= most:
        raise CorruptError(f"{folder / 'tokenizer_config.json'}: model_max_length is {length}; text_encoder/ accepts 3 to {most}")
    if (largest := max(tokens.tokenizer.get_vocab().values())) >= text.vocab_size:
        raise CorruptError(
            f"{folder} numbers its words up to {largest}, text_encoder/ knows {text.vocab_size}; they do not belong together"
        )
    try:
        ClipWords(copy.deepcopy(tokens.tokenizer))(["", "two words"])  # one that was used saves other files
    except Exception as error:  # as above
        raise CorruptError(f"{folder}: the tokenizer cannot be used: {type(error).__name__}: {error}") from error


def _text_size(text: Any) -> TextSize:
    config = text.config
    return TextSize(
        vocabulary=config.vocab_size,
        length=config.max_position_embeddings,
        width=config.hidden_size,
        layers=config.num_hidden_layers,
        heads=config.num_attention_heads,
    )


def _check(backbone: ImageBackbone, folder: Path) -> None:
    unet, channels = backbone.unet.config, backbone.vae.config.latent_channels
    if (unet.in_channels, unet.out_channels) != (channels, channels):
        raise CorruptError(
            f"{folder / 'unet'} has {unet.in_channels} input and {unet.out_channels} output channels, the autoencoder's latents"
            f" {channels}; accepted are text-to-image models, not those for inpainting or editing"
        )
    if unet.cross_attention_dim != (width := backbone.text.config.hidden_size):
        raise CorruptError(f"{folder / 'unet'} attends to text of width {unet.cross_attention_dim}, text_encoder/ gives {width}")
    if unet.addition_embed_type or unet.class_embed_type or unet.num_class_embeds:
        raise CorruptError(f"{folder / 'unet'} needs more than text (as SDXL does); accepted are models of Stable Diffusion 1 and 2")
