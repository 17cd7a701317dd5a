"""From input tensors to output tensors or an error: everything between Triton's adapter and the pipeline."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from videogen_serving.metrics import RequestMetrics
from videogen_serving.request import Outcome, Request, RequestError, Result
from videogen_serving.tensors import Tensor, read_request, write_result


class Generator(Protocol):
    """What generates: videogen_serving.pipeline.Pipeline."""

    def generate(self, request: Request, is_cancelled: Callable[[], bool]) -> Result:
        """One video, or a RequestError."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """An error response: how it ended and what the client is told."""

    outcome: Outcome
    message: str


class Service:
    """Answers one request after the other and counts every one."""

    def __init__(self, generator: Generator, metrics: RequestMetrics, clock: Callable[[], float]) -> None:
        self._generator = generator
        self._metrics = metrics
        self._clock = clock

    def answer(self, inputs: Mapping[str, Tensor], is_cancelled: Callable[[], bool]) -> dict[str, Tensor] | Failure:
        """Output tensors by name, or a Failure; never raises, since that would fail the other requests of a batch."""
        started = self._clock()
        answer = self._attempt(inputs, is_cancelled)
        outcome = answer.outcome if isinstance(answer, Failure) else Outcome.OK
        self._metrics.record(outcome, self._clock() - started)
        return answer

    def _attempt(self, inputs: Mapping[str, Tensor], is_cancelled: Callable[[], bool]) -> dict[str, Tensor] | Failure:
        try:
            return write_result(self._generator.generate(read_request(inputs), is_cancelled))
        except RequestError as error:
            return Failure(outcome=error.outcome, message=str(error))
        except Exception as error:  # noqa: BLE001 - a bug or a broken device: in one line to the client, in full to the log
            traceback.print_exc()
            return Failure(outcome=Outcome.ERROR, message=f"the generation failed: {type(error).__name__}: {error}")
