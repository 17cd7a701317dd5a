"""A real bundle with random weights, and the pipeline on it."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from videogen_api.bundle import Manifest
from videogen_api.meta import ModelIdentity, ModelType, release_name
from videogen_api.recipe import Architecture, Recipe, Resolution
from videogen_models.bundle import write_bundle
from videogen_models.networks import model_config
from videogen_models.videofusion import VideoFusionModel
from videogen_serving.pipeline import Pipeline
from videogen_serving.settings import Settings

MODEL = ModelIdentity(type=ModelType.VIDEOFUSION, version="1.0.0", specialization="tiny")
FRAMES, HEIGHT, WIDTH, FRAME_RATE = 4, 16, 24, 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    folder: Path
    digest: str

    def settings(self, **more: int) -> Settings:
        return Settings(
            release=release_name(MODEL),
            bundle_path=self.folder,
            bundle_digest=self.digest,
            **{"sampling_steps": 3, "timeout_seconds": 60, **more},
        )

    def environment(self) -> dict[str, str]:
        return {"RELEASE": release_name(MODEL), "BUNDLE_PATH": str(self.folder), "BUNDLE_DIGEST": self.digest}


def write(storage: Path) -> Bundle:
    recipe = Recipe(
        architecture=Architecture.TINY,
        frames=FRAMES,
        resolution=Resolution(height=HEIGHT, width=WIDTH),
        frame_rate=FRAME_RATE,
        global_batch_size=1,
        steps=1,
    )
    config = model_config(recipe)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        weights = VideoFusionModel(config).state_dict()
    path, digest = write_bundle(storage, Manifest(model=MODEL, recipe=recipe, step=1, files=[]), config, weights)
    return Bundle(folder=storage / path, digest=digest)


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write(tmp_path_factory.mktemp("storage"))


@pytest.fixture
def own_bundle(tmp_path: Path) -> Bundle:
    """A bundle that the test may damage."""
    return write(tmp_path)


@pytest.fixture(scope="session")
def pipeline(bundle: Bundle) -> Pipeline:
    """On a clock that advances by a millisecond whenever it is looked at."""
    clock, seeds = itertools.count(), itertools.count(100)
    return Pipeline.load(bundle.settings(), clock=lambda: next(clock) / 1000, new_seed=lambda: next(seeds))
