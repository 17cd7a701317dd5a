"""Live progress, by Kubeflow Trainer's protocol (docs/user-guides/trainjob-progress.md): one small POST at a time.

Nothing here may slow the work down or end it: posts go out from a thread of their own, an unreachable server is logged
once for each outage, and while a post is under way newer values wait for the next interval.
"""

from __future__ import annotations

import json
import logging
import ssl
import threading
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from videogen_api.job import ENV_SERVER_CA_CERT, ENV_SERVER_TOKEN, ENV_SERVER_URL

_LOG = logging.getLogger(__name__)
_TIMEOUT_SECONDS = 5.0
_ANSWER_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Where progress goes."""

    url: str
    token_file: Path  # read before each post: Kubernetes rotates the token
    ca_file: Path | None = None


def endpoint_of(environment: Mapping[str, str], variable: str = ENV_SERVER_URL) -> Endpoint | None:
    """The endpoint that the environment variables name; None if they are absent, then nobody listens."""
    url, token = environment.get(variable), environment.get(ENV_SERVER_TOKEN)
    if not url or not token:
        return None
    ca = environment.get(ENV_SERVER_CA_CERT)
    return Endpoint(url=url, token_file=Path(token), ca_file=Path(ca) if ca else None)


def trainer_status(done: int, total: int, metrics: Mapping[str, object], *, elapsed: float, since: int, now: datetime) -> dict[str, object]:
    """The protocol's body; `elapsed` seconds were spent on the work from `since` to `done` of `total`."""
    status: dict[str, object] = {
        "progressPercentage": 100 * done // max(1, total),
        "metrics": [{"name": name, "value": str(value)} for name, value in metrics.items()],
        "lastUpdatedTime": now.isoformat(timespec="seconds").replace("+00:00", "Z"),
    }
    if done > since:
        status["estimatedRemainingSeconds"] = round(elapsed / (done - since) * (total - done))
    return {"trainerStatus": status}


class ProgressReporter:
    """Posts at most one status an interval. Without an endpoint it only logs."""

    def __init__(
        self,
        endpoint: Endpoint | None,
        interval_seconds: float,
        clock: Callable[[], float],
        now: Callable[[], datetime],
    ) -> None:
        self._endpoint = endpoint
        self._interval = interval_seconds
        self._clock = clock
        self._now = now
        self._first: tuple[float, int] | None = None
        self._last = float("-inf")
        self._thread: threading.Thread | None = None
        self._failing = False

    def report(self, done: int, total: int, metrics: Mapping[str, object], *, final: bool = False) -> None:
        """Say that `done` of `total` parts of the work are done. `final` posts at once and waits for the answer."""
        now = self._clock()
        started, since = self._first = self._first or (now, done)
        if not final and (now - self._last < self._interval or (self._thread and self._thread.is_alive())):
            return
        self._last = now
        body = trainer_status(done, total, metrics, elapsed=now - started, since=since, now=self._now())
        _LOG.info("%s of %s: %s", done, total, ", ".join(f"{name} {value}" for name, value in metrics.items()))
        if self._endpoint:
            self._post(body, wait=final)

    def _post(self, body: dict[str, object], *, wait: bool) -> None:
        if self._thread:
            self._thread.join(_TIMEOUT_SECONDS if wait else 0)
        self._thread = threading.Thread(target=self._try_post, args=(json.dumps(body).encode(),), daemon=True)
        self._thread.start()
        if wait:
            self._thread.join(_TIMEOUT_SECONDS)

    def _try_post(self, body: bytes) -> None:
        assert self._endpoint
        try:
            post(self._endpoint, body)
            self._failing = False
        except (OSError, ValueError) as error:  # ValueError: the URL or the token file's content
            if not self._failing:
                _LOG.warning("progress cannot be posted to %s: %s; the work goes on", self._endpoint.url, error)
            self._failing = True


def post(endpoint: Endpoint, body: bytes) -> bytes:
    """POST JSON -> the answer. Raises OSError (URLError is one) if the server cannot be reached or refuses it."""
    headers = {"Authorization": f"Bearer {endpoint.token_file.read_text().strip()}", "Content-Type": "application/json"}
    request = urllib.request.Request(endpoint.url, data=body, headers=headers, method="POST")
    context = ssl.create_default_context(cafile=str(endpoint.ca_file)) if endpoint.ca_file else None
    with urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS, context=context) as answer:
        return bytes(answer.read(_ANSWER_BYTES))
