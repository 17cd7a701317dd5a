"""What frozen encoders make is computed once, and training with it is training without."""

from __future__ import annotations

import functools
import logging
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL
from torch import nn

from videogen_api.job import ArtifactReference, Job, Report
from videogen_api.recipe import Architecture, Resolution
from videogen_api.training_run import Reason
from videogen_models.image_backbone import PRESETS, build_backbone
from videogen_models.latent_scale import to_latents
from videogen_testing.attempted import losses
from videogen_testing.ranks import train_in
from videogen_testing.stopping import StopAfter
from videogen_trainer import encoder_cache, tasks
from videogen_trainer.encoder_cache import EncoderCache, weights_digest
from videogen_trainer.failure import Failure
from videogen_trainer.families.text2video_zero import Adaptation, Denoising
from videogen_trainer.progress import ProgressReporter

WORK = "runs/next/train"
FOLDER = f"{WORK}/encodings"
FAMILIES = ["AlignYourLatents", "Text2VideoZero"]
CLIPS = 12


Make = Callable[..., Job]
STEPS = 6  # two epochs


@pytest.fixture
def storage(begun: Any, tmp_path: Path) -> Path:
    return Path(shutil.copytree(begun.folder, tmp_path / "storage"))


def attempt(job: Job, storage: Path, stop: Callable[[], bool] = lambda: False) -> Report:
    silent = ProgressReporter(None, 5, clock=lambda: 0.0, now=lambda: datetime(2026, 1, 1, tzinfo=UTC))
    report = tasks.attempt(job, storage, {}, silent, stop)
    assert report.reason in {Reason.COMPLETED, Reason.PREEMPTED}, report.message
    return report


@pytest.fixture
def train(storage: Path) -> Callable[..., Report]:
    return lambda job, stop=lambda: False: attempt(job, storage, stop)


@pytest.fixture(scope="module")
def cached(make_job: Make, begun: Any) -> Make:
    """`cached(family, recipe)`: training of an image model's family, with the cache."""

    def make(family: str, recipe: dict[str, Any] | None = None, **fields: Any) -> Job:
        own = {"videoFusion": None, "steps": STEPS, "cacheLatents": True, "checkpoints": {"everySteps": 3}} | (recipe or {})
        return make_job(own, model={"family": family, "version": "1.0.0"}, initFrom=begun.image.wire(), workPath=WORK, **fields)

    return make


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many frames each call of an autoencoder's encoder has had."""
    return counted(monkeypatch)


def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    seen: list[int] = []
    encode = AutoencoderKL.encode

    def counting(self: AutoencoderKL, images: torch.Tensor, *rest: Any) -> Any:
        if not images.is_meta:  # which a folder's configuration is tried with
            seen.append(len(images))
        return encode(self, images, *rest)

    monkeypatch.setattr(AutoencoderKL, "encode", counting)
    return seen


def entries(storage: Path) -> list[Path]:
    return sorted((storage / FOLDER).rglob("*.safetensors"))


@dataclass(frozen=True)
class Trained:
    """What an attempt came to."""

    artifact: ArtifactReference | None
    resumed_from: int | None
    losses: list[float]
    encoded: list[int]
    is_kept: bool  # the cache, afterwards


def seen_at(job: Job, storage: Path, stop: Callable[[], bool] = lambda: False) -> Trained:
    with pytest.MonkeyPatch.context() as patches:
        seen = counted(patches)
        report = attempt(job, storage, stop)
    return Trained(report.artifact, report.resumed_from_step, losses(storage, WORK), seen, (storage / FOLDER).exists())


@pytest.fixture(scope="module")
def undisturbed(begun: Any, cached: Make, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Trained]:
    """`undisturbed(family)`: a training with the cache in one attempt, done once for all tests."""
    torch.set_num_threads(1)
    return functools.cache(
        lambda family: seen_at(cached(family), shutil.copytree(begun.folder, tmp_path_factory.mktemp("undisturbed"), dirs_exist_ok=True))
    )


@pytest.fixture(scope="module")
def stopped(begun: Any, cached: Make, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """`stopped(family)`: a storage in which such a training has been stopped after an epoch and a step; tests work on copies."""

    def stop(family: str) -> Path:
        folder = Path(shutil.copytree(begun.folder, tmp_path_factory.mktemp("stopped"), dirs_exist_ok=True))
        assert attempt(cached(family), folder, StopAfter(4)).reason is Reason.PREEMPTED
        return folder

    return functools.cache(stop)


@pytest.mark.parametrize("family", FAMILIES)
def test_training_with_the_cache_is_training_without(
    train: Callable[..., Report], cached: Make, storage: Path, undisturbed: Callable[[str], Trained], family: str
) -> None:
    with_cache = undisturbed(family)
    assert not with_cache.is_kept  # training has ended well
    train(cached(family, {"cacheLatents": False}))
    assert with_cache.losses == pytest.approx(losses(storage, WORK), rel=1e-4)
    assert len(set(with_cache.losses)) == STEPS


def test_each_clip_is_encoded_once_however_often_it_is_seen(undisturbed: Callable[[str], Trained]) -> None:
    assert undisturbed("AlignYourLatents").encoded == [4] * CLIPS


LATER = {"TrainInterpolation": ("fast", "v2", 6, {16, 1}, 17), "FineTuneDecoder": ("squares", "v1", CLIPS, {4}, 4)}


@pytest.mark.parametrize("task", LATER)
def test_later_phases_encode_each_clip_once_too_and_learn_what_they_learn_without(
    train: Callable[..., Report], make_job: Make, begun: Any, storage: Path, encoded: list[int], task: str
) -> None:
    dataset, version, clips, at_once, frames = LATER[task]
    data = [{"reference": {"dataset": dataset, "version": version}}]
    model = {"family": "AlignYourLatents", "version": "1.0.0"}
    curves = {}
    for cache in (True, False):
        encoded.clear()
        blocks = {"videoFusion": None, "alignYourLatents": {"interpolations": 2}} if dataset == "fast" else {"videoFusion": {}}
        recipe = blocks | {"steps": clips // 2, "cacheLatents": cache}  # two epochs
        train(make_job(recipe, task=task, model=model, data=data, initFrom=begun.trained.wire(), workPath=WORK))
        curves[cache] = losses(storage, WORK)
        if cache:
            assert (set(encoded), sum(encoded)) == (at_once, frames * clips)
        shutil.rmtree(storage / WORK)
    assert curves[True] == pytest.approx(curves[False], rel=1e-4)


def test_each_frame_is_encoded_once_however_often_it_is_seen(train: Callable[..., Report], cached: Make, encoded: list[int]) -> None:
    train(cached("Text2VideoZero", {"steps": 15, "checkpoints": {}}))  # five frames of each clip, which has four
    assert set(encoded) == {1}
    assert CLIPS < len(encoded) <= 4 * CLIPS


@pytest.mark.parametrize("family", FAMILIES)
def test_stopped_and_resumed_is_the_same_to_the_bit_as_never_stopped(
    cached: Make, storage: Path, undisturbed: Callable[[str], Trained], stopped: Callable[[str], Path], family: str
) -> None:
    shutil.copytree(stopped(family), storage, dirs_exist_ok=True)
    second, whole = seen_at(cached(family, {}, attempt=2), storage), undisturbed(family)
    assert (second.artifact, second.losses) == (whole.artifact, whole.losses)
    assert second.resumed_from == 4
    if family == "AlignYourLatents":  # which has seen whole clips; the other sees other frames of them in the second epoch
        assert second.encoded == []


HARMS: dict[str, Callable[[Path], Any]] = {
    "a flipped byte": lambda path: path.write_bytes(path.read_bytes()[:-1] + bytes([path.read_bytes()[-1] ^ 1])),
    "a file that was cut": lambda path: path.write_bytes(path.read_bytes()[:40]),
    "an empty file": lambda path: path.write_bytes(b""),
}


@pytest.mark.parametrize("harm", HARMS)
def test_what_is_damaged_is_made_again(
    cached: Make, storage: Path, stopped: Callable[[str], Path], caplog: pytest.LogCaptureFixture, harm: str
) -> None:
    shutil.copytree(stopped("AlignYourLatents"), storage, dirs_exist_ok=True)
    for path in entries(storage):
        HARMS[harm](path)
    second = seen_at(cached("AlignYourLatents"), storage)
    assert second.encoded == [4] * 8  # the clips of the two steps that are left
    assert "made again" in caplog.text


def test_what_does_not_fit_into_memory_is_read_again(
    cached: Make, storage: Path, undisturbed: Callable[[str], Trained], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoder_cache, "MEMORY_BYTES", 5000)  # two encodings or so
    found = seen_at(cached("AlignYourLatents"), storage)
    assert found.encoded == [4] * CLIPS
    monkeypatch.undo()
    assert found.losses == undisturbed("AlignYourLatents").losses


def test_other_encoders_and_other_clips_have_other_entries(tmp_path: Path) -> None:
    networks = [nn.Linear(2, 2) for _ in range(2)]
    one, other = (EncoderCache(tmp_path, weights_digest(network)) for network in networks)
    one.get("clip", lambda: torch.ones(2))
    assert other.get("clip", lambda: torch.zeros(2)).tolist() == [0, 0]
    again = EncoderCache(tmp_path, weights_digest(networks[0]))
    assert again.get("clip", lambda: torch.zeros(2)).tolist() == [1, 1]
    assert again.text("a caption", lambda: torch.zeros(2)).tolist() == [0, 0]
    assert again.text("another", lambda: torch.ones(2)).tolist() == [1, 1]


def test_a_storage_that_takes_no_encodings_is_said_once_and_training_goes_on(
    train: Callable[..., Report], cached: Make, storage: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (storage / WORK).mkdir(parents=True)
    (storage / FOLDER).touch()
    with caplog.at_level(logging.WARNING):
        train(cached("AlignYourLatents", {"steps": 2}))
    assert caplog.text.count("no encodings are kept") == 1


REFUSED = {
    "VideoFusion, which has no encoders that stay": ({}, "VideoFusion"),
    "a new image model, whose encoders learn": ({"videoFusion": None}, "Text2VideoZero"),
}


@pytest.mark.parametrize("recipe, family", REFUSED.values(), ids=REFUSED)
def test_without_frozen_encoders_it_is_refused(make_job: Make, recipe: dict[str, Any], family: str) -> None:
    with pytest.raises(Failure, match=r"recipe\.cacheLatents is true; it needs encoders that do not learn") as caught:
        tasks.check(make_job(recipe | {"cacheLatents": True}, model={"family": family, "version": "1.0.0"}))
    assert caught.value.reason is Reason.INVALID_JOB


@pytest.mark.parametrize("family", FAMILIES)
def test_two_processes_learn_what_one_does(cached: Make, storage: Path, undisturbed: Callable[[str], Trained], family: str) -> None:
    report = train_in(2, cached(family, processesPerWorker=2), storage)
    assert report.reason is Reason.COMPLETED, report.message
    assert losses(storage, WORK) == pytest.approx(undisturbed(family).losses, rel=1e-3)


@torch.no_grad()
def test_an_autoencoder_that_shifts_its_latents_gives_the_same_loss_with_kept_encodings_and_without() -> None:
    """diffusers' shift_factor; and what is drawn is decoded by the inverse of what was learned."""
    backbone = build_backbone(PRESETS[Architecture.TINY], Resolution(height=16, width=16)).eval().requires_grad_(False)
    backbone.vae.register_to_config(shift_factor=0.5, scaling_factor=0.3)
    images, tokens = torch.rand(2, 3, 16, 16) * 2 - 1, backbone.tokens(["a flood", "a fire"])
    noise, timestep = torch.randn(2, *backbone.latent_shape), torch.tensor([10, 500])
    latents = to_latents(backbone.vae, images)
    kept = Denoising(backbone)(latents, backbone.encode(["a flood", "a fire"]), timestep, noise)
    assert torch.allclose(Adaptation(backbone, whole=False)(images, tokens, timestep, noise, noise), kept, rtol=1e-4)
    mean = backbone.vae.encode(images).latent_dist.mode()
    assert torch.allclose(latents, (mean - 0.5) * 0.3, atol=1e-5)
    assert torch.allclose(backbone.decode(latents), backbone.vae.decode(mean).sample, atol=1e-5)
