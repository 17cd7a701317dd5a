"""A tiny model that is built once."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from videogen_api.recipe import Architecture, Recipe, Resolution
from videogen_models.backbone_folder import save_backbone
from videogen_models.image_backbone import PRESETS, ImageBackbone, build_backbone
from videogen_models.networks import model_config
from videogen_models.videofusion import VideoFusionModel


@pytest.fixture(scope="session")
def recipe() -> Recipe:
    return Recipe(
        architecture=Architecture.TINY, frames=5, resolution=Resolution(height=16, width=16), global_batch_size=2, steps=1, frame_rate=8
    )


@pytest.fixture(scope="session")
def model(recipe: Recipe) -> VideoFusionModel:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    return VideoFusionModel(model_config(recipe)).eval()


@pytest.fixture(scope="session")
def backbone() -> ImageBackbone:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    return build_backbone(PRESETS[Architecture.TINY], Resolution(height=32, width=32)).eval().requires_grad_(False)


@pytest.fixture(scope="session")
def saved_backbone(tmp_path_factory: pytest.TempPathFactory, backbone: ImageBackbone) -> Path:
    """Its folder; a test that harms one works on a copy."""
    folder = tmp_path_factory.mktemp("backbone")
    save_backbone(backbone, folder)
    return folder
