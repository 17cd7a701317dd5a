"""What feature networks cost an evaluation: one pass of each over a clip, and no more memory than its batches of clips need."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor

from videogen_api.bundle import Manifest
from videogen_api.evaluation import Extractor, ExtractorArchitecture, Metric
from videogen_api.job import ArtifactReference, Job
from videogen_api.training_run import Reason
from videogen_models.bundle import write_bundle
from videogen_models.networks import model_config
from videogen_models.sealed import sha256_of
from videogen_models.videofusion import VideoFusionModel
from videogen_testing.own_clip import clip_folder, own_clip
from videogen_trainer import tasks
from videogen_trainer.evaluate import extractors, task, timing
from videogen_trainer.evaluate.c3d import C3D
from videogen_trainer.evaluate.clip import Clip
from videogen_trainer.evaluate.clip_score import similarities
from videogen_trainer.evaluate.coherence import steadiness
from videogen_trainer.evaluate.default_networks import TextVideoNetwork, VideoClassifierNetwork
from videogen_trainer.evaluate.extractors import Extractors, load
from videogen_trainer.progress import ProgressReporter

CPU = torch.device("cpu")
DATA = [{"reference": {"dataset": "squares", "version": "v1", "split": split}} for split in ("HeldOut", "Train")]


def evaluation(make_job: Callable[..., Job], storage: Path, samples: int) -> Job:
    """So many clips against 16 real ones, each with a caption of its own; judged by a CLIP too."""
    recipe = make_job().recipe
    torch.manual_seed(0)
    config = model_config(recipe)
    manifest = Manifest(model=make_job().model, recipe=recipe, step=1, files=[])
    path, digest = write_bundle(storage, manifest, config, VideoFusionModel(config).state_dict())
    evaluate = {"samples": samples, "samplingSteps": 1, "extractors": [own_clip(clip_folder(storage / "clip")).wire()]}
    artifact = ArtifactReference(path=path, digest=digest).wire()
    return make_job(task="Evaluate", phase="judge", workPath="runs/demo-01234567/judge", data=DATA, artifact=artifact, evaluate=evaluate)


def room_for(captions: int, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """More captions at once run out of memory -> the captions of each pass."""
    embed, passes = Clip.captions, list[list[str]]()

    def limited(self: Clip, texts: list[str]) -> Tensor:
        passes.append(texts)
        if len(texts) > captions:
            torch.empty(2**60, dtype=torch.uint8)  # the error that PyTorch's allocator really raises
        return embed(self, texts)

    monkeypatch.setattr(Clip, "captions", limited)
    return passes


def test_only_the_captions_of_generated_clips_are_embedded_and_no_more_at_once_than_clips(
    storage: Path, make_job: Callable[..., Job], silent: ProgressReporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timing, "ALONE", 1)
    passes = room_for(100, monkeypatch)
    report = tasks.attempt(evaluation(make_job, storage, 10), storage, {}, silent, lambda: False)
    assert report.reason is Reason.COMPLETED, report.message
    _loading, *measured = passes
    assert max(len(texts) for texts in measured) == 8
    assert len({text for texts in measured for text in texts}) == 10


def test_captions_that_do_not_fit_into_memory_are_halved_with_their_clips(
    storage: Path, make_job: Callable[..., Job], silent: ProgressReporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timing, "ALONE", 1)
    job = evaluation(make_job, storage, 20)
    scores = []
    for room in (100, 2):
        with monkeypatch.context() as memory:
            passes = room_for(room, memory)
            report = tasks.attempt(job, storage, {}, silent, lambda: False)
            assert report.reason is Reason.COMPLETED, report.message
            scores.append([float(one.value) for one in report.results if one.metric is not Metric.GENERATION_SECONDS])
    _loading, *measured = passes
    assert [len(texts) for texts in measured[:4]] == [8, 4, 2, 1], "tried before anything is measured"
    assert scores[1] == pytest.approx(scores[0], rel=1e-3, abs=1e-4)


def with_own_networks(storage: Path, monkeypatch: pytest.MonkeyPatch) -> Extractors:
    """The default networks, a CLIP and a narrow C3D."""
    torch.manual_seed(0)
    save_file(C3D(5, width=2).state_dict(), storage / "c3d")
    monkeypatch.setattr(extractors, "C3D", lambda classes: C3D(classes, width=2))
    c3d = Extractor(name="mine", architecture=ExtractorArchitecture.C3D, path="c3d", digest="sha256:" + sha256_of(storage / "c3d"))
    return load([own_clip(clip_folder(storage / "clip")), c3d], storage, CPU)


def some_clips() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (2, 4, 16, 16, 3), np.uint8)


def test_each_network_sees_a_clip_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded, passes = with_own_networks(tmp_path, monkeypatch), Counter[str]()
    heavy: list[tuple[type, str]] = [(VideoClassifierNetwork, "forward"), (C3D, "forward"), (Clip, "frames"), (Clip, "captions")]
    heavy += [(TextVideoNetwork, f"encode_{part}") for part in ("text", "video", "frames")]
    for kind, name in heavy:
        original, called = getattr(kind, name), f"{kind.__name__}.{name}"
        monkeypatch.setattr(kind, name, lambda *inputs, original=original, called=called: (passes.update([called]), original(*inputs))[1])
    task.embed_generated(defaultdict(list), some_clips(), ["a square", "a circle"], loaded)
    assert passes == dict.fromkeys([f"{kind.__name__}.{name}" for kind, name in heavy], 1)


def test_what_is_measured_in_one_pass_is_to_the_bit_what_each_part_alone_gives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded, clips, captions = with_own_networks(tmp_path, monkeypatch), some_clips(), ["a square", "a circle"]
    task.embed_generated(rows := defaultdict(list), clips, captions, loaded)
    expected = {f"features of {network.name}": network.features(clips) for network in loaded.features}
    expected |= {f"classes of {network.name}": network.log_probabilities(clips) for network in loaded.classifiers}
    for encoder in loaded.encoders:
        similar = similarities(encoder.clip_embeddings(clips), encoder.caption_embeddings(captions))
        expected |= {f"similarity by {encoder.name}": similar}
        expected |= {f"steadiness by {encoder.name}": steadiness(encoder.frame_embeddings(clips))}
    assert set(rows) == {"motion", "artefacts", *expected}
    for name, values in expected.items():
        assert [part.tobytes() for part in rows[name]] == [values.tobytes()]
