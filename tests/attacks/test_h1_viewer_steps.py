"""A viewer asks for far more denoising steps than the release takes, to make it look slow and failing."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from videogen_api.bundle import Manifest
from videogen_api.meta import ModelFamily, ModelIdentity, release_name
from videogen_api.recipe import Architecture, Recipe, Resolution
from videogen_models.bundle import write_bundle
from videogen_models.networks import model_config
from videogen_models.videofusion import VideoFusionModel
from videogen_operator.kinds.model_release import objects
from videogen_operator.kinds.model_release.judging.queries import SERVED
from videogen_operator.kinds.model_release.observed import observe
from videogen_operator.plan import Key
from videogen_serving.metrics import RequestMetrics
from videogen_serving.pipeline import Pipeline
from videogen_serving.service import Failure, Service
from videogen_serving.settings import Settings
from videogen_testing.releases import NAMESPACE, SERVICE, SETTINGS, Objects, a_release

STEPS, TIMEOUT_SECONDS = 2, 4


class Series:
    """A counter or histogram that remembers its sum."""

    def __init__(self) -> None:
        self.sum = 0.0

    def increment(self, value: float, /) -> None:
        self.sum += value

    def observe(self, value: float, /) -> None:
        self.sum += value


class Metrics:
    """The requests counted under each outcome."""

    def __init__(self) -> None:
        self.requests: dict[str, Series] = {}

    def counter(self, _name: str, _description: str, labels: Any) -> Series:
        return self.requests.setdefault(labels["outcome"], Series())

    def histogram(self, *_: Any) -> Series:
        return Series()


@pytest.fixture
def served(tmp_path: Path, request: pytest.FixtureRequest) -> tuple[Service, Metrics]:
    """A release of two steps with the environment that the operator gives it, on a clock of a second a look."""
    identity = ModelIdentity(family=ModelFamily.VIDEOFUSION, version="1.0.0")
    size = Resolution(height=16, width=16)
    recipe = Recipe(architecture=Architecture.TINY, frames=2, resolution=size, global_batch_size=1, steps=1)
    config = model_config(recipe)
    manifest = Manifest(model=identity, recipe=recipe, step=0, files=[])
    path, digest = write_bundle(tmp_path, manifest, config, VideoFusionModel(config).state_dict())
    serving = {"samplingSteps": STEPS, "timeoutSeconds": TIMEOUT_SECONDS} | getattr(request, "param", {})
    observed = observe(Objects(a_release(serving=serving)), Key("ModelRelease", NAMESPACE, SERVICE))
    assert observed
    environment = objects.environment(observed.releases[0], SETTINGS) | {"BUNDLE_PATH": str(tmp_path / path), "BUNDLE_DIGEST": digest}
    looks = itertools.count()
    metrics = Metrics()
    pipeline = Pipeline.load(Settings.from_environment(environment), clock=lambda: float(next(looks)), new_seed=lambda: 0)
    return Service(pipeline, RequestMetrics(metrics, release_name(identity)), STEPS, lambda: 0.0), metrics


@pytest.mark.parametrize("steps", [STEPS + 1, 200, 1000])
def test_long_requests_are_refused_in_one_line_and_count_for_no_check(served: tuple[Service, Metrics], steps: int) -> None:
    service, metrics = served
    inputs = {"PROMPT": np.array([b"a red square"], dtype=np.object_), "STEPS": np.array([steps], np.int32)}
    with torch.inference_mode():
        answer = service.answer(inputs, lambda: False)
    counted = {outcome: series.sum for outcome, series in metrics.requests.items() if series.sum}
    print(f"STEPS {steps}: {answer.message if isinstance(answer, Failure) else 'a video'}; counted as {counted}")
    assert isinstance(answer, Failure)
    assert answer.message == f"STEPS is {steps}; accepted is a whole number from 1 to {STEPS}"
    assert counted == {"invalid": 1.0}
    assert "invalid" not in SERVED, "what checks and alerts count"


@pytest.mark.parametrize("served", [{"maximumSteps": 200}], indirect=True)
@pytest.mark.parametrize(("steps", "outcome"), [(None, "ok"), (STEPS, "ok"), (50, "overlong"), (200, "overlong")])
def test_steps_that_a_request_may_have_and_for_which_no_time_is_count_for_no_check(
    served: tuple[Service, Metrics], steps: int | None, outcome: str
) -> None:
    service, metrics = served
    inputs = {"PROMPT": np.array([b"a red square"], dtype=np.object_)}
    with torch.inference_mode():
        answer = service.answer(inputs | ({} if steps is None else {"STEPS": np.array([steps], np.int32)}), lambda: False)
    assert {name: series.sum for name, series in metrics.requests.items() if series.sum} == {outcome: 1.0}
    if isinstance(answer, Failure):
        assert f"of {steps} denoising steps, the release allows {TIMEOUT_SECONDS} s; ask for fewer STEPS" in answer.message
    assert outcome == "ok" or outcome not in SERVED, "what checks and alerts count"


@pytest.mark.parametrize("served", [{"timeoutSeconds": 1}], indirect=True)
def test_a_release_that_has_no_time_for_its_own_steps_is_still_blamed(served: tuple[Service, Metrics]) -> None:
    service, metrics = served
    for steps in ({}, {"STEPS": np.array([STEPS], np.int32)}):
        with torch.inference_mode():
            assert isinstance(service.answer({"PROMPT": np.array([b"x"], dtype=np.object_)} | steps, lambda: False), Failure)
    assert {name: series.sum for name, series in metrics.requests.items() if series.sum} == {"timeout": 2.0}
