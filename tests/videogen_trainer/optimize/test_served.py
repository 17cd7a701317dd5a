"""Every family from training over optimisation to a served video, and to a training that begins with the optimised bundle."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from videogen_api.job import ArtifactReference, Job, Report
from videogen_api.meta import ModelFamily
from videogen_api.training_run import Reason
from videogen_models.bundle import load_model
from videogen_models.video import decode_mp4
from videogen_serving import pipeline as serving
from videogen_serving.pipeline import Pipeline
from videogen_serving.request import Request, check_request
from videogen_serving.settings import Settings
from videogen_trainer import tasks
from videogen_trainer.distributed import World
from videogen_trainer.emergency.runtime import Answer, Runtime
from videogen_trainer.families import learner_of
from videogen_trainer.optimize.served import prompt_of
from videogen_trainer.progress import ProgressReporter

DATA = [{"reference": {"dataset": "squares", "version": "v1", "split": "HeldOut"}}]


def made(report: Report) -> ArtifactReference:
    assert report.reason is Reason.COMPLETED, report
    assert report.artifact
    return report.artifact


def frames_of(storage: Path, bundle: ArtifactReference) -> np.ndarray[Any, Any]:
    settings = Settings(release="r", bundle_path=storage / bundle.path, bundle_digest=bundle.digest, sampling_steps=3)
    clock, seeds = itertools.count(), itertools.count()
    pipeline = Pipeline.load(settings, clock=lambda: next(clock) / 1000, new_seed=lambda: next(seeds))
    return decode_mp4(pipeline.generate(Request(prompt="a square", seed=1)).video)


@pytest.mark.parametrize("family", ModelFamily)
def test_an_optimised_bundle_is_served_and_trained_on(
    storage: Path, make_job: Callable[..., Job], silent: ProgressReporter, family: ModelFamily
) -> None:
    recipe = {"steps": 0 if family is ModelFamily.TEXT2VIDEO_ZERO else 1}
    recipe |= {} if family is ModelFamily.VIDEOFUSION else {"videoFusion": None}
    model = {"family": family.value, "version": "1.0.0"}

    def attempt(**fields: Any) -> Report:
        return tasks.attempt(make_job(recipe, model=model, **fields), storage, {}, silent, lambda: False)

    first = made(attempt())
    optimize = {"quantization": "Int8Weights", "samples": 4, "samplingSteps": 2}
    report = attempt(task="Optimize", artifact=first, optimize=optimize, data=DATA, workPath="runs/demo/optimize")
    smaller = made(report)
    assert report.optimization
    assert report.optimization.optimized_bytes < 0.75 * report.optimization.unoptimized_bytes
    plain, served = (frames_of(storage, bundle) for bundle in (first, smaller))
    assert served.shape == plain.shape == (4, 16, 16, 3)
    assert np.abs(plain.astype(int) - served).mean() < 16
    job = make_job(recipe, model=model, initFrom=smaller, workPath="runs/second/train")
    begun, loaded = learner_of(job, storage, World()).model.state_dict(), load_model(storage / smaller.path).state_dict()
    assert all(begun[name].equal(tensor) for name, tensor in loaded.items())


@pytest.fixture
def optimise(storage: Path, make_job: Callable[..., Job], silent: ProgressReporter) -> Callable[..., Report]:
    first = made(tasks.attempt(make_job({"steps": 1}), storage, {}, silent, lambda: False))
    fields = {"artifact": first, "optimize": {"quantization": "Int8Weights", "samples": 4, "samplingSteps": 2}, "data": DATA}

    def run(stop: Callable[[], bool] = lambda: False) -> Report:
        job = make_job({"steps": 1}, task="Optimize", workPath="runs/demo/optimize", **fields)
        return tasks.attempt(job, storage, {}, silent, stop)

    return run


def test_before_it_is_reported_the_servers_code_answers_a_request_with_the_optimised_bundle(
    optimise: Callable[..., Report], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, ask = [], Runtime.ask

    def noted(self: Runtime, prompt: str, seed: int, is_cancelled: Callable[[], bool]) -> Answer:
        answer = ask(self, prompt, seed, is_cancelled)
        asked.append((prompt, answer.outcome, answer.metadata["bundleDigest"], answer.metadata["steps"]))
        return answer

    monkeypatch.setattr(Runtime, "ask", noted)
    digest = made(optimise()).digest
    [(prompt, *rest)] = asked
    assert prompt
    assert rest == ["ok", digest, 2]


@pytest.mark.parametrize("number", [1, 2], ids=["when it warms up", "when it is asked"])
def test_a_bundle_that_the_server_cannot_serve_is_refused(
    optimise: Callable[..., Report], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], number: int
) -> None:
    """As in an image without an encoder for videos; the first video is the warm-up's."""
    encode, calls = serving.encode_mp4, itertools.count(1)

    def broken(*arguments: Any) -> bytes:
        if next(calls) == number:
            raise RuntimeError("no encoder for h264")
        return encode(*arguments)

    monkeypatch.setattr(serving, "encode_mp4", broken)
    report = optimise()
    assert report.reason is Reason.ARTIFACT_INVALID
    assert report.artifact is None
    assert "the serving runtime cannot serve the optimised bundle" in report.message
    assert "RuntimeError: no encoder for h264" in report.message + capfd.readouterr().err


def test_asked_to_stop_while_it_is_served_it_ends_as_preempted(optimise: Callable[..., Report]) -> None:
    report = optimise(stop=lambda: True)
    assert report.reason is Reason.PREEMPTED


@pytest.mark.parametrize("caption", ["", " \n", "two\nlines\x00", "long " * 200, "a flood"])
def test_every_caption_of_a_dataset_becomes_a_prompt_that_the_server_accepts(caption: str) -> None:
    check_request(Request(prompt=prompt_of(caption), seed=0), 1)
    assert prompt_of("a flood") == "a flood"
