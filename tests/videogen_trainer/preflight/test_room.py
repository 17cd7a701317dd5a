"""How much room the checkpoints of a run are said to need."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from videogen_api.job import Job
from videogen_api.recipe import Architecture, Recipe
from videogen_models import align_your_latents, image_backbone
from videogen_models.autoencoder import latent_size
from videogen_models.networks import model_config
from videogen_models.videofusion import VideoFusionModel
from videogen_trainer.failure import Failure
from videogen_trainer.preflight import room

MakeJob = Callable[..., Job]
SMALL: dict[str, Any] = {"architecture": "Small", "steps": 100, "checkpoints": {"everySteps": 10, "keepLast": 2}}
BYTES = 80_000_000 * 16  # of a checkpoint of it


def weights_of(network: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize("architecture", Architecture)
@pytest.mark.parametrize("space", ["Pixel", "Latent"])
def test_the_table_has_the_networks_of_videofusion_rounded_down(architecture: Architecture, space: str) -> None:
    resolution = {"height": 64, "width": 64}
    fields = {"architecture": architecture, "frames": 2, "resolution": resolution, "globalBatchSize": 1, "steps": 1}
    recipe = Recipe.model_validate(fields | {"videoFusion": {"space": space}})
    with torch.device("meta"):
        vae = image_backbone.build_backbone(image_backbone.PRESETS[architecture], recipe.resolution).vae if space == "Latent" else None
        model = VideoFusionModel(model_config(recipe, latent_size(vae, recipe.resolution) if vae is not None else None), vae)
    learned = weights_of(model) - (weights_of(vae) if vae is not None else 0)
    assert 0.95 * learned < room.VIDEOFUSION[architecture] <= learned


@pytest.mark.parametrize("architecture", Architecture)
def test_the_table_has_the_u_net_of_a_new_image_model_and_temporal_layers_are_no_smaller(architecture: Architecture) -> None:
    resolution = Recipe.model_validate({"resolution": {"height": 64, "width": 64}, "globalBatchSize": 1, "steps": 1}).resolution
    with torch.device("meta"):
        unet = image_backbone.build_backbone(image_backbone.PRESETS[architecture], resolution).unet
        temporal = [align_your_latents.TemporalLayers(unet, size) for size in align_your_latents.PRESETS.values() if _fits(unet, size)]
    assert 0.95 * weights_of(unet) < room.UNET[architecture] <= weights_of(unet)
    assert temporal
    assert all(weights_of(layers) >= weights_of(unet) for layers in temporal)


def _fits(unet: Any, size: align_your_latents.TemporalSize) -> bool:
    return all(width % size.groups == 0 and width % size.head_width == 0 for width in unet.config.block_out_channels)


@pytest.mark.parametrize(
    "changes, phase, count, why",
    [
        ({}, {}, 3, "two that are kept, and the one that is being written"),
        ({"checkpoints": {"everySteps": 10, "keepLast": 2, "keepBest": 4}}, {}, 7, "the best are kept beside the newest"),
        ({"steps": 20}, {}, 2, "more are never saved"),
        ({}, {"task": "FineTune"}, 3, "it learns the same networks"),
    ],
)
def test_room_for_a_new_model_is_that_of_its_architecture(
    make_job: MakeJob, storage: Path, changes: dict[str, Any], phase: dict[str, Any], count: int, why: str
) -> None:
    evaluate = make_job(SMALL, phase="validate", task="Evaluate")
    assert room.needed_bytes([make_job(SMALL | changes, **phase), evaluate], storage) == count * BYTES, why
    assert room.needed_bytes([evaluate], storage) == room.LEAST_BYTES


def test_moments_of_8_bits_need_less_room(make_job: MakeJob, storage: Path) -> None:
    job = make_job(SMALL | {"optimizer": {"name": "AdamW8bit"}})
    assert room.needed_bytes([job], storage) == 3 * 80_000_000 * 10


def test_of_an_image_model_that_is_given_the_u_net_counts_once(make_job: MakeJob, storage: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "LEAST_BYTES", 0)
    for part, numbers in (("unet", 100), ("vae", 1000)):
        (storage / "raw/model" / part).mkdir(parents=True)
        for name, kind in (("model", np.float32), ("model.fp16", np.float16)):
            save_file({"weight": np.zeros((numbers // 10, 10), kind)}, storage / "raw/model" / part / f"{name}.safetensors")
    recipe = SMALL | {"videoFusion": None, "backbone": {"path": "raw/model", "digest": "sha256:" + "1" * 64}}
    zero = make_job(recipe, model={"family": "Text2VideoZero", "version": "1.0.0"})
    assert room.needed_bytes([zero], storage) == 3 * 100 * 16
    as_it_is = make_job(recipe | {"steps": 0}, model={"family": "Text2VideoZero", "version": "1.0.0"})
    assert room.needed_bytes([as_it_is], storage) == 0, "nothing learns"


def test_a_volume_that_has_too_little_is_told_with_what_to_lower(make_job: MakeJob, storage: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "LEAST_BYTES", shutil.disk_usage(storage).total + 1)
    with pytest.raises(Failure, match=r"lower checkpoints\.keepLast or keepBest"):
        room.check_room([make_job(SMALL)], storage)
