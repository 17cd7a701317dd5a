"""The server's own metrics, next to Triton's.

They are needed because Triton counts a Python model's error responses as successes (nv_inference_request_success), and has
no latency histogram for a model that answers once. Durations are from the start of the execution, since a Python model is
not told when a request arrived; with its time in Triton's queue it is in nv_inference_request_duration_us. Only generations with
as many steps as the release takes by itself have one, so that releases are compared by the same work.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from videogen_serving.request import Outcome

DURATION = "videogen_request_duration_seconds"
REQUESTS = "videogen_requests_total"
# A factor of about 1.5 from bound to bound, so that a quantile is known to about 20 %.
BOUNDS_SECONDS = (
    *(0.05, 0.075, 0.1, 0.15, 0.25, 0.35, 0.5, 0.75, 1.0, 1.5, 2.5, 3.5, 5.0, 7.5),
    *(10.0, 15.0, 20.0, 30.0, 45.0, 60.0, 90.0, 120.0, 180.0, 300.0, 600.0, 1800.0, 3600.0),
)


class Metric(Protocol):
    """One series of Triton's custom metrics."""

    def increment(self, value: float, /) -> None:
        """Add to a counter."""

    def observe(self, value: float, /) -> None:
        """Add an observation to a histogram."""


class MetricFactory(Protocol):
    """Makes series; in Triton a thin layer over pb_utils.MetricFamily."""

    def counter(self, name: str, description: str, labels: Mapping[str, str]) -> Metric:
        """A counter with these labels."""

    def histogram(self, name: str, description: str, labels: Mapping[str, str], bounds: Sequence[float]) -> Metric:
        """A histogram with these labels and upper bounds."""


class RequestMetrics:
    """A counter and a histogram for each outcome; all series exist from the start, so that a rate begins at 0."""

    def __init__(self, factory: MetricFactory, release: str) -> None:
        labels = {outcome: {"release": release, "outcome": outcome.value} for outcome in Outcome}
        self._requests = {outcome: factory.counter(REQUESTS, "Requests answered, by outcome.", labels[outcome]) for outcome in Outcome}
        self._durations = {
            outcome: factory.histogram(
                DURATION,
                "Time to answer a request for a generation with the release's own number of steps, by outcome.",
                labels[outcome],
                BOUNDS_SECONDS,
            )
            for outcome in Outcome
        }

    def record(self, outcome: Outcome, seconds: float | None) -> None:
        """Count one answered request; and how long it took, if that says something about the release."""
        self._requests[outcome].increment(1)
        if seconds is not None:
            self._durations[outcome].observe(seconds)
