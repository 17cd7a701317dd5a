"""Triton's Python backend: tensors in, tensors or an error out. Everything else is in videogen_serving."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Mapping, Sequence
from typing import Any

import triton_python_backend_utils as pb_utils

from videogen_serving.metrics import RequestMetrics
from videogen_serving.pipeline import Pipeline
from videogen_serving.request import SEED_LIMIT, Outcome
from videogen_serving.service import Failure, Service
from videogen_serving.settings import Settings
from videogen_serving.termination import leave_message

# Names of pb_utils.TritonError's codes, which Triton adds to pb_utils only after it has imported this file.
CODES = {
    Outcome.INVALID: "INVALID_ARG",  # HTTP 400
    Outcome.TIMEOUT: "UNAVAILABLE",  # HTTP 503
    Outcome.OVERLONG: "INVALID_ARG",  # HTTP 400: the gateway counts 5xx against the release
    Outcome.CANCELLED: "CANCELLED",  # HTTP 499
    Outcome.ERROR: "INTERNAL",  # HTTP 500
}


class TritonMetrics:
    """Series in Triton's own /metrics. Must live as long as its series: Triton drops a family together with its object."""

    def __init__(self) -> None:
        self._families: dict[str, Any] = {}

    def counter(self, name: str, description: str, labels: Mapping[str, str]) -> Any:
        """A counter with these labels."""
        return self._family(name, description, pb_utils.MetricFamily.COUNTER).Metric(labels=dict(labels))

    def histogram(self, name: str, description: str, labels: Mapping[str, str], bounds: Sequence[float]) -> Any:
        """A histogram with these labels and upper bounds."""
        return self._family(name, description, pb_utils.MetricFamily.HISTOGRAM).Metric(labels=dict(labels), buckets=list(bounds))

    def _family(self, name: str, description: str, kind: Any) -> Any:
        if name not in self._families:
            self._families[name] = pb_utils.MetricFamily(name=name, description=description, kind=kind)
        return self._families[name]


class TritonPythonModel:
    """The model `video`."""

    def initialize(self, args: Mapping[str, str]) -> None:  # noqa: ARG002 - Triton's signature
        """Verify and load the pod's copy of the bundle; an exception makes Triton end."""
        settings = Settings.from_environment(os.environ)
        try:
            pipeline = Pipeline.load(settings, clock=time.monotonic, new_seed=lambda: secrets.randbelow(SEED_LIMIT + 1))
            pipeline.warm_up()
        except Exception as error:
            leave_message(os.environ, f"the model could not be loaded: {error}")
            raise
        self._metrics = TritonMetrics()
        self._service = Service(pipeline, RequestMetrics(self._metrics, settings.release), settings.sampling_steps, time.monotonic)

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """One response for each request, in order."""
        return [self._respond(request) for request in requests]

    def _respond(self, request: Any) -> Any:
        inputs = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
        answer = self._service.answer(inputs, request.is_cancelled)
        if isinstance(answer, Failure):
            code = getattr(pb_utils.TritonError, CODES[answer.outcome])
            return pb_utils.InferenceResponse(error=pb_utils.TritonError(answer.message, code))
        return pb_utils.InferenceResponse(output_tensors=[pb_utils.Tensor(name, tensor) for name, tensor in answer.items()])
