"""One MLflow run for a phase, which each attempt continues (https://mlflow.org/docs/latest/rest-api.html, 2.0).

All requests are made by a thread of its own, which also imports the client: it takes seconds. What is told waits in a queue with an
end; if the server is gone for longer than that holds, the oldest steps are left out, and the report says how many. The run is found
again by its tags, and steps that it has already are not sent twice.
"""

from __future__ import annotations

import logging
import math
import os
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from videogen_api.job import Job
from videogen_api.meta import release_name
from videogen_api.tracking import Mlflow
from videogen_trainer.report import shorten
from videogen_trainer.tracking.mlflow_address import Refused, check_artifacts, check_server

if TYPE_CHECKING:
    from mlflow import MlflowClient

_LOG = logging.getLogger(__name__)
QUEUE_STEPS = 20_000
QUEUE_FILES = 64
INTERVAL_SECONDS = 5.0  # between two batches
LONGEST_PAUSE = 60.0  # between two tries of a server that does not answer
CLOSE_SECONDS = 10.0  # for what is left at the end
_TIMEOUT_SECONDS = 10  # of a request
_METRICS = 1000  # of a request; MLflow's own limit
_PARAMS = 100
_LONGEST_PARAM = 500  # characters; newer servers take 6000
STEP, SCALE = "videogen.step", "videogen.learningRateScale"


@dataclass(frozen=True, slots=True)
class Told:
    """The values of one step."""

    step: int
    milliseconds: int  # since the epoch
    values: Mapping[str, float]


class MlflowRun:
    """The phase's run on a server, as far as the server lets us."""

    def __init__(self, settings: Mlflow, job: Job, storage: Path) -> None:
        self.trouble = ""
        self._uri, self._job = settings.uri, job
        self._authorities = storage / settings.ca_path if settings.ca_path else None
        self._experiment = settings.experiment or job.namespace
        self._steps: deque[Told] = deque()
        self._files: deque[tuple[Path, str]] = deque(maxlen=QUEUE_FILES)
        self._lost = 0
        self._lock = threading.Lock()
        self._client: MlflowClient | None = None
        self._artifacts: Any = None
        self._run = ""
        self._known = -1  # last step that the server has
        self._outcome = ""
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._work, name="mlflow", daemon=True)
        self._thread.start()

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """To be sent; the oldest give way."""
        finite = {name: value for name, value in values.items() if math.isfinite(value)}
        with self._lock:
            if len(self._steps) >= QUEUE_STEPS:
                self._steps.popleft()
                self._lost += 1
            self._steps.append(Told(step, int(time.time() * 1000), finite))

    def picture(self, step: int, path: Path) -> None:
        """To be sent, as an artifact of the step."""
        self._files.append((path, f"samples/step-{step:09}"))

    def file(self, path: Path) -> None:
        """To be sent, as an artifact."""
        self._files.append((path, ""))

    def flush(self) -> None:
        """Nothing: a checkpoint does not wait for a server."""

    def close(self, outcome: str) -> None:
        """Send what is left, for a while."""
        if self._ending.is_set():
            return
        self._outcome = outcome
        self._ending.set()
        self._thread.join(CLOSE_SECONDS)

    def summary(self) -> str:
        """How much the server did not get, and why."""
        missing = self._lost + len(self._steps)
        if not missing and not self.trouble:
            return ""
        return f"MLflow at {self._uri} did not get {missing} steps and {len(self._files)} files: {self.trouble or 'it is too slow'}"

    # In the thread

    def _work(self) -> None:
        pause = INTERVAL_SECONDS
        while True:
            ending = self._ending.wait(pause)
            try:
                self._send(ending=ending)
                self._recovered()
                pause = INTERVAL_SECONDS
            except Refused as refused:
                self.trouble = shorten(str(refused), 300)
                _LOG.warning("MLflow at %s gets nothing: %s; training goes on", self._uri, self.trouble)
                return
            except Exception as error:  # noqa: BLE001 - whatever it is, training goes on
                self._failed(error)
                pause = min(2 * pause, LONGEST_PAUSE)
            if ending:
                return

    def _send(self, *, ending: bool) -> None:
        check_server(self._uri)
        client = self._client or self._connected()
        while batch := self._next():
            from mlflow.entities import RunTag

            last = batch[-1].step
            metrics = [metric for told in batch if told.step > self._known for metric in _metrics(told)]
            client.log_batch(self._run, metrics=metrics, tags=[RunTag(STEP, str(max(last, self._known)))])
            self._taken(batch)
        while self._files:
            path, folder = self._files[0]
            self._artifacts.log_artifact(str(path), folder or None)
            self._files.popleft()
        if ending:
            client.set_terminated(self._run, self._outcome)

    def _next(self) -> list[Told]:
        """The oldest steps, as many as a request may have."""
        batch: list[Told] = []
        count = 0
        with self._lock:
            for told in self._steps:
                count += len(told.values)
                if batch and count > _METRICS:
                    break
                batch.append(told)
        return batch

    def _taken(self, batch: list[Told]) -> None:
        sent = {id(told) for told in batch}
        with self._lock:
            while self._steps and id(self._steps[0]) in sent:  # some may have given way meanwhile
                self._steps.popleft()

    def _connected(self) -> MlflowClient:
        client = _client(self._uri, self._authorities)
        experiment = client.get_experiment_by_name(self._experiment)
        number = experiment.experiment_id if experiment else client.create_experiment(self._experiment)
        job, tags = self._job, _tags(self._job)
        wanted = " and ".join(f"tags.`{name}` = '{tags[name]}'" for name in ("videogen.runUid", "videogen.phase"))
        if found := client.search_runs([number], wanted, max_results=1):
            self._run, had = found[0].info.run_id, found[0].data.tags
            self._known = int(had.get(STEP, -1)) if had.get(SCALE) == job.learning_rate_scale else -1
            client.update_run(self._run, status="RUNNING")
            wanted = found[0].info.artifact_uri
        else:
            info = client.create_run(number, tags=tags, run_name=_name(job)).info
            self._run, wanted = info.run_id, info.artifact_uri
        check_artifacts(wanted, self._uri)
        self._artifacts = _artifacts(wanted, self._uri)  # of the address that was checked: the client would ask for it again
        _describe(client, self._run, job)
        self._client = client
        return client

    def _recovered(self) -> None:
        if self.trouble:
            _LOG.info("MLflow at %s answers again", self._uri)
        self.trouble = ""

    def _failed(self, error: Exception) -> None:
        said = shorten(f"{_cause(error)}", 300)
        if not self.trouble:
            _LOG.warning("MLflow at %s takes nothing: %s; training goes on, and it is tried again", self._uri, said)
        self.trouble = said


def _client(uri: str, authorities: Path | None) -> MlflowClient:
    """Imports the client, without its reports to its makers, and without tries of its own that would hide an outage for minutes."""
    for name, value in (
        ("MLFLOW_DISABLE_TELEMETRY", "true"),
        ("MLFLOW_ALLOW_HTTP_REDIRECTS", "false"),
        ("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0"),
        ("MLFLOW_HTTP_REQUEST_TIMEOUT", str(_TIMEOUT_SECONDS)),
        ("MLFLOW_CONFIGURE_LOGGING", "false"),
        ("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true"),
    ):
        os.environ.setdefault(name, value)
    if authorities:
        os.environ["MLFLOW_TRACKING_SERVER_CERT_PATH"] = str(authorities)
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=uri)


def _artifacts(wanted: str, uri: str) -> Any:
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    return get_artifact_repository(wanted, tracking_uri=uri)


def _metrics(told: Told) -> Iterator[Any]:
    from mlflow.entities import Metric

    for name, value in told.values.items():
        yield Metric(name, value, told.milliseconds, told.step)


def _name(job: Job) -> str:
    """<run>/<phase>; of a Tune phase's trial, whose run is its folder, that folder."""
    return job.run.removeprefix("runs/") if "/" in job.run else f"{job.run}/{job.phase}"


def _tags(job: Job) -> dict[str, str]:
    return {
        "videogen.runUid": job.run_uid,
        "videogen.run": job.run,
        "videogen.namespace": job.namespace,
        "videogen.phase": job.phase,
        "videogen.task": job.task.value,
        "videogen.model": release_name(job.model),
    }


def _describe(client: MlflowClient, run: str, job: Job) -> None:
    """The recipe as parameters, and which attempt it is; saying it again is no change."""
    from mlflow.entities import Param, RunTag

    params = [Param(name, value) for name, value in parameters(job).items()]
    for first in range(0, len(params), _PARAMS):
        client.log_batch(run, params=params[first : first + _PARAMS])
    client.log_batch(run, tags=[RunTag("videogen.attempt", str(job.attempt)), RunTag(SCALE, job.learning_rate_scale)])


def parameters(job: Job) -> dict[str, str]:
    """The recipe's fields by their paths, and the datasets."""
    found = dict(_leaves("", job.recipe.wire()))
    data = {f"data.{index}": f"{one.reference.dataset} {one.reference.version} {one.reference.split}" for index, one in enumerate(job.data)}
    return found | data


def _leaves(path: str, value: object) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _leaves(f"{path}.{name}" if path else name, inner)
    else:
        yield path, shorten(str(value), _LONGEST_PARAM)


def _cause(error: BaseException) -> str:
    """The innermost error: those around it only repeat it, with addresses of objects."""
    while inner := error.__cause__ or error.__context__:
        error = inner
    return f"{type(error).__name__}: {error}"
