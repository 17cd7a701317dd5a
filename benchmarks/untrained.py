"""Runs in a pod with the trainer's image: writes bundles of untrained Tiny models into the claim, one for each version given.

Prints one JSON line {version: {"path": ..., "digest": ...}}. Serving them costs what serving trained ones costs.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

from videogen_api.bundle import Manifest
from videogen_api.meta import ModelFamily, ModelIdentity
from videogen_api.recipe import Architecture, Recipe, Resolution
from videogen_models.bundle import write_bundle
from videogen_models.networks import model_config
from videogen_models.videofusion import VideoFusionModel

STORAGE = Path("/storage")


def main(versions: list[str]) -> None:
    """Write the bundles; the seed of each one's weights is its place in the list."""
    written = {}
    for seed, version in enumerate(versions):
        recipe = Recipe(
            architecture=Architecture.TINY, frames=2, resolution=Resolution(height=16, width=16), global_batch_size=1, steps=1, seed=seed
        )
        torch.manual_seed(seed)
        config = model_config(recipe)
        manifest = Manifest(model=ModelIdentity(family=ModelFamily.VIDEOFUSION, version=version), recipe=recipe, step=0, files=[])
        path, digest = write_bundle(STORAGE, manifest, config, VideoFusionModel(config).state_dict())
        written[version] = {"path": path, "digest": digest}
    print(json.dumps(written))


if __name__ == "__main__":
    main(sys.argv[1:])
