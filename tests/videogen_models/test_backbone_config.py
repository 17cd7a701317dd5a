"""Every file of an image model's folder that is not what it should be ends in one error that names it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from transformers import CLIPTextModel, CLIPTokenizer

from videogen_models import backbone_config
from videogen_models.backbone_config import read_schedule, skeleton
from videogen_models.backbone_folder import load_backbone
from videogen_models.image_backbone import ImageBackbone
from videogen_models.sealed import CorruptError

KINDS = {"unet": UNet2DConditionModel, "vae": AutoencoderKL, "text_encoder": CLIPTextModel}
SCHEDULER = "scheduler/scheduler_config.json"
WRONG: tuple[object, ...] = (None, "x", -1, 0, 10**12, [None], {}, ["x", "x"], 1e-30, 1e30)  # of a kind, negative, none, huge


@pytest.fixture
def folder(tmp_path: Path, saved_backbone: Path) -> Path:
    """One that the test may harm."""
    return Path(shutil.copytree(saved_backbone, tmp_path, dirs_exist_ok=True))


def content(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def harmed(path: Path, **change: object) -> None:
    path.write_text(json.dumps(content(path) | change))


def refused(part: str, config: dict[str, Any], path: Path) -> bool:
    """Whether the part is; anything but the clear error fails the test."""
    try:
        skeleton(KINDS[part], config, path)
    except CorruptError:
        return True
    return False


def test_a_config_is_tried_once_wherever_it_lies_and_another_one_for_itself(
    folder: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[Path] = []
    monkeypatch.setattr(backbone_config, "_sizes", {})
    monkeypatch.setattr(backbone_config, "skeleton", lambda kind, config, path: (tried.append(path), skeleton(kind, config, path))[1])
    elsewhere = Path(shutil.copytree(folder, tmp_path_factory.mktemp("elsewhere") / "model"))
    for place in (folder, elsewhere):
        load_backbone(place)
    assert [path.parent.name for path in tried] == ["unet", "vae", "text_encoder"]
    harmed(folder / "unet/config.json", in_channels=0)
    with pytest.raises(CorruptError, match="in_channels is 0"):
        load_backbone(folder)


# What the code computes with: to none of these any of the values above may pass.
USED = {
    "unet": ["in_channels", "block_out_channels", "down_block_types", "cross_attention_dim", "act_fn", "norm_num_groups"],
    "vae": ["latent_channels", "block_out_channels", "up_block_types", "scaling_factor", "in_channels", "act_fn"],
    "text_encoder": ["hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size", "max_position_embeddings", "hidden_act"],
}


@pytest.mark.parametrize("part", USED)
def test_a_field_that_the_networks_are_made_of_is_refused_whatever_is_wrong_with_it(part: str, saved_backbone: Path) -> None:
    path = saved_backbone / part / "config.json"
    whole = content(path)
    assert not refused(part, whole, path)
    passed = [(field, wrong) for field in USED[part] for wrong in WRONG if not refused(part, whole | {field: wrong}, path)]
    assert passed == []


@pytest.mark.parametrize("part", KINDS)
def test_no_field_of_a_config_whatever_it_says_ends_in_another_error(part: str, saved_backbone: Path) -> None:
    path = saved_backbone / part / "config.json"
    whole = content(path)
    for number, field in enumerate(whole):
        refused(part, whole | {field: WRONG[number % len(WRONG)]}, path)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"prediction_type": "sample"}, "prediction_type is 'sample': .*'epsilon' or 'v_prediction'"),
        ({"prediction_type": None}, "prediction_type is None"),
        ({"num_train_timesteps": 500}, "num_train_timesteps is 500: .*1000"),
        ({"num_train_timesteps": "1000"}, "num_train_timesteps is '1000'"),
        ({"beta_schedule": "cosine"}, "beta_schedule is 'cosine'"),
        ({"beta_start": -1}, "beta_start is -1"),
        ({"beta_end": 1e30}, r"beta_end is 1e\+30"),
        ({"trained_betas": [0.1]}, "trained_betas is"),
        ({"timestep_spacing": "x"}, "timestep_spacing is 'x'"),
        ({"steps_offset": -1}, "steps_offset is -1"),
        ({"beta_start": 1e-30, "beta_end": 1e-30}, "the share of signal goes from 1 to 1"),
        ({"rescale_betas_zero_snr": True}, "the share of signal goes from .* to 0; accepted are"),
    ],
)
def test_a_noise_schedule_that_the_models_were_not_made_for_is_refused(
    change: dict[str, object], message: str, saved_backbone: Path, tmp_path: Path
) -> None:
    path = tmp_path / "scheduler_config.json"
    path.write_text(json.dumps(content(saved_backbone / SCHEDULER) | change))
    with pytest.raises(CorruptError, match=f"scheduler_config.json.*{message}"):
        read_schedule(path)


def test_a_schedule_of_another_method_is_refused_and_those_of_the_accepted_ones_are_read(saved_backbone: Path, tmp_path: Path) -> None:
    path = tmp_path / "scheduler_config.json"
    path.write_text('{"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000, "shift": 3.0}')
    with pytest.raises(CorruptError, match="beta_start is missing"):
        read_schedule(path)
    whole = content(saved_backbone / SCHEDULER)
    for change in ({"prediction_type": "v_prediction"}, {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True}):
        path.write_text(json.dumps(whole | change))
        assert read_schedule(path) == whole | change
    path.write_text(json.dumps({name: value for name, value in whole.items() if name != "prediction_type"}))  # as Stable Diffusion 1.4
    assert "prediction_type" not in read_schedule(path)


@pytest.mark.parametrize("text", ["[]", "3", "null", '"x"', "{", '{"in_channels": NaN}', "[" * 100_000, "\xff"])
@pytest.mark.parametrize("file", ["unet/config.json", SCHEDULER, "tokenizer/tokenizer_config.json"])
def test_a_file_without_a_json_object_is_refused(file: str, text: str, folder: Path) -> None:
    (folder / file).write_text(text, encoding="latin-1")
    with pytest.raises(CorruptError, match=f"{file} (cannot be read|has a JSON)"):
        load_backbone(folder)


def test_a_config_for_more_weights_than_the_files_have_takes_no_memory_for_them(folder: Path) -> None:
    harmed(folder / "text_encoder/config.json", vocab_size=1 << 24)  # 4 GiB
    with pytest.raises(CorruptError, match=r"text_encoder/config\.json describes a network of 1073842944 weights, the files have 363264"):
        load_backbone(folder)


def several(folder: Path) -> Path:
    """The U-Net's weights in two files and an index, as diffusers writes those of large models."""
    whole = folder / "unet/diffusion_pytorch_model.safetensors"
    weights = load_file(whole)
    whole.unlink()
    files = {name: f"diffusion_pytorch_model-0000{1 + number % 2}-of-00002.safetensors" for number, name in enumerate(sorted(weights))}
    for file in set(files.values()):
        save_file({name: weights[name] for name in weights if files[name] == file}, whole.parent / file, metadata={"format": "pt"})
    index = whole.with_name("diffusion_pytorch_model.safetensors.index.json")
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": files}))
    return index


def test_weights_in_several_files_are_read(folder: Path, backbone: ImageBackbone) -> None:
    several(folder)
    loaded = load_backbone(folder).unet.state_dict()
    assert all(torch.equal(tensor, loaded[name]) for name, tensor in backbone.unet.state_dict().items())


@pytest.mark.parametrize(
    "change, message",
    [
        ({"weight_map": None}, "has no weight_map"),
        ({"weight_map": {"conv_in.weight": 3}}, "has no weight_map"),
        ({"weight_map": {"conv_in.weight": "missing.safetensors"}}, "names the file 'missing.safetensors'"),
        ({"weight_map": {"conv_in.weight": "../vae/diffusion_pytorch_model.safetensors"}}, r"names the file '\.\./vae"),
        ({"metadata": None}, None),  # of no use to anyone
    ],
)
def test_an_index_of_weight_files_that_is_damaged_is_refused(change: dict[str, Any], message: str | None, folder: Path) -> None:
    index = several(folder)
    harmed(index, **change)
    with pytest.raises(CorruptError, match=f"index.json {message}" if message else "unet: the weights cannot be loaded"):
        load_backbone(folder)


NAMES = ["<|startoftext|>", "<|endoftext|>", "a</w>", "square</w>"]


def own_words(folder: Path) -> Path:
    (folder / "tokenizer/tokenizer_config.json").unlink()
    CLIPTokenizer(vocab={name: number for number, name in enumerate(NAMES)}, merges=[], model_max_length=16).save_pretrained(
        folder / "tokenizer"
    )
    return folder / "tokenizer"


def longer(number: object) -> Callable[[Path], None]:
    return lambda tokenizer: harmed(tokenizer / "tokenizer_config.json", model_max_length=number)


def foreign(tokenizer: Path) -> None:
    vocabulary = {name: 5000 + number for number, name in enumerate(NAMES)}
    CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=16).save_pretrained(tokenizer)


@pytest.mark.parametrize(
    "harm, message",
    [
        (longer(10**30), "model_max_length is 10*; text_encoder/ accepts 3 to 16"),
        (longer(77), "model_max_length is 77"),
        (longer(-1), "model_max_length is -1"),
        (longer("x"), "tokenizer"),
        (longer(None), "model_max_length is"),
        (foreign, "numbers its words up to 5003, text_encoder/ knows 4096"),
        (lambda tokenizer: (tokenizer / "tokenizer.json").write_text("[]"), "the tokenizer cannot be loaded"),
        (lambda tokenizer: (tokenizer / "tokenizer.json").write_text('{"model": 3}'), "the tokenizer cannot be loaded"),
    ],
)
def test_a_tokenizer_that_is_damaged_or_another_models_is_refused(harm: Callable[[Path], None], message: str, folder: Path) -> None:
    tokenizer = own_words(folder)
    load_backbone(folder)
    harm(tokenizer)
    with pytest.raises(CorruptError, match=f"tokenizer.*{message}"):
        load_backbone(folder)
