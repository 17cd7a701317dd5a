"""The image model: built from sizes, kept in diffusers' layout, and refused when the folder is not what it should be."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from transformers import CLIPTokenizer

from videogen_api.recipe import Architecture, Resolution
from videogen_models.backbone_digest import folder_sha256
from videogen_models.backbone_folder import ClipWords, load_backbone, save_backbone
from videogen_models.image_backbone import PRESETS, BackboneSize, ImageBackbone, build_backbone
from videogen_models.sealed import CorruptError

UNET, VAE, TEXT = "unet/diffusion_pytorch_model.safetensors", "vae/diffusion_pytorch_model.safetensors", "text_encoder/model.safetensors"


@pytest.fixture
def folder(tmp_path: Path, saved_backbone: Path) -> Path:
    """One that the test may harm."""
    return Path(shutil.copytree(saved_backbone, tmp_path, dirs_exist_ok=True))


def rewrite(path: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    weights = load_file(path)
    change(weights)
    save_file(weights, path, metadata={"format": "pt"})


def config(path: Path, **change: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | change))


def test_a_folder_gives_the_model_back(folder: Path, backbone: ImageBackbone) -> None:
    loaded, weights = load_backbone(folder), backbone.state_dict()
    assert loaded.state_dict().keys() == weights.keys()
    assert all(torch.equal(tensor, weights[name]) for name, tensor in loaded.state_dict().items())
    assert torch.equal(loaded.encode(["a flood"]), backbone.encode(["a flood"]))
    assert loaded.latent_shape == backbone.latent_shape
    assert loaded.scheduler(7).timesteps.tolist() == backbone.scheduler(7).timesteps.tolist()
    assert not loaded.training
    assert not any(parameter.requires_grad for parameter in loaded.parameters())


def test_a_model_from_a_folder_computes_to_the_bit_what_the_saved_one_does(folder: Path, backbone: ImageBackbone) -> None:
    loaded, text = load_backbone(folder), backbone.encode(["a flood"])
    noisy = torch.randn(2, *backbone.latent_shape, generator=torch.Generator().manual_seed(0))
    ours, theirs = (each.unet(noisy, 700, text.repeat(2, 1, 1)).sample for each in (loaded, backbone))
    assert torch.equal(ours, theirs)
    assert {tensor.data_ptr() % 64 for tensor in (*loaded.parameters(), *loaded.buffers())} == {0}  # as PyTorch allocates


def test_the_folder_is_diffusers_layout_without_pickles(folder: Path) -> None:
    assert UNet2DConditionModel.from_pretrained(folder / "unet", use_safetensors=True).config.in_channels == 4
    assert DDIMScheduler.from_pretrained(folder / "scheduler").config.beta_schedule == "scaled_linear"
    assert {path.suffix for path in folder.rglob("*") if path.is_file()} == {".json", ".safetensors"}


def test_a_clip_tokenizer_of_the_folder_is_used(tmp_path: Path, backbone: ImageBackbone) -> None:
    letters = "abcdefghijklmnopqrstuvwxyz"
    names = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{letter}</w>" for letter in letters)]
    tokenizer = CLIPTokenizer(vocab={name: number for number, name in enumerate(names)}, merges=[], model_max_length=16)
    save_backbone(ImageBackbone(backbone.unet, backbone.vae, backbone.text, ClipWords(tokenizer), backbone.schedule), tmp_path)
    tokens = load_backbone(tmp_path).tokens(["ab c", "d" * 40])
    assert tokens.shape == (2, 16)
    assert tokens[0, :5].tolist() == [0, names.index("a"), names.index("b</w>"), names.index("c</w>"), 1]
    assert tokens[1, -1] == 1  # too long a caption is cut and still ends


def test_old_names_of_the_autoencoders_attention_are_understood(folder: Path, backbone: ImageBackbone) -> None:
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}

    def age(weights: dict[str, torch.Tensor]) -> None:
        for name in [name for name in weights if "mid_block.attentions" in name]:
            aged = name
            for new, before in old.items():
                aged = aged.replace(f".{new}.", f".{before}.")
            weights[aged] = weights.pop(name)

    rewrite(folder / VAE, age)
    assert any(".query." in name for name in load_file(folder / VAE))
    loaded = load_backbone(folder).vae.state_dict()
    assert all(torch.equal(tensor, loaded[name]) for name, tensor in backbone.vae.state_dict().items())


def test_old_names_of_the_text_encoder_are_understood(folder: Path, backbone: ImageBackbone) -> None:
    def age(weights: dict[str, torch.Tensor]) -> None:
        for name in list(weights):
            weights[f"text_model.{name}"] = weights.pop(name)
        weights["text_model.embeddings.position_ids"] = torch.arange(16).unsqueeze(0)  # no weight, but older files have it

    rewrite(folder / TEXT, age)
    loaded = load_backbone(folder).text.state_dict()
    assert all(torch.equal(tensor, loaded[name]) for name, tensor in backbone.text.state_dict().items())


def test_files_named_as_half_precision_are_found_and_computed_in_full(folder: Path) -> None:
    for path in (UNET, VAE, TEXT):
        weights = {name: tensor.half() for name, tensor in load_file(folder / path).items()}
        (folder / path).unlink()
        save_file(weights, (folder / path).with_suffix(".fp16.safetensors"), metadata={"format": "pt"})
    assert {parameter.dtype for parameter in load_backbone(folder).parameters()} == {torch.float32}


def pickled(folder: Path) -> None:
    (folder / UNET).rename(folder / "unet/diffusion_pytorch_model.bin")


def truncated(folder: Path) -> None:
    (folder / VAE).write_bytes((folder / VAE).read_bytes()[:-100])


def without(path: str, name: str) -> Callable[[Path], None]:
    return lambda folder: rewrite(folder / path, lambda weights: weights.__delitem__(name))


def added(path: str, shape: tuple[int, ...], name: str) -> Callable[[Path], None]:
    return lambda folder: rewrite(folder / path, lambda weights: weights.update({name: torch.zeros(shape)}))


@pytest.mark.parametrize(
    "harm, message",
    [
        (pickled, "unet has no safetensors file; pickled weights"),
        (truncated, "vae: the weights cannot be loaded"),
        (without(UNET, "conv_in.weight"), "unet: the weights do not fit .*conv_in.weight"),
        (without(TEXT, "final_layer_norm.weight"), "text_encoder: the weights do not fit .*final_layer_norm.weight"),
        (added(UNET, (1,), "more"), "unet: the weights do not fit .*more"),
        (added(UNET, (3, 3), "conv_in.bias"), "unet: the weights .*conv_in.bias"),
        (added(TEXT, (3, 3), "final_layer_norm.bias"), "text_encoder: the weights .*final_layer_norm.bias"),
        (lambda folder: (folder / "vae/config.json").unlink(), "vae/config.json cannot be read"),
        (lambda folder: (folder / "unet/config.json").write_text("{"), "unet/config.json cannot be read"),
        (lambda folder: (folder / "tokenizer/tokenizer_config.json").unlink(), "tokenizer/tokenizer_config.json cannot be read"),
        (
            lambda folder: (folder / "tokenizer/tokenizer_config.json").write_text('{"tokenizer_class": "CLIPTokenizer"}'),
            "tokenizer has no vocabulary",
        ),
        (lambda folder: (folder / "scheduler/scheduler_config.json").unlink(), "scheduler/scheduler_config.json cannot be read"),
    ],
)
def test_a_damaged_folder_is_refused_with_the_file_named(folder: Path, harm: Callable[[Path], None], message: str) -> None:
    harm(folder)
    with pytest.raises(CorruptError, match=message):
        load_backbone(folder)


def spoilt(path: str, name: str, value: float) -> Callable[[Path], None]:
    return lambda folder: rewrite(folder / path, lambda weights: weights[name].view(-1)[-1:].fill_(value))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("path, name", [(UNET, "conv_in.weight"), (VAE, "decoder.conv_out.bias"), (TEXT, "final_layer_norm.weight")])
def test_a_weight_that_is_not_finite_is_refused_with_file_and_tensor_named(folder: Path, path: str, name: str, value: float) -> None:
    spoilt(path, name, value)(folder)
    with pytest.raises(CorruptError, match=f"{path}: {name} has values that are not finite; mount"):
        load_backbone(folder)


def test_a_weight_that_is_not_finite_is_named_as_its_file_names_it(folder: Path) -> None:
    def age_and_spoil(weights: dict[str, torch.Tensor]) -> None:
        for name in list(weights):
            weights[f"text_model.{name}"] = weights.pop(name)
        weights["text_model.final_layer_norm.bias"][0] = float("nan")

    rewrite(folder / TEXT, age_and_spoil)
    with pytest.raises(CorruptError, match=f"{TEXT}: text_model.final_layer_norm.bias has values"):
        load_backbone(folder)


def test_finite_weights_whose_sum_is_too_large_are_accepted(folder: Path) -> None:
    spoilt(UNET, "conv_in.weight", 3e38)(folder)
    rewrite(folder / UNET, lambda weights: weights["conv_in.weight"].view(-1)[:1].fill_(3e38))
    assert load_backbone(folder).unet.state_dict()["conv_in.weight"].max() == pytest.approx(3e38)


def sized(**change: object) -> BackboneSize:
    return PRESETS[Architecture.TINY].model_copy(update=change)


def test_parts_that_do_not_belong_together_are_refused(tmp_path: Path, backbone: ImageBackbone) -> None:
    other = build_backbone(sized(latent_channels=9), Resolution(height=32, width=32))
    save_backbone(ImageBackbone(other.unet, backbone.vae, backbone.text, backbone.tokens, backbone.schedule), tmp_path)
    with pytest.raises(CorruptError, match="9 input and 9 output channels, the autoencoder's latents 4"):
        load_backbone(tmp_path)


def test_text_of_another_width_is_refused(tmp_path: Path, backbone: ImageBackbone) -> None:
    text = PRESETS[Architecture.TINY].text.model_copy(update={"width": 32})
    other = build_backbone(sized(text=text), Resolution(height=32, width=32))
    save_backbone(ImageBackbone(backbone.unet, backbone.vae, other.text, other.tokens, backbone.schedule), tmp_path)
    with pytest.raises(CorruptError, match="text of width 64, text_encoder/ gives 32"):
        load_backbone(tmp_path)


@pytest.mark.parametrize(
    "architecture, unet, vae, text",
    [
        (Architecture.TINY, 1_077_572, 242_327, 363_264),
        (Architecture.SMALL, 37_623_076, 6_893_607, 7_362_048),
        (Architecture.PAPER, 859_520_964, 83_653_863, 123_060_480),  # as Stable Diffusion 1.5
    ],
)
def test_the_presets_have_the_sizes_they_promise(architecture: Architecture, unet: int, vae: int, text: int) -> None:
    with torch.device("meta"):
        built = build_backbone(PRESETS[architecture], Resolution(height=512, width=512))
    assert [sum(parameter.numel() for parameter in part.parameters()) for part in (built.unet, built.vae, built.text)] == [unet, vae, text]


def test_an_odd_resolution_is_refused() -> None:
    with pytest.raises(ValueError, match="multiples of 8"):
        build_backbone(PRESETS[Architecture.TINY], Resolution(height=32, width=32).model_copy(update={"width": 36}))


def test_the_same_model_is_the_same_files_wherever_it_was_loaded_from(tmp_path: Path, backbone: ImageBackbone) -> None:
    """Also with a tokenizer of its own, whose configuration tells where it was loaded from."""
    save_backbone(backbone, tmp_path / "mounted")
    shutil.rmtree(tmp_path / "mounted/tokenizer")
    names = ["<|startoftext|>", "<|endoftext|>", "a</w>", "square</w>"]
    tokenizer = CLIPTokenizer(vocab={name: number for number, name in enumerate(names)}, merges=[], model_max_length=16)
    tokenizer.save_pretrained(tmp_path / "mounted/tokenizer")
    for number in (1, 2):
        shutil.copytree(tmp_path / "mounted", tmp_path / f"place-{number}")
        save_backbone(load_backbone(tmp_path / f"place-{number}"), tmp_path / f"saved-{number}")
    assert folder_sha256(tmp_path / "saved-1") == folder_sha256(tmp_path / "saved-2")
    save_backbone(load_backbone(tmp_path / "saved-1"), tmp_path / "again")
    assert folder_sha256(tmp_path / "again") == folder_sha256(tmp_path / "saved-1")
    assert not [path for path in (tmp_path / "saved-1").rglob("*.json") if str(tmp_path) in path.read_text()]
