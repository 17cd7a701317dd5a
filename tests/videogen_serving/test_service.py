"""Every request is answered once and counted once, under the outcome that it had; the metrics are read as Prometheus reads them."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from prometheus_client import CollectorRegistry, Counter, Histogram

from videogen_models.video import decode_mp4
from videogen_serving.metrics import RequestMetrics
from videogen_serving.pipeline import Pipeline
from videogen_serving.request import Outcome
from videogen_serving.service import Failure, Service
from videogen_serving.tensors import Tensor


class Series:
    def __init__(self, metric: Counter | Histogram) -> None:
        self._metric = metric

    def increment(self, value: float, /) -> None:
        assert isinstance(self._metric, Counter)
        self._metric.inc(value)

    def observe(self, value: float, /) -> None:
        assert isinstance(self._metric, Histogram)
        self._metric.observe(value)


class PrometheusMetrics:
    """prometheus_client behind the interface that Triton's metrics have."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._counters: dict[str, Counter] = {}
        self._histograms: dict[str, Histogram] = {}

    def counter(self, name: str, description: str, labels: Mapping[str, str]) -> Series:
        if name not in self._counters:
            self._counters[name] = Counter(name, description, list(labels), registry=self.registry)
        return Series(self._counters[name].labels(**labels))

    def histogram(self, name: str, description: str, labels: Mapping[str, str], bounds: Sequence[float]) -> Series:
        if name not in self._histograms:
            self._histograms[name] = Histogram(name, description, list(labels), buckets=bounds, registry=self.registry)
        return Series(self._histograms[name].labels(**labels))

    def value(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(name, {"release": "r", **labels})


def text(value: bytes) -> dict[str, Tensor]:
    return {"PROMPT": np.array([value], dtype=np.object_)}


OUTCOMES = {
    "a good request": (text(b"a red square"), {}, False, Outcome.OK, ""),
    "an empty prompt": (text(b""), {}, False, Outcome.INVALID, "PROMPT is empty; write 1 to 500 characters that describe the video"),
    "a prompt that is no text": (text(b"\xff"), {}, False, Outcome.INVALID, "PROMPT is not UTF-8"),
    "a client that has left": (text(b"x"), {}, True, Outcome.CANCELLED, "the client left after 0 of 3 denoising steps"),
    "a generation that takes too long": (
        text(b"x"),
        {"clock": itertools.count(0, 99).__next__},
        False,
        Outcome.TIMEOUT,
        "99.0 s for 0 of 3",
    ),
    "a mistake of ours": (text(b"x"), {"new_seed": lambda: 2**70}, False, Outcome.ERROR, "the generation failed by a fault of the server"),
}


@pytest.mark.parametrize("inputs, change, cancelled, outcome, message", OUTCOMES.values(), ids=OUTCOMES.keys())
def test_outcomes(
    pipeline: Pipeline, inputs: dict[str, Tensor], change: dict[str, Any], cancelled: bool, outcome: Outcome, message: str
) -> None:
    metrics = PrometheusMetrics()
    clock = itertools.count(0.0, 0.4)
    generator = dataclasses.replace(pipeline, **change)
    service = Service(generator, RequestMetrics(metrics, "r"), pipeline.settings.sampling_steps, clock.__next__)

    answer = service.answer(inputs, lambda: cancelled)

    if outcome is Outcome.OK:
        assert isinstance(answer, dict)
        assert decode_mp4(answer["VIDEO"][0]).shape == (4, 16, 24, 3)
    else:
        assert isinstance(answer, Failure)
        assert answer.outcome is outcome
        assert message in answer.message
        assert "Error" not in answer.message
    for each in Outcome:
        counted = float(each is outcome)
        assert metrics.value("videogen_requests_total", outcome=each) == counted
        timed = 0.0 if each is Outcome.INVALID else counted
        assert metrics.value("videogen_request_duration_seconds_count", outcome=each) == timed
        assert metrics.value("videogen_request_duration_seconds_bucket", outcome=each, le="0.35") == 0
        assert metrics.value("videogen_request_duration_seconds_bucket", outcome=each, le="0.5") == timed
    if outcome is not Outcome.INVALID:
        assert metrics.value("videogen_request_duration_seconds_sum", outcome=outcome) == pytest.approx(0.4)


def test_only_what_a_release_does_by_itself_says_how_fast_it_is(pipeline: Pipeline) -> None:
    """A viewer who asks the stable release for little would make the one beside it look slow."""
    metrics = PrometheusMetrics()
    usual = pipeline.settings.sampling_steps
    service = Service(pipeline, RequestMetrics(metrics, "r"), usual, pipeline.clock)

    def asked(**more: Tensor) -> float | None:
        assert isinstance(service.answer(text(b"a red square") | more, lambda: False), dict)
        return metrics.value("videogen_request_duration_seconds_count", outcome=Outcome.OK)

    assert asked() == 1
    assert asked(STEPS=np.array([usual], np.int32)) == 2
    assert asked(STEPS=np.array([1], np.int32)) == 2
    assert isinstance(service.answer({"TEMPLATE": np.array([b"flood"], np.object_)}, lambda: False), dict)
    assert metrics.value("videogen_request_duration_seconds_count", outcome=Outcome.OK) == 2
    assert metrics.value("videogen_requests_total", outcome=Outcome.OK) == 4


def test_a_stored_video_goes_through_the_tensors_and_is_counted_as_ok(pipeline: Pipeline) -> None:
    metrics = PrometheusMetrics()
    service = Service(pipeline, RequestMetrics(metrics, "v1"), pipeline.settings.sampling_steps, pipeline.clock)
    answer = service.answer({"TEMPLATE": np.array([b"flood"], np.object_), "VARIATION": np.array([1], np.int32)}, lambda: False)
    assert not isinstance(answer, Failure)
    assert answer["VIDEO"][0] == (pipeline.settings.bundle_path / "templates/flood-1.mp4").read_bytes()
    assert json.loads(answer["METADATA"][0])["template"]["category"] == "flood"
    plain = service.answer({"PROMPT": np.array([b"x"], np.object_), "SEED": np.array([1])}, lambda: False)
    assert not isinstance(plain, Failure)
    assert "template" not in json.loads(plain["METADATA"][0])
    refused = service.answer({"TEMPLATE": np.array([b"\xff"], np.object_)}, lambda: False)
    assert isinstance(refused, Failure)
    assert refused.message.startswith("TEMPLATE is not UTF-8")
    counted = {
        outcome: metrics.registry.get_sample_value("videogen_requests_total", {"release": "v1", "outcome": outcome}) for outcome in Outcome
    }
    assert counted == {outcome: {"ok": 2, "invalid": 1}.get(outcome, 0) for outcome in Outcome}
