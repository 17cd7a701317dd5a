"""Weights in fewer bits: the bound of the error, what is left alone, and bundles of every family that are smaller and still work."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from videogen_api.bundle import Manifest
from videogen_api.meta import ModelFamily, ModelIdentity
from videogen_api.optimization import Quantization
from videogen_api.recipe import Architecture, Recipe, Resolution
from videogen_models.autoencoder import latent_size
from videogen_models.bundle import load_model, read_model, seal_bundle
from videogen_models.image_backbone import PRESETS, build_backbone
from videogen_models.latent_video import AlignYourLatentsModel, align_your_latents_config
from videogen_models.networks import model_config
from videogen_models.quantization import SCALE, compressed, dequantized, layer_weights, quantized, read_weights, save_quantized
from videogen_models.sealed import CorruptError
from videogen_models.text2video_zero import Text2VideoZeroModel, text2video_zero_config
from videogen_models.video_model import VideoModel
from videogen_models.videofusion import VideoFusionModel

RECIPE = Recipe.model_validate(
    {"architecture": "Tiny", "frames": 4, "resolution": {"height": 16, "width": 24}, "globalBatchSize": 1, "steps": 1}
)
QUANTIZED = [Quantization.INT8_WEIGHTS, Quantization.FLOAT16_WEIGHTS]


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def model_of(family: ModelFamily) -> VideoModel:
    torch.manual_seed(0)
    if family is ModelFamily.VIDEOFUSION:
        return VideoFusionModel(model_config(RECIPE)).eval()
    backbone = build_backbone(PRESETS[Architecture.TINY], Resolution(height=16, width=24))
    if family is ModelFamily.TEXT2VIDEO_ZERO:
        return Text2VideoZeroModel(backbone, text2video_zero_config(RECIPE)).eval()
    model = AlignYourLatentsModel(backbone, align_your_latents_config(RECIPE))
    for parameter in model.video.temporal.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape)
    return model.eval()


def write(storage: Path, family: ModelFamily, model: VideoModel, how: Quantization) -> tuple[Path, str]:
    manifest = Manifest(model=ModelIdentity(family=family, version="1.0.0"), recipe=RECIPE, step=1, files=[])
    path, digest = seal_bundle(storage, manifest, lambda folder: save_quantized(model, folder, how))
    return storage / path, digest


@pytest.mark.parametrize("shape", [(7, 5), (1, 1), (16, 3, 3, 3), (4, 8, 3, 1, 1), (64, 1000)])
@pytest.mark.parametrize("size", [1e-12, 1.0, 1e12])
def test_no_weight_is_further_away_than_half_a_step_of_its_channel(shape: tuple[int, ...], size: float) -> None:
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0)) * size
    numbers, scale = quantized(weight)
    assert (numbers.dtype, numbers.shape, scale.dtype, scale.shape) == (torch.int8, weight.shape, torch.float32, weight.shape[:1])
    steps = scale.double().reshape(-1, *[1] * (weight.dim() - 1))
    assert ((weight.double() - numbers.double() * steps).abs() <= steps / 2).all()
    torch.testing.assert_close(dequantized(numbers, scale).double(), numbers.double() * steps, rtol=1e-6, atol=0)


def test_every_channel_uses_the_whole_range_and_none_uses_minus_128() -> None:
    weight = torch.randn(5, 300, generator=torch.Generator().manual_seed(0)) * torch.logspace(-3, 3, 5)[:, None]
    numbers = quantized(weight)[0].int()
    assert numbers.abs().amax(1).tolist() == [127] * 5
    assert quantized(-weight)[0].int().equal(-numbers)


def test_a_channel_of_zeros_stays_zeros() -> None:
    weight = torch.zeros(2, 3)
    weight[1] = torch.tensor([0.0, 1.0, -1.0])
    assert dequantized(*quantized(weight)).equal(weight)


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_a_weight_that_is_not_finite_is_refused(number: float) -> None:
    with pytest.raises(ValueError, match="not finite; train the model again"):
        quantized(torch.tensor([[1.0, number]]))


def test_a_weight_that_16_bits_cannot_hold_is_refused() -> None:
    layer = nn.Linear(1, 1)
    layer.weight.data.fill_(1e6)
    with pytest.raises(ValueError, match="1e\\+06, which 16 bits cannot hold; use Int8Weights"):
        compressed(layer, Quantization.FLOAT16_WEIGHTS)


def test_only_linear_and_convolutional_weights_are_stored_in_fewer_bits() -> None:
    network = nn.ModuleDict(
        {
            "linear": nn.Linear(4, 3),
            "image": nn.Conv2d(2, 3, 3),
            "video": nn.Conv3d(2, 3, 3),
            "words": nn.Embedding(9, 4),
            "norm": nn.GroupNorm(1, 4),
            "transposed": nn.ConvTranspose2d(2, 3, 3),  # its first dimension is not its output
        }
    )
    expected = ["image.weight", "linear.weight", "video.weight"]
    assert sorted(layer_weights(network)) == expected
    stored = compressed(network, Quantization.INT8_WEIGHTS)
    assert sorted(name for name, tensor in stored.items() if tensor.dtype is torch.int8) == expected
    plain = {name: tensor for name, tensor in network.state_dict().items() if name not in expected}
    assert all(stored[name].equal(tensor) for name, tensor in plain.items())


@pytest.mark.parametrize("how", QUANTIZED)
@pytest.mark.parametrize("family", ModelFamily)
def test_a_quantized_bundle_of_every_family_is_smaller_and_its_model_close(tmp_path: Path, family: ModelFamily, how: Quantization) -> None:
    model = model_of(family)
    plain, _ = write(tmp_path, family, model, None)
    folder, digest = write(tmp_path, family, model, how)
    loaded = load_model(folder, digest)
    assert loaded.config == model.config
    assert {tensor.dtype for tensor in loaded.parameters()} == {torch.float32}
    _check_close(model, loaded, how)
    sizes = [sum(path.stat().st_size for path in place.rglob("*.safetensors")) for place in (folder, plain)]
    words = sum(4 * module.weight.numel() for module in model.modules() if isinstance(module, nn.Embedding))
    share = 0.27 if how is Quantization.INT8_WEIGHTS else 0.52  # of layers; scales, norms and biases are whole
    assert sizes[0] < words + share * (sizes[1] - words) + 0.02 * sizes[1]
    clip, other = (one.generate(["a square"], [1], 3)[0] for one in (model, loaded))
    difference = np.abs(clip.astype(int) - other).mean()
    assert 0 < difference < 8, "other weights, nearly the same clip"


def _check_close(model: VideoModel, loaded: VideoModel, how: Quantization) -> None:
    layers, found = set(layer_weights(model)), loaded.state_dict()
    assert layers
    for name, weight in model.state_dict().items():
        if name not in layers:
            assert found[name].equal(weight), name
            continue
        step = weight.abs().flatten(1).amax(1) / 127 / 2 if how is Quantization.INT8_WEIGHTS else weight.abs().flatten(1).amax(1) * 2**-11
        error = (found[name] - weight).abs().flatten(1).amax(1)
        assert (error <= step * (1 + 1e-4)).all(), name


def latent_videofusion() -> VideoModel:
    torch.manual_seed(0)
    size = PRESETS[Architecture.TINY].model_copy(update={"autoencoder": [8, 8]})
    vae = build_backbone(size, RECIPE.resolution).vae
    config = model_config(RECIPE).model_copy(update={"latent": latent_size(vae, RECIPE.resolution)})
    return VideoFusionModel(config, vae).eval()


def whole_align_your_latents() -> VideoModel:
    model = model_of(ModelFamily.ALIGN_YOUR_LATENTS)
    assert isinstance(model, AlignYourLatentsModel)
    model.interpolate_by(model.video.temporal, 1)
    model.decode_by_time(model.config.temporal)
    return model.eval()


@pytest.mark.parametrize("make", [latent_videofusion, whole_align_your_latents])
def test_every_part_that_a_model_may_have_is_in_its_quantized_bundle(tmp_path: Path, make: Callable[[], VideoModel]) -> None:
    model = make()
    save_quantized(model, tmp_path, Quantization.INT8_WEIGHTS)
    loaded = read_model(tmp_path).eval()
    assert loaded.config == model.config
    _check_close(model, loaded, Quantization.INT8_WEIGHTS)
    clip, other = (one.generate(["a square"], [1], 2)[0] for one in (model, loaded))
    assert clip.shape == other.shape == (model.config.frames, 16, 24, 3)
    assert not list(tmp_path.rglob("diffusion_pytorch_model.safetensors"))


def test_a_model_with_weights_that_are_in_no_file_is_not_written_without_them(tmp_path: Path) -> None:
    model = model_of(ModelFamily.TEXT2VIDEO_ZERO)
    model.more = nn.Linear(2, 2)
    with pytest.raises(AssertionError, match=r"has no file for more\.weight"):
        save_quantized(model, tmp_path, Quantization.INT8_WEIGHTS)
    assert list(tmp_path.rglob("*.safetensors")), "what was there is left"


@pytest.mark.parametrize("family", ModelFamily)
def test_the_same_model_is_the_same_quantized_bundle(tmp_path: Path, family: ModelFamily) -> None:
    first, second = (write(tmp_path / place, family, model_of(family), Quantization.INT8_WEIGHTS)[1] for place in ("one", "two"))
    assert first == second


@pytest.mark.parametrize("family", ModelFamily)
def test_without_quantization_the_files_are_what_they_were(tmp_path: Path, family: ModelFamily) -> None:
    model = model_of(family)
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    model.save(tmp_path / "one")
    save_quantized(model, tmp_path / "two", None)
    one, two = (
        {path.relative_to(at): path.read_bytes() for path in at.rglob("*") if path.is_file()} for at in (tmp_path / "one", tmp_path / "two")
    )
    assert one == two


def test_a_manifest_of_before_has_the_digest_that_it_had() -> None:
    manifest = Manifest(model=ModelIdentity(family=ModelFamily.VIDEOFUSION, version="1.0.0"), recipe=RECIPE, step=1, files=[])
    assert not manifest.wire().keys() & {"quantization", "optimizedFrom"}


Weights = dict[str, Tensor]


def without_scales(weights: Weights) -> None:
    del weights[next(name for name in weights if name.endswith(SCALE))]


def short_scales(weights: Weights) -> None:
    name = next(name for name in weights if name.endswith(SCALE))
    weights[name] = weights[name][:-1].clone()


def wild_scales(weights: Weights) -> None:
    weights[next(name for name in weights if name.endswith(SCALE))].fill_(float("nan"))


def less(weights: Weights) -> None:
    del weights[next(name for name in weights if name.endswith("bias"))]


def more(weights: Weights) -> None:
    weights["foreign"] = torch.zeros(1)


HARMS: dict[str, tuple[Callable[[Weights], None], str]] = {
    "no scales": (without_scales, r"is quantized and needs \[\d+\] finite scales, found are none"),
    "too few scales": (short_scales, "finite scales, found are"),
    "scales that are no numbers": (wild_scales, "finite scales, found are"),
    "a tensor that is missing": (less, "(?s)do not fit .*bias"),
    "a tensor too many": (more, "(?s)do not fit .*foreign"),
}
FILES = [
    (ModelFamily.VIDEOFUSION, "base.safetensors"),
    (ModelFamily.TEXT2VIDEO_ZERO, "unet/quantized.safetensors"),
    (ModelFamily.ALIGN_YOUR_LATENTS, "text_encoder/quantized.safetensors"),
    (ModelFamily.ALIGN_YOUR_LATENTS, "temporal.safetensors"),
]


@pytest.fixture(scope="module")
def in_bytes(tmp_path_factory: pytest.TempPathFactory) -> Callable[[ModelFamily, Path], Path]:
    """`in_bytes(family, folder)`: a model of the family in Int8Weights, made once and copied."""

    @functools.cache
    def made(family: ModelFamily) -> Path:
        folder = tmp_path_factory.mktemp(family.value)
        save_quantized(model_of(family), folder, Quantization.INT8_WEIGHTS)
        return folder

    return lambda family, folder: shutil.copytree(made(family), folder, dirs_exist_ok=True)


@pytest.mark.parametrize("harm", HARMS)
@pytest.mark.parametrize("family, file", FILES)
def test_quantized_weights_that_do_not_fit_are_refused_with_the_file_named(
    tmp_path: Path, in_bytes: Callable[[ModelFamily, Path], Path], family: ModelFamily, file: str, harm: str
) -> None:
    in_bytes(family, tmp_path)
    weights = load_file(tmp_path / file)
    HARMS[harm][0](weights)
    save_file(weights, tmp_path / file)
    with pytest.raises(CorruptError, match=HARMS[harm][1]) as caught:
        read_model(tmp_path)
    assert Path(file).name in str(caught.value) or family is ModelFamily.VIDEOFUSION


def test_a_truncated_file_is_refused_with_its_name(tmp_path: Path, in_bytes: Callable[[ModelFamily, Path], Path]) -> None:
    in_bytes(ModelFamily.TEXT2VIDEO_ZERO, tmp_path)
    file = tmp_path / "vae/quantized.safetensors"
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(CorruptError, match=r"vae/quantized\.safetensors: the weights cannot be loaded"):
        read_model(tmp_path)


def test_reading_quantized_weights_draws_no_random_number(tmp_path: Path, in_bytes: Callable[[ModelFamily, Path], Path]) -> None:
    in_bytes(ModelFamily.TEXT2VIDEO_ZERO, tmp_path)
    torch.manual_seed(5)
    read_model(tmp_path)
    drawn = torch.randn(3)
    torch.manual_seed(5)
    assert drawn.equal(torch.randn(3))


def test_plain_weights_are_read_as_ever(tmp_path: Path) -> None:
    weights = {"a": torch.randn(3, 2), "b": torch.arange(4), "c": torch.ones(2, dtype=torch.bfloat16)}
    save_file(weights, tmp_path / "x.safetensors")
    found: Any = read_weights(tmp_path / "x.safetensors")
    assert {name: (tensor.dtype, tensor.tolist()) for name, tensor in found.items()} == {
        name: (tensor.dtype, tensor.tolist()) for name, tensor in weights.items()
    }
