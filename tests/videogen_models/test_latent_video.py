"""The two parts that an Align-Your-Latents model may have: layers for interpolation, and a temporal decoder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from videogen_api.bundle import Manifest
from videogen_api.meta import ModelFamily, ModelIdentity
from videogen_api.recipe import Architecture, Recipe
from videogen_models.align_your_latents import PRESETS as SIZES
from videogen_models.bundle import load_model, read_model, seal_bundle
from videogen_models.image_backbone import PRESETS, build_backbone
from videogen_models.latent_video import (
    DECODER,
    INTERPOLATION,
    TEMPORAL,
    AlignYourLatentsConfig,
    AlignYourLatentsModel,
    align_your_latents_config,
    noises,
)
from videogen_models.sealed import CorruptError
from videogen_testing.pixels import ROUNDED, SEEN, apart

SIZE = SIZES[Architecture.TINY]
RECIPE = Recipe.model_validate(
    {
        "architecture": "Tiny",
        "frames": 3,
        "resolution": {"height": 16, "width": 24},
        "globalBatchSize": 1,
        "steps": 1,
        "frameRate": 2,
        "alignYourLatents": {"contextFrames": 1, "textGuidance": "2"},
    }
)


def stirred(layers: nn.Module) -> None:
    for parameter in layers.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape)


@pytest.fixture
def model() -> AlignYourLatentsModel:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    made = AlignYourLatentsModel(build_backbone(PRESETS[Architecture.TINY], RECIPE.resolution), align_your_latents_config(RECIPE))
    stirred(made.video.temporal)
    return made.eval().requires_grad_(False)


def clip(model: AlignYourLatentsModel, seed: int = 1) -> np.ndarray:
    return model.generate(["a square"], [seed], 2)[0]


def interpolating(model: AlignYourLatentsModel, times: int) -> AlignYourLatentsModel:
    model.interpolate_by(model.video.temporal, times)
    assert model.between
    stirred(model.between.temporal)
    return model


def longer(frames: int) -> AlignYourLatentsModel:
    """A model of clips of 3 frames that draws so many."""
    latents = RECIPE.align_your_latents
    assert latents
    recipe = RECIPE.model_copy(update={"align_your_latents": latents.model_copy(update={"clip_frames": frames})})
    torch.set_num_threads(1)
    torch.manual_seed(0)
    made = AlignYourLatentsModel(build_backbone(PRESETS[Architecture.TINY], RECIPE.resolution), align_your_latents_config(recipe))
    stirred(made.video.temporal)
    return made.eval().requires_grad_(False)


def test_a_clip_longer_than_those_of_the_training_is_drawn_by_attention_to_as_many_frames_as_these_had(tmp_path: Path) -> None:
    model = longer(7)
    found = clip(model)
    assert (found.shape, model.video.distance, model.config.key_frames) == ((7, 16, 24, 3), 3, 7)
    model.save(tmp_path)
    assert np.array_equal(clip(AlignYourLatentsModel.load(tmp_path)), found)
    model.video.distance = None
    assert apart(clip(model), found) > SEEN


def test_within_the_length_of_the_training_attention_sees_all_frames(model: AlignYourLatentsModel) -> None:
    assert model.video.distance is None
    found = clip(model)
    model.video.distance = 3  # as that of longer clips, which changes nothing in three frames
    assert apart(clip(model), found) <= ROUNDED


@pytest.mark.parametrize("times, frames, frame_rate", [(1, 9, 8), (2, 33, 32)])
def test_key_frames_stay_in_place_and_new_ones_come_between_them(
    model: AlignYourLatentsModel, times: int, frames: int, frame_rate: int
) -> None:
    keys = clip(model)
    found = clip(interpolating(model, times))
    assert found.shape == (frames, 16, 24, 3)
    assert (model.config.frames, model.config.frame_rate, model.config.key_frames) == (frames, frame_rate, 3)
    assert apart(found[:: 4**times], keys) <= ROUNDED
    assert apart(found[1], found[0]) > SEEN
    assert apart(found[1], clip(model, seed=2)[1]) > SEEN


def test_a_model_that_is_interpolated_another_number_of_times_has_the_same_key_frames(model: AlignYourLatentsModel) -> None:
    assert interpolating(model, 2).config.frames == 33
    assert interpolating(model, 1).config.frames == 9
    assert model.config.frame_rate == 8


def test_both_rates_are_told_apart(model: AlignYourLatentsModel) -> None:
    interpolating(model, 2)
    assert model.between
    seen = []
    hook = model.between.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[4].unique().tolist()))  # type: ignore[func-returns-value]
    clip(model)
    hook.remove()
    assert {tuple(rates) for rates in seen} == {(0,), (1,)}
    assert seen == sorted(seen)


def test_every_step_is_told_also_those_of_interpolation(model: AlignYourLatentsModel) -> None:
    told: list[tuple[int, int]] = []
    interpolating(model, 2).generate(["x"] * 3, list(range(3)), 2, lambda done, steps: told.append((done, steps)))
    assert told == [(number, len(told)) for number in range(len(told))]
    assert len(told) == 2 * (2 + 1 + 3)  # image and clip; 6 and 24 pairs, 8 at a time


def test_the_noise_of_the_key_frames_does_not_depend_on_whether_there_are_others() -> None:
    alone, (first, other) = noises([1, 2], [3], (4, 2, 2)), noises([1, 2], [3, 9], (4, 2, 2))
    assert torch.equal(alone[0], first)
    assert torch.equal(first[0], torch.randn(3, 4, 2, 2, generator=torch.Generator().manual_seed(1)))
    assert other.shape == (2, 9, 4, 2, 2)
    assert not torch.equal(other[:, :3], first)


def test_a_new_temporal_decoder_decodes_as_the_image_decoder_and_a_trained_one_does_not(model: AlignYourLatentsModel) -> None:
    before = clip(model)
    model.decode_by_time(SIZE)
    assert apart(clip(model), before) <= ROUNDED
    assert model.decoder
    stirred(model.decoder.temporal)
    after = clip(model)
    assert apart(after, before) > SEEN
    model.decoder.set_alpha(1)
    assert apart(clip(model), before) <= ROUNDED


def test_a_clip_is_decoded_alone_whatever_its_batch(model: AlignYourLatentsModel) -> None:
    model.decode_by_time(SIZE)
    assert model.decoder
    stirred(model.decoder.temporal)
    latents = torch.randn(3, 2, *model.backbone.latent_shape)
    with torch.inference_mode():
        together, alone = model.decode(latents)[1], model.decode(latents[1:2])[0]
    assert torch.equal(together, alone)


def sealed(storage: Path, model: AlignYourLatentsModel) -> tuple[Path, str]:
    identity = ModelIdentity(family=ModelFamily.ALIGN_YOUR_LATENTS, version="1.0.0")
    path, digest = seal_bundle(storage, Manifest(model=identity, recipe=RECIPE, step=1, files=[]), model.save)
    return storage / path, digest


def test_a_bundle_with_both_parts_gives_the_model_back(tmp_path: Path, model: AlignYourLatentsModel) -> None:
    interpolating(model, 1).decode_by_time(SIZE)
    assert model.decoder
    stirred(model.decoder.temporal)
    folder, digest = sealed(tmp_path / "one", model)
    loaded = load_model(folder, digest)
    assert isinstance(loaded, AlignYourLatentsModel)
    assert loaded.config == model.config
    assert np.array_equal(clip(loaded), clip(model))
    assert sealed(tmp_path / "two", loaded)[1] == digest


def test_a_bundle_without_the_parts_is_what_it_was_before_there_were_any(tmp_path: Path, model: AlignYourLatentsModel) -> None:
    """Else digests would change, and bundles of earlier versions would not load."""
    folder, _ = sealed(tmp_path, model)
    assert sorted(path.name for path in folder.glob("*.safetensors")) == [TEMPORAL]
    said = json.loads((folder / "model.json").read_bytes())
    fields = {"family", "frames", "resolution", "frameRate", "temporal", "contextFrames", "contextGuidance", "textGuidance"}
    assert said.keys() == fields
    loaded = read_model(folder)
    assert isinstance(loaded, AlignYourLatentsModel)
    assert loaded.between is loaded.decoder is None


@pytest.mark.parametrize("file", [INTERPOLATION, DECODER])
def test_a_bundle_that_lacks_a_part_which_it_says_it_has_is_refused(tmp_path: Path, model: AlignYourLatentsModel, file: str) -> None:
    interpolating(model, 1).decode_by_time(SIZE)
    model.save(tmp_path)
    (tmp_path / file).unlink()
    with pytest.raises(CorruptError, match=file):
        AlignYourLatentsModel.load(tmp_path)


def test_a_number_of_frames_that_no_interpolation_gives_is_refused() -> None:
    config = align_your_latents_config(RECIPE).wire() | {"frames": 8, "interpolations": 1}
    with pytest.raises(ValueError, match="8 frames are no clip that was interpolated 1 times"):
        AlignYourLatentsConfig.model_validate(config)


def test_with_two_context_frames_the_video_model_goes_on_from_one_and_then_from_both(model: AlignYourLatentsModel) -> None:
    """The first frame is the image model's, the second the one that one context frame gives, and the third sees both."""
    masks: list[list[int]] = []

    def note(_: object, arguments: tuple[Any, ...]) -> None:
        masks.append([int(known) for known in arguments[3][0, :, -1, 0, 0]])

    one = clip(model)
    two = AlignYourLatentsModel(model.backbone, model.config.model_copy(update={"context_frames": 2})).eval()
    two.video.load_state_dict(model.video.state_dict())
    two.video.register_forward_pre_hook(note)
    both = clip(two)
    without_repeats = [mask for mask, before in zip(masks, [None, *masks], strict=False) if mask != before]
    assert without_repeats == [[1, 0, 0], [1, 1, 0]]
    assert apart(both[:2], one[:2]) <= ROUNDED
    assert apart(both[2], one[2]) > SEEN
