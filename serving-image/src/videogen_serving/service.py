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

    def __init__(self, generator: Generator, metrics: RequestMetrics, sampling_steps: int, clock: Callable[[], float]) -> None:
        self._generator = generator
        self._sampling_steps = sampling_steps
        self._metrics = metrics
        self._clock = clock

    def answer(self, inputs: Mapping[str, Tensor], is_cancelled: Callable[[], bool]) -> dict[str, Tensor] | Failure:
        """Output tensors by name, or a Failure; never raises, since that would fail the other requests of a batch."""
        started = self._clock()
        request, answer = self._attempt(inputs, is_cancelled)
        outcome = answer.outcome if isinstance(answer, Failure) else Outcome.OK
        seconds = self._clock() - started
        self._metrics.record(outcome, seconds if outcome is not Outcome.INVALID and self._is_compared(request) else None)
        return answer

    def _is_compared(self, request: Request | None) -> bool:
        """Whether its duration says something about the release: else a viewer who asks for little makes a release look fast, and
        the one beside it slow.
        """
        return request is not None and request.template is None and request.steps in {None, self._sampling_steps}

    def _asks_for_more(self, request: Request | None) -> bool:
        """Whether it wants more steps than the release takes by itself: else a viewer who asks for much makes it look failing."""
        return request is not None and (request.steps or 0) > self._sampling_steps

    def _attempt(
        self, inputs: Mapping[str, Tensor], is_cancelled: Callable[[], bool]
    ) -> tuple[Request | None, dict[str, Tensor] | Failure]:
        request = None
        try:
            request = read_request(inputs)
            return request, write_result(self._generator.generate(request, is_cancelled))
        except RequestError as error:
            overlong = error.outcome is Outcome.TIMEOUT and self._asks_for_more(request)
            return request, Failure(outcome=Outcome.OVERLONG if overlong else error.outcome, message=str(error))
        except Exception:  # noqa: BLE001 - a bug or a broken device: its words are about us, and for the log alone
            traceback.print_exc()
            return request, Failure(outcome=Outcome.ERROR, message="the generation failed by a fault of the server, whose log says which")
