"""An MLflow tracking server for tests, by TLS: MLflow's own file store behind the part of its REST API that the trainer's client calls.

`mlflow server` itself needs Flask and SQLAlchemy, which mlflow-skinny leaves out. Messages, errors and the store are MLflow's.
"""

from __future__ import annotations

import json
import os
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import lru_cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

os.environ["MLFLOW_ALLOW_FILE_STORE"] = "true"
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"

from mlflow.entities import Metric, Param, RunTag, ViewType
from mlflow.exceptions import MlflowException
from mlflow.protos import service_pb2 as api
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST
from mlflow.store.tracking.file_store import FileStore
from mlflow.utils.proto_json_utils import message_to_json, parse_dict

from videogen_operator.inbound.authority import CERTIFICATE, KEY, Files, ensured

TRUSTED = "MLFLOW_TRACKING_SERVER_CERT_PATH"
API, ARTIFACTS = "/api/2.0/mlflow/", "/api/2.0/mlflow-artifacts/artifacts/"


@lru_cache
def _certificates() -> Files:
    """Of all servers of this process, so that a client keeps trusting one that comes back."""
    return ensured({}, ["127.0.0.1"], datetime.now(UTC))


class MlflowServer(ThreadingHTTPServer):
    """On a free port. `seconds` delays each answer; `refused` is a status that each request gets instead of an answer."""

    daemon_threads = True

    def __init__(self, folder: Path, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.authority = folder / "ca.crt"
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in _certificates().items():
            (folder / name).write_bytes(content)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / CERTIFICATE, folder / KEY)
        self.socket = context.wrap_socket(self.socket, server_side=True)
        self.store = FileStore(str(folder / "mlruns"), "mlflow-artifacts:/")
        self.artifacts = folder / "artifacts"
        self.seconds = 0.0
        self.refused = 0
        self.requests: list[str] = []
        self.authorizations: set[str] = set()
        self.lock = threading.Lock()

    @property
    def uri(self) -> str:
        """What clients are given."""
        return f"https://127.0.0.1:{self.server_address[1]}"

    def runs(self, experiment: str = "models") -> list[Any]:
        """All runs of an experiment."""
        found = self.store.get_experiment_by_name(experiment)
        return list(self.store.search_runs([found.experiment_id], "", ViewType.ALL)) if found else []

    def history(self, run: Any, name: str) -> list[tuple[int, float]]:
        """Steps and values of a metric, in the order in which they came."""
        return [(metric.step, metric.value) for metric in self.store.get_metric_history(run.info.run_id, name)]


class _Handler(BaseHTTPRequestHandler):
    server: MlflowServer

    def log_message(self, *_: object) -> None:
        """Nothing on the console."""

    def do_GET(self) -> None:
        self._answer(dict(parse_qsl(urlsplit(self.path).query)))

    def do_POST(self) -> None:
        self._answer(json.loads(self._body()))

    def do_PUT(self) -> None:
        path = self.server.artifacts / self.path.removeprefix(ARTIFACTS)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(self._body())
        self._reply(200, b"{}")

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", "0")))

    def _answer(self, content: dict[str, Any]) -> None:
        server, name = self.server, urlsplit(self.path).path.removeprefix(API)
        server.requests.append(name)
        server.authorizations.add(self.headers.get("Authorization", ""))
        time.sleep(server.seconds)
        if server.refused:
            self._reply(server.refused, b'{"error_code": "PERMISSION_DENIED", "message": "not yours"}')
            return
        try:
            kind, act = CALLS[name]
            message = kind()
            parse_dict(content, message)
            with server.lock:
                answer = act(server.store, message)
            self._reply(200, message_to_json(answer).encode())
        except KeyError:
            self._reply(404, b'{"error_code": "ENDPOINT_NOT_FOUND", "message": "no such endpoint"}')
        except MlflowException as error:
            self._reply(error.get_http_status_code(), error.serialize_as_json().encode())

    def _reply(self, status: int, data: bytes) -> None:
        try:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)
        except OSError:
            pass  # the client did not wait


def _experiment(store: FileStore, asked: Any) -> Any:
    found = store.get_experiment_by_name(asked.experiment_name)
    if found is None:
        raise MlflowException(f"no experiment {asked.experiment_name}", error_code=RESOURCE_DOES_NOT_EXIST)
    return api.GetExperimentByName.Response(experiment=found.to_proto())


def _search(store: FileStore, asked: Any) -> Any:
    found = store.search_runs(list(asked.experiment_ids), asked.filter, ViewType.ACTIVE_ONLY, asked.max_results)
    return api.SearchRuns.Response(runs=[run.to_proto() for run in found])


def _create_run(store: FileStore, asked: Any) -> Any:
    tags = [RunTag(tag.key, tag.value) for tag in asked.tags]
    return api.CreateRun.Response(
        run=store.create_run(asked.experiment_id, asked.user_id, asked.start_time, tags, asked.run_name).to_proto()
    )


def _update(store: FileStore, asked: Any) -> Any:
    now = store.get_run(asked.run_id).info
    status = asked.status if asked.HasField("status") else now.status
    done = store.update_run_info(asked.run_id, status, asked.end_time or None, asked.run_name or None)
    return api.UpdateRun.Response(run_info=done.to_proto())


def _log_batch(store: FileStore, asked: Any) -> Any:
    metrics = [Metric(one.key, one.value, one.timestamp, one.step) for one in asked.metrics]
    params, tags = [Param(one.key, one.value) for one in asked.params], [RunTag(one.key, one.value) for one in asked.tags]
    store.log_batch(asked.run_id, metrics, params, tags)
    return api.LogBatch.Response()


CALLS: dict[str, tuple[Callable[[], Any], Callable[[FileStore, Any], Any]]] = {
    "experiments/get-by-name": (api.GetExperimentByName, _experiment),
    "experiments/create": (
        api.CreateExperiment,
        lambda store, asked: api.CreateExperiment.Response(experiment_id=store.create_experiment(asked.name, tags=[])),
    ),
    "runs/search": (api.SearchRuns, _search),
    "runs/create": (api.CreateRun, _create_run),
    "runs/get": (api.GetRun, lambda store, asked: api.GetRun.Response(run=store.get_run(asked.run_id).to_proto())),
    "runs/update": (api.UpdateRun, _update),
    "runs/log-batch": (api.LogBatch, _log_batch),
}


@contextmanager
def mlflow_server(folder: Path, port: int = 0) -> Iterator[MlflowServer]:
    """A server that answers until the context ends, and whose authority clients of this process trust meanwhile."""
    server = MlflowServer(folder, port)
    trusted = os.environ.get(TRUSTED)
    os.environ[TRUSTED] = str(server.authority)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
        os.environ.pop(TRUSTED)
        os.environ.update({TRUSTED: trusted} if trusted else {})
