"""What all families have in common, and how the image-based ones lie on disk and generate."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from videogen_api.bundle import MANIFEST, Manifest, canonical_json
from videogen_api.meta import ModelFamily, ModelIdentity
from videogen_api.recipe import Architecture, Recipe, Resolution
from videogen_models.bundle import load_model, read_family, seal_bundle, verify_bundle
from videogen_models.image_backbone import PRESETS, build_backbone
from videogen_models.latent_video import AlignYourLatentsModel, align_your_latents_config
from videogen_models.sealed import CorruptError, describe
from videogen_models.text2video_zero import Text2VideoZeroModel, text2video_zero_config
from videogen_models.video_model import VideoModel
from videogen_models.videofusion import VideoFusionModel
from videogen_testing.pixels import ROUNDED, SEEN, apart


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


IMAGE_BASED = [ModelFamily.ALIGN_YOUR_LATENTS, ModelFamily.TEXT2VIDEO_ZERO]


def recipe_of(**blocks: Any) -> Recipe:
    size = {"height": 16, "width": 24}
    return Recipe.model_validate(
        {"architecture": "Tiny", "frames": 4, "resolution": size, "globalBatchSize": 1, "steps": 1, "frameRate": 6} | blocks
    )


def model_of(family: ModelFamily, recipe: Recipe | None = None) -> VideoModel:
    """With random weights, also in the temporal layers' last ones, which are zeros when new."""
    recipe = recipe or recipe_of()
    torch.manual_seed(0)
    backbone = build_backbone(PRESETS[Architecture.TINY], Resolution(height=16, width=24))
    if family is ModelFamily.TEXT2VIDEO_ZERO:
        return Text2VideoZeroModel(backbone, text2video_zero_config(recipe)).eval()
    model = AlignYourLatentsModel(backbone, align_your_latents_config(recipe))
    for parameter in model.video.temporal.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape)
    return model.eval()


def write(storage: Path, family: ModelFamily, model: VideoModel) -> tuple[Path, str]:
    manifest = Manifest(model=ModelIdentity(family=family, version="1.0.0"), recipe=recipe_of(), step=1, files=[])
    path, digest = seal_bundle(storage, manifest, model.save)
    return storage / path, digest


@pytest.mark.parametrize("family", IMAGE_BASED)
def test_a_bundle_gives_the_model_and_the_bundle_back(tmp_path: Path, family: ModelFamily) -> None:
    model = model_of(family)
    folder, digest = write(tmp_path / "one", family, model)
    loaded = load_model(folder, digest)
    assert type(loaded) is type(model)
    assert (loaded.config, loaded.training) == (model.config, False)
    weights = model.state_dict()
    assert loaded.state_dict().keys() == weights.keys()
    assert all(torch.equal(tensor, weights[name]) for name, tensor in loaded.state_dict().items())
    assert write(tmp_path / "two", family, loaded)[1] == digest  # where it was loaded from is not in it
    texts = [path.read_text() for path in folder.rglob("*.json")]
    assert not [text for text in texts if str(tmp_path) in text or "staging" in text]


@pytest.mark.parametrize("family", IMAGE_BASED)
def test_the_same_pair_is_the_same_clip_and_another_one_is_not(family: ModelFamily) -> None:
    model = model_of(family)
    first, again, other = (model.generate(["a square"], [seed], 3)[0] for seed in (1, 1, 2))
    assert (first.shape, first.dtype) == ((4, 16, 24, 3), np.uint8)
    assert np.array_equal(first, again)
    assert apart(first, other) > SEEN
    assert apart(first, model.generate(["a disc"], [1], 3)[0]) > SEEN
    with pytest.raises(ValueError, match="2 captions and 1 seeds"):
        model.generate(["x", "y"], [1], 3)


CONTEXT = {"contextFrames": 1}


@pytest.mark.parametrize(
    "family, blocks, total",
    [
        (ModelFamily.ALIGN_YOUR_LATENTS, {}, 3),
        (ModelFamily.ALIGN_YOUR_LATENTS, {"alignYourLatents": CONTEXT}, 6),
        (ModelFamily.ALIGN_YOUR_LATENTS, {"alignYourLatents": {"contextFrames": 2}}, 9),
        (ModelFamily.TEXT2VIDEO_ZERO, {}, None),
        (ModelFamily.TEXT2VIDEO_ZERO, {"text2VideoZero": {"backgroundSmoothing": "0.6"}}, None),
    ],
)
def test_every_step_is_told_in_order_and_may_cancel(family: ModelFamily, blocks: dict[str, Any], total: int | None) -> None:
    model = model_of(family, recipe_of(**blocks))
    told: list[tuple[int, int]] = []
    model.generate(["x"], [1], 3, lambda done, steps: told.append((done, steps)))
    assert told == [(number, len(told)) for number in range(len(told))]
    assert len(told) >= 3
    assert total in {None, len(told)}

    def cancel(done: int, steps: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        model.generate(["x"], [1], 3, cancel)


@pytest.mark.parametrize(
    "family, blocks",
    [
        (ModelFamily.ALIGN_YOUR_LATENTS, {"alignYourLatents": CONTEXT}),
        (ModelFamily.ALIGN_YOUR_LATENTS, {"alignYourLatents": {"textGuidance": "5"}}),
        (ModelFamily.ALIGN_YOUR_LATENTS, {"alignYourLatents": CONTEXT | {"contextGuidance": "4"}}),
        (ModelFamily.TEXT2VIDEO_ZERO, {"text2VideoZero": {"motionStrength": "60"}}),
        (ModelFamily.TEXT2VIDEO_ZERO, {"text2VideoZero": {"motionStrength": "60", "motionRight": "-1"}}),
        (ModelFamily.TEXT2VIDEO_ZERO, {"text2VideoZero": {"motionStrength": "60", "motionDown": "-1"}}),
        (ModelFamily.TEXT2VIDEO_ZERO, {"text2VideoZero": {"textGuidance": "1"}}),
        (ModelFamily.TEXT2VIDEO_ZERO, {"text2VideoZero": {"warpAt": 300}}),
        (ModelFamily.TEXT2VIDEO_ZERO, {"text2VideoZero": {"warpAt": 300, "resumeAt": 600}}),
    ],
)
def test_every_field_of_a_block_does_something(family: ModelFamily, blocks: dict[str, Any]) -> None:
    clips = [model_of(family, recipe).generate(["a square"], [1], 10) for recipe in (_without(blocks), recipe_of(**blocks))]
    assert apart(*clips) > SEEN


def test_the_background_is_smoothed_as_much_as_the_recipe_says() -> None:
    smoothing = text2video_zero_config(recipe_of(text2VideoZero={"backgroundSmoothing": "0.9"})).options(5).smoothing
    assert smoothing
    assert smoothing.strength == 0.9
    assert text2video_zero_config(recipe_of()).options(5).smoothing is None


def _without(blocks: dict[str, Any]) -> Recipe:
    """The recipe without the last field of its block."""
    (name, fields), *_ = blocks.items()
    return recipe_of(**{name: dict(list(fields.items())[:-1])})


def test_the_context_frame_is_the_image_models_own() -> None:
    """The temporal layers differ, the first frame does not."""
    recipe = recipe_of(alignYourLatents=CONTEXT)
    model = model_of(ModelFamily.ALIGN_YOUR_LATENTS, recipe)
    clip = model.generate(["a square"], [1], 4)[0]
    assert isinstance(model, AlignYourLatentsModel)
    model.video.set_alpha(1)
    alone = model.generate(["a square"], [1], 4)[0]
    assert apart(clip[0], alone[0]) <= ROUNDED
    assert apart(clip[1], alone[1]) > SEEN


def reseal(folder: Path) -> None:
    manifest = json.loads((folder / MANIFEST).read_bytes())
    manifest["files"] = [file.wire() for file in describe(folder)]
    (folder / MANIFEST).write_bytes(canonical_json(manifest))


def edit(file: str, **values: Any) -> Callable[[Path], None]:
    def harm(folder: Path) -> None:
        content = json.loads((folder / file).read_bytes()) | values
        (folder / file).write_bytes(canonical_json(content))

    return harm


HARMS: dict[str, tuple[Callable[[Path], object], str]] = {
    "a family that there is not": (edit("model.json", family="gan"), r"model\.json: 'gan'.* accepted families are VideoFusion"),
    "another family": (edit("model.json", family="VideoFusion"), r"(?s)model\.json: .*networks"),
    "temporal layers of another size": (edit("model.json", temporal={"headWidth": 8, "groups": 8, "contextWidth": 8}), "do not fit"),
    "temporal layers that do not fit the U-Net": (
        edit("model.json", temporal={"headWidth": 24, "groups": 8, "contextWidth": 16}),
        "cannot be split",
    ),
    "no temporal layers": (lambda folder: (folder / "temporal.safetensors").unlink(), r"temporal\.safetensors"),
    "no U-Net": (lambda folder: (folder / "unet/diffusion_pytorch_model.safetensors").unlink(), "unet has no safetensors"),
    "a resolution that does not fit": (edit("model.json", resolution={"height": 16, "width": 16 + 4}), "resolution"),
}


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of an Align-Your-Latents model; a test that harms one works on a copy."""
    return write(tmp_path_factory.mktemp("sealed"), ModelFamily.ALIGN_YOUR_LATENTS, model_of(ModelFamily.ALIGN_YOUR_LATENTS))[0]


@pytest.mark.parametrize("harm", HARMS)
def test_a_sealed_bundle_of_parts_that_do_not_fit_is_refused(tmp_path: Path, sealed: Path, harm: str) -> None:
    folder = Path(shutil.copytree(sealed, tmp_path, dirs_exist_ok=True))
    HARMS[harm][0](folder)
    reseal(folder)
    with pytest.raises(CorruptError, match=HARMS[harm][1]):
        load_model(folder)


def test_a_changed_byte_of_the_image_model_is_found_before_anything_is_loaded(tmp_path: Path) -> None:
    folder, digest = write(tmp_path, ModelFamily.TEXT2VIDEO_ZERO, model_of(ModelFamily.TEXT2VIDEO_ZERO))
    file = folder / "unet/diffusion_pytorch_model.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"\x01")
    with pytest.raises(CorruptError, match=r"unet/diffusion_pytorch_model\.safetensors has SHA-256"):
        verify_bundle(folder, digest)


def test_videofusions_files_are_what_they_were_before_there_were_other_families(tmp_path: Path, model: VideoFusionModel) -> None:
    """Else digests would change, and old bundles, which name no family, would not load."""
    model.save(tmp_path)
    assert json.loads((tmp_path / "model.json").read_bytes()).keys() == {"frames", "resolution", "frameRate", "baseNoiseShare", "networks"}
    assert read_family(tmp_path) is ModelFamily.VIDEOFUSION
    assert recipe_of().wire().keys() & {"alignYourLatents", "text2VideoZero", "backbone"} == set()
