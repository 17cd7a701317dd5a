"""The frozen autoencoder: there and back, in a bundle, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from safetensors.torch import load_file, save_file

from videogen_api.bundle import Manifest
from videogen_api.meta import ModelFamily, ModelIdentity
from videogen_api.recipe import Recipe, Resolution
from videogen_models.autoencoder import LatentSize, decode, encode, latent_size, load_autoencoder, save_autoencoder
from videogen_models.bundle import load_model, seal_bundle
from videogen_models.image_backbone import ImageBackbone
from videogen_models.networks import model_config
from videogen_models.sealed import CorruptError
from videogen_models.videofusion import VideoFusionModel


@pytest.fixture
def vae(backbone: ImageBackbone) -> AutoencoderKL:
    """Of the tiny image model, with a scale that is not 1."""
    assert backbone.vae.config.scaling_factor != 1
    return backbone.vae


@pytest.fixture
def latent(recipe: Recipe, vae: AutoencoderKL) -> VideoFusionModel:
    torch.manual_seed(0)
    return VideoFusionModel(model_config(recipe, latent_size(vae, recipe.resolution)), vae).eval()


def test_latents_are_those_of_each_frame_alone_and_decoded_as_such(vae: AutoencoderKL) -> None:
    clip = torch.rand(2, 3, 3, 16, 16) * 2 - 1
    latents = encode(vae, clip)
    with torch.no_grad():
        one = vae.encode(clip[1, 2:]).latent_dist.mean * vae.config.scaling_factor
        back = vae.decode(latents[1, 2:] / vae.config.scaling_factor).sample
    assert latents.shape == (2, 3, 4, 4, 4)
    assert torch.allclose(latents[1, 2], one[0], atol=1e-5)
    assert torch.allclose(decode(vae, latents)[1, 2], back[0], atol=1e-5)


def test_frames_must_be_whole_latents(vae: AutoencoderKL) -> None:
    assert latent_size(vae, Resolution(height=16, width=24)) == LatentSize(channels=4, factor=4)
    with pytest.raises(ValueError, match="multiples of 4"):
        latent_size(vae, Resolution.model_construct(height=16, width=18))


def sealed(storage: Path, model: VideoFusionModel, recipe: Recipe) -> tuple[Path, str]:
    identity = ModelIdentity(family=ModelFamily.VIDEOFUSION, version="1.0.0")
    path, digest = seal_bundle(storage, Manifest(model=identity, recipe=recipe, step=1, files=[]), model.save)
    return storage / path, digest


def test_a_bundle_holds_the_autoencoder_and_draws_the_same(tmp_path: Path, latent: VideoFusionModel, recipe: Recipe) -> None:
    folder, digest = sealed(tmp_path, latent, recipe)
    loaded = load_model(folder, digest)
    assert isinstance(loaded, VideoFusionModel)
    assert loaded.config == latent.config
    assert all(torch.equal(tensor, latent.state_dict()[name]) for name, tensor in loaded.state_dict().items())
    assert loaded.state_dict().keys() == latent.state_dict().keys()
    wanted = latent.generate(["a square"], [1], 2)
    assert wanted.shape == (1, 5, 16, 16, 3)
    assert np.array_equal(loaded.generate(["a square"], [1], 2), wanted)


def test_the_bytes_of_a_bundle_do_not_tell_where_the_autoencoder_came_from(
    tmp_path: Path, latent: VideoFusionModel, recipe: Recipe
) -> None:
    _, digest = sealed(tmp_path / "one", latent, recipe)
    save_autoencoder(latent.vae, tmp_path / "elsewhere")
    again = VideoFusionModel(latent.config, load_autoencoder(tmp_path / "elsewhere"))
    again.load_state_dict(latent.state_dict())
    assert sealed(tmp_path / "two", again, recipe)[1] == digest


def test_an_autoencoder_with_other_latents_than_the_model_says_is_refused(recipe: Recipe, vae: AutoencoderKL) -> None:
    for latent, its in ((LatentSize(channels=3, factor=4), vae), (LatentSize(channels=4, factor=4), None), (None, vae)):
        with pytest.raises(ValueError, match="the autoencoder has others"):
            VideoFusionModel(model_config(recipe, latent), its)


@pytest.mark.parametrize("harm, message", [("missing", "has no safetensors"), ("lacks", "decoder.conv_out.bias")])
def test_an_autoencoder_that_is_not_whole_is_refused(tmp_path: Path, vae: AutoencoderKL, harm: str, message: str) -> None:
    save_autoencoder(vae, tmp_path)
    file = tmp_path / "vae/diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    file.unlink()
    if harm == "lacks":
        del tensors["decoder.conv_out.bias"]
        save_file(tensors, file, {"format": "pt"})
    with pytest.raises(CorruptError, match=message):
        load_autoencoder(tmp_path)
