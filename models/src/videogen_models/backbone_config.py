"""What the configuration files of an image model's folder may say; whatever else they say must be ignored or refused clearly.

The files come from others. Fields that this project's own code reads, and sizes that would use up the memory before any weight is
compared, are checked by name; the rest by building the network without memory, on torch's device `meta`, and running it once.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel

from videogen_models.schedule import TIMESTEPS
from videogen_models.sealed import CorruptError

_WIDEST, _DEEPEST = 1 << 16, 64  # far beyond every image model that there is
_Width = Annotated[int, Field(ge=1, le=_WIDEST)]
_Depth = Annotated[int, Field(ge=1, le=_DEEPEST)]
_Depths = _Depth | Annotated[list[_Depth], Field(min_length=1, max_length=_DEEPEST)]
_Widths = Annotated[list[_Width], Field(min_length=1, max_length=8)]
_Factor = Annotated[float, Field(ge=1e-3, le=1e3)]
_Small = Annotated[float, Field(gt=0, lt=1)]
_Share = Annotated[float, Field(ge=0, lt=1)]


class _Config(BaseModel):
    """Fields that are left out have diffusers' or transformers' defaults, which are not repeated here."""

    model_config = ConfigDict(strict=True, extra="ignore")


class UnetConfig(_Config):
    """unet/config.json: diffusers' UNet2DConditionModel."""

    in_channels: _Width = 4
    out_channels: _Width = 4
    block_out_channels: _Widths = [1]
    layers_per_block: _Depths = 1
    transformer_layers_per_block: _Depths | list[_Depths] = 1
    cross_attention_dim: _Width = 1  # one width for all levels: text has one
    center_input_sample: bool = False
    class_embed_type: None = None
    num_class_embeds: None = None
    addition_embed_type: Literal["text"] | None = None
    encoder_hid_dim: None = None
    encoder_hid_dim_type: None = None
    time_cond_proj_dim: None = None
    time_embedding_dim: _Width | None = None
    flip_sin_to_cos: bool = True
    freq_shift: Annotated[float, Field(ge=0, le=1)] = 0
    norm_eps: _Small = 1e-5
    dropout: _Share = 0
    mid_block_scale_factor: _Factor = 1
    resnet_out_scale_factor: _Factor = 1
    sample_size: _Width | Annotated[list[_Width], Field(min_length=2, max_length=2)] | None = None


class AutoencoderConfig(_Config):
    """vae/config.json: diffusers' AutoencoderKL."""

    in_channels: Literal[3] = 3
    out_channels: Literal[3] = 3
    latent_channels: _Width = 4
    block_out_channels: _Widths = [1]
    layers_per_block: _Depth = 1
    scaling_factor: _Factor = 0.18215
    shift_factor: Annotated[float, Field(allow_inf_nan=False)] | None = None
    latents_mean: None = None  # a second way to scale latents, by channel, which no accepted model has
    latents_std: None = None


class TextConfig(_Config):
    """text_encoder/config.json: transformers' CLIPTextModel."""

    vocab_size: Annotated[int, Field(ge=1, le=1 << 24)] = 1
    hidden_size: _Width = 1
    intermediate_size: _Width = 1
    num_hidden_layers: Annotated[int, Field(ge=1, le=256)] = 1
    num_attention_heads: _Width = 1
    max_position_embeddings: Annotated[int, Field(ge=3, le=_WIDEST)] = 77
    layer_norm_eps: _Small = 1e-5
    attention_dropout: _Share = 0
    quantization_config: None = None  # bundles have their own (`quantization`)


class ScheduleConfig(_Config):
    """scheduler/scheduler_config.json, of whichever of diffusers' samplers: the noise that the model was trained with."""

    num_train_timesteps: Literal[1000]
    beta_start: _Small
    beta_end: _Small
    beta_schedule: Literal["linear", "scaled_linear", "squaredcos_cap_v2"]
    trained_betas: Annotated[list[_Small], Field(min_length=TIMESTEPS, max_length=TIMESTEPS)] | None = None
    prediction_type: Literal["epsilon", "v_prediction"] = "epsilon"
    timestep_spacing: Literal["leading", "linspace", "trailing"] = "leading"
    steps_offset: Annotated[int, Field(ge=0, lt=TIMESTEPS)] = 0
    set_alpha_to_one: bool = True
    rescale_betas_zero_snr: bool = False


_CONFIGS: dict[Any, type[_Config]] = {
    UNet2DConditionModel: UnetConfig,
    AutoencoderKL: AutoencoderConfig,
    CLIPTextModel: TextConfig,
}


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object of a file. Raises CorruptError if there is none."""
    try:
        content = json.loads(path.read_bytes(), parse_constant=_not_json)
    except (OSError, ValueError, RecursionError) as error:
        raise CorruptError(f"{path} cannot be read: {error}; expected is a folder in diffusers' layout") from error
    if not isinstance(content, dict):
        raise CorruptError(f"{path} has a JSON {type(content).__name__}; accepted is an object, as diffusers writes it")
    return content


def _not_json(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number of JSON")


def skeleton(kind: Any, config: dict[str, Any], path: Path) -> nn.Module:
    """The network that a part's config describes, without memory for its weights; it has run once on nothing.

    kind is diffusers' UNet2DConditionModel or AutoencoderKL, or transformers' CLIPTextModel; path is the config's, for messages.
    Raises CorruptError, naming the field where it is known, if there is no such network or this project cannot use it.
    """
    _validate(_CONFIGS[kind], config, path)
    try:
        with torch.device("meta"), torch.no_grad():
            part: nn.Module = kind(CLIPTextConfig.from_dict(config)) if kind is CLIPTextModel else kind.from_config(config)
            _RUNS[kind](part.eval())
    except Exception as error:  # whatever others' code raises: nothing but the config is in its hands
        what = f"{type(error).__name__}: {error}"[:300]
        raise CorruptError(f"{path} describes no network that can run ({what}); mount the folder as it was published") from error
    return part


def read_schedule(path: Path) -> dict[str, Any]:
    """The noise schedule of a folder. Raises CorruptError if models of this project were not made for it."""
    schedule = read_object(path)
    _validate(ScheduleConfig, schedule, path)
    try:
        scheduler = DDIMScheduler.from_config(schedule)
        scheduler.set_timesteps(1)
        levels = scheduler.alphas_cumprod.tolist()
    except Exception as error:  # as above
        raise CorruptError(f"{path} describes no schedule ({type(error).__name__}: {error})") from error
    lowest = 0.0 if scheduler.config.prediction_type == "epsilon" else -1.0  # without any signal noise says nothing of the clip
    if not (levels[0] < 1 and levels[-1] > lowest and all(a > b for a, b in pairwise(levels))):
        raise CorruptError(
            f"{path}: the share of signal goes from {levels[0]:.6g} to {levels[-1]:.6g}; accepted are schedules along which it falls from"
            " below 1, and with prediction_type epsilon not to 0"
        )
    return schedule


def _validate(kind: type[_Config], content: Mapping[str, Any], path: Path) -> None:
    try:
        kind.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        field = str(first["loc"][0])
        found = f"is {content[field]!r}"[:80] if field in content else "is missing"
        raise CorruptError(f"{path}: {field} {found}: {first['msg'].lower()}; accepted are models of Stable Diffusion 1 and 2") from error


_SMALLEST = 2  # pixels of the innermost level, each way: group normalisation may need more than one


def _run_unet(unet: Any) -> None:
    config = unet.config
    side = _SMALLEST * 2 ** (len(config.block_out_channels) - 1)
    text = torch.empty(1, 1, config.cross_attention_dim)
    noisy = torch.empty(1, config.in_channels, side, side)
    found = unet(noisy, torch.zeros(1, dtype=torch.int64), encoder_hidden_states=text, **_summary(config)).sample
    _expect(found, (1, config.out_channels, side, side))


def _summary(config: Any) -> dict[str, Any]:
    """A text_embeds for U-Nets that want more than text: `backbone_folder` says so better."""
    return {"added_cond_kwargs": {"text_embeds": torch.empty(1, 1)}} if config.addition_embed_type else {}


def _run_autoencoder(vae: Any) -> None:
    side = _SMALLEST * 2 ** (len(vae.config.block_out_channels) - 1)
    latent = vae.encode(torch.empty(1, 3, side, side)).latent_dist.mode()
    _expect(latent, (1, vae.config.latent_channels, _SMALLEST, _SMALLEST))
    _expect(vae.decode(latent).sample, (1, 3, side, side))


def _run_text(text: Any) -> None:
    length, width = text.config.max_position_embeddings, text.config.hidden_size
    _expect(text(input_ids=torch.zeros(1, length, dtype=torch.int64)).last_hidden_state, (1, length, width))


def _expect(found: torch.Tensor, shape: tuple[int, ...]) -> None:
    if tuple(found.shape) != shape:
        raise ValueError(f"its output has shape {list(found.shape)}, expected is {list(shape)}")


_RUNS: dict[Any, Callable[[Any], None]] = {
    UNet2DConditionModel: _run_unet,
    AutoencoderKL: _run_autoencoder,
    CLIPTextModel: _run_text,
}


_sizes: dict[tuple[Any, str], int] = {}  # of configs that were tried: to run a network on nothing takes longer than to read its weights


def size_of(kind: Any, config: dict[str, Any], path: Path) -> int:
    """How many numbers the weights of a part's network are. Arguments and errors are those of `skeleton`."""
    described = kind, json.dumps(config, sort_keys=True)
    if described not in _sizes:
        _sizes[described] = sum(math.prod(parameter.shape) for parameter in skeleton(kind, config, path).parameters())
    return _sizes[described]
