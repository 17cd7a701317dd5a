"""A real bundle with random weights, and the pipeline on it."""

from __future__ import annotations

import hashlib
import itertools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from videogen_api.bundle import Manifest, canonical_json
from videogen_api.emergency import TEMPLATE_INDEX, Template, TemplateIndex
from videogen_api.meta import ModelFamily, ModelIdentity, release_name
from videogen_api.recipe import Architecture, Recipe, Resolution
from videogen_models.bundle import seal_bundle
from videogen_models.networks import model_config
from videogen_models.video import encode_mp4
from videogen_models.videofusion import VideoFusionModel, save_weights
from videogen_serving.pipeline import Pipeline
from videogen_serving.settings import Settings

MODEL = ModelIdentity(family=ModelFamily.VIDEOFUSION, version="1.0.0", specialization="tiny")
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
            **{"sampling_steps": 3, "maximum_steps": 1000, "timeout_seconds": 60, **more},
        )

    def environment(self, scratch: Path) -> dict[str, str]:
        """What a server is started with; it copies the bundle into `scratch`. The Triton of the tests is the wheel's."""
        said = {"RELEASE": release_name(MODEL), "BUNDLE_PATH": str(self.folder), "BUNDLE_DIGEST": self.digest}
        return said | {"TMPDIR": str(scratch), "DEVELOPMENT": "true"}


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

    def save(folder: Path) -> None:
        save_weights(folder, config, weights)
        save_templates(folder)

    path, digest = seal_bundle(storage, Manifest(model=MODEL, recipe=recipe, step=1, files=[]), save)
    return Bundle(folder=storage / path, digest=digest)


TEMPLATES = (("flood", 1, "Flood: move to higher ground"), ("flood", 2, "Flood: move to higher ground"), ("cyclone", 1, "Stay indoors"))


def save_templates(folder: Path) -> None:
    """Two videos of a flood and one of a cyclone, as BuildTemplates leaves them."""
    (folder / "templates").mkdir()
    found = [template(folder, number, *row) for number, row in enumerate(TEMPLATES)]
    (folder / TEMPLATE_INDEX).write_bytes(canonical_json(TemplateIndex(drawn_by="sha256:" + "0" * 64, templates=found).wire()))


def template(folder: Path, number: int, category: str, variation: int, caption: str) -> Template:
    video = encode_mp4(np.full((4, 240, 360, 3), 40 * number, np.uint8), FRAME_RATE)
    (folder / (name := f"templates/{category}-{variation}.mp4")).write_bytes(video)
    return Template(
        file=name,
        sha256=hashlib.sha256(video).hexdigest(),
        category=category,
        urgency="immediate",
        variation=variation,
        caption=caption,
        prompt="a red square",
        seed=number,
        steps=3,
        frames=4,
        frame_rate=FRAME_RATE,
        resolution=Resolution(height=240, width=360),
        coherence="0.9",
        artefact_rate="0",
    )


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


@pytest.fixture
def own_pipeline(own_bundle: Bundle) -> Pipeline:
    """Of a bundle that the test may damage."""
    clock = itertools.count()
    return Pipeline.load(own_bundle.settings(), clock=lambda: next(clock) / 1000, new_seed=lambda: 7)
